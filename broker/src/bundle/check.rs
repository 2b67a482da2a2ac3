//! Checks a bundle with nothing but itself and a `trust.json` from elsewhere: no clock, network or file.

use super::container::{self, Entry};
use super::sign::{self, Signer};
use super::{
    AgreementPart, BundleError, EXPORT, Export, FORMAT, MANIFEST, Operation, SIGNATURE, TRUST, TimestampPart, collect,
    manifest,
};
use crate::outside::timestamp::imprint;
use crate::outside::tsp;
use concordat_executor::policies::compile::compile;
use concordat_protocol::cbor;
use concordat_protocol::hash::sha256;
use concordat_protocol::receipt::{self, Checkpoint, Receipt};
use concordat_protocol::terms::Terms;
use concordat_protocol::trust::Trust;
use concordat_protocol::verify::{Verified, verify};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What a bundle proves.
#[derive(Debug)]
pub struct Report {
    /// Who exported, by the certificate in the bundle: nobody vouches for it.
    pub signer: Signer,
    /// `export.json`: the exporter's words.
    pub export: Export,
    /// What each receipt proves, in the order of the log.
    pub operations: Vec<(Operation, Verified)>,
    /// Time-stamps that hold for the certificates in the bundle: token, signer's name, time in milliseconds.
    pub timestamps: Vec<(String, String, i64)>,
    /// What is no proof of forgery, but should be known.
    pub warnings: Vec<String>,
}

impl Report {
    /// JSON for programs.
    pub fn to_json(&self) -> Value {
        let operations = self.operations.iter().map(|(op, v)| {
            let mut out = v.to_json();
            out["receipt"] = json!(op.receipt);
            out["timestamps"] = json!(op.timestamps);
            out
        });
        json!({
            "valid": true,
            "case": self.export.case,
            "chain": self.export.chain,
            "fingerprint": self.export.fingerprint,
            "exported_by": self.export.agency,
            "exported_at_ms": self.export.exported_at_ms,
            "signer": self.signer,
            "operations": operations.collect::<Vec<_>>(),
            "left_out": self.export.left_out,
            "timestamps": self.timestamps.iter().map(|(token, signer, ms)| {
                json!({"token": token, "signer": signer, "time_ms": ms})
            }).collect::<Vec<_>>(),
            "warnings": self.warnings,
        })
    }
}

struct Files<'a>(BTreeMap<&'a str, &'a [u8]>);

impl Files<'_> {
    fn get(&self, name: &str) -> Result<&[u8], BundleError> {
        self.0.get(name).copied().ok_or_else(|| BundleError::refused(name, "it is missing"))
    }

    fn text(&self, name: &str) -> Result<&str, BundleError> {
        std::str::from_utf8(self.get(name)?).map_err(|_| BundleError::refused(name, "it is no UTF-8 text"))
    }
}

/// Checks a bundle: the container, its manifest and signature, then every receipt with the **given** trust, every
/// time-stamp, every agreement.
///
/// # Errors
/// The first file that is not what it must be, by name.
pub fn check(bytes: &[u8], trust: &Trust) -> Result<Report, BundleError> {
    let entries = container::read(bytes)?;
    manifest::check(&entries)?;
    let files = Files(entries.iter().map(|e: &Entry| (e.name.as_str(), e.bytes.as_slice())).collect());
    let signer = sign::verify(files.get(SIGNATURE)?, files.get(MANIFEST)?);
    let signer = signer.map_err(|why| BundleError::refused(SIGNATURE, why))?;
    let mut warnings = Vec::new();
    let export: Export = serde_json::from_slice(files.get(EXPORT)?)
        .map_err(|e| BundleError::refused(EXPORT, format!("it does not parse: {e}")))?;
    if export.format != FORMAT {
        return Err(BundleError::refused(
            EXPORT,
            format!("its form {} is not known here: use a newer build", export.format),
        ));
    }
    trust_inside(&files, &export, trust, &mut warnings)?;
    let operations = receipts(&files, &export, trust, &mut warnings)?;
    let checkpoints = operations.iter().map(|(op, v, r)| (op, collect::checkpoint(r, v))).collect::<Vec<_>>();
    let mut timestamps = Vec::new();
    for part in &export.timestamps {
        timestamps.push(timestamp(&files, part, &checkpoints)?);
    }
    if !timestamps.is_empty() {
        warnings.push(
            "the time-stamp authority's certificate is the exporter's: compare it with the authority's own".into(),
        );
    }
    for part in &export.agreements {
        agreement(&files, part, &operations, &mut warnings)?;
    }
    for part in &export.datasets {
        let Some(schema) = &part.schema else { continue };
        if hex::encode(sha256(&[files.get(schema)?])) != part.schema_sha256 {
            return Err(BundleError::refused(schema, "its SHA-256 is not the one that export.json names"));
        }
    }
    let operations = operations.into_iter().map(|(op, v, _)| (op.clone(), v)).collect();
    Ok(Report { signer, operations, timestamps, warnings, export })
}

/// The trust inside is of the same chain as the given one, or the bundle is of another world.
fn trust_inside(
    files: &Files<'_>,
    export: &Export,
    given: &Trust,
    warnings: &mut Vec<String>,
) -> Result<(), BundleError> {
    let bad = |why: String| BundleError::refused(TRUST, why);
    let inside = Trust::from_json(files.text(TRUST)?).map_err(|e| bad(e.to_string()))?;
    inside.check().map_err(|e| bad(e.to_string()))?;
    let (own, other) = (given.fingerprint(), inside.fingerprint());
    if own != other {
        return Err(bad(format!(
            "its fingerprint is {other}, the given trust.json has {own}: the bundle is of another chain"
        )));
    }
    if export.fingerprint != own || export.chain != given.chain {
        return Err(BundleError::refused(EXPORT, "it names another chain or fingerprint than its trust.json"));
    }
    if inside.epochs.len() > given.epochs.len() {
        warnings.push(format!(
            "the trust.json inside goes on to epoch {}, the given one ends at {}: a receipt may need a newer one",
            inside.epochs.len() - 1,
            given.epochs.len() - 1
        ));
    }
    Ok(())
}

type Checked<'e> = (&'e Operation, Verified, Receipt);

fn receipts<'e>(
    files: &Files<'_>,
    export: &'e Export,
    trust: &Trust,
    warnings: &mut Vec<String>,
) -> Result<Vec<Checked<'e>>, BundleError> {
    let mut out = Vec::new();
    for op in &export.operations {
        let bytes = files.get(&op.receipt)?;
        let bad = |why: String| BundleError::refused(&op.receipt, why);
        let verified = verify(bytes, trust, None).map_err(|e| bad(e.to_string()))?;
        let r = Receipt::from_bytes(bytes).map_err(|e| bad(e.to_string()))?;
        says_the_same(op, &verified).map_err(|what| {
            BundleError::refused(EXPORT, format!("what it says of {} differs from its receipt: {what}", op.operation))
        })?;
        if r.request.as_ref().is_some_and(|p| p.request.case != export.case) {
            return Err(bad(format!("it is of another case than {}", export.case)));
        }
        let name = op.receipt.replace(".receipt", ".json");
        let shown: Value = serde_json::from_slice(files.get(&name)?).unwrap_or_default();
        if shown != receipt::to_json(&r) {
            warnings.push(format!("{name} is not what this release shows of its receipt: rely on the receipt"));
        }
        out.push((op, verified, r));
    }
    let listed = |name: &str| export.operations.iter().any(|o| o.receipt == name);
    if let Some(more) = files.0.keys().find(|n| n.ends_with(".receipt") && !listed(n)) {
        return Err(BundleError::refused(more, "export.json does not list it"));
    }
    Ok(out)
}

/// The table of the statement must not say more than the receipt.
fn says_the_same(op: &Operation, v: &Verified) -> Result<(), &'static str> {
    let text = |o: Option<String>| o.unwrap_or_default();
    let same = [
        ("operation", op.operation == format!("op:{}", v.index)),
        ("kind", op.kind == v.kind),
        ("verdict", op.verdict == v.verdict.word()),
        ("status", op.status == v.status.word()),
        ("contested", op.contested == v.contested),
        ("provider", op.provider == v.provider.as_str()),
        ("consumer", op.consumer == text(v.consumer.as_ref().map(ToString::to_string))),
        ("tick_ms", op.tick_ms == v.tick_ms),
        ("height", op.height == v.height),
        ("clause", v.clause.as_ref().is_none_or(|c| op.clause == *c)),
        ("opened", op.opened.iter().map(|(n, t)| (n, t)).eq(v.opened.iter())),
        ("cosigners", op.cosigners.iter().map(String::as_str).eq(v.cosigners.iter().map(|a| a.as_str()))),
    ];
    same.iter().find(|(_, ok)| !ok).map_or(Ok(()), |(what, _)| Err(what))
}

fn timestamp(
    files: &Files<'_>,
    part: &TimestampPart,
    checkpoints: &[(&&Operation, Option<Checkpoint>)],
) -> Result<(String, String, i64), BundleError> {
    let bad = |why: String| BundleError::refused(&part.token, why);
    let stamped: Checkpoint = cbor::decode(files.get(&part.checkpoint)?)
        .map_err(|e| BundleError::refused(&part.checkpoint, e.to_string()))?;
    for (op, own) in checkpoints {
        if op.timestamps.contains(&part.token) && own.as_ref() != Some(&stamped) {
            return Err(bad(format!("it stamps another checkpoint than the one {} leads to", op.receipt)));
        }
    }
    let given = tsp::read_certificates(files.get(&part.certificate)?)
        .map_err(|e| BundleError::refused(&part.certificate, e.to_string()))?;
    let stamp =
        tsp::check_token(files.get(&part.token)?, &imprint(&stamped), &given).map_err(|e| bad(e.to_string()))?;
    stamp.lag_ms(stamped.tick_ms).map_err(|e| bad(e.to_string()))?;
    Ok((part.token.clone(), stamp.signer, stamp.time_ms))
}

/// The document makes the terms, the terms have the hash that is named, and what receipts show of them fits.
fn agreement(
    files: &Files<'_>,
    part: &AgreementPart,
    operations: &[Checked<'_>],
    warnings: &mut Vec<String>,
) -> Result<(), BundleError> {
    let bad = |why: &str| BundleError::refused(&part.terms, why);
    let terms: Terms = cbor::decode(files.get(&part.terms)?).map_err(|e| bad(&e.to_string()))?;
    if hex::encode(terms.hash()) != part.terms_hash {
        return Err(bad("its hash is not the one that export.json names"));
    }
    for (op, v, r) in
        operations.iter().filter(|(o, ..)| o.agreement == part.agreement && o.version == Some(part.version))
    {
        let fits = [
            terms.assigner == v.provider,
            v.agreement.as_ref().is_none_or(|a| *a == part.agreement),
            v.clause.as_ref().is_none_or(|c| terms.clauses.iter().any(|k| k.id == *c)),
            terms.assignee.is_none() || v.consumer.is_none() || terms.assignee == v.consumer,
            r.request.as_ref().is_none_or(|p| p.request.dataset == terms.dataset),
        ];
        if fits.contains(&false) {
            return Err(bad(&format!("provider, consumer, dataset or clause are not those of {}", op.receipt)));
        }
    }
    let Some(document) = &part.document else {
        warnings
            .push(format!("{} version {}: the exporter has no document, only the terms", part.agreement, part.version));
        return Ok(());
    };
    let compiled = compile(files.text(document)?).map_err(|e| BundleError::refused(document, e.to_string()))?;
    if compiled.terms != terms {
        return Err(BundleError::refused(document, "it does not make the terms beside it: it is another document"));
    }
    if let Some(text) = &part.text
        && files.text(text)? != compiled.text
    {
        warnings.push(format!("{text} is not what this release makes of {document}: rely on the document"));
    }
    let clause = |op: &Operation| compiled.document.clauses.iter().find(|k| k.id == op.clause).map(|k| k.text.clone());
    for (op, ..) in operations.iter().filter(|(o, ..)| o.agreement == part.agreement && o.version == Some(part.version))
    {
        if clause(op).is_some_and(|text| text != op.clause_text) {
            return Err(BundleError::refused(
                EXPORT,
                format!("the clause of {} is worded otherwise in {document}", op.operation),
            ));
        }
    }
    Ok(())
}
