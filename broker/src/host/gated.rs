//! The last look at what a hosted provider is about to release.

use super::Loop;
use crate::host::HostError;
use crate::host::hosted::Said;
use concordat_executor::step::Input;
use concordat_protocol::codes::Verdict;
use concordat_protocol::hash::Hash;
use concordat_protocol::ops::LogEntry;
use std::collections::BTreeMap;

impl Loop {
    /// What the step is told before a frame: which of its accepted responses may not leave. Nothing where the agency has a
    /// node of its own.
    pub(super) async fn gated(&mut self, entries: &[(u64, LogEntry)]) -> Result<Vec<Input>, HostError> {
        let Some(gate) = self.host.gate.as_mut() else { return Ok(vec![]) };
        let waiting = self.live.values().filter_map(|l| l.done.as_ref()).filter(|d| d.prepared.denied.is_none());
        let agreed: BTreeMap<Hash, _> = waiting.map(|d| (d.prepared.op_hash, d.agreed.as_ref())).collect();
        let mut inputs = Vec::new();
        for (index, entry) in entries.iter().filter(|(_, e)| e.verdict == Verdict::Accepted) {
            let Some(agreed) = agreed.get(&entry.op_hash) else { continue };
            if let Said::Withhold(code) = gate.may(*agreed, (*index, entry)).await? {
                inputs.push(Input::Forbidden { op_hash: entry.op_hash, code });
            }
        }
        Ok(inputs)
    }
}
