//! A folder that files are dropped into: each whole file is read once, row by row, and moved away when all of it is
//! durable.

mod document;
mod ledger;
mod source;
mod watch;

use std::path::Path;
use std::time::{Instant, SystemTime};

use crate::contract::{AdapterError, Again, Connector, Discovery, ErrorClass, Finding, Kind, Setting, Source, Spec};
use crate::discover;
use crate::document::{Common, DocumentError};
use crate::files::csv::{CsvForm, CsvReader, Head, columns_of, sample};
use crate::files::{again, unpacked};
use crate::json_sample::Sample;

use document::{Drop, DropDoc, Form, Ready};
use source::DropSource;
use watch::{Folder, Found};

/// Rows that a draft is made from.
const SAMPLE_ROWS: usize = 1_000;

/// The kind `file-drop`.
pub struct DropKind;

const SETTINGS: &[Setting] = &[
    Setting { name: "watch.path", required: true, about: "The folder, relative to the node folder." },
    Setting { name: "watch.glob", required: false, about: "Names of the files with `*` and `?`; all when left out." },
    Setting {
        name: "watch.ready",
        required: true,
        about: "When a file is whole: `{rename_from: .part}`, `{marker: .done}` or `{quiet: 30s}`.",
    },
    Setting {
        name: "format",
        required: true,
        about: "`{csv: {delimiter, encoding, decimal, nulls, columns}}` or `{json-lines: {}}`.",
    },
    Setting {
        name: "format.csv.columns",
        required: false,
        about: "The header, exactly; without it any header whose columns are all mapped or ignored.",
    },
    Setting { name: "after.move", required: false, about: "Where a file goes that was read, relative to the folder." },
    Setting {
        name: "after.failed",
        required: false,
        about: "Where a file goes that cannot be read as a whole; without it the adapter stops there.",
    },
    Setting { name: "poll.every", required: false, about: "Wait between two looks into the folder; 2s when left out." },
];

impl Kind for DropKind {
    fn spec(&self) -> Spec {
        Spec {
            kind: "file-drop",
            title: "a folder that files are dropped into: CSV or JSON lines, plain or gzip",
            settings: SETTINGS,
            example: include_str!("example.yaml"),
            readme: include_str!("README.md"),
        }
    }

    fn parse(&self, text: &str) -> Result<Box<dyn Connector>, DocumentError> {
        let doc = DropDoc::parse(text)?;
        Ok(Box::new(DropConnector { common: doc.common(), doc }))
    }
}

/// A folder as a document describes it.
struct DropConnector {
    common: Common,
    doc: DropDoc,
}

impl DropConnector {
    /// A file to look at: one that is whole if there is one.
    fn any(&self, folder: &mut Folder) -> Result<Option<Found>, AdapterError> {
        let ready = folder.ready(Instant::now())?;
        Ok(ready.into_iter().next().or(folder.all()?.into_iter().next()))
    }

    fn check_folder(&self, folder: &mut Folder) -> Finding {
        let shown = &self.doc.watch.path.value;
        let (all, ready) = match (folder.all(), folder.ready(Instant::now())) {
            (Ok(all), Ok(ready)) => (all.len(), ready.len()),
            (Err(e), _) | (_, Err(e)) => return Finding::failed("folder", &e),
        };
        if all == 0 {
            let next = format!("drop a file that fits `{}`, or correct `watch`", self.doc.watch.glob);
            return Finding::warn("folder", format!("{shown}: no file fits"), next);
        }
        let quiet = matches!(self.doc.watch.ready, Ready::Quiet(_));
        let note = if quiet { " (quiet files are whole after a while)" } else { "" };
        Finding::ok("folder", format!("{shown}: {all} files fit, {ready} are whole{note}"))
    }

    /// A file's time that lies ahead tells of clocks that differ.
    fn check_clock(found: &Found) -> Option<Finding> {
        let changed = std::fs::metadata(&found.path).and_then(|m| m.modified()).ok()?;
        let ahead = changed.duration_since(SystemTime::now()).ok().filter(|d| d.as_secs() >= 2)?;
        let sentence =
            format!("{}: was written {} s in the future by this machine's clock", found.name, ahead.as_secs());
        Some(Finding::warn("clock", sentence, "set the clocks of both machines by NTP"))
    }
}

impl Connector for DropConnector {
    fn common(&self) -> &Common {
        &self.common
    }

    fn place(&self) -> String {
        self.doc.watch.path.value.clone()
    }

    fn check(&self, base: &Path) -> Vec<Finding> {
        let mut folder = Folder::new(base, &self.doc.watch);
        let mut found = vec![self.check_folder(&mut folder)];
        let plan = match Drop::new(&self.doc) {
            Ok(plan) => plan,
            Err(e) => {
                found.push(Finding::failed("mapping", &e.into()));
                return found;
            }
        };
        for to in [&plan.after.moved, &plan.after.failed].into_iter().flatten() {
            let path = folder.path().join(to);
            if path.exists() && !path.is_dir() {
                let sentence = format!("{} is no folder", path.display());
                found.push(Finding::fail("after", sentence, "name a folder in `after`"));
            }
        }
        let Ok(Some(file)) = self.any(&mut folder) else { return found };
        found.extend(Self::check_clock(&file));
        let (name, io) =
            (folder.shown(&file.name), |source| AdapterError::Io { file: file.name.clone(), action: "open", source });
        let Form::Csv(form, head) = &plan.form else { return found };
        let input = std::fs::File::open(&file.path).and_then(unpacked).map_err(io);
        found.push(match input.and_then(|input| CsvReader::open(&name, input, form, head)) {
            Ok(rows) => Finding::ok("file", format!("{name} has the {} expected columns", rows.columns().len())),
            Err(e) => Finding::failed("file", &e),
        });
        found
    }

    fn discover(&self, base: &Path) -> Result<Discovery, AdapterError> {
        let mut folder = Folder::new(base, &self.doc.watch);
        let Some(file) = self.any(&mut folder)? else {
            let message =
                format!("{}: no file fits `{}`: drop one to look at", self.doc.watch.path.value, self.doc.watch.glob);
            return Err(AdapterError::source_failed(ErrorClass::Permanent, "source.missing", message));
        };
        let name = folder.shown(&file.name);
        let io = |action| {
            let file = name.clone();
            move |source| AdapterError::Io { file, action, source }
        };
        let input = std::fs::File::open(&file.path).and_then(unpacked).map_err(io("open"))?;
        match &self.doc.format.value.csv {
            Some(csv) => {
                let form = CsvForm::new(csv)?;
                let found = sample(&name, input, &form, SAMPLE_ROWS)?;
                let columns = discover::guess(&found.columns, form.point, &found.rows);
                Ok(discover::draft(&self.common, columns, found.rows.len() as u64))
            }
            None => {
                let mut sample = Sample::default();
                for line in std::io::BufRead::split(input, b'\n').take(SAMPLE_ROWS) {
                    sample.see(&line.map_err(io("read"))?, &[]);
                }
                Ok(sample.draft(&self.common))
            }
        }
    }

    fn open(&self, base: &Path) -> Result<Box<dyn Source>, AdapterError> {
        Ok(Box::new(DropSource::new(base, Drop::new(&self.doc)?)?))
    }

    fn again(&self) -> Result<Again, AdapterError> {
        Ok(match Drop::new(&self.doc)?.form {
            Form::Json(rows) => again::json(rows),
            Form::Csv(form, head) => {
                let columns = if let Head::Exactly(columns, _) = head { columns } else { vec![] };
                let map = columns_of(&self.common, &form, "the columns of its file");
                again::csv(form, columns, map)
            }
        })
    }
}
