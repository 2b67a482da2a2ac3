//! Texts in several languages: `text: {de: .., en: ..}`. All of them are part of what is approved, so none may be missing
//! anywhere: whoever reads one language reads every clause.

use crate::document::Clause;
use crate::document_raw::plain;
use crate::yaml::{Pos, Spanned, YamlError};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::fmt;

/// Most languages of one document.
pub const LANGUAGES_MAX: usize = 24;

/// A text, or a text by language.
pub(crate) enum RawText {
    One(String),
    Several(Vec<(String, Spanned<String>)>),
}

impl<'de> Deserialize<'de> for RawText {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> serde::de::Visitor<'de> for V {
            type Value = RawText;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, or texts by language like {de: .., en: ..}")
            }
            fn visit_str<E: serde::de::Error>(self, s: &str) -> Result<RawText, E> {
                Ok(RawText::One(s.to_owned()))
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut m: A) -> Result<RawText, A::Error> {
                let mut all = Vec::new();
                while let Some(pair) = m.next_entry()? {
                    if all.len() == LANGUAGES_MAX {
                        return Err(serde::de::Error::custom(format!("at most {LANGUAGES_MAX} languages")));
                    }
                    all.push(pair);
                }
                Ok(RawText::Several(all))
            }
        }
        d.deserialize_any(V)
    }
}

/// A text as read: the plain one (empty until [`agree`] has chosen the language), and those by language.
pub(crate) type Read = (String, BTreeMap<String, String>);

/// Reads a text, in whatever form.
pub(crate) fn read(raw: Spanned<RawText>, what: &str) -> Result<Read, YamlError> {
    let Spanned { value, referenced, defined } = raw;
    let at = Pos { line: referenced.line(), column: referenced.column() };
    match value {
        RawText::One(text) => Ok((plain(&Spanned { value: text, referenced, defined }, what)?, BTreeMap::new())),
        RawText::Several(all) if all.is_empty() => Err(YamlError::new(at, format!("{what} names no language"))),
        RawText::Several(all) => {
            let mut texts = BTreeMap::new();
            for (language, text) in all {
                let at = Pos::of(&text);
                is_language(&language).map_err(|e| YamlError::new(at, e))?;
                if texts.insert(language.clone(), plain(&text, what)?).is_some() {
                    return Err(YamlError::new(at, format!("{what} is there twice in {language}; keep one")));
                }
            }
            Ok((String::new(), texts))
        }
    }
}

/// A language as people write it: `de`, or with its country, `de-CH`.
fn is_language(tag: &str) -> Result<(), String> {
    let (language, country) = tag.split_once('-').map_or((tag, None), |(l, c)| (l, Some(c)));
    let ok = matches!(language.len(), 2 | 3) && language.bytes().all(|b| b.is_ascii_lowercase());
    let country_ok = country.is_none_or(|c| c.len() == 2 && c.bytes().all(|b| b.is_ascii_uppercase()));
    if ok && country_ok {
        return Ok(());
    }
    Err(format!("\"{}\" is not a language: write it like de or de-CH (BCP 47)", crate::yaml::clip(tag)))
}

/// Checks that every text speaks the same languages, and fills in the plain texts: in the language that prevails, else
/// in English where there is it, else in the first.
pub(crate) fn agree(clauses: &mut [Clause], prevails: Option<&Spanned<String>>) -> Result<Option<String>, YamlError> {
    let languages: Vec<String> = clauses.first().map_or_else(Vec::new, |c| c.texts.keys().cloned().collect());
    let list = || if languages.is_empty() { "no language named".to_owned() } else { languages.join(", ") };
    for c in clauses.iter() {
        let bases = c.legal_basis.as_ref().map(|_| &c.legal_bases);
        for (what, texts) in [("text", Some(&c.texts)), ("legal_basis", bases)] {
            if texts.is_some_and(|t| !t.keys().eq(&languages)) {
                let rule = format!(
                    "clause {}: its {what} is not in the same languages as the first clause ({}): everybody reads all of it",
                    c.id,
                    list()
                );
                return Err(YamlError::new(c.at, rule));
            }
        }
    }
    if let Some(p) = prevails.filter(|p| !languages.contains(&p.value)) {
        let known: Vec<&str> = languages.iter().map(String::as_str).collect();
        return Err(YamlError::unknown(Pos::of(p), "language of the texts", &p.value, &known));
    }
    let english = languages.iter().find(|l| l.as_str() == "en");
    if let Some(chosen) = prevails.map(|p| &p.value).or(english).or(languages.first()) {
        for c in clauses {
            c.text = c.texts.get(chosen).cloned().unwrap_or_default();
            c.legal_basis = c.legal_basis.as_ref().and_then(|_| c.legal_bases.get(chosen).cloned());
        }
    }
    Ok(prevails.map(|p| p.value.clone()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::compile::compile;
    use crate::document::Agreement;
    use crate::testing::court;

    const CLAUSE: &str = "- {id: A, text: TEXT, effect: permit, assignee: {org: org:court}, actions: [query], purpose: purp:x}\n\
                          - {id: B, text: OTHER, effect: prohibit, assignee: any, actions: [query], purpose: purp:y, legal_basis: BASIS}";

    fn doc(text: &str, other: &str, basis: &str) -> String {
        court(&CLAUSE.replace("TEXT", text).replace("OTHER", other).replace("BASIS", basis))
    }

    fn several() -> String {
        doc("{en: may read, de: darf lesen}", "{de: nie, en: never}", "{en: law, de: Gesetz}")
    }

    #[test]
    fn every_language_is_part_of_what_is_approved() {
        let c = compile(&several()).unwrap();
        assert_eq!(c.document.languages(), ["de", "en"]);
        assert_eq!(
            (c.document.clauses[0].text.as_str(), c.document.clauses[1].legal_basis.as_deref()),
            ("may read", Some("law"))
        );
        for said in
            ["written in de, en. All bind alike.", "[de] darf lesen", "[en] may read", "Legal basis [de]: Gesetz"]
        {
            assert!(c.text.contains(said), "{said} in {}", c.text);
        }
        let other = compile(&several().replace("darf lesen", "darf alles lesen")).unwrap();
        assert_ne!((other.terms.text_hash, other.terms_hash()), (c.terms.text_hash, c.terms_hash()));
        let german = format!("prevails: de\n{}", several());
        let german = compile(&german).unwrap();
        assert!(
            german.text.contains("de prevails.") && german.document.clauses[0].text == "darf lesen",
            "{}",
            german.text
        );
    }

    #[test]
    fn a_language_that_is_missing_somewhere_is_refused() {
        for (yaml, says) in [
            (doc("{en: a, de: b}", "{en: a}", "{en: a, de: b}"), "clause B: its text"),
            (doc("{en: a, de: b}", "{en: a, de: b}", "law"), "clause B: its legal_basis"),
            (doc("{en: a}", "never", "{en: a}"), "same languages"),
            (doc("a", "{en: never}", "law"), "no language named"),
            (doc("{english: a}", "{english: a}", "{english: a}"), "not a language"),
            (doc("{en: a, en: b}", "{en: a}", "{en: a}"), "second time"),
            (doc("{}", "{}", "{}"), "no language"),
            (doc("{en: \"\"}", "{en: a}", "{en: a}"), "characters"),
            (format!("prevails: fr\n{}", several()), "unknown language"),
            (format!("prevails: en\n{}", doc("a", "b", "c")), "unknown language"),
        ] {
            let e = Agreement::parse(&yaml).unwrap_err().to_string();
            assert!(e.contains(says), "{says}: {e}");
        }
    }
}
