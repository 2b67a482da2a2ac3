//! Numbers that stand for something: result codes and words. None may change its meaning.

use crate::kept;
use concordat_protocol::acts::{ApprovalKind, KeyRole};
use concordat_protocol::codes::{self, Verdict};
use concordat_protocol::keys::{Statement, Suite};
use concordat_protocol::terms::{Action, Effect, Per, QuotaBy, QuotaUnit, Status};
use serde_json::{Value, json};

#[test]
fn codes_and_words() {
    let list: Vec<Value> =
        codes::ALL.iter().map(|(n, name, text)| json!({"code": n, "name": name, "sentence": text})).collect();
    macro_rules! words {
        ($($t:ident),*) => {
            json!({$(stringify!($t): $t::ALL.iter().map(|w| json!({"number": *w as u64, "word": w.word()})).collect::<Value>()),*})
        };
    }
    kept(
        "codes.json",
        &json!({
            "about": "Result codes with their names and sentences, and the numbers of words. A number is never used again for something else",
            "codes": list,
            "words": words!(Action, ApprovalKind, Effect, KeyRole, Per, QuotaBy, QuotaUnit, Statement, Status, Suite, Verdict),
        }),
    );
}
