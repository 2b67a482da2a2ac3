//! Drafts for a source that nobody described yet: types of its columns by a sample, the schema, the dataset's and the
//! adapter's document, and which fields are likely about people. A person reads the drafts before they are used.

use serde_json::{Map, Value, json};

use crate::contract::{Column, Discovery};
use crate::convert::TimeRule;
use crate::decimal::Decimal;
use crate::document::{Common, FieldKind, Precision};

/// Longest whole number that is drafted as an integer; longer ones are numbers of things, not quantities.
const INTEGER_DIGITS_MAX: usize = 15;
/// The schema's pattern of an exact decimal, as the conversion writes it.
const DECIMAL: &str = r"^-?(0|[1-9][0-9]*)(\.[0-9]*[1-9])?$";

/// Words in the names of columns and the class of what they hold. Of several languages of agencies.
const WORDS: &[(&str, &[&str])] = &[
    (
        "identifier",
        &[
            "ssn",
            "passport",
            "personnr",
            "personno",
            "person",
            "citizen",
            "bsn",
            "nino",
            "steuerid",
            "iban",
            "account",
            "konto",
            "plate",
            "kennzeichen",
            "licence",
            "license",
            "vin",
            "imei",
            "imsi",
            "mac",
            "ip",
            "meter",
            "badge",
            "patient",
            "insurance",
            "driver",
            "fahrer",
            "owner",
            "halter",
            "customer",
            "kunde",
            "user",
            "username",
        ],
    ),
    (
        "name",
        &[
            "name",
            "firstname",
            "lastname",
            "surname",
            "forename",
            "givenname",
            "familyname",
            "fullname",
            "vorname",
            "nachname",
            "nom",
            "prenom",
            "apellido",
            "apellidos",
            "nombre",
            "victim",
            "suspect",
            "witness",
            "officer",
        ],
    ),
    ("contact", &["phone", "telephone", "tel", "telefon", "mobile", "handy", "fax", "email", "mail"]),
    (
        "birth-date",
        &["birth", "birthdate", "birthday", "dob", "geburt", "geburtsdatum", "naissance", "nacimiento", "age"],
    ),
    (
        "special-category",
        &[
            "race",
            "ethnicity",
            "gender",
            "sex",
            "religion",
            "nationality",
            "health",
            "diagnosis",
            "geschlecht",
            "union",
        ],
    ),
    (
        "exact-location",
        &["lat", "latitude", "lon", "lng", "long", "longitude", "gps", "geo", "position", "coordinates", "geometry"],
    ),
    ("address", &["address", "addr", "street", "strasse", "adresse", "housenumber", "postcode", "zip", "plz"]),
];

/// What the values of one column look like, as far as they were seen.
#[derive(Debug, Clone)]
pub struct Guess {
    name: String,
    seen: u64,
    missing: u64,
    boolean: bool,
    integer: bool,
    decimal: bool,
    /// The values are times; `Some(true)` when all carry an offset.
    time: Option<bool>,
    /// Of the finest time that was seen.
    precision: Precision,
    mail: u64,
    values: std::collections::BTreeSet<String>,
    unique: bool,
    point: char,
}

impl Guess {
    /// Nothing seen yet of a column; `point` is the decimal mark of its source.
    pub fn new(name: impl Into<String>, point: char) -> Self {
        Self {
            name: name.into(),
            seen: 0,
            missing: 0,
            boolean: true,
            integer: true,
            decimal: true,
            time: Some(true),
            precision: Precision::Second,
            mail: 0,
            values: std::collections::BTreeSet::new(),
            unique: true,
            point,
        }
    }

    /// Takes the text of one value; none for a missing one.
    pub fn see(&mut self, text: Option<&str>) {
        let Some(text) = text.map(str::trim) else {
            self.missing += 1;
            return;
        };
        self.seen += 1;
        self.boolean &= matches!(text, "true" | "false");
        self.integer &= is_quantity(text) && text.len() <= INTEGER_DIGITS_MAX;
        self.decimal &= Decimal::parse(text, self.point).is_ok() && is_quantity(whole(text, self.point));
        self.time = match (self.time, clock(text)) {
            (Some(all), Some((offset, precision))) => {
                self.precision = self.precision.max(precision);
                Some(all && offset)
            }
            _ => None,
        };
        self.mail += u64::from(is_mail(text));
        self.unique &= self.values.insert(text.to_owned());
    }

    /// The column as it seems to be.
    pub fn column(self) -> Column {
        let empty = self.seen == 0;
        let (kind, zone) = match self.time {
            _ if empty => (FieldKind::String, None),
            Some(true) => (FieldKind::Timestamp, Some("offset".to_owned())),
            Some(false) => (FieldKind::Timestamp, None),
            None if self.boolean => (FieldKind::Boolean, None),
            None if self.integer => (FieldKind::Integer, None),
            None if self.decimal => (FieldKind::Decimal, None),
            None => (FieldKind::String, None),
        };
        let nullable = self.missing > 0 || empty;
        let contact = (self.mail > 0).then_some("contact");
        let countable = !matches!(kind, FieldKind::Decimal | FieldKind::Boolean);
        Column {
            key: self.unique && !nullable && self.seen > 1 && countable,
            personal: contact.or_else(|| personal(&self.name)),
            name: self.name,
            kind,
            nullable,
            zone,
            precision: self.precision,
        }
    }
}

/// Guesses the columns of a table from rows of a sample, cells in the order of `names`.
pub fn guess(names: &[String], point: char, rows: &[Vec<Option<String>>]) -> Vec<Column> {
    let mut guesses: Vec<Guess> = names.iter().map(|n| Guess::new(n, point)).collect();
    for row in rows {
        for (n, guess) in guesses.iter_mut().enumerate() {
            guess.see(row.get(n).and_then(Option::as_deref));
        }
    }
    guesses.into_iter().map(Guess::column).collect()
}

/// The class of data that a column's name speaks of, if it is about people.
pub fn personal(name: &str) -> Option<&'static str> {
    let mut words: Vec<String> = vec![String::new()];
    let mut lower = false;
    for c in name.chars() {
        if !c.is_alphanumeric() || (c.is_uppercase() && lower) {
            words.push(String::new());
        }
        if let (true, Some(word)) = (c.is_alphanumeric(), words.last_mut()) {
            word.extend(c.to_lowercase());
        }
        lower = c.is_lowercase();
    }
    let pairs: Vec<String> = words.windows(2).map(<[String]>::concat).collect();
    let all: Vec<&String> = words.iter().chain(&pairs).collect();
    WORDS.iter().find(|(_, list)| all.iter().any(|w| list.contains(&w.as_str()))).map(|(class, _)| *class)
}

fn whole(text: &str, point: char) -> &str {
    text.split_once(point).map_or(text, |(whole, _)| whole)
}

/// A number that counts something: no zero in front, which numbers of things have.
fn is_quantity(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) && (digits.len() == 1 || !digits.starts_with('0'))
}

/// Whether a text is a time: then whether it says its offset, and how fine it is.
fn clock(text: &str) -> Option<(bool, Precision)> {
    let rule = TimeRule { zone: None, fold: None, format: None, precision: Precision::Nanosecond };
    let offset = match rule.instant(text).map_err(|fault| fault.rule) {
        Ok(_) => true,
        Err("time.zone") => false,
        Err(_) => return None,
    };
    let rest = text.get(19..).and_then(|rest| rest.strip_prefix('.')).unwrap_or_default();
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let digits = rest.get(..end).unwrap_or_default().trim_end_matches('0').len();
    let holds = |p: &Precision| usize::from(p.digits()) >= digits;
    Some((offset, Precision::ALL.into_iter().find(holds).unwrap_or(Precision::Nanosecond)))
}

fn is_mail(text: &str) -> bool {
    text.split_once('@').is_some_and(|(user, host)| {
        !user.is_empty() && host.contains('.') && !host.contains(['@', ' ']) && !host.starts_with('.')
    })
}

/// The drafts for a source whose columns are known. The adapter's document is the one that was read, with a mapping.
pub fn draft(common: &Common, columns: Vec<Column>, sampled: u64) -> Discovery {
    let keys: Vec<&Column> = columns.iter().filter(|c| c.key).take(1).collect();
    let time = columns.iter().find(|c| c.kind == FieldKind::Timestamp && !c.nullable);
    let fields = Fields { columns: &columns, keys: keys.iter().map(|c| c.name.clone()).collect(), time };
    Discovery {
        schema: fields.schema(),
        dataset: fields.dataset(common),
        adapter: fields.adapter(common),
        columns,
        sampled,
    }
}

struct Fields<'a> {
    columns: &'a [Column],
    keys: Vec<String>,
    time: Option<&'a Column>,
}

impl Fields<'_> {
    fn schema(&self) -> Value {
        let mut properties = Map::new();
        for column in self.columns {
            let value = match column.kind {
                FieldKind::String => json!({"type": "string"}),
                FieldKind::Integer => json!({"type": "integer"}),
                FieldKind::Boolean => json!({"type": "boolean"}),
                FieldKind::Decimal => json!({"type": "string", "format": "decimal", "pattern": DECIMAL}),
                FieldKind::Timestamp => json!({"type": "string", "format": "date-time"}),
            };
            properties.insert(column.name.clone(), value);
        }
        let must = |c: &&Column| self.keys.contains(&c.name) || self.time.is_some_and(|t| t.name == c.name);
        let required: Vec<&str> = self.columns.iter().filter(must).map(|c| c.name.as_str()).collect();
        json!({"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object", "properties": properties,
               "required": required, "additionalProperties": false})
    }

    fn key_line(&self) -> String {
        if self.keys.is_empty() {
            return "key: []                                       # CHOOSE: the fields that identify a record"
                .to_owned();
        }
        format!("key: [{}]", self.keys.iter().map(|k| quoted(k)).collect::<Vec<_>>().join(", "))
    }

    fn dataset(&self, common: &Common) -> String {
        let id = common.into.as_str();
        let (path, version) = id.rsplit_once('@').unwrap_or((id, "1"));
        let name = path.rsplit('/').next().unwrap_or(path);
        let mut lines = vec![
            "# Drafted from a sample: read every line before you register it.".to_owned(),
            format!("dataset: {id}"),
            format!("title: {name}                                  # CHOOSE: what it is, in a few words"),
            "kind: feed                                    # feed | records | both".to_owned(),
            format!("schema: schemas/{name}@{version}.json"),
            self.key_line(),
        ];
        if let Some(time) = self.time {
            lines.push(format!("time: {{field: {}, zone: UTC}}", quoted(&time.name)));
        }
        let people: Vec<&Column> = self.columns.iter().filter(|c| c.personal.is_some()).collect();
        lines.push(
            "subject: none                                 # CHOOSE: or {field: NAME, role: principal}".to_owned(),
        );
        if people.is_empty() {
            lines
                .push("sensitive: {}                                 # no name of a column looked personal".to_owned());
        } else {
            lines.push(
                "sensitive:                                    # CHECK: by the columns' names and values".to_owned(),
            );
            lines.extend(people.iter().map(|c| format!("  {}: {}", quoted(&c.name), c.personal.unwrap_or_default())));
        }
        lines.join("\n") + "\n"
    }

    fn adapter(&self, common: &Common) -> String {
        let drafted = ["map", "rest", "ignore", "key", "time"];
        let mut text = without(&common.text, &drafted);
        text.push_str("map:                                          # drafted from a sample\n");
        for column in self.columns {
            let mut rule = format!("type: {}", column.kind.name());
            match (&column.zone, column.kind) {
                (Some(zone), _) => rule.push_str(&format!(", zone: {zone}")),
                (None, FieldKind::Timestamp) => rule.push_str(", zone: CHOOSE"),
                _ => {}
            }
            if column.kind == FieldKind::Timestamp && column.precision != Precision::Second {
                rule.push_str(&format!(", precision: {}", column.precision.name()));
            }
            if !column.nullable {
                rule.push_str(", required: true");
            }
            text.push_str(&format!("  {}: {{{rule}}}\n", quoted(&column.name)));
        }
        text.push_str(&self.key_line());
        text.push('\n');
        if let Some(time) = self.time {
            text.push_str(&format!("time: {}\n", quoted(&time.name)));
        }
        text
    }
}

/// A document without some of its top members.
fn without(text: &str, members: &[&str]) -> String {
    let (mut out, mut skip) = (String::with_capacity(text.len()), false);
    for line in text.lines() {
        let top = !line.is_empty() && !line.starts_with([' ', '\t', '#', '-', '}', ']']);
        if top {
            skip = line.split_once(':').is_some_and(|(key, _)| members.contains(&key.trim()));
        }
        if !skip {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

/// A name as YAML, quoted where it must be.
fn quoted(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
        && !matches!(name.to_ascii_lowercase().as_str(), "true" | "false" | "null" | "yes" | "no" | "on" | "off");
    if plain { name.to_owned() } else { json!(name).to_string() }
}

#[cfg(test)]
#[path = "discover_tests.rs"]
mod tests;
