//! Deliveries under duties that alter values or hold messages back.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use concordat_executor::policies::duty::row_filters;
use concordat_executor::policies::view::View;
use concordat_executor::query::{Fields, parse_filter};
use concordat_protocol::leaves::LeafView;
use concordat_protocol::message::{Alterations, AlteredField};
use serde_json::{Map, Value};

const DUTIES: &str = "[{type: fields, allow: [meter, time, mw, area]}, {type: mask, fields: [area], keep_last: 2}, \
    {type: coarsen, field: mw, step: 10}, {type: coarsen, field: time, to: day}, {type: pseudonymise, fields: [meter], per: day}]";

/// One envelope of one message with this data.
fn of_data(city: &City, data: &Value) -> Envelope {
    let mut event =
        json!({"specversion": "1.0", "id": "canary-id", "source": "ds:grid/feeder@1", "type": "t", "data": data});
    if data["time"].is_string() {
        event["time"] = data["time"].clone();
    }
    city.signed(vec![Record { secret: [5; 32], event: event.to_string().into_bytes().into() }])
}

fn plain(city: &City, duties: &str, data: &Value) -> Vec<u8> {
    lens(duties).show(&city.opened(&of_data(city, data)), WITH).unwrap().plain
}

fn canary() -> Value {
    json!({"meter": "canary-meter", "time": "2026-05-03T14:15:16Z", "mw": "57.25", "area": "canary-area"})
}

#[test]
fn altered_values_come_beside_what_was_signed_and_say_by_which_duty() {
    let city = City::under(DUTIES);
    let bytes = plain(&city, DUTIES, &canary());
    let redacted: RedactedEnvelope = cbor::decode(&bytes).unwrap();
    let got = city.check(&city.item(&redacted, 4)).unwrap().remove(0);
    let meter = got.data["meter"].as_str().unwrap().to_owned();
    assert!(meter.starts_with("p-") && meter.len() == 34, "{meter}");
    let want = json!({"meter": meter, "time": "2026-05-03T00:00:00Z", "mw": "50", "area": "***ea"});
    assert_eq!(Value::Object(got.data.clone()), want);
    let by: Vec<(&str, &str, &str)> =
        got.altered.iter().map(|a| (a.field.as_str(), a.duty.as_str(), a.clause.as_str())).collect();
    let f1 = "AGR-2026-0143/F1";
    assert_eq!(
        by,
        [("area", "mask", f1), ("meter", "pseudonymise", f1), ("mw", "coarsen", f1), ("time", "coarsen", f1)]
    );
    // The true values are there as hashes alone, and so are the attributes that would tell them.
    assert_eq!((got.hidden, got.time.is_none(), got.id.as_str()), (7, true, "grid-17/4.0"));
    let text = String::from_utf8_lossy(&bytes).into_owned();
    for original in ["canary", "57.25", "14:15"] {
        assert!(!text.contains(original), "{original}");
    }
    // In an application's JSON, too; and nothing of it where nothing is altered.
    assert_eq!(
        serde_json::to_value(&got).unwrap()["altered"][0],
        json!({"field": "area", "duty": "mask", "clause": f1})
    );
    let redacted: RedactedEnvelope = cbor::decode(&plain(&city, "[]", &canary())).unwrap();
    let got = city.check(&city.item(&redacted, 4)).unwrap().remove(0);
    assert!(serde_json::to_value(&got).unwrap().get("altered").is_none());
    assert!(matches!(redacted.messages[0], MessageView::Shown { .. }), "the form without alterations is as it was");
}

#[test]
fn a_subscription_takes_altered_fields_or_leaves_them_and_chooses_no_rows_by_them() {
    let city = City::under(DUTIES);
    let all = lens(DUTIES);
    let fewer = all.narrow(&json!({}), &["area".into()], &doc()).unwrap();
    let shown = fewer.show(&city.opened(&of_data(&city, &canary())), WITH).unwrap();
    let got = city.check(&city.item(&cbor::decode(&shown.plain).unwrap(), 4)).unwrap().remove(0);
    assert_eq!(Value::Object(got.data), json!({"area": "***ea"}));
    for filter in [json!({"area": "canary-area"}), json!({"not": {"mw": {"exists": true}}})] {
        let refused = all.narrow(&filter, &[], &doc()).unwrap_err();
        assert_eq!(refused.code(), "altered-field", "{refused}");
    }
    // What is delivered under other duties is other: an item that waits is made anew.
    let mut ids = [all.id(), fewer.id(), lens("[]").id(), lens("[{type: mask, fields: [area]}]").id()].to_vec();
    ids.push(lens("[{type: mask, fields: [area], keep_last: 1}]").id());
    ids.push(lens("[{type: delay, field: time, for: 1h}]").id());
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 6);
    let day = 86_400_000;
    assert_eq!(all.id_at(WITH.at_ms), all.id_at(WITH.at_ms + 1_000), "the same day, the same pseudonyms");
    assert_ne!(all.id_at(WITH.at_ms), all.id_at(WITH.at_ms + day));
    assert_eq!(lens("[]").id_at(0), lens("[]").id());
}

#[test]
fn forged_alterations_are_refused_by_name() {
    let city = City::under(DUTIES);
    let good: RedactedEnvelope = cbor::decode(&plain(&city, DUTIES, &canary())).unwrap();
    assert!(city.check(&city.item(&good, 1)).is_ok());
    let forged = |change: &dyn Fn(&mut Vec<LeafView>, &mut Alterations)| {
        let mut forged = good.clone();
        let MessageView::Altered { leaves, altered } = &mut forged.messages[0] else { panic!() };
        change(&mut leaves.leaves, altered);
        city.check(&city.item(&forged, 1)).unwrap_err().code()
    };
    let signature = "envelope-signature";
    assert_eq!(forged(&|_, a| a.clause = "AGR-2026-0143/F2".into()), "altered-clause");
    assert_eq!(forged(&|_, a| a.clause = String::new()), signature);
    assert_eq!(forged(&|_, a| a.fields.clear()), signature);
    assert_eq!(forged(&|_, a| a.fields.swap(0, 1)), signature);
    assert_eq!(forged(&|_, a| a.fields[0].name = "a/id".into()), signature);
    assert_eq!(forged(&|_, a| a.fields[0].name = "d/zzz".into()), signature);
    assert_eq!(forged(&|_, a| a.fields[0].place = u64::MAX), signature);
    assert_eq!(forged(&|_, a| a.fields[0].place = 1), signature, "an attribute that is shown stands there");
    assert_eq!(forged(&|_, a| a.fields[0].duty = "fields".into()), signature);
    assert_eq!(forged(&|_, a| a.fields[0].value = b"\"no mask\"".to_vec().into()), signature);
    assert_eq!(forged(&|_, a| a.fields[1].value = b"\"p-1\"".to_vec().into()), signature);
    assert_eq!(forged(&|_, a| a.fields[2].value = b" 50".to_vec().into()), signature, "not canonical");
    let second = |a: &mut Alterations| {
        let field: AlteredField = a.fields[0].clone();
        a.fields.insert(0, field);
    };
    assert_eq!(forged(&|_, a| second(a)), signature);
    // A true value that is shown all the same, or a leaf that is gone.
    assert_eq!(forged(&|l, _| drop(l.pop())), signature);
    // An altered value that was changed after the promise was made.
    let item = city.item(&good, 1);
    let (_, promise) = check::read(&cbor::encode(&item)).unwrap();
    let mut later = good.clone();
    let MessageView::Altered { altered, .. } = &mut later.messages[0] else { panic!() };
    altered.fields[2].value = b"\"60\"".to_vec().into();
    let mut sealer = Sealer::new(city.kem.public(), "city", 17, 0).unwrap();
    let resealed = city.maker().seal(&cbor::encode(&later), promise.root, 1, 5_000, &mut sealer).unwrap();
    assert_eq!(city.check(&resealed).unwrap_err().code(), "promise-root");
}

/// An altered value that the clause has no duty for, though its form is right and it is promised.
#[test]
fn only_duties_of_the_consumer_s_own_document_alter_values() {
    let said = |city: &City, item: &FeedItem| city.check(item).map_err(|e| (e.code(), e.sentence));
    let refused = |city: &City, item: &FeedItem| said(city, item).unwrap_err();
    let coarse = "[{type: coarsen, field: mw, step: 10}]";
    let sender = City::under(coarse);
    let redacted: RedactedEnvelope = cbor::decode(&plain(&sender, coarse, &canary())).unwrap();
    let item = sender.item(&redacted, 1);
    assert!(said(&sender, &item).is_ok());
    // Invented, of another field, another kind of duty for the field, of another clause of the document.
    let mut city = sender;
    for duties in [
        "[]",
        "[{type: coarsen, field: area, step: 10}]",
        "[{type: mask, fields: [mw]}]",
        "[{type: fields, allow: [mw]}]",
    ] {
        let own = document(BOUNDED, duties);
        city.expected.altering = altering(&own, &[&own]);
        let (code, sentence) = refused(&city, &item);
        assert_eq!(code, "altered-duty", "{duties}");
        assert!(sentence.contains("coarsen") && sentence.contains("mw"), "{sentence}");
    }
    // Without the document nobody can tell; what is not altered goes on.
    let (agreed, other) = (document(BOUNDED, coarse), document(BOUNDED, "[]"));
    let unknown = altering(&agreed, &[&other]);
    city.expected.altering = unknown.clone();
    let (code, sentence) = refused(&city, &item);
    assert_eq!(code, "altered-document");
    assert!(sentence.contains(&hex::encode(agreed.terms_hash())) && sentence.contains("agreements/"), "{sentence}");
    let unaltered: RedactedEnvelope = cbor::decode(&plain(&city, "[]", &canary())).unwrap();
    assert!(said(&city, &city.item(&unaltered, 1)).is_ok());
    // Of several versions each counts, and what one without its document might say is not known.
    let mut both = altering(&agreed, &[&agreed]);
    both.join(altering(&other, &[&other]));
    city.expected.altering = both;
    assert!(said(&city, &item).is_ok());
    let mut half = altering(&other, &[&other]);
    half.join(unknown);
    city.expected.altering = half;
    assert_eq!(refused(&city, &item).0, "altered-document");
}

#[test]
fn a_message_without_a_time_is_never_of_age_and_a_delay_needs_a_time() {
    let city = City::new();
    let lens = lens("[{type: delay, field: time, for: 1h}]");
    for data in [json!({"meter": "m"}), json!({"meter": "m", "time": null}), json!({"meter": "m", "time": "yesterday"})]
    {
        assert_eq!(lens.show(&city.opened(&of_data(&city, &data)), WITH), None, "{data}");
    }
    let unfit = Lens::of(&grant(BOUNDED, "[{type: delay, field: area, for: 1h}]"), &doc()).unwrap_err();
    assert_eq!(unfit.code(), "feed-fields");
}

/// Every kind of duty that alters, on the field `area`.
const ALTERING: [&str; 5] = [
    "{type: mask, fields: [area]}",
    "{type: mask, fields: [area], keep_last: 2}",
    "{type: pseudonymise, fields: [area], per: month}",
    "{type: coarsen, field: area, first: 3}",
    "{type: coarsen, field: area, step: 10}",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// A feed shows exactly what a query of the same moment shows of the row, and the true value is nowhere in the bytes.
    #[test]
    fn a_feed_alters_as_queries_do(which in 0..ALTERING.len(), area in "[a-zä]{8,20}|[1-9][0-9]{6,9}", at_ms in 1_600_000_000_000u64..1_900_000_000_000) {
        let duties = format!("[{}]", ALTERING[which]);
        let city = City::under(&duties);
        let grant = grant(BOUNDED, &duties);
        let data = json!({"meter": "m", "time": "2026-05-03T14:15:16Z", "mw": "1.5", "area": area});
        let with = Pseudonyms { at_ms, ..WITH };
        let row: Map<String, Value> = data.as_object().unwrap().clone();
        let want = View::of(&grant.clause.agreement, &grant.duties).apply(&row, with);
        let shown = Lens::of(&grant, &doc()).unwrap().show(&city.opened(&of_data(&city, &data)), with).unwrap();
        let got = city.check(&city.item(&cbor::decode(&shown.plain).unwrap(), 1)).unwrap().remove(0);
        prop_assert_eq!(&got.data, &want);
        prop_assert_eq!(got.altered.len(), usize::from(want.contains_key("area")));
        let same = want.get("area") == Some(&json!(area));
        prop_assert!(same || !String::from_utf8_lossy(&shown.plain).contains(&area), "{area}");
    }

    /// A message is due in the very millisecond in which a query begins to find its row.
    #[test]
    fn a_message_is_of_age_when_a_query_would_find_its_row(ns in 1_700_000_000_000_000_000i128..1_800_000_000_000_000_000, hours in 1u64..500, off in -3i64..4) {
        let city = City::new();
        let grant = grant(BOUNDED, &format!("[{{type: delay, field: time, for: {hours}h}}]"));
        let time = jiff::Timestamp::from_nanosecond(ns).unwrap().to_string();
        let data = json!({"meter": "m", "time": time});
        let shown = Lens::of(&grant, &doc()).unwrap().show(&city.opened(&of_data(&city, &data)), WITH).unwrap();
        let now = shown.due_ms.saturating_add_signed(off);
        let fields = Fields::from_schema(&doc().schema).unwrap();
        let filters: Vec<_> = row_filters(&grant.duties, now).iter().map(|f| parse_filter(f, &fields, "/where").unwrap()).collect();
        prop_assert_eq!(filters.len(), 1);
        prop_assert_eq!(filters[0].matches(data.as_object().unwrap()), shown.due_ms <= now, "{} {}", time, now);
    }
}
