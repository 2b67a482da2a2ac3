//! A delivery from the provider's own code to the consumer's checks, and every forged one refused.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::check::{self, Expected, FeedProofError, Message};
use super::duties::Altering;
use crate::host::feed::{Lens, Maker, Sealer, UnfitClause};
use concordat_executor::policies::ask::{Ask, Decision, Grant};
use concordat_executor::policies::compile::{Compiled, compile};
use concordat_executor::policies::dataset::DatasetDoc;
use concordat_executor::policies::duty::Capabilities;
use concordat_executor::policies::evaluate::Evaluator;
use concordat_executor::policies::view::Pseudonyms;
use concordat_protocol::acts::KeyRole;
use concordat_protocol::cbor;
use concordat_protocol::ids::AgencyId;
use concordat_protocol::keys::{KemKey, SigningKey, Statement, Suite};
use concordat_protocol::message::{
    Envelope, EnvelopeDraft, EnvelopeSource, MessageView, Opened, Record, RedactedEnvelope, SourceState,
};
use concordat_protocol::node::{AgreementView, KeyView};
use concordat_protocol::session::{FeedItem, Promise};
use concordat_protocol::terms::{Action, Status};
use proptest::prelude::*;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;

#[path = "altered_tests.rs"]
mod altered;

/// What makes pseudonyms in these tests: 2026-05-28T20:26:40Z.
const WITH: Pseudonyms<'static> = Pseudonyms { key: &[9; 32], at_ms: 1_780_000_000_000 };

const DATASET: &str = "dataset: ds:grid/feeder@1\ntitle: t\nkind: feed\nschema: s.json\nkey: [meter]\n\
    time: {field: time, zone: UTC}\nsubject: none\nsensitive: {}\n";
const SCHEMA: &str = r#"{"type":"object","properties":{"meter":{"type":"string"},"time":{"type":"string","format":"date-time"},
    "mw":{"type":"string","format":"decimal"},"area":{"type":"string"}},"required":["meter","time"],"additionalProperties":false}"#;

fn doc() -> DatasetDoc {
    DatasetDoc::parse(DATASET, SCHEMA).unwrap()
}

fn agency(name: &str) -> AgencyId {
    AgencyId::new(name).unwrap()
}

fn document(evidence: &str, duties: &str) -> Compiled {
    let yaml = format!(
        "agreement: AGR-2026-0143\nversion: 1\nassigner: org:grid\nassignee: org:transport\ntarget: ds:grid/feeder@1\n\
         valid: {{from: 2026-01-01T00:00:00Z, until: 2027-01-01T00:00:00Z}}\n\
         approvals: {{assigner: [legal], assignee: [legal]}}\nclauses:\n- id: F1\n  text: Transport may follow the feeders.\n\
         \x20 effect: permit\n  assignee: {{org: org:transport}}\n  actions: [subscribe]\n  evidence: {evidence}\n\
         \x20 purpose: purp:grid-dispatch\n  legal_basis: \"s\"\n  duties: {duties}\n"
    );
    compile(&yaml).unwrap()
}

/// What a consumer knows of the duties: the ledger has the terms of the document, `folder` are its own documents.
fn altering(document: &Compiled, folder: &[&Compiled]) -> Altering {
    let view = AgreementView {
        agreement: document.terms.agreement.clone(),
        version: 1,
        revision: 2,
        status: Status::Active,
        terms_hash: document.terms_hash(),
        terms: cbor::encode(&document.terms).into(),
        expires_ms: 0,
        approvals: vec![],
        handles: vec![17],
        bounded_suspended: 0,
    };
    Altering::of(&view, "F1", &folder.iter().map(|c| (c.terms_hash(), Arc::new((*c).clone()))).collect())
}

fn grant(evidence: &str, duties: &str) -> Grant {
    let evaluator = Evaluator::new(document(evidence, duties), Capabilities::default()).unwrap();
    let ask = Ask {
        consumer: agency("transport"),
        roles: BTreeSet::new(),
        action: Action::Subscribe,
        break_glass: false,
        purpose: "purp:grid-dispatch".into(),
        agreement: None,
        clause: None,
        case: None,
        at_ms: 1_780_000_000_000,
    };
    match evaluator.decide(&ask) {
        Decision::Permit(grant) => Arc::unwrap_or_clone(grant),
        other => panic!("{other:?}"),
    }
}

const BOUNDED: &str = "{bounded: {max_lag: 2s}}";

struct City {
    envelope_key: SigningKey,
    release_key: SigningKey,
    kem: KemKey,
    expected: Expected,
}

impl City {
    fn new() -> Self {
        Self::under("[]")
    }

    /// A consumer whose own document has these duties.
    fn under(duties: &str) -> Self {
        let document = document(BOUNDED, duties);
        Self {
            envelope_key: SigningKey::generate(Suite::Ed25519).unwrap(),
            release_key: SigningKey::generate(Suite::Ed25519).unwrap(),
            kem: KemKey::generate().unwrap(),
            expected: Expected {
                chain: "city".into(),
                provider: agency("grid"),
                subscription: 17,
                dataset: doc().id,
                clause: "AGR-2026-0143/F1".into(),
                max_lag_ms: BTreeSet::from([2_000]),
                altering: altering(&document, &[&document]),
            },
        }
    }

    fn envelope(&self, areas: &[&str]) -> Envelope {
        let record = |(i, area): (usize, &&str)| {
            let event = json!({"specversion": "1.0", "id": format!("secret-{i}"), "source": "ds:grid/feeder@1", "type": "t",
                "time": "2026-05-01T00:00:00Z",
                "data": {"meter": format!("m{i}"), "time": "2026-05-01T00:00:00Z", "mw": "1.5", "area": area}});
            Record { secret: [i as u8 + 1; 32], event: event.to_string().into_bytes().into() }
        };
        self.signed(areas.iter().enumerate().map(record).collect())
    }

    /// An envelope of these records from number 41 on.
    pub(super) fn signed(&self, records: Vec<Record>) -> Envelope {
        let state = SourceState { adapter: "a".into(), batch_no: 1, checkpoint: vec![].into() };
        let draft = EnvelopeDraft {
            chain: "city".into(),
            dataset: doc().id,
            first_seq: 41,
            source: EnvelopeSource { salt: [7; 16], state },
            members: doc().fields().iter().map(|f| f.name.clone()).collect(),
            records,
        };
        draft.sign(&self.envelope_key).unwrap()
    }

    fn opened(&self, envelope: &Envelope) -> Opened {
        Opened::verify(envelope, self.envelope_key.public()).unwrap()
    }

    /// An envelope of messages of these areas as a lens shows it.
    fn shown(&self, lens: &Lens, areas: &[&str]) -> Option<RedactedEnvelope> {
        let shown = lens.show(&self.opened(&self.envelope(areas)), WITH)?;
        Some(cbor::decode(&shown.plain).unwrap())
    }

    fn maker(&self) -> Maker<'_> {
        Maker {
            chain: "city",
            provider: &self.expected.provider,
            subscription: 17,
            max_lag_ms: 2_000,
            key: &self.release_key,
        }
    }

    fn item(&self, redacted: &RedactedEnvelope, sub_seq: u64) -> FeedItem {
        let mut sealer = Sealer::new(self.kem.public(), "city", 17, sub_seq - 1).unwrap();
        self.maker().item(redacted, sub_seq, 5_000, &mut sealer).unwrap().0
    }

    fn view(&self, key: &SigningKey, role: KeyRole) -> KeyView {
        KeyView {
            agency: agency("grid"),
            role,
            label: "x".into(),
            key: key.public().clone(),
            revoked_ms: 0,
            compromised_since_ms: 0,
        }
    }

    fn check(&self, item: &FeedItem) -> Result<Vec<Message>, FeedProofError> {
        let release = self.view(&self.release_key, KeyRole::Release);
        let envelope = self.view(&self.envelope_key, KeyRole::Envelope);
        self.check_with(item, &self.expected, Some(&release), Some(&envelope))
    }

    fn check_with(
        &self,
        item: &FeedItem,
        x: &Expected,
        release: Option<&KeyView>,
        envelope: Option<&KeyView>,
    ) -> Result<Vec<Message>, FeedProofError> {
        let (item, promise) = check::read(&cbor::encode(item))?;
        check::promise(x, &item, &promise, release)?;
        let opened = check::unseal(x, &item, &promise, &self.kem)?;
        check::messages(x, promise.first_sub_seq, &opened, envelope)
    }
}

fn lens(duties: &str) -> Lens {
    Lens::of(&grant(BOUNDED, duties), &doc()).unwrap()
}

#[test]
fn a_delivery_shows_just_what_the_clause_allows_and_proves_it() {
    let city = City::new();
    let lens = lens("[{type: row-filter, where: {area: {eq: north}}}, {type: fields, allow: [time, mw]}]");
    let redacted = city.shown(&lens, &["north", "south", "north"]).unwrap();
    let item = city.item(&redacted, 9);
    let got = city.check(&item).unwrap();
    assert_eq!(got.iter().map(|m| (m.sub_seq, m.index, m.seq)).collect::<Vec<_>>(), [(9, 0, 41), (9, 1, 43)]);
    let members: Vec<&String> = got[0].data.keys().collect();
    assert_eq!(members, ["mw", "time"]);
    assert_eq!(
        (got[0].hidden, got[0].time.is_some()),
        (4, true),
        "meter, area, the id made from the meter, the absent subject"
    );
    assert_eq!(got[0].id, "grid-17/9.0");
    let whole = String::from_utf8_lossy(&cbor::encode(&redacted)).into_owned();
    for hidden in ["secret-", "m0", "north", "south"] {
        assert!(!whole.contains(hidden), "{hidden}");
    }
    let sealed = String::from_utf8_lossy(&cbor::encode(&item)).into_owned();
    assert!(!sealed.contains("2026-05-01"), "what the exchange sees is sealed");
}

#[test]
fn an_id_is_shown_where_the_key_is() {
    let city = City::new();
    let redacted = city.shown(&lens("[{type: fields, allow: [meter, time]}]"), &["x"]).unwrap();
    assert_eq!(city.check(&city.item(&redacted, 1)).unwrap()[0].id, "secret-0");
}

#[test]
fn an_envelope_without_a_message_for_the_consumer_is_not_delivered() {
    let city = City::new();
    let lens = lens("[{type: row-filter, where: {area: {eq: east}}}]");
    assert_eq!(city.shown(&lens, &["north", "south"]), None);
}

#[test]
fn a_clause_with_a_duty_that_feeds_do_not_fulfil_delivers_nothing() {
    let of = |evidence, duties| Lens::of(&grant(evidence, duties), &doc()).unwrap_err();
    assert_eq!(of("strict", "[]"), UnfitClause::Evidence("strict"));
    assert_eq!(of(BOUNDED, "[{type: quota, max: 5, per: day}]").code(), "feed-duty");
    assert_eq!(of(BOUNDED, "[{type: row-filter, where: {colour: {eq: red}}}]").code(), "feed-fields");
}

#[test]
fn an_epoch_is_found_from_the_delivery_alone() {
    let city = City::new();
    let redacted = city.shown(&lens("[]"), &["x"]).unwrap();
    let mut sealer = Sealer::new(city.kem.public(), "city", 17, 100).unwrap();
    for sub_seq in [101, 102, 103] {
        let (item, _) = city.maker().item(&redacted, sub_seq, 5, &mut sealer).unwrap();
        assert_eq!(item.seal_n, sub_seq - 100);
        assert_eq!(city.check(&item).unwrap().len(), 1);
    }
    assert!(city.maker().item(&redacted, 103, 5, &mut sealer).is_err(), "no number is sealed twice");
}

/// The promise signed anew by whoever holds `key`, so that only the named check can fail.
fn resigned(item: &FeedItem, key: &SigningKey, change: impl FnOnce(&mut Promise)) -> FeedItem {
    let mut promise: Promise = cbor::decode(&item.promise).unwrap();
    change(&mut promise);
    let bytes = cbor::encode(&promise);
    let signature = key.try_sign(Statement::Promise, "city", &bytes).unwrap().ed25519;
    FeedItem { promise: bytes.into(), promise_signature: signature, ..item.clone() }
}

#[test]
fn forged_promises_are_refused_by_name() {
    let city = City::new();
    let redacted = city.shown(&lens("[]"), &["x"]).unwrap();
    let good = city.item(&redacted, 3);
    assert!(city.check(&good).is_ok());
    let code = |item: &FeedItem| city.check(item).unwrap_err().code();
    let key = &city.release_key;
    let other = SigningKey::generate(Suite::Ed25519).unwrap();
    assert_eq!(code(&resigned(&good, &other, |_| {})), "promise-signature");
    let mut bent = good.clone();
    bent.promise_signature.0[5] ^= 1;
    assert_eq!(code(&bent), "promise-signature");
    assert_eq!(code(&FeedItem { release_key: other.key_id(), ..good.clone() }), "release-key");
    assert_eq!(code(&resigned(&good, key, |p| p.chain = "town".into())), "promise-chain");
    assert_eq!(code(&resigned(&good, key, |p| p.subscription = 18)), "promise-subscription");
    assert_eq!(code(&resigned(&good, key, |p| p.provider = agency("police"))), "promise-subscription");
    assert_eq!(code(&resigned(&good, key, |p| p.last_sub_seq = 4)), "promise-range");
    assert_eq!(code(&resigned(&good, key, |p| p.max_lag_ms = 60_000)), "promise-max-lag");
    for change in [
        (|p: &mut Promise| p.root[0] ^= 1) as fn(&mut Promise),
        |p| p.delivered_ms += 1,
        |p| (p.first_sub_seq, p.last_sub_seq) = (4, 4),
    ] {
        assert_eq!(code(&resigned(&good, key, change)), "seal", "the envelope is bound to its promise");
    }
    let mut bent = good.clone();
    bent.sealed.0[9] ^= 1;
    assert_eq!(code(&bent), "seal");
    assert_eq!(code(&FeedItem { seal_n: 9, ..good.clone() }), "seal");
    assert_eq!(check::read(b"nonsense").unwrap_err().code(), "item");
}

#[test]
fn keys_of_others_revoked_and_compromised_keys_prove_nothing() {
    let city = City::new();
    let item = city.item(&city.shown(&lens("[]"), &["x"]).unwrap(), 3);
    let (release, envelope) =
        (city.view(&city.release_key, KeyRole::Release), city.view(&city.envelope_key, KeyRole::Envelope));
    let code =
        |r: Option<&KeyView>, e: Option<&KeyView>| city.check_with(&item, &city.expected, r, e).unwrap_err().code();
    assert_eq!(code(None, Some(&envelope)), "release-key");
    assert_eq!(code(Some(&release), None), "envelope-key");
    assert_eq!(code(Some(&KeyView { agency: agency("police"), ..release.clone() }), Some(&envelope)), "release-key");
    assert_eq!(code(Some(&KeyView { role: KeyRole::Gateway, ..release.clone() }), Some(&envelope)), "release-key");
    assert_eq!(code(Some(&KeyView { revoked_ms: 4_000, ..release.clone() }), Some(&envelope)), "release-key");
    assert!(
        city.check_with(
            &item,
            &city.expected,
            Some(&KeyView { revoked_ms: 6_000, ..release.clone() }),
            Some(&envelope)
        )
        .is_ok()
    );
    assert_eq!(code(Some(&release), Some(&KeyView { agency: agency("police"), ..envelope.clone() })), "envelope-key");
    assert_eq!(code(Some(&release), Some(&KeyView { compromised_since_ms: 1, ..envelope.clone() })), "envelope-key");
    let x = Expected { dataset: "ds:grid/other@1".parse().unwrap(), ..city.expected.clone() };
    assert_eq!(city.check_with(&item, &x, Some(&release), Some(&envelope)).unwrap_err().code(), "envelope-dataset");
}

/// A provider that promises and seals something its publisher never signed is found out.
#[test]
fn altered_envelopes_are_refused_though_promised() {
    let city = City::new();
    let good = city.shown(&lens("[]"), &["x", "y"]).unwrap();
    let mut changed = good.clone();
    if let MessageView::Shown { leaves } = &mut changed.messages[0] {
        let at = leaves.leaves.len() - 1;
        leaves.leaves.remove(at);
    }
    let mut swapped = good.clone();
    swapped.messages.swap(0, 1);
    let mut renumbered = good.clone();
    renumbered.header.first_seq += 1;
    for (n, forged) in [changed, swapped, renumbered].iter().enumerate() {
        assert_eq!(city.check(&city.item(forged, 1)).unwrap_err().code(), "envelope-signature", "{n}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    /// Whichever fields are allowed, just these come out, and nothing else is in the bytes.
    #[test]
    fn any_subset_of_fields_is_shown_and_nothing_more(mask in 1u8..16) {
        let city = City::new();
        let names: Vec<&str> = ["area", "meter", "mw", "time"].into_iter().enumerate().filter(|(i, _)| mask >> i & 1 == 1).map(|(_, n)| n).collect();
        let lens = lens(&format!("[{{type: fields, allow: [{}]}}]", names.join(", ")));
        let redacted = city.shown(&lens, &["north-area"]).unwrap();
        let got = city.check(&city.item(&redacted, 1)).unwrap();
        prop_assert_eq!(got[0].data.keys().map(String::as_str).collect::<Vec<_>>(), names.clone());
        let bytes = String::from_utf8_lossy(&cbor::encode(&redacted)).into_owned();
        prop_assert_eq!(bytes.contains("north-area"), names.contains(&"area"));
        prop_assert_eq!(bytes.contains("secret-0"), names.contains(&"meter"));
    }

    #[test]
    fn arbitrary_items_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(check::read(&bytes).is_err());
    }
}
