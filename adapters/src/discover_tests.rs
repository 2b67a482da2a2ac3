#![allow(clippy::unwrap_used)]
use super::*;
use crate::adapter_document;
use crate::mapping::Mapper;

adapter_document! {
    /// A kind with a member of its own.
    pub struct Doc {
        /// Where.
        #[allow(dead_code, reason = "only read from the document")]
        pub path: String,
    }
}

#[test]
fn names_that_speak_of_people_are_flagged() {
    for (name, class) in [
        ("gps_lat", Some("exact-location")),
        ("LastName", Some("name")),
        ("first_name", Some("name")),
        ("DOB", Some("birth-date")),
        ("meter_no", Some("identifier")),
        ("pre_race", Some("special-category")),
        ("eMail", Some("contact")),
        ("plateau", None),
        ("latency_ms", None),
        ("mw", None),
    ] {
        assert_eq!(personal(name), class, "{name}");
    }
}

#[test]
fn a_draft_is_guessed_from_values_and_can_be_used() {
    let names: Vec<String> = ["id", "plz", "n", "mw", "ts", "clock", "on", "who", "seen"].map(str::to_owned).to_vec();
    let row = |id: &str, who: &str| {
        let cells = [
            id,
            "01099",
            "12",
            "1.50",
            "2026-01-01T00:00:00Z",
            "2026-01-01 00:00",
            "true",
            who,
            "2026-01-01 10:00:00.123450+00",
        ];
        cells.map(|c| (!c.is_empty()).then(|| c.to_owned())).to_vec()
    };
    let columns = guess(&names, '.', &[row("A1", "a.b@example.org"), row("A2", "")]);
    let kinds: Vec<&str> = columns.iter().map(|c| c.kind.name()).collect();
    assert_eq!(kinds.join(" "), "string string integer decimal timestamp timestamp boolean string timestamp");
    let (keys, people): (Vec<bool>, Vec<_>) = columns.iter().map(|c| (c.key, c.personal)).unzip();
    assert_eq!(keys.iter().filter(|k| **k).count(), 1, "only id is unique and never missing");
    assert_eq!((people[1], people[7]), (Some("address"), Some("contact")));

    let text = "# mine\nadapter: t\nkind: x\npath: p   # kept\ninto: ds:a/t@1\nmap:\n  old: {}\nkey:\n- old\n";
    let drafts = draft(&Doc::parse(text).unwrap().common(), columns, 2);
    assert!(drafts.adapter.starts_with("# mine\nadapter: t\nkind: x\npath: p   # kept\n"), "{}", drafts.adapter);
    assert!(!drafts.adapter.contains("old"), "{}", drafts.adapter);
    assert!(drafts.dataset.contains("  who: contact\n") && drafts.dataset.contains("schema: schemas/t@1.json"));
    let error = Mapper::of_columns(&Doc::parse(&drafts.adapter).unwrap().common(), &names, "x").unwrap_err();
    assert!(error.to_string().contains("map.clock.zone"), "what must be chosen is refused until it is: {error}");
    let chosen = drafts.adapter.replace("CHOOSE", "Europe/Berlin");
    let mapper = Mapper::of_columns(&Doc::parse(&chosen).unwrap().common(), &names, "x").unwrap();
    assert_eq!((mapper.key(), mapper.time()), (&["id".to_owned()][..], Some("ts")));
    assert!(drafts.adapter.contains("  seen: {type: timestamp, zone: offset, precision: us, required: true}\n"));
    assert!(drafts.adapter.contains("  ts: {type: timestamp, zone: offset, required: true}\n"));
    assert_eq!(drafts.schema["required"], json!(["id", "ts"]));
    assert_eq!(drafts.schema["properties"]["mw"]["format"], "decimal");
}
