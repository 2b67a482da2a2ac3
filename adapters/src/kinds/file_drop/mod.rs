//! A folder that files are dropped into: each whole file is read once, row by row, and moved away when all of it is
//! durable.

mod document;
mod ledger;
mod place;
#[cfg(feature = "sftp")]
mod sftp;
mod source;
mod watch;

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::contract::{
    AdapterError, Again, Connector, Discovery, ErrorClass, Finding, Kind, Level, Setting, Source, Spec,
};
use crate::document::{Common, DocumentError};
use crate::files::content::Content;
use crate::files::draft::{self, SAMPLE_ROWS};
use crate::files::unpacked;
use crate::json_sample::Sample;

use document::{Drop, DropDoc, Ready};
use place::{Local, Place};
use source::DropSource;
use watch::{Folder, Found};

/// The kind `file-drop`.
pub struct DropKind;

const SETTINGS: &[Setting] = &[
    Setting {
        name: "watch.path",
        required: false,
        about: "The folder, relative to the node folder; one of `path` and `sftp` must be there.",
    },
    Setting {
        name: "watch.sftp.url",
        required: false,
        about: "A folder on an SFTP server: `sftp://USER@HOST:PORT/FOLDER`, or `/~/FOLDER` below the account's home.",
    },
    Setting {
        name: "watch.sftp.host_key",
        required: false,
        about: "Fingerprint of the server's key, `SHA256:…`; mandatory with `sftp`, and no other key is taken.",
    },
    Setting {
        name: "watch.sftp.key",
        required: false,
        about: "The account's Ed25519 or ECDSA key by reference, and `passphrase` where it is encrypted.",
    },
    Setting { name: "watch.sftp.password", required: false, about: "The account's password by reference." },
    Setting {
        name: "watch.sftp.timeout",
        required: false,
        about: "Longest wait for a connection with its login, and for any answer; 20s when left out.",
    },
    Setting {
        name: "watch.sftp.bytes_max",
        required: false,
        about: "Most bytes of a file, each is copied to this machine while it is read; 4 GiB when left out.",
    },
    Setting { name: "watch.glob", required: false, about: "Names of the files with `*` and `?`; all when left out." },
    Setting {
        name: "watch.ready",
        required: true,
        about: "When a file is whole: `{rename_from: .part}`, `{marker: .done}` or `{quiet: 30s}`.",
    },
    Setting {
        name: "format",
        required: true,
        about: "`{csv: {delimiter, encoding, decimal, nulls, columns}}`, `{json-lines: {}}` or `{parquet: {}}`.",
    },
    Setting {
        name: "format.csv.columns",
        required: false,
        about: "The header, exactly; without it any header whose columns are all mapped or ignored.",
    },
    Setting { name: "after.move", required: false, about: "Where a file goes that was read, relative to the folder." },
    Setting { name: "after.delete", required: false, about: "True removes a file that was read." },
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
            title: "a folder that files are dropped into, here or on an SFTP server: CSV, JSON lines, Parquet",
            settings: SETTINGS,
            example: include_str!("example.yaml"),
            readme: include_str!("README.md"),
        }
    }

    fn parse(&self, text: &str) -> Result<Box<dyn Connector>, DocumentError> {
        let doc = DropDoc::parse(text)?;
        #[cfg(feature = "sftp")]
        doc.watch.sftp.as_ref().map_or(Ok(()), sftp::checked)?;
        Ok(Box::new(DropConnector { common: doc.common(), doc }))
    }
}

/// A folder as a document describes it.
struct DropConnector {
    common: Common,
    doc: DropDoc,
}

impl DropConnector {
    fn folder(&self, base: &Path) -> Result<Folder, AdapterError> {
        let watch = &self.doc.watch;
        let place: Box<dyn Place> = match (&watch.path, &watch.sftp) {
            (Some(path), None) => Box::new(Local::new(base, &path.value)),
            #[cfg(feature = "sftp")]
            (None, Some(doc)) => Box::new(sftp::Remote::new(base, doc)?),
            #[cfg(not(feature = "sftp"))]
            (None, Some(_)) => {
                let detail = "this program was built without the feature `sftp`";
                return Err(DocumentError::rule("watch.sftp", detail).into());
            }
            _ => return Err(DocumentError::rule("watch", "name one of `path` and `sftp`").into()),
        };
        Ok(Folder::new(place, watch))
    }

    /// A file to look at: one that is whole if there is one.
    fn any(folder: &mut Folder) -> Result<Option<Found>, AdapterError> {
        let ready = folder.ready(Instant::now())?;
        match ready.into_iter().next() {
            Some(found) => Ok(Some(found)),
            None => Ok(folder.all()?.into_iter().next()),
        }
    }

    /// The bytes of a file, waited for.
    fn content(folder: &mut Folder, found: &Found) -> Result<Content, AdapterError> {
        loop {
            if let Some(content) = folder.open(found)? {
                return Ok(content);
            }
        }
    }

    fn check_folder(&self, folder: &mut Folder) -> Finding {
        let shown = self.place();
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
        let changed = UNIX_EPOCH + Duration::from_secs(found.stamp.changed.0.try_into().ok()?);
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
        let watch = &self.doc.watch;
        let url = watch.sftp.as_ref().map(|sftp| &sftp.url);
        watch.path.as_ref().or(url).map(|place| place.value.clone()).unwrap_or_default()
    }

    fn check(&self, base: &Path) -> Vec<Finding> {
        let mut folder = match self.folder(base) {
            Ok(folder) => folder,
            Err(e) => return vec![Finding::failed("folder", &e)],
        };
        let mut found = folder.check(&self.doc.after);
        if found.iter().any(|f| f.level == Level::Fail) {
            return found;
        }
        found.push(self.check_folder(&mut folder));
        let plan = match Drop::new(&self.doc) {
            Ok(plan) => plan,
            Err(e) => {
                found.push(Finding::failed("mapping", &e.into()));
                return found;
            }
        };
        let Ok(Some(file)) = Self::any(&mut folder) else { return found };
        found.extend(Self::check_clock(&file));
        let name = folder.shown(&file.name);
        let content = Self::content(&mut folder, &file);
        found.push(match content.and_then(|content| plan.form.open(&name, &content)) {
            Ok(rows) if rows.columns().is_empty() => return found,
            Ok(rows) => Finding::ok("file", format!("{name} has the {} expected columns", rows.columns().len())),
            Err(e) => Finding::failed("file", &e),
        });
        found
    }

    fn discover(&self, base: &Path) -> Result<Discovery, AdapterError> {
        let mut folder = self.folder(base)?;
        let Some(file) = Self::any(&mut folder)? else {
            let message = format!("{}: no file fits `{}`: drop one to look at", self.place(), self.doc.watch.glob);
            return Err(AdapterError::source_failed(ErrorClass::Permanent, "source.missing", message));
        };
        let name = folder.shown(&file.name);
        let io = |action| {
            let file = name.clone();
            move |source| AdapterError::Io { file, action, source }
        };
        let content = Self::content(&mut folder, &file)?;
        match (&self.doc.format.value.csv, &self.doc.format.value.parquet) {
            (None, Some(_)) => draft::parquet(&self.common, &name, &content),
            (Some(csv), _) => draft::csv(&self.common, csv, &name, &content),
            (None, None) => {
                let input = unpacked(content).map_err(io("open"))?;
                let mut sample = Sample::default();
                for line in std::io::BufRead::split(input, b'\n').take(SAMPLE_ROWS) {
                    sample.see(&line.map_err(io("read"))?, &[]);
                }
                Ok(sample.draft(&self.common))
            }
        }
    }

    fn open(&self, base: &Path) -> Result<Box<dyn Source>, AdapterError> {
        Ok(Box::new(DropSource::new(base, Drop::new(&self.doc)?, self.folder(base)?)?))
    }

    fn again(&self) -> Result<Again, AdapterError> {
        Ok(Drop::new(&self.doc)?.form.again(&self.common))
    }
}
