#![allow(clippy::unwrap_used)]
use super::*;
use crate::adapter_document;

adapter_document! {
    /// A kind with nothing of its own.
    pub struct Plain {}
}

const HEAD: &str = "adapter: t\nkind: plain\ninto: ds:a/t@1\n";

fn common(rest: &str) -> Common {
    Plain::parse(&format!("{HEAD}{rest}")).unwrap().common()
}

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|n| (*n).to_owned()).collect()
}

#[test]
fn cells_become_a_record_by_name() {
    let common = common(
        "map:\n  id: P_NO\n  mw: {from: P_KW, type: decimal, scale: 0.001}\n  at: {from: TS, type: timestamp, zone: offset}\n  state: {from: ST}\nlookups: {state: {A: active, '*': other}}\nconstants: {unit: MW}\nkey: [id]\ntime: at\n",
    );
    let mapper = Mapper::of_columns(&common, &names(&["P_NO", "P_KW", "TS", "ST"]), "the table's columns").unwrap();
    let row = |kw: Cell<'static>, state: &'static str| {
        mapper.row(Origin::row("v_load", 7), b"raw", &|name| {
            Some(match name {
                "P_NO" => "F1".into(),
                "P_KW" => kw.clone(),
                "TS" => "2026-01-01T01:00:00+01:00".into(),
                "ST" => state.into(),
                _ => return None,
            })
        })
    };
    let Row::Good(record) = row(String::from("1500.5").into(), "A") else { panic!("refused") };
    let data =
        serde_json::json!({"id": "F1", "mw": "1.5005", "at": "2026-01-01T00:00:00Z", "state": "active", "unit": "MW"});
    assert_eq!((Value::Object(record.data), record.time.as_deref()), (data, Some("2026-01-01T00:00:00Z")));
    assert_eq!((record.origin.file.as_str(), record.origin.row, record.raw.as_slice()), ("v_load", 7, &b"raw"[..]));
    let Row::Good(record) = row(Cell::Null, "?") else { panic!("refused") };
    assert!(!record.data.contains_key("mw") && record.data["state"] == "other");
    let Row::Bad(reject) = row(Cell::Bad(Fault::new("number.range", "infinite")), "A") else { panic!("taken") };
    assert_eq!((reject.rule.as_str(), reject.field.as_deref(), reject.line), ("number.range", Some("P_KW"), 7));
}

#[test]
fn an_open_mapping_takes_what_it_names_and_leaves_the_rest() {
    let common = common("map: {id: {from: $.p.no, type: integer}, note: {}}\nkey: [id]\n");
    let mapper = Mapper::open(&common).unwrap();
    let asked: Vec<&str> = mapper.steps().iter().map(|s| s.from.as_str()).collect();
    assert_eq!(asked, ["$.p.no", "note"]);
    let none = mapper.row(Origin::row("t", 1), b"", &|_| None);
    assert!(matches!(none, Row::Bad(r) if r.rule == "field.required" && r.field.as_deref() == Some("$.p.no")));
    let one = mapper.row(Origin::row("t", 1), b"", &|name| (name == "$.p.no").then(|| "12".into()));
    assert!(matches!(one, Row::Good(r) if r.data["id"] == 12));
}

#[test]
fn mistakes_of_a_mapping_are_named() {
    let columns = names(&["id", "state"]);
    for (text, wanted) in [
        (
            "map: {id: {}, state: {}}\nkey: [id]\nlookups: {stat: {A: b}}\n",
            "lookups.stat: `stat` is not a mapped field; did you mean `state`?",
        ),
        ("map: {id: {}, state: {}}\nkey: [id]\nsensitive: {name: identifier}\n", "sensitive.name: `name` is not"),
        ("map: {id: {}, state: {}}\nkey: [id]\nsubject: {field: person}\n", "subject.field: `person` is not"),
        ("map: {id: {}}\nkey: [id]\n", "column `state` is neither mapped"),
        (
            "map: {id: {}, state: {from: stat}}\nkey: [id]\n",
            "`stat` is not one of the table's columns; did you mean `state`?",
        ),
        ("map: {id: {}, state: {}}\n", "key: name the fields"),
    ] {
        let error = Mapper::of_columns(&common(text), &columns, "the table's columns").unwrap_err().to_string();
        assert!(error.contains(wanted), "{text}: {error}");
    }
    let open = |text: &str| Mapper::open(&common(text)).unwrap_err().to_string();
    assert!(open("rest: {type: string}\nmap: {id: {}}\nkey: [id]\n").contains("no fixed columns"));
    assert!(open("ignore: [x]\nmap: {id: {}}\nkey: [id]\n").contains("left out anyway"));
    for (text, wanted) in [
        ("poll: {evry: 5s}\n", "did you mean `every`?"),
        ("poll: {every: 5 s}\n", "is no period"),
        ("subject: nobody\n", "`none`, or {field: NAME"),
        ("map: {id: {froom: x}}\n", "did you mean `from`?"),
        ("map: {id: [x]}\n", "a column's name, or {from"),
    ] {
        let error = Plain::parse(&format!("{HEAD}{text}")).unwrap_err().to_string();
        assert!(error.contains(wanted) && error.contains("line 4"), "{text}: {error}");
    }
}
