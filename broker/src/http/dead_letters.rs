//! `GET /admin/v1/dead-letters[/{adapter}[/{id}]]`: rows that adapters refused, from the files they keep in the node's
//! folder (`adapters/<adapter>.dead.jsonl`, one JSON object a line). They hold what the source held: operators only.

use super::auth::OPERATOR;
use super::body::Params;
use super::openapi::Doc;
use super::{AppState, Caller, Problem};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path as FilePath, PathBuf};
use utoipa::IntoParams;

/// Dead letters of one answer at most, and where nothing is asked for.
const LIMIT: (usize, usize) = (1_000, 100);
const SUFFIX: &str = ".dead.jsonl";

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/admin/v1/dead-letters", get(adapters))
        .route("/admin/v1/dead-letters/{adapter}", get(list))
        .route("/admin/v1/dead-letters/{adapter}/{id}", get(show))
}

pub(super) fn docs() -> Vec<Doc> {
    let path = "/admin/v1/dead-letters/{adapter}";
    vec![
        Doc::new("get", "/admin/v1/dead-letters", "Which adapters have rows that were refused.", OPERATOR).gives(
            200,
            "The adapters.",
            "adapters:[obj]",
        ),
        Doc::new("get", path, "Refused rows of an adapter, the oldest first.", OPERATOR).query::<Ask>().gives(
            200,
            "A page.",
            "dead_letters:[@DeadLetter] next_after:str?",
        ),
        Doc::new("get", "/admin/v1/dead-letters/{adapter}/{id}", "One of them with its original bytes.", OPERATOR)
            .gives(200, "The row.", "@DeadLetter"),
    ]
}

/// One line of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Letter {
    id: String,
    at: String,
    dataset: String,
    file: String,
    row: u64,
    line: u64,
    column: u64,
    field: Option<String>,
    rule: String,
    message: String,
    /// Original bytes, base64.
    #[serde(skip_serializing_if = "String::is_empty")]
    raw: String,
    truncated: bool,
}

/// Calls `each` with every letter until it answers false. A line that its adapter is still writing is not there yet.
fn scan(path: &FilePath, mut each: impl FnMut(Letter) -> bool) -> std::io::Result<u64> {
    let (mut file, mut line, mut unreadable) = (BufReader::new(File::open(path)?), Vec::new(), 0);
    loop {
        line.clear();
        file.read_until(b'\n', &mut line)?;
        if line.pop() != Some(b'\n') {
            return Ok(unreadable);
        }
        let Ok(letter) = serde_json::from_slice(&line) else {
            unreadable += 1;
            continue;
        };
        if !each(letter) {
            return Ok(unreadable);
        }
    }
}

fn summary(folder: &FilePath) -> std::io::Result<Vec<Value>> {
    let mut found = BTreeMap::new();
    let entries = match std::fs::read_dir(folder) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
        other => other?,
    };
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(SUFFIX));
        if let Some(name) = name {
            found.insert(name.to_owned(), path.clone());
        }
    }
    let one = |(name, path): (&String, &PathBuf)| {
        let (mut count, mut newest, mut rules) = (0u64, None, BTreeMap::<String, u64>::new());
        let unreadable = scan(path, |letter| {
            count += 1;
            *rules.entry(letter.rule).or_default() += 1;
            newest = Some(letter.at);
            true
        })?;
        Ok(json!({"adapter": name, "count": count, "newest_at": newest, "rules": rules, "unreadable": unreadable}))
    };
    found.iter().map(one).collect()
}

fn page(path: &FilePath, after: Option<&str>, limit: usize) -> std::io::Result<Value> {
    let (mut begun, mut rows, mut more) = (after.is_none(), Vec::new(), false);
    scan(path, |mut letter| {
        if !begun {
            begun = after == Some(letter.id.as_str());
            return true;
        }
        more = rows.len() == limit;
        letter.raw.clear();
        if !more {
            rows.push(letter);
        }
        !more
    })?;
    let next = rows.last().filter(|_| more).map(|l| l.id.clone());
    Ok(json!({"dead_letters": rows, "next_after": next}))
}

fn file_of(state: &AppState, adapter: &str) -> Result<PathBuf, Problem> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if adapter.is_empty() || adapter.len() > 64 || !adapter.chars().all(plain) {
        return Err(Problem::bad_request("adapter: 1 to 64 of a-z, 0-9 and -"));
    }
    Ok(state.cfg.path("adapters").join(format!("{adapter}{SUFFIX}")))
}

/// Reads on a blocking thread. A file that is not there means that nothing was ever refused.
async fn read<T: Send + 'static>(
    what: String,
    job: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, Problem> {
    let done = tokio::task::spawn_blocking(job).await.map_err(|e| std::io::Error::other(e.to_string()));
    done.and_then(|r| r).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => {
            Problem::not_found("no-dead-letters", format!("{what} has no dead letters at this node"))
                .next("see GET /admin/v1/dead-letters for the adapters that have some")
        }
        _ => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "dead-letters", format!("{what}: {e}"))
            .next("check the files in adapters/ of the node's folder and their rights"),
    })
}

async fn adapters(State(state): State<AppState>, caller: Caller) -> Result<Json<Value>, Problem> {
    caller.require(&[OPERATOR])?;
    let folder = state.cfg.path("adapters");
    Ok(Json(json!({"adapters": read("adapters/".into(), move || summary(&folder)).await?})))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct Ask {
    limit: Option<usize>,
    after: Option<String>,
}

async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Path(adapter): Path<String>,
    Params(ask): Params<Ask>,
) -> Result<Json<Value>, Problem> {
    caller.require(&[OPERATOR])?;
    let limit = ask.limit.unwrap_or(LIMIT.1);
    if limit == 0 || limit > LIMIT.0 {
        return Err(Problem::bad_request(format!("limit: 1 to {}", LIMIT.0)));
    }
    let file = file_of(&state, &adapter)?;
    Ok(Json(read(adapter, move || page(&file, ask.after.as_deref(), limit)).await?))
}

async fn show(
    State(state): State<AppState>,
    caller: Caller,
    Path((adapter, id)): Path<(String, String)>,
) -> Result<Json<Value>, Problem> {
    caller.require(&[OPERATOR])?;
    let (file, wanted) = (file_of(&state, &adapter)?, id.clone());
    let mut found = None;
    let job = move || {
        scan(&file, |letter| {
            found = (letter.id == wanted).then_some(letter);
            found.is_none()
        })?;
        Ok(found)
    };
    let letter = read(adapter.clone(), job).await?.ok_or_else(|| {
        let id: String = id.chars().take(64).collect();
        Problem::not_found("unknown-dead-letter", format!("{adapter} has no dead letter {id}"))
            .next(format!("see GET /admin/v1/dead-letters/{adapter}"))
    })?;
    Ok(Json(json!(letter)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn line(id: &str, rule: &str) -> String {
        json!({"id": id, "at": "2026-01-01T00:00:00Z", "dataset": "ds:a/b@1", "file": "x.csv", "row": 1, "line": 2, "column": 3,
               "field": null, "rule": rule, "message": "m", "raw": "MSz/Cg==", "truncated": false})
        .to_string()
    }

    #[test]
    fn letters_come_in_pages_without_their_bytes_and_torn_lines_are_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("i94.dead.jsonl");
        let text = [line("a", "time.nonexistent"), line("b", "csv.quote"), "no json".into(), line("c", "csv.quote")]
            .join("\n");
        std::fs::write(&path, format!("{text}\n{}", &line("d", "x")[..40])).unwrap();
        std::fs::write(dir.path().join("i94.yaml"), "adapter: i94").unwrap();
        let all = summary(dir.path()).unwrap();
        assert_eq!(all.len(), 1);
        assert_eq!((&all[0]["count"], &all[0]["unreadable"]), (&json!(3), &json!(1)));
        assert_eq!(all[0]["rules"], json!({"time.nonexistent": 1, "csv.quote": 2}));
        let ids =
            |v: &Value| v["dead_letters"].as_array().unwrap().iter().map(|l| l["id"].to_string()).collect::<String>();
        let first = page(&path, None, 2).unwrap();
        assert_eq!((ids(&first).as_str(), &first["next_after"]), ("\"a\"\"b\"", &json!("b")));
        assert!(!first.to_string().contains("MSz"), "bytes only one by one");
        let second = page(&path, Some("b"), 2).unwrap();
        assert_eq!((ids(&second).as_str(), &second["next_after"]), ("\"c\"", &Value::Null));
        assert_eq!(summary(&dir.path().join("none")).unwrap(), Vec::<Value>::new());
    }
}
