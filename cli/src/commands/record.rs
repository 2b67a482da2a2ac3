//! `record`: writes to records that another agency holds

use super::Ctx;
use crate::args::{Record, Under};
use crate::failure::{Exit, Failure};
use serde_json::Value;
use std::io::Read;

/// A part of a path, whatever it holds.
fn part(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// The JSON object of a file or of standard input.
fn data(file: &str) -> Result<Value, Failure> {
    let text = if file == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(|e| Failure::usage(format!("--data -: {e}")))?;
        text
    } else {
        std::fs::read_to_string(file).map_err(|e| Failure::new(Exit::NotFound, "file", format!("{file}: {e}")))?
    };
    let value: Value = serde_json::from_str(&text).map_err(|e| Failure::usage(format!("--data: {e}")))?;
    if value.is_object() { Ok(value) } else { Err(Failure::usage("--data: must be a JSON object")) }
}

fn matching(version: &str) -> String {
    if version == "*" { version.to_owned() } else { format!("\"{version}\"") }
}

/// Runs a write; what was done on stdout, where it is recorded on stderr.
pub async fn run(ctx: &Ctx, command: &Record) -> Result<(), Failure> {
    let (under, method, key, body, version) = match command {
        Record::Insert(r) => (&r.under, "POST", None, Some(data(&r.data)?), None),
        Record::Modify(r) => (&r.under, "PATCH", Some(&r.key), Some(data(&r.data)?), Some(&r.if_match)),
        Record::Delete(r) => (&r.under, "DELETE", Some(&r.key), None, Some(&r.if_match)),
    };
    let mut path = format!("/v1/datasets/{}/records", part(&under.dataset));
    if let Some(key) = key {
        path = format!("{path}/{}", part(key));
    }
    let headers = headers(under, version.map(String::as_str));
    let answer = ctx.api("clerk")?.write(method, &path, &headers, body.as_ref()).await?;
    ctx.out.result(&answer, || super::op::lines(&answer));
    let word = |k: &str| answer[k].as_str().unwrap_or_default().to_owned();
    ctx.out.say(format!("clause {}, intent {}, outcome {}", word("clause"), word("operation"), word("outcome")));
    Ok(())
}

fn headers(under: &Under, version: Option<&str>) -> Vec<(&'static str, String)> {
    let optional = [
        ("concordat-case", under.case.clone()),
        ("concordat-clause", under.clause.clone()),
        ("idempotency-key", under.idempotency_key.clone()),
        ("if-match", version.map(matching)),
    ];
    let given = optional.into_iter().filter_map(|(name, value)| Some((name, value?)));
    [("concordat-purpose", under.purpose.clone())].into_iter().chain(given).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_any_kind_are_one_part_of_the_path() {
        assert_eq!(part("a|b/1 é\\"), "a%7Cb%2F1%20%C3%A9%5C");
        assert_eq!((matching("*"), matching("0a")), ("*".to_owned(), "\"0a\"".to_owned()));
    }
}
