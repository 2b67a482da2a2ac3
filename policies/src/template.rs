//! Placeholders in documents: `{{from}}` is replaced before the text is parsed, so that what is signed is plain YAML.

use crate::yaml::{Pos, YamlError};

/// Fills in every `{{name}}` of a text outside comments. An unknown or unclosed placeholder is refused with its place;
/// a value may hold no line break and none of `{}#:` followed by a space, so that it cannot add keys.
pub fn fill(text: &str, values: &[(&str, &str)]) -> Result<String, YamlError> {
    let names: Vec<&str> = values.iter().map(|(n, _)| *n).collect();
    if let Some((n, _)) =
        values.iter().find(|(_, v)| v.contains(['\n', '\r', '{', '}', '#', '"', '\'', ',']) || v.contains(": "))
    {
        return Err(YamlError::new(
            Pos::default(),
            format!("the value for {{{{{n}}}}} holds characters that could change the document"),
        ));
    }
    let mut out = String::with_capacity(text.len());
    for (number, line) in (1u64..).zip(text.split_inclusive('\n')) {
        let mut rest = line;
        while let Some(start) = rest.find("{{").filter(|_| !line.trim_start().starts_with('#')) {
            let at = Pos { line: number, column: (line.len() - rest.len() + start + 1) as u64 };
            let Some(end) = rest[start..].find("}}") else {
                return Err(YamlError::new(at, "the placeholder is not closed with }}"));
            };
            let name = rest[start + 2..start + end].trim();
            let value = values.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
            let value = value.ok_or_else(|| YamlError::unknown(at, "placeholder", name, &names))?;
            out.push_str(&rest[..start]);
            out.push_str(value);
            rest = &rest[start + end + 2..];
        }
        out.push_str(rest);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn placeholders_are_filled_or_refused() {
        let values = [("from", "2026-01-01T00:00:00Z"), ("until", "x")];
        assert_eq!(
            fill("# {{note}}\nv: {from: {{from}}, until: {{ until }}}\n", &values).unwrap(),
            "# {{note}}\nv: {from: 2026-01-01T00:00:00Z, until: x}\n"
        );
        let e = fill("a: 1\nb: {{form}}", &values).unwrap_err();
        assert_eq!((e.at.line, e.at.column, e.nearest.as_deref()), (2, 4, Some("from")));
        assert!(fill("b: {{from", &values).is_err());
        assert!(fill("b: {{from}}", &[("from", "x\nversion: 2")]).is_err());
        assert!(fill("b: {{from}}", &[("from", "x, until: y")]).is_err());
    }
}
