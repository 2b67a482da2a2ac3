//! The closed run that enters state next, sorted beside the blocks and written a little with each: what a run of a million
//! entries takes would else stop one block for a second. When it enters, nobody can tell whether this was done.

use std::ops::Range;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use redb::TableHandle;

use super::*;
use crate::sorted::ENTRY_BYTES;

/// Rows written with a block: a run of the largest size is there after 32 blocks, half of the delay at genesis.
const ROWS_A_BLOCK: usize = 128;

/// A run that is not in state yet.
#[derive(Debug)]
enum Work {
    Sorting(JoinHandle<Result<SortedRun, StoreError>>),
    Sorted(Arc<SortedRun>),
}

/// The run that enters next, as far as it is prepared.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    run: Option<(u64, Work)>,
    /// Its rows that are stored.
    written: usize,
}

impl Ahead {
    /// The run, if it is the one prepared; waits for the thread that sorts it.
    fn take(&mut self, number: u64) -> Option<Result<Arc<SortedRun>, StoreError>> {
        let (_, work) = self.run.take_if(|(prepared, _)| *prepared == number)?;
        let sorted = match work {
            Work::Sorted(sorted) => sorted,
            // A thread that panicked is as good as none.
            Work::Sorting(thread) => match thread.join().ok()? {
                Ok(sorted) => Arc::new(sorted),
                Err(e) => return Some(Err(e)),
            },
        };
        self.run = Some((number, Work::Sorted(Arc::clone(&sorted))));
        Some(Ok(sorted))
    }

    /// The rows to write with the next block, if the run is sorted by now.
    fn due(&mut self) -> Option<(u64, Arc<SortedRun>, Range<usize>)> {
        let number = match &self.run {
            Some((number, Work::Sorted(_))) => *number,
            Some((number, Work::Sorting(thread))) if thread.is_finished() => *number,
            _ => return None,
        };
        let sorted = self.take(number)?.ok()?;
        let end = sorted.rows().min(self.written + ROWS_A_BLOCK);
        Some((number, sorted, self.written..end))
    }
}

/// The entries of a closed run in order.
pub(super) fn closed_run(read: &ReadTransaction, number: u64, path: &Path) -> Result<SortedRun, StoreError> {
    let table = read.open_table(RUN_ENTRIES).map_err(|e| database(path, e))?;
    let mut out: Vec<Entry> = Vec::new();
    for row in table.range((number, 0)..=(number, u64::MAX)).map_err(|e| database(path, e))? {
        let (_, value) = row.map_err(|e| database(path, e))?;
        let (entries, rest) = value.value().as_chunks::<ENTRY_BYTES>();
        if !rest.is_empty() {
            let what = format!("an entry of {} is cut off", RUN_ENTRIES.name());
            return Err(StoreError::Damaged { path: path.to_path_buf(), what });
        }
        out.extend(entries);
    }
    Ok(SortedRun::of(out))
}

impl Store {
    fn ahead(&self) -> MutexGuard<'_, Ahead> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A closed run in order: as it was prepared, or sorted now.
    pub(super) fn sorted(&self, number: u64, read: &ReadTransaction) -> Result<Arc<SortedRun>, StoreError> {
        match self.ahead().take(number) {
            Some(prepared) => prepared,
            None => closed_run(read, number, &self.path).map(Arc::new),
        }
    }

    /// Rows of a run that are stored already.
    pub(super) fn written(&self, number: u64) -> usize {
        let ahead = self.ahead();
        ahead.run.as_ref().filter(|(prepared, _)| *prepared == number).map_or(0, |_| ahead.written)
    }

    /// Writes some rows of the run that enters next; returns how many there are then.
    pub(super) fn write_ahead(&self, write: &WriteTransaction) -> Result<Option<usize>, redb::Error> {
        let Some((number, sorted, rows)) = self.ahead().due() else { return Ok(None) };
        write_rows(write, number, &sorted, rows.clone())?;
        Ok(Some(rows.end))
    }

    /// After a block is stored: notes what was written ahead, and begins with the run that enters next.
    pub(super) fn look_ahead(&self, head: &Head, written: Option<usize>) {
        let mut ahead = self.ahead();
        if let Some(written) = written {
            ahead.written = written;
        }
        let next = head.runs.size;
        if head.runs.closed.is_empty() || ahead.run.as_ref().is_some_and(|(number, _)| *number == next) {
            return;
        }
        let Ok(read) = self.db.begin_read() else { return };
        let path = self.path.clone();
        let sort = move || closed_run(&read, next, &path);
        // Without a thread the run is sorted when it enters.
        let thread = std::thread::Builder::new().name("runs".into()).spawn(sort).ok();
        *ahead = Ahead { run: thread.map(|t| (next, Work::Sorting(t))), written: 0 };
    }
}
