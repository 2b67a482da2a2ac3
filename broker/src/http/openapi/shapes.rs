//! Shapes of answers: `"operation:str height:int next_from:int? rows:[obj]"`. A member without a value is null or is left
//! out where its kind ends with `?`; members that are not named may come too.

use serde_json::{Map, Value, json};

/// Shapes that several answers have.
const NAMED: &[(&str, &str)] = &[
    (
        "Entry",
        "operation:str height:int tick_ms:int time:time? kind:str writer:str incarnation:int seq:int op_hash:str verdict:str \
         code:int code_text:str",
    ),
    (
        "Request",
        "request_id:str asked_by:str asked_at_ms:int provider:str dataset:str purpose:str case:str session:int? n:int? \
         outcome:str agreement:str clause:str rows:int? why:obj? operation:str?",
    ),
    ("Clause", "id:str text:str? effect:str actions:[str] from_ms:int until_ms:int handle:int? review_ms:int?"),
    (
        "Agreement",
        "agreement:str version:int revision:int status:str assigner:str assignee:str? dataset:str assigner_roles:[any] \
         assignee_roles:[any] terms_hash:str prev_terms_hash:str terms:str proposal_expires_ms:int? bounded_suspended:bool \
         approvals:[obj] clauses:[@Clause] renewal_refused:str?",
    ),
    (
        "Dataset",
        "dataset:str access:str number:int owner:str schema_sha256:str schema_known:bool head:int held_here:bool fed_here:bool \
         agreements:[obj] title:str? kind:str? warning:str? description:str? keywords:[str]? themes:[str]? area:obj? time:any? \
         licence:str? contact:obj?",
    ),
    (
        "Subscription",
        "id:str subscription:int provider:str dataset:str agreement:str version:int clause:str state:str why:str \
         max_lag_ms:int created:bool last_sub_seq:int anchored_sub_seq:int acked_sub_seq:int pending:int held:int \
         handed_on:int invalid:int duplicates:int missing:int unanchored:int last_success:time? last_error:str? \
         last_failure:time? paused_by:str? paused_at:time? name:str? where:any? select:any?",
    ),
    ("Message", "sub_seq:int index:int seq:int id:str time:any? data:obj hidden:int altered:[obj]?"),
    (
        "DeadLetter",
        "id:str at:str dataset:str file:str row:int line:int column:int field:str? rule:str message:str raw:str? truncated:bool",
    ),
    ("Refused", "n:int time:time place:any check:str sentence:str size:int sha256:str bytes:str?"),
    ("Stamp", "id:int tsa:str height:int tick_ms:int log_size:int ok:bool"),
    (
        "Problem",
        "type:str status:int code:str title:str detail:str side:str retry:bool request_id:str reason:str? ledger_code:int? \
         clause:str? clause_text:str? missing:str? clauses:[str]? operation:str? next:str?",
    ),
];

fn kind(word: &str) -> Value {
    if let Some(of) = word.strip_prefix('[').and_then(|w| w.strip_suffix(']')) {
        return json!({"type": "array", "items": kind(of)});
    }
    match word {
        "str" => json!({"type": "string"}),
        "time" => json!({"type": "string", "format": "date-time"}),
        "int" => json!({"type": "integer"}),
        "bool" => json!({"type": "boolean"}),
        "obj" => json!({"type": "object"}),
        _ => match word.strip_prefix('@') {
            Some(name) => json!({"$ref": format!("#/components/schemas/{name}")}),
            None => json!({}),
        },
    }
}

/// The schema of an object, or of what `@Name` names.
pub(crate) fn shape(fields: &str) -> Value {
    if fields.starts_with('@') && !fields.contains(' ') {
        return kind(fields);
    }
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for field in fields.split_whitespace() {
        let (name, word) = field.split_once(':').unwrap_or((field, "any"));
        let schema = match word.strip_suffix('?') {
            Some(word) => json!({"anyOf": [kind(word), {"type": "null"}]}),
            None => {
                required.push(name);
                kind(word)
            }
        };
        properties.insert(name.to_owned(), schema);
    }
    json!({"type": "object", "properties": properties, "required": required})
}

pub(super) fn components() -> Map<String, Value> {
    let mut all: Map<String, Value> = NAMED.iter().map(|(name, fields)| ((*name).to_owned(), shape(fields))).collect();
    if let Some(side) = all.get_mut("Problem").and_then(|p| p["properties"].as_object_mut()) {
        side.insert("side".into(), json!({"enum": ["gateway", "ledger", "provider"]}));
    }
    all
}
