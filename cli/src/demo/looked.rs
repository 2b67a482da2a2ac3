//! Check 7: who looked at a person's records? The list is judged by the verifier alone, in a process of its own.

use super::steps::{Checked, Found, expect};
use super::tour::own_program;
use crate::commands::subject::ask;
use crate::context::Api;
use crate::failure::Exit;
use crate::layout::City;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const DATASET: &str = "ds:police/stops@1";
/// A stop that the court looks up, and nothing else in the tour does.
const LOOKED_AT: &str = "17-092011";
/// A stop that nobody asks for.
const NOBODY: &str = "17-092066";
/// A query about nobody.
const PUBLIC: &str = r#"{"dataset": "ds:transport/i94@1", "purpose": "purp:public-information", "limit": 1,
    "where": {"time": {"range": {"from": "2017-02-01T00:00:00Z", "to": "2017-02-01T06:00:00Z"}}}}"#;
/// How long a run may take to close, come into state and be cosigned: the demo's runs close every 5 s.
const WITHIN: Duration = Duration::from_secs(60);

/// Looks one stop up and asks the provider who looked.
pub async fn check(city: &City, court: &Api) -> Checked {
    let fail = |e: crate::failure::Failure| e.to_string();
    let police = Api::of(&city.root.join("police"), None, "operator").map_err(fail)?;
    let query = json!({
        "dataset": DATASET, "purpose": "purp:pending-case", "case": "26-CR-1042", "select": ["stop_id", "time"],
        "where": {"stop_id": LOOKED_AT},
    });
    let answer = court.query(&query, None).await.map_err(fail)?;
    expect(answer["count"] == 1, || format!("{} rows instead of the one stop", answer["count"]))?;
    let op = answer["operation"].as_str().unwrap_or_default().to_owned();
    let list = covered(court, &police, &op).await?;
    let last = list["accesses"].as_array().and_then(|a| a.last()).cloned().unwrap_or_default();
    expect(last["operation"] == op.as_str() && last["consumer"] == "court", || {
        format!("{op} is not on the list: {list}")
    })?;
    expect(list["complete"] == true, || format!("the list is not complete: {list}"))?;
    let looked = prove(city, &police, LOOKED_AT).await?;
    expect(looked.contains(&op), || format!("the proof shows {looked:?} without {op}"))?;
    let nobody = prove(city, &police, NOBODY).await?;
    expect(nobody.is_empty(), || format!("nobody asked for {NOBODY}, and its list shows {nobody:?}"))?;
    let n = looked.len();
    let line = format!(
        "\"who looked at {LOOKED_AT}?\" {n} access{}, {op}; \"{NOBODY}?\" nobody; both lists proven complete",
        if n == 1 { "" } else { "es" }
    );
    Ok(Found { text: line, facts: json!({"operation": op, "accesses": looked, "complete_to": list["complete_to"]}) })
}

/// The list, once it covers an operation. A run closes with a later entry, and comes into state with one after that: where
/// nothing happens, nothing changes. So the court goes on asking, for public data.
async fn covered(court: &Api, police: &Api, op: &str) -> Result<Value, String> {
    let index: u64 = op.strip_prefix("op:").and_then(|n| n.parse().ok()).ok_or("the query has no operation")?;
    let begun = Instant::now();
    loop {
        let list = ask(police, DATASET, LOOKED_AT).await;
        match list {
            Ok(list) if list["complete_to"]["log_index"].as_u64().is_some_and(|end| end > index) => return Ok(list),
            Err(e) if e.exit != Exit::Unavailable => return Err(e.to_string()),
            last if begun.elapsed() > WITHIN => {
                return Err(format!("the list does not reach {op} within {} s: {last:?}", WITHIN.as_secs()));
            }
            _ => {
                court.query(&PUBLIC.parse().unwrap_or_default(), None).await.map_err(|e| e.to_string())?;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// Gets the proof and gives it to the verifier; returns the operations that it shows.
async fn prove(city: &City, police: &Api, subject: &str) -> Result<Vec<String>, String> {
    let body = json!({"dataset": DATASET, "subject": subject});
    let bytes = police.post_for_bytes("/admin/v1/subjects/proof", &body).await.map_err(|e| e.to_string())?;
    let folder = city.root.join("verify");
    let io = |e: std::io::Error| e.to_string();
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir(&folder).map_err(io)?;
    std::fs::copy(city.root.join("trust.json"), folder.join("trust.json")).map_err(io)?;
    let found = verify_alone(&folder, &bytes)?;
    let _ = std::fs::remove_dir_all(&folder);
    let shown = found["accesses"].as_array().cloned().unwrap_or_default();
    let about = |a: &&Value| !matches!(a["state"].as_str(), Some("maybe" | "not-included"));
    Ok(shown.iter().filter(about).filter_map(|a| a["operation"].as_str().map(str::to_owned)).collect())
}

fn verify_alone(folder: &Path, list: &[u8]) -> Result<Value, String> {
    let io = |e: std::io::Error| e.to_string();
    std::fs::write(folder.join("accesses.list"), list).map_err(io)?;
    let mut command = Command::new(own_program()?);
    command
        .args(["verify", "list", "accesses.list", "--trust", "trust.json", "--output", "json"])
        .current_dir(folder)
        .env_clear();
    let out = command.output().map_err(io)?;
    let found: Value = serde_json::from_slice(&out.stdout).unwrap_or_default();
    expect(out.status.success() && found["valid"] == true, || format!("the list does not prove itself: {found}"))?;
    Ok(found)
}
