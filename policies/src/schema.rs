//! The JSON Schema (2020-12) of agreement documents, for editors: it completes keys and words, explains them, and marks
//! what the parser would refuse as unknown. The parser stays the judge: rules of the whole are its alone.
//!
//! Published as `docs/schemas/agreement.schema.json`; a test keeps it the same as what is made here.

use crate::document_raw::TEXT_CHARS_MAX;
use crate::duty::{Cut, DutyKind, PATTERN_BYTES_MAX, REFERENCE_FIELDS};
use crate::duty_raw::{keys_of, required_keys};
use crate::filter::{JOINERS, OPERATORS};
use concordat_protocol::limits::CLAUSES_MAX;
use concordat_protocol::terms::{Action, Effect, Per, QuotaBy, QuotaUnit};
use serde_json::{Map, Value, json};

/// Where the schema is published.
pub const ID: &str = "https://concordat.example/schemas/agreement.schema.json";

const SLUG: &str = "[a-z][a-z0-9-]{0,47}";
const ORG: &str = "^org:[a-z][a-z0-9-]{0,31}$";
const FIELD: &str = "^[A-Za-z_][A-Za-z0-9_-]{0,63}$";
const DURATION: &str = "^[0-9]+(ms|s|m|h|d)$";
const TIME: &str =
    "^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\\.[0-9]+)?)?([Zz]|[+-][0-9]{2}(:?[0-9]{2})?)$";

/// The whole schema.
pub fn schema() -> Value {
    let duties: Vec<Value> = DutyKind::ALL.iter().map(|k| json!({"$ref": format!("#/$defs/duty-{k}")})).collect();
    let mut defs = Map::new();
    for kind in DutyKind::ALL {
        defs.insert(format!("duty-{kind}"), duty(*kind));
    }
    for (name, def) in parts() {
        defs.insert(name.to_owned(), def);
    }
    let one_of_types = json!({"properties": {"type": {"enum": DutyKind::WORDS}}, "required": ["type"]});
    defs.insert("duty".to_owned(), json!({"type": "object", "allOf": [one_of_types], "oneOf": duties}));
    let mut doc = object(
        &[
            ("agreement", text("^[A-Z][A-Z0-9-]{2,39}$", "The agreement's name, for example AGR-2026-0142.")),
            ("version", json!({"type": "integer", "minimum": 1, "description": "From 1; versions only rise."})),
            ("paper", reference("paper")),
            ("assigner", text(ORG, "The provider, who owns the dataset: org:police.")),
            (
                "assignee",
                json!({"anyOf": [{"const": "any"}, {"type": "string", "pattern": ORG}],
                "description": "The consumer: org:court; or any, for public data."}),
            ),
            (
                "target",
                text(
                    &format!("^ds:[a-z][a-z0-9-]{{0,31}}/{SLUG}@[1-9][0-9]{{0,5}}$"),
                    "The dataset: ds:police/stops@1.",
                ),
            ),
            ("valid", reference("valid")),
            ("approvals", reference("approvals")),
            (
                "prevails",
                text("^[a-z]{2,3}(-[A-Z]{2})?$", "The language that prevails where texts in several languages differ."),
            ),
            ("clauses", json!({"type": "array", "minItems": 1, "maxItems": CLAUSES_MAX, "items": reference("clause")})),
        ],
        &["agreement", "version", "assigner", "assignee", "target", "valid", "approvals", "clauses"],
    );
    doc["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    doc["$id"] = json!(ID);
    doc["title"] = json!("Concordat agreement");
    doc["$defs"] = Value::Object(defs);
    doc
}

fn object(properties: &[(&str, Value)], required: &[&str]) -> Value {
    let properties: Map<String, Value> = properties.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
    json!({"type": "object", "additionalProperties": false, "properties": properties, "required": required})
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/$defs/{name}")})
}

fn text(pattern: &str, description: &str) -> Value {
    json!({"type": "string", "pattern": pattern, "description": description})
}

fn words<T: Copy>(all: &[T], word: impl Fn(T) -> &'static str, description: &str) -> Value {
    let all: Vec<&str> = all.iter().map(|t| word(*t)).collect();
    json!({"enum": all, "description": description})
}

fn list(items: Value, description: &str) -> Value {
    json!({"type": "array", "minItems": 1, "uniqueItems": true, "items": items, "description": description})
}

/// The parts that are not duties.
fn parts() -> Vec<(&'static str, Value)> {
    let sentence = json!({"type": "string", "minLength": 1, "maxLength": TEXT_CHARS_MAX});
    let role = json!({"type": "string", "pattern": format!("^{SLUG}$")});
    let bounded = object(
        &[("bounded", object(&[("max_lag", text(DURATION, "At most a day: 2s, 10m."))], &["max_lag"]))],
        &["bounded"],
    );
    let who = object(
        &[
            ("org", text(ORG, "The agency.")),
            ("role", text(&format!("^role:{SLUG}$"), "In this role; left out: in any.")),
        ],
        &["org"],
    );
    vec![
        ("sentence", sentence.clone()),
        (
            "text",
            json!({"anyOf": [reference("sentence"), {"type": "object", "minProperties": 1,
            "propertyNames": {"pattern": "^[a-z]{2,3}(-[A-Z]{2})?$"}, "additionalProperties": reference("sentence")}],
            "description": "A sentence, or one in each language: {de: .., en: ..}. All languages are approved."}),
        ),
        ("time", text(TIME, "With its zone: 2026-01-01T00:00:00Z.")),
        ("valid", object(&[("from", reference("time")), ("until", reference("time"))], &["from", "until"])),
        (
            "paper",
            object(
                &[("title", sentence), ("sha256", text("^[0-9A-Fa-f]{64}$", "SHA-256 of the signed file."))],
                &["title", "sha256"],
            ),
        ),
        (
            "approvals",
            object(
                &[
                    ("assigner", list(role.clone(), "Roles that must approve for the provider.")),
                    (
                        "assignee",
                        json!({"type": "array", "uniqueItems": true, "items": role,
                    "description": "Roles that must approve for the consumer; left out for public data."}),
                    ),
                ],
                &["assigner"],
            ),
        ),
        (
            "evidence",
            json!({"anyOf": [{"enum": ["none", "strict"]}, bounded],
            "description": "strict: nothing leaves before the ledger has it; bounded: at most max_lag later (feeds, break-glass); none: public data."}),
        ),
        ("who", json!({"anyOf": [{"const": "any"}, who], "description": "Whom the clause speaks of."})),
        ("filter", filter()),
        ("field", json!({"type": "string", "pattern": FIELD, "not": {"enum": JOINERS}})),
        ("clause", clause()),
    ]
}

fn clause() -> Value {
    let actions = words(Action::ALL, Action::word, "What they do.");
    object(
        &[
            ("id", text("^[A-Z][A-Z0-9-]{0,15}$", "C1: what requests and denials name.")),
            ("text", reference("text")),
            (
                "effect",
                words(Effect::ALL, Effect::word, "permit, prohibit (wins over everything), break-glass (an override)."),
            ),
            ("assignee", reference("who")),
            ("actions", list(actions, "query reads held records, subscribe follows a feed, the others write.")),
            ("evidence", reference("evidence")),
            ("purpose", text(&format!("^purp:{SLUG}$"), "What for; in a prohibition left out: for anything.")),
            ("legal_basis", reference("text")),
            ("valid", reference("valid")),
            ("duties", json!({"type": "array", "items": reference("duty")})),
        ],
        &["id", "text", "effect", "assignee", "actions"],
    )
}

fn filter() -> Value {
    let operators: Map<String, Value> = OPERATORS.iter().map(|o| ((*o).to_owned(), operand(o))).collect();
    let several = json!({"type": "array", "minItems": 1, "items": reference("filter")});
    json!({
        "type": "object",
        "minProperties": 1,
        "propertyNames": {"pattern": FIELD},
        "properties": {"and": several, "or": several, "not": reference("filter")},
        "additionalProperties": {"type": "object", "minProperties": 1, "additionalProperties": false, "properties": operators},
        "description": "The query language: {precinct: {in: [\"1\", \"2\"]}}; parts are joined by and, or, not.",
    })
}

fn operand(operator: &str) -> Value {
    match operator {
        "in" => json!({"type": "array", "minItems": 1}),
        _ => json!({"not": {"type": "null"}}),
    }
}

/// A field, or a field with one more word: `stop_id`, `{time: 24h}`.
fn pairs(value: Value, description: &str) -> Value {
    let pair = json!({"type": "object", "minProperties": 1, "maxProperties": 1,
        "propertyNames": {"pattern": FIELD}, "additionalProperties": value});
    list(json!({"anyOf": [reference("field"), pair]}), description)
}

fn duty(kind: DutyKind) -> Value {
    let property =
        |key: &&str| ((*key).to_owned(), if *key == "type" { json!({"const": kind}) } else { of_duty(kind, key) });
    let properties: Map<String, Value> = keys_of(kind).iter().map(property).collect();
    let mut out = json!({"type": "object", "additionalProperties": false, "properties": properties,
        "required": required_keys(kind), "description": meaning(kind)});
    if kind == DutyKind::Coarsen {
        let ways = ["to", "step", "first"].map(|k| json!({"required": [k]}));
        out["oneOf"] = json!(ways);
    }
    out
}

fn of_duty(kind: DutyKind, key: &str) -> Value {
    let duration = |what: &str| text(DURATION, what);
    match (kind, key) {
        (DutyKind::Reference, "field") => json!({"enum": REFERENCE_FIELDS}),
        (_, "field") => reference("field"),
        (_, "pattern") => json!({"type": "string", "pattern": "^\\^.*\\$$", "maxLength": PATTERN_BYTES_MAX,
            "description": "A regular expression from ^ to $."}),
        (_, "any_of") => {
            pairs(json!({"type": "string", "pattern": DURATION}), "Fields, or time fields with their longest span.")
        }
        (_, "where") => reference("filter"),
        (_, "allow" | "fields") => list(reference("field"), "Names of fields."),
        (_, "max" | "first") => json!({"type": "integer", "minimum": 1}),
        (DutyKind::Quota, "per") => words(Per::ALL, Per::word, "Calendar period, UTC."),
        (_, "per" | "to") if kind != DutyKind::Notify => words(Cut::ALL, Cut::word, "Calendar unit, UTC."),
        (_, "by") => words(QuotaBy::ALL, QuotaBy::word, "Counted for the whole agreement, or for each session."),
        (_, "unit") => words(QuotaUnit::ALL, QuotaUnit::word, "What is counted."),
        (_, "group_by") => pairs(json!({"enum": Cut::WORDS}), "Fields, or time fields with their calendar unit."),
        (_, "min_group") => json!({"type": "integer", "minimum": 2}),
        (_, "keep_last") => json!({"type": "integer", "minimum": 0, "maximum": 16}),
        (_, "step") => json!({"anyOf": [{"type": "number", "exclusiveMinimum": 0},
            {"type": "string", "pattern": "^[0-9]{1,9}(\\.[0-9]{1,9})?$"}]}),
        (_, "to") => text(ORG, "Who is told."),
        (_, "within") => duration("At most so long: 24h."),
        (_, "level") => text("^[A-Za-z0-9:._/+-]{1,128}$", "The strength, as the issuer names it (acr)."),
        _ => duration("A length of time: 30d."),
    }
}

/// What a duty means, in a sentence for whoever writes one.
pub fn meaning(kind: DutyKind) -> &'static str {
    match kind {
        DutyKind::Reference => "The request names a case of this form.",
        DutyKind::RequireFilter => "The request's filter names one of these fields (a time within a span).",
        DutyKind::RowFilter => "Only rows that match are visible.",
        DutyKind::Fields => "Only these fields are visible.",
        DutyKind::Quota => "At most so many operations or records an hour or a day.",
        DutyKind::Aggregate => "Only totals of groups that are large enough.",
        DutyKind::Justification => "The person states a reason.",
        DutyKind::Notify => "An agency is told at once.",
        DutyKind::Review => "Each use is reviewed in time.",
        DutyKind::SealAccess => "The person concerned is told later by whom and why.",
        DutyKind::Mask => "Values are shown as ***, with their last characters if wanted.",
        DutyKind::Pseudonymise => "Values are replaced by pseudonyms.",
        DutyKind::Coarsen => "A time, number or text is shown less precisely.",
        DutyKind::Retention => "The consumer deletes what it received in time.",
        DutyKind::StepUp => "The person has signed in strongly a short while ago.",
        DutyKind::Delay => "Only rows of some age are visible.",
    }
}
