//! Preparing a write: decide, look at the record, plan, commit to it, seal the answer; and carrying it out.

use super::{Done, Fetcher, Job, detail};
use crate::host::HostError;
use crate::host::refusals::{busy, explain_inactive, store_failed};
use crate::host::releases::NewRelease;
use crate::host::releases::writes::{NewWrite, Todo};
use concordat_executor::answer::{AnswerError, Facts};
use concordat_executor::decide::{QueryDocument, denied};
use concordat_executor::holding::{DatasetSpec, Fate, HoldingError, Once, Plan, Rows, Version, digest};
use concordat_executor::policies::dataset::DatasetDoc;
use concordat_executor::replay::Record;
use concordat_executor::subjects::SubjectField;
use concordat_executor::writing::{Tagger, WriteAsk, decide_write, intend, plan, said};
use concordat_protocol::cbor;
use concordat_protocol::codes;
use concordat_protocol::hash::hmac_sha256;
use concordat_protocol::ids::{AgencyId, DatasetId};
use concordat_protocol::session::Denied;
use concordat_protocol::terms::Action;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use tracing::{error, warn};

/// The member of a row that tells its version; no field has such a name.
pub(super) const VERSION: &str = "@version";

/// Datasets that other agencies may write, with the schema that every record of theirs keeps.
#[derive(Default)]
pub struct Writable(BTreeMap<DatasetId, jsonschema::Validator>);

impl Writable {
    /// Those whose document says so.
    pub fn new(docs: &[DatasetDoc]) -> Result<Self, HostError> {
        let build = |doc: &DatasetDoc| {
            let schema = jsonschema::options().should_validate_formats(true).build(&doc.schema);
            let bad = |rule: String| HostError::Dataset { path: doc.id.as_str().into(), rule };
            schema.map(|s| (doc.id.clone(), s)).map_err(|e| bad(e.to_string()))
        };
        docs.iter().filter(|d| d.writable && d.is_held()).map(build).collect::<Result<_, _>>().map(Self)
    }
}

impl Fetcher {
    /// The same fetcher, for which these datasets may be written.
    #[must_use]
    pub fn with_writable(mut self, writable: Writable) -> Self {
        self.writable = writable;
        self
    }

    /// Shows the version of a record to a consumer: a keyed hash, so that it tells when the record changed and nothing of
    /// what it holds, and no two consumers can compare theirs.
    pub(super) fn tag(&self, consumer: &AgencyId, dataset: &DatasetId, key: &str, version: &Version) -> String {
        let secret = self.people.pseudonym_key();
        let mut named = Vec::new();
        for part in ["concordat/record-version", consumer.as_str(), dataset.as_str(), key, version.as_str()] {
            named.extend((part.len() as u64).to_be_bytes());
            named.extend(part.as_bytes());
        }
        hex::encode(&hmac_sha256(&secret, &[&named])[..16])
    }

    /// Does the work of a call that asks for a write; blocks.
    pub(super) fn prepare_write(
        &self,
        job: &Job,
        facts: &Facts<'_>,
        document: &QueryDocument,
        spec: &DatasetSpec,
    ) -> Result<Done, Denied> {
        let request = facts.request;
        let ask = WriteAsk::read(&document.query, spec)?;
        let policies = self.policies();
        let set = policies.set(&request.dataset, &job.consumer);
        let record = Record::of(&job.asked(), &set);
        let permitted = match decide_write(request, &job.consumer, document, &ask, &set, spec, job.tick_ms) {
            Ok(permitted) => permitted,
            Err(denied) if denied.code == codes::BAD_VALUE => return Err(denied),
            Err(denied) => {
                let record = record.denied(&denied);
                let denied = explain_inactive(denied, &policies, request, &job.consumer);
                let (record, whose) = (record.told(&denied), self.whose(&request.dataset, [Some(&ask.data)]));
                return self.deny_as(facts, job, denied, &whose, &record);
            }
        };
        // From here on the terms permit it: what denies it is the role map, the store, or the record as it is.
        let unmapped = self.unmapped(document, job)?;
        if let Some(denied) = unmapped.map_or_else(|| self.unwritable(&request.dataset), |d| Ok(Some(d)))? {
            let record = record.denied_beside(&denied);
            return self.deny_as(facts, job, denied, &BTreeSet::new(), &record);
        }
        let clause = &permitted.grant.clause;
        let Some(handle) = policies.handle(&clause.agreement, clause.version, permitted.grant.index) else {
            return Err(busy("the ledger has no handle for the clause yet: ask again".into()));
        };
        if ask.action == Action::Insert {
            self.fits_schema(&request.dataset, Some(&ask.data))?;
        }
        let found = self.found(spec, &ask)?;
        let tag: &Tagger<'_> = &|key, version| self.tag(&job.consumer, &request.dataset, key, version);
        let planned = match plan(spec, &ask, &permitted, found.clone(), tag) {
            Ok(planned) => planned,
            Err(denied) if denied.code == codes::BAD_VALUE => return Err(denied),
            Err(denied) => {
                // A record that the clause hides leaves no trace in what is recorded of the denial.
                let seen = found.as_ref().filter(|row| permitted.rows.matches(row));
                let whose = self.whose(&request.dataset, [seen, Some(&ask.data)]);
                let record = record.denied_beside(&denied);
                return self.deny_as(facts, job, denied, &whose, &record);
            }
        };
        self.fits_schema(&request.dataset, planned.row.as_ref())?;
        let met = self.whose(&request.dataset, [found.as_ref(), planned.row.as_ref()]);
        let (marked, subjects) = self.mark(facts, &met)?;
        let shown = |doc: &Option<String>| doc.as_deref().map(|d| tag(&planned.key, &Version::of(d)));
        let said = said(ask.action.word(), &planned.key, shown(&planned.before), shown(&planned.after));
        let failed = |e: AnswerError| busy(e.to_string());
        let (made, openings) =
            intend(facts, &permitted.grant, handle, &planned, &said, &marked, &self.release_key).map_err(failed)?;
        let mut released = made.released;
        self.seal(job, &mut released, &cbor::encode(&made.content))?;
        let mut decision = record.permitted(&permitted.grant, 1).to_json();
        decision["write"] = ask.action.word().into();
        let op_hash = made.prepared.op_hash;
        let row = NewRelease {
            key: (request.session, request.n),
            request_hash: job.call.request_hash,
            op_hash,
            secret: *made.secret,
            body: Some(cbor::encode(&released)),
            decision: decision.to_string(),
            session_expires_ms: job.call.session_expires_ms,
            detail: detail(&made.prepared.op, openings, clause.text.clone(), &marked, subjects),
        };
        let after = planned.after.as_deref().map(digest);
        let once = Once { id: op_hash, key: planned.key, row: planned.row, expect: planned.expect };
        let write = NewWrite { handle, dataset: spec.id.clone(), once, after };
        Ok(Done { prepared: made.prepared, row, released: Some(released), agreed: None, write: Some(Box::new(write)) })
    }

    /// What a plan finds, each row with the version of its record as this consumer is shown it. The whole rows are read, so
    /// that row and version are of one moment.
    pub(super) fn read_versions(
        &self,
        mut plan: Plan,
        subject: Option<&SubjectField>,
        spec: &DatasetSpec,
        consumer: &AgencyId,
    ) -> Result<(Rows, BTreeSet<String>, Vec<String>), Denied> {
        let dataset = DatasetId::new(&spec.id).map_err(|e| busy(e.to_string()))?;
        if let Some(denied) = self.unwritable(&dataset)? {
            let rule = format!("include: there are no versions: {}", denied.detail);
            return Err(super::denied(codes::BAD_VALUE, "bad-query", rule));
        }
        let select = plan.select.take();
        let (mut rows, met) = self.read(plan, subject)?;
        let mut versions = Vec::with_capacity(rows.rows.len());
        for row in &mut rows.rows {
            let version = Version::of_row(spec, &row.doc).map_err(store_failed)?;
            if let Some(select) = &select {
                row.doc.retain(|name, _| select.contains(name));
            }
            versions.push(self.tag(consumer, &dataset, &row.key, &version));
        }
        Ok((rows, met, versions))
    }

    /// Why a dataset is not written, if it is not.
    fn unwritable(&self, dataset: &DatasetId) -> Result<Option<Denied>, Denied> {
        let no = |detail: String| Ok(Some(denied(codes::CLAUSE, "not-writable", detail)));
        if !self.writable.0.contains_key(dataset) {
            return no(format!("{dataset} takes no writes: its provider's document does not say writable: true"));
        }
        if !self.holding.may_write(dataset.as_str()).map_err(store_failed)? {
            return no(format!("{dataset} takes no writes: its provider only reads the table or view behind it"));
        }
        Ok(None)
    }

    /// The record that a write is about, whole.
    fn found(&self, spec: &DatasetSpec, ask: &WriteAsk) -> Result<Option<Map<String, Value>>, Denied> {
        let bad = |e: HoldingError| denied(codes::BAD_VALUE, "bad-write", format!("write.data: {e}"));
        let key = match &ask.key {
            Some(key) => key.clone(),
            None => {
                let values: Vec<Value> =
                    spec.key.iter().map(|k| ask.data.get(k).cloned().unwrap_or_default()).collect();
                if let Some(missing) = spec.key.iter().zip(&values).find(|(_, v)| v.is_null()) {
                    let rule = format!("write.data: the key field {} is missing", missing.0);
                    return Err(denied(codes::BAD_VALUE, "bad-write", rule));
                }
                concordat_executor::holding::key_text(spec, &values).map_err(bad)?
            }
        };
        self.holding.get(&spec.id, &key).map_err(store_failed)
    }

    /// The record as it would be keeps the dataset's schema; the message names what is wrong, never a value.
    fn fits_schema(&self, dataset: &DatasetId, row: Option<&Map<String, Value>>) -> Result<(), Denied> {
        let (Some(row), Some(schema)) = (row, self.writable.0.get(dataset)) else { return Ok(()) };
        let row = Value::Object(row.clone());
        let Some(wrong) = schema.iter_errors(&row).next() else { return Ok(()) };
        let rule =
            format!("write{}: does not keep {} of the dataset's schema", wrong.instance_path(), wrong.schema_path());
        Err(denied(codes::BAD_VALUE, "bad-write", rule))
    }

    /// Whom these records are about.
    fn whose<const N: usize>(&self, dataset: &DatasetId, rows: [Option<&Map<String, Value>>; N]) -> BTreeSet<String> {
        let Some(subject) = self.people.field(dataset) else { return BTreeSet::new() };
        let values = rows.into_iter().flatten().filter_map(|r| r.get(&subject.name));
        values.filter_map(|v| subject.text(v)).collect()
    }

    /// Carries a write out, or forbids it; none where the store did not say. Blocks.
    pub fn settle(&self, todo: &Todo, apply: bool) -> Option<Fate> {
        let done = if apply {
            self.holding.apply(&todo.dataset, &todo.once)
        } else {
            self.holding.void(&todo.dataset, &todo.once)
        };
        use HoldingError::{NoKey, Plan, ReadOnly, TooLarge, Type, UnknownDataset, UnknownField};
        match done {
            Ok(fate) => Some(fate),
            // The dataset changed since the write was planned: what does not fit it any more was not done, nor will be.
            Err(e @ (NoKey { .. } | Plan(_) | ReadOnly(_) | TooLarge { .. } | Type { .. } | UnknownField { .. })) => {
                error!(dataset = todo.dataset, error = %e, "an accepted write cannot be carried out");
                Some(Fate::Void)
            }
            Err(e @ UnknownDataset(_)) => {
                error!(dataset = todo.dataset, error = %e, "an accepted write cannot be carried out");
                Some(Fate::Void)
            }
            Err(e) => {
                warn!(dataset = todo.dataset, error = %e, "the store did not take a write: it is asked again");
                None
            }
        }
    }
}
