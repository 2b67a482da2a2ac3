//! Engines that are ready: one costs some 18 KB and is built in a few dozen microseconds, so that those of agreements that
//! nobody uses are let go and built again from their rows when somebody does.

use crate::compile::Compiled;
use crate::gate::{Gate, GateError};
use concordat_protocol::hash::Hash;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Most engines of one generation; two generations are kept.
const GENERATION_MAX: usize = 1_024;

/// Engines by the hash of their rows: those used lately, and those used before them.
#[derive(Default)]
struct Ready {
    newer: BTreeMap<Hash, Arc<Gate>>,
    older: BTreeMap<Hash, Arc<Gate>>,
}

/// An engine depends on its rows alone and never changes, so that one set serves the whole process.
static READY: Mutex<Ready> = Mutex::new(Ready { newer: BTreeMap::new(), older: BTreeMap::new() });

impl Ready {
    fn find(&mut self, rows: &Hash) -> Option<Arc<Gate>> {
        if let Some(gate) = self.newer.get(rows) {
            return Some(gate.clone());
        }
        let gate = self.older.remove(rows)?;
        self.keep(*rows, gate.clone());
        Some(gate)
    }

    fn keep(&mut self, rows: Hash, gate: Arc<Gate>) {
        if self.newer.len() >= GENERATION_MAX {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(rows, gate);
    }
}

/// The engine of an agreement's rows.
pub(crate) fn of(compiled: &Compiled) -> Result<Arc<Gate>, GateError> {
    let rows = compiled.terms.rows_hash;
    if let Some(gate) = READY.lock().unwrap_or_else(PoisonError::into_inner).find(&rows) {
        return Ok(gate);
    }
    let gate = Arc::new(Gate::new(&compiled.rows)?);
    READY.lock().unwrap_or_else(PoisonError::into_inner).keep(rows, gate.clone());
    Ok(gate)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::compile::compile;
    use crate::testing::demo;

    #[test]
    fn engines_that_nobody_uses_are_let_go() {
        let compiled = compile(&demo("AGR-2026-0142")).unwrap();
        let gate = of(&compiled).unwrap();
        let mut ready = Ready::default();
        let key = |n: usize| {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&n.to_be_bytes());
            key
        };
        ready.keep(compiled.terms.rows_hash, gate.clone());
        (0..2 * GENERATION_MAX).for_each(|n| ready.keep(key(n), gate.clone()));
        assert!(ready.find(&compiled.terms.rows_hash).is_none());
        assert!(ready.find(&key(2 * GENERATION_MAX - 1)).is_some());
        assert!(ready.newer.len() + ready.older.len() <= 2 * GENERATION_MAX);
    }

    #[test]
    fn rows_that_are_not_the_compilers_are_no_engine() {
        let mut compiled = compile(&demo("AGR-2026-0142")).unwrap();
        compiled.rows.rows.remove(0);
        compiled.terms.rows_hash = compiled.rows.hash();
        assert!(matches!(of(&compiled), Err(GateError::Rows(_))));
    }
}
