//! `apply -f DIR`: a folder of documents, one file a thing, into a node: datasets with their schemas, adapters.
//!
//! Everything is read and checked before anything is changed. Agreements are not applied: they are proposed, and both sides
//! approve them.

use super::Ctx;
use super::agreement::Side;
use super::dataset::{self, Checked};
use crate::failure::{Exit, Failure, read_text};
use concordat_policies::dataset::DatasetFile;
use concordat_protocol::ids::DatasetId;
use serde_json::{Value, json};
use similar::TextDiff;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// How a document stands to what the node has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    /// The node has none of this name.
    New,
    /// The node has another text.
    Changed,
    /// The node has this text.
    Same,
}

impl Change {
    fn word(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Changed => "changed",
            Self::Same => "same",
        }
    }
}

/// An adapter's document that parses.
struct Adapter {
    name: String,
    text: String,
    into: DatasetId,
}

/// What a folder holds.
struct Folder {
    datasets: Vec<Checked>,
    adapters: Vec<Adapter>,
}

/// The YAML files of a folder, by name; none where there is no such folder.
fn documents(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Failure::usage(format!("{}: {e}", folder.display()))),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "yaml" || e == "yml") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

impl Folder {
    /// Reads and checks everything in it.
    fn read(folder: &Path, node: &Path) -> Result<Self, Failure> {
        let files = documents(&folder.join("datasets"))?;
        let datasets = files.iter().map(|f| dataset::check(f, node)).collect::<Result<Vec<_>, _>>()?;
        let adapters =
            documents(&folder.join("adapters"))?.iter().map(|f| adapter(f)).collect::<Result<Vec<_>, _>>()?;
        if datasets.is_empty() && adapters.is_empty() {
            let text = format!(
                "{0} has nothing to apply: put documents into {0}/datasets, {0}/schemas and {0}/adapters",
                folder.display()
            );
            return Err(Failure::new(Exit::NotFound, "nothing-to-apply", text));
        }
        let mut known: BTreeSet<DatasetId> = datasets.iter().map(|c| c.doc.id.clone()).collect();
        for file in documents(&node.join("datasets"))? {
            known.extend(DatasetFile::parse(&read_text(&file)?).ok().map(|d| d.dataset));
        }
        if let Some(a) = adapters.iter().find(|a| !known.contains(&a.into)) {
            let text = format!(
                "adapter {}: `into: {}` is a dataset that neither this folder nor the node describes: add datasets/{}.yaml \
                 (`concordat adapter discover {}` drafts one)",
                a.name,
                a.into,
                a.into.name(),
                a.name
            );
            return Err(Failure::usage(text));
        }
        Ok(Self { datasets, adapters })
    }
}

fn adapter(file: &Path) -> Result<Adapter, Failure> {
    let text = read_text(file)?;
    let found = concordat_adapters::parse(&text).map_err(|e| Failure::usage(format!("{}: {e}", file.display())))?;
    let common = found.common();
    Ok(Adapter { name: common.adapter.value.clone(), into: common.into.clone(), text })
}

/// A document beside what lies at `path`: how it stands, and the difference by lines.
fn compare(path: &Path, text: &str) -> Result<(Change, String), Failure> {
    let there = match std::fs::read_to_string(path) {
        Ok(there) => Some(there),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        Err(e) => return Err(Failure::usage(format!("{}: {e}", path.display()))),
    };
    let change = match &there {
        None => Change::New,
        Some(there) if there == text => Change::Same,
        Some(_) => Change::Changed,
    };
    let (old, name) = (there.unwrap_or_default(), path.display().to_string());
    let before = if change == Change::New { "/dev/null" } else { &name };
    let diff = TextDiff::from_lines(&old, text).unified_diff().context_radius(2).header(before, &name).to_string();
    Ok((change, diff))
}

/// One document, where it goes, and how it stands.
struct Step {
    kind: &'static str,
    name: String,
    path: PathBuf,
    change: Change,
    diff: String,
}

impl Step {
    fn of(kind: &'static str, name: String, path: PathBuf, text: &str) -> Result<Self, Failure> {
        let (change, diff) = compare(&path, text)?;
        Ok(Self { kind, name, path, change, diff })
    }

    fn to_json(&self) -> Value {
        json!({"kind": self.kind, "name": self.name, "change": self.change.word(), "file": self.path, "diff": self.diff})
    }
}

fn steps(folder: &Folder, node: &Path) -> Result<Vec<Step>, Failure> {
    let mut all = Vec::new();
    for c in &folder.datasets {
        let name = c.doc.id.to_string();
        let path = dataset::installed(node, c).unwrap_or_else(|| dataset::target(node, c));
        all.push(Step::of("dataset", name.clone(), path, &c.yaml)?);
        all.push(Step::of("schema", name, node.join(&c.schema_path), &c.schema)?);
    }
    for a in &folder.adapters {
        let path = node.join("adapters").join(format!("{}.yaml", a.name));
        all.push(Step::of("adapter", a.name.clone(), path, &a.text)?);
    }
    Ok(all)
}

/// A dataset that others may have read under its schema is not exchanged silently.
fn refuse_other_datasets(steps: &[Step]) -> Result<(), Failure> {
    let Some(step) = steps.iter().find(|s| s.kind != "adapter" && s.change == Change::Changed) else { return Ok(()) };
    let text = format!(
        "{}: the node has another {} at {}: a dataset that is in use is not exchanged; make a new version of it, or remove the \
         file, restart the node and apply again (`--diff` shows what differs)",
        step.name,
        step.kind,
        step.path.display()
    );
    Err(Failure::new(Exit::Conflict, "dataset-differs", text))
}

/// `apply`
pub async fn apply(ctx: &Ctx, folder: &Path, diff: bool) -> Result<(), Failure> {
    let node = ctx.dir()?;
    let read = Folder::read(folder, &node)?;
    let steps = steps(&read, &node)?;
    if diff {
        return show(ctx, &steps);
    }
    refuse_other_datasets(&steps)?;
    let side = Side::open(&node)?;
    read.datasets.iter().try_for_each(|c| dataset::owned(&side, c))?;
    let mut operations = Vec::new();
    for c in &read.datasets {
        let put = dataset::put(&node, &side, c, true).await?;
        if dataset::installed(&node, c).is_none() {
            dataset::install_file(&dataset::target(&node, c), &c.yaml)?;
        }
        if put.fresh {
            operations.push(put.operation);
        }
    }
    for (a, step) in read.adapters.iter().zip(steps.iter().filter(|s| s.kind == "adapter")) {
        if step.change != Change::Same {
            crate::layout::private_dir(&node.join("adapters"))?;
            crate::layout::private_file(&step.path, a.text.as_bytes())?;
        }
    }
    let changed = |s: &&Step| s.change != Change::Same;
    if steps.iter().filter(changed).any(|s| s.kind == "dataset") {
        ctx.out.say("new datasets are served after the node's next start");
    }
    let value = json!({"applied": steps.iter().map(Step::to_json).collect::<Vec<_>>(), "operations": operations});
    ctx.out.result(&value, || {
        let line = |s: &Step| format!("{:<8} {:<32} {}", s.kind, s.name, s.change.word());
        steps.iter().map(line).collect::<Vec<_>>().join("\n")
    });
    Ok(())
}

fn show(ctx: &Ctx, steps: &[Step]) -> Result<(), Failure> {
    let value = json!({"changes": steps.iter().map(Step::to_json).collect::<Vec<_>>()});
    ctx.out.result(&value, || {
        let one = |s: &Step| match s.change {
            Change::Same => format!("{} {}: same", s.kind, s.name),
            _ => format!("{} {}: {}\n{}", s.kind, s.name, s.change.word(), s.diff.trim_end()),
        };
        steps.iter().map(one).collect::<Vec<_>>().join("\n")
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const EXAMPLE: &str = include_str!("../../../adapters/src/kinds/file_drop/example.yaml");

    #[test]
    fn a_folder_is_refused_whole_where_one_document_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let (node, folder) = (dir.path().join("node"), dir.path().join("new"));
        assert_eq!(Folder::read(&folder, &node).err().unwrap().code, "nothing-to-apply");
        std::fs::create_dir_all(folder.join("adapters")).unwrap();
        std::fs::write(folder.join("adapters/a.yaml"), EXAMPLE).unwrap();
        let refused = Folder::read(&folder, &node).err().unwrap().message;
        assert!(refused.contains("`into: ds:grid/feeder@1`") && refused.contains("discover"), "{refused}");
        std::fs::write(folder.join("adapters/a.yaml"), EXAMPLE.replace("delimiter", "delimeter")).unwrap();
        let refused = Folder::read(&folder, &node).err().unwrap().message;
        assert!(refused.contains("a.yaml") && refused.contains("delimiter"), "names file and nearest key: {refused}");
    }

    #[test]
    fn a_difference_is_shown_by_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.yaml");
        let (change, diff) = compare(&path, "a: 1\n").unwrap();
        assert!(change == Change::New && diff.contains("+a: 1"), "{diff}");
        std::fs::write(&path, "a: 1\nb: 2\n").unwrap();
        let (change, diff) = compare(&path, "a: 1\nb: 3\n").unwrap();
        assert!(change == Change::Changed && diff.contains("-b: 2\n+b: 3"), "{diff}");
        assert_eq!(compare(&path, "a: 1\nb: 2\n").unwrap(), (Change::Same, String::new()));
    }
}
