//! `agreement`: documents are checked here, acts are signed here with a person's key file, and travel through the
//! agency's own gateway. The gateway never holds an approver's key.

mod documents;
mod edit;
mod explain;
mod lint;
mod preview;
mod report;
mod rows;
mod simulate;

use super::{Ctx, acts};
use crate::args::AgreementTool;
use crate::args::agreements::Reject;
use crate::args::{Approve, Stop, StopKind};
use crate::context::Api;
use crate::failure::{Exit, Failure, read_text};
use concordat_broker::config::NodeConfig;
use concordat_broker::keys::{self, KeyFolder};
use concordat_policies::compile::{Compiled, compile};
use concordat_policies::time::utc_ms;
use concordat_protocol::acts::{ActBody, ApprovalKind};
use concordat_protocol::cbor::encode;
use concordat_protocol::hash::{Hash, sha256};
use concordat_protocol::ids::AgreementId;
use concordat_protocol::keys::SigningKey;
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

const DAY_MS: u64 = 86_400_000;
/// How long one agency's node may be behind another's.
const FOLLOWS_WITHIN: Duration = Duration::from_secs(15);

/// An agency's own side: its gateway and its keys.
pub struct Side {
    /// Gateway as operator.
    pub api: Api,
    /// Configuration.
    pub cfg: NodeConfig,
    keys: KeyFolder,
}

impl Side {
    /// The side of the node in `dir`.
    pub fn open(dir: &Path) -> Result<Self, Failure> {
        let cfg = NodeConfig::load(dir)?;
        let folder = KeyFolder::of(&cfg);
        let passphrases = folder.passphrases().clone().asking(super::key::prompt);
        Ok(Self { api: Api::of(dir, None, "operator")?, keys: folder.with(passphrases), cfg })
    }

    /// Signs an act with a key file and submits it through the gateway; waits for the ledger.
    pub async fn act(&self, key: &str, body: ActBody) -> Result<Value, Failure> {
        let key: SigningKey = self.keys.signing(key)?;
        acts::submit(&self.api, &self.cfg, &key, body).await
    }

    /// The same for an act about a document, which the gateway reads too.
    async fn act_about(&self, key: &str, body: ActBody, document: &Path) -> Result<Value, Failure> {
        let (key, text): (SigningKey, _) = (self.keys.signing(key)?, std::fs::read_to_string(document)?);
        acts::submit_about(&self.api, &self.cfg, &key, body, Some(&text)).await
    }

    /// Newest tick of the ledger, milliseconds.
    pub async fn tick_ms(&self) -> Result<u64, Failure> {
        let status = self.api.get("/v1/ledger/status").await?;
        let tick = status["tick_ms"].as_u64().filter(|t| *t > 0);
        tick.ok_or_else(|| {
            Failure::new(Exit::Unavailable, "no-tick", "the ledger has no block yet: try again in a few seconds")
        })
    }

    /// The newest version of an agreement as the ledger has it.
    pub async fn newest(&self, agreement: &AgreementId) -> Result<Value, Failure> {
        let found = self.api.get(&format!("/v1/agreements/{agreement}")).await?;
        let versions = found["versions"].as_array().cloned().unwrap_or_else(|| vec![found.clone()]);
        let newest = versions.into_iter().max_by_key(|v| v["version"].as_u64());
        newest.ok_or_else(|| {
            Failure::new(Exit::NotFound, "agreement", format!("{agreement} is not on the ledger: propose it first"))
        })
    }

    /// Waits until this side's node shows an agreement in a state: it may be a block behind the node that took the act.
    pub async fn reaches(&self, agreement: &AgreementId, status: &str) -> Result<(), Failure> {
        let end = Instant::now() + FOLLOWS_WITHIN;
        loop {
            let found = match self.newest(agreement).await {
                Ok(newest) => newest["status"].clone(),
                Err(e) if e.exit == Exit::NotFound => json!("unknown"),
                Err(e) => return Err(e),
            };
            if found == status {
                return Ok(());
            }
            if Instant::now() >= end {
                let what = format!("{agreement} is {found} at {}, not {status}", self.cfg.agency);
                return Err(Failure::new(Exit::Failed, "agreement-state", what));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn compiled(file: &Path) -> Result<Compiled, Failure> {
    let text = read_text(file)?;
    compile(&text).map_err(|e| Failure::usage(format!("{}: {e}", file.display())))
}

/// Runs a tool.
pub async fn tool(ctx: &Ctx, tool: &AgreementTool) -> Result<(), Failure> {
    match tool {
        AgreementTool::New(n) => edit::new(ctx, n),
        AgreementTool::Lint(l) => lint::lint(ctx, l),
        AgreementTool::Render { file } => edit::render(ctx, file),
        AgreementTool::Preview(p) => preview::preview(ctx, p),
        AgreementTool::Diff { before, after } => edit::diff(ctx, before, after),
        AgreementTool::Simulate(s) => simulate::simulate(ctx, s).await,
        AgreementTool::Report(r) => report::report(ctx, r).await,
        AgreementTool::WhoCanRead(w) => explain::who_can_read(ctx, w).await,
        AgreementTool::Explain(e) => explain::explain(ctx, e).await,
        AgreementTool::Reject(r) => reject(ctx, r).await,
        AgreementTool::Renew { file, days } => renew(ctx, file, *days).await,
        AgreementTool::Schema => {
            let schema = concordat_policies::schema::schema();
            ctx.out.result(&schema, || serde_json::to_string_pretty(&schema).unwrap_or_default());
            Ok(())
        }
    }
}

/// The clock in milliseconds, or the time given.
fn now_ms(at: Option<&str>) -> Result<u64, Failure> {
    match at {
        Some(t) => utc_ms(t).map_err(|e| Failure::usage(format!("--at: {e}"))),
        None => Ok(u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or_default()),
    }
}

/// Proposes a document through the gateway of `side`.
pub async fn propose_document(side: &Side, yaml: &str, days: u64) -> Result<(Compiled, Value), Failure> {
    let compiled = compile(yaml)?;
    let expires_ms = side.tick_ms().await? + days * DAY_MS;
    let body = ActBody::Propose { terms: encode(&compiled.terms).into(), expires_ms };
    match side.act(keys::GATEWAY, body).await {
        Ok(answer) => Ok((compiled, answer)),
        Err(e) => Err(taken(side, &compiled, e).await),
    }
}

/// A version that is taken is refused with the code of used numbers: says which one would do.
async fn taken(side: &Side, compiled: &Compiled, e: Failure) -> Failure {
    let stale = u64::from(concordat_protocol::codes::STALE);
    let d = &compiled.document;
    if e.problem.as_ref().is_none_or(|p| p["ledger_code"] != stale) {
        return e;
    }
    let Some(newest) = side.newest(&compiled.terms.agreement).await.ok() else { return e };
    let there = newest["version"].as_u64().unwrap_or_default();
    if there < compiled.terms.version {
        return e;
    }
    let (version, status) = (compiled.terms.version, newest["status"].as_str().unwrap_or_default());
    let what = if there == version { "exists already" } else { "is past" };
    let message = format!(
        "{} version {version} {what} (the newest is {there}, {status}): raise version to {} in the document",
        d.agreement,
        there + 1
    );
    let problem = e.problem.map(|mut p| {
        p["detail"] = json!(message);
        p["next"] = json!(format!("raise version to {}", there + 1));
        p
    });
    Failure { exit: Exit::Conflict, code: "version-exists".into(), message, problem }
}

/// `agreement propose`
pub async fn propose(ctx: &Ctx, file: &Path, days: u64) -> Result<(), Failure> {
    let side = Side::open(&ctx.dir()?)?;
    let (compiled, answer) = propose_document(&side, &read_text(file)?, days).await?;
    ctx.out.result(&answer, || {
        let d = &compiled.document;
        format!(
            "{} version {} proposed; approvals due within {days} days\nterms hash {}",
            d.agreement,
            d.version,
            hex::encode(compiled.terms_hash())
        )
    });
    Ok(())
}

fn hash_of(v: &Value, field: &str) -> Result<Hash, Failure> {
    let text = v[field].as_str().unwrap_or_default();
    let bytes = hex::decode(text).ok().and_then(|b| b.try_into().ok());
    bytes.ok_or_else(|| Failure::new(Exit::Failed, "gateway-answer", format!("the gateway's answer has no {field}")))
}

/// Signs one approval of what the ledger has.
pub async fn approve_as(
    side: &Side,
    agreement: &AgreementId,
    role: &str,
    what: ApprovalKind,
) -> Result<Value, Failure> {
    let found = side.newest(agreement).await?;
    let number = |f: &str| found[f].as_u64().unwrap_or_default();
    let body = ActBody::Approve {
        agreement: agreement.clone(),
        version: number("version"),
        revision: number("revision"),
        what,
        terms_hash: hash_of(&found, "terms_hash")?,
        prev_terms_hash: hash_of(&found, "prev_terms_hash").unwrap_or([0; 32]),
        role: role.to_owned(),
        expires_ms: side.tick_ms().await? + DAY_MS,
    };
    side.act(&keys::approver(role), body).await
}

/// `agreement approve`, `agreement resume`
pub async fn approve(ctx: &Ctx, a: &Approve, what: ApprovalKind) -> Result<(), Failure> {
    let side = Side::open(&ctx.dir()?)?;
    let agreement: AgreementId = a.agreement.parse()?;
    if let Some(file) = a.renewal.as_ref().filter(|_| what == ApprovalKind::Activate) {
        let answer = approve_renewal(ctx, &side, a, file).await?;
        ctx.out.result(&answer, || format!("{agreement}: new dates approved as {}", a.role));
        return Ok(());
    }
    if let Some(file) = &a.document {
        let (read, ledger) = (compiled(file)?.terms_hash(), hash_of(&side.newest(&agreement).await?, "terms_hash")?);
        if read != ledger {
            return Err(Failure::new(
                Exit::Conflict,
                "terms-mismatch",
                format!(
                    "{} compiles to other terms than the ledger has: get the document that was proposed",
                    file.display()
                ),
            ));
        }
    }
    let answer = approve_as(&side, &agreement, &a.role, what).await?;
    let status = side.newest(&agreement).await?["status"].as_str().unwrap_or_default().to_owned();
    ctx.out.result(&answer, || format!("{agreement}: {what} approved as {}; now {status}", a.role));
    Ok(())
}

/// The version of an agreement as the ledger has it. A newer one may be proposed meanwhile.
async fn version_of(side: &Side, compiled: &Compiled) -> Result<Value, Failure> {
    let (agreement, version) = (&compiled.document.agreement, compiled.document.version);
    let all = side.api.get(&format!("/v1/agreements/{agreement}")).await?;
    let found = all["versions"].as_array().and_then(|list| list.iter().find(|v| v["version"] == version));
    found.cloned().ok_or_else(|| {
        Failure::new(Exit::NotFound, "agreement", format!("{agreement} version {version} is not on the ledger"))
    })
}

/// A document with new dates, and the ledger's view of what it renews. The ledger has hashes of fields and filters only,
/// so that nobody but the two sides can tell that nothing else changes: the document in force must be here.
async fn renewal(ctx: &Ctx, side: &Side, file: &Path) -> Result<(Compiled, Value), Failure> {
    let new = compiled(file)?;
    let found = version_of(side, &new).await?;
    let want = hash_of(&found, "terms_hash")?;
    let folder = ctx.dir()?.join("agreements");
    let texts = std::fs::read_dir(&folder)?.filter_map(|e| std::fs::read_to_string(e.ok()?.path()).ok());
    let old = texts.filter_map(|t| compile(&t).ok()).find(|c| c.terms_hash() == want).ok_or_else(|| {
        let text = format!("{}: the document in force is not there, so that nothing can be compared", folder.display());
        Failure::new(Exit::NotFound, "document", text)
    })?;
    let beyond = concordat_policies::diff::beyond_renewal(&old.document, &new.document);
    if let Some(c) = beyond.first() {
        let place = c.clause.as_ref().map_or_else(String::new, |id| format!("clause {id}: "));
        let text =
            format!("a renewal changes dates and papers only, this one also {place}{}: propose a new version", c.term);
        return Err(Failure::new(Exit::Conflict, "not-a-renewal", text));
    }
    Ok((new, found))
}

/// `agreement renew`
async fn renew(ctx: &Ctx, file: &Path, days: u64) -> Result<(), Failure> {
    let side = Side::open(&ctx.dir()?)?;
    let (compiled, _) = renewal(ctx, &side, file).await?;
    let expires_ms = side.tick_ms().await? + days * DAY_MS;
    let body = ActBody::Renew { terms: encode(&compiled.terms).into(), expires_ms };
    let answer = side.act_about(keys::GATEWAY, body, file).await?;
    let (d, hash) = (&compiled.document, hex::encode(compiled.terms_hash()));
    ctx.out.result(&answer, || {
        let next = format!("concordat agreement approve {} --role ROLE --renewal FILE", d.agreement);
        format!("new dates of {} version {} proposed\nterms hash {hash}\nnext: {next}", d.agreement, d.version)
    });
    Ok(())
}

/// Approves new dates: the terms of the document, in the place of those in force.
async fn approve_renewal(ctx: &Ctx, side: &Side, a: &Approve, file: &Path) -> Result<Value, Failure> {
    let (compiled, found) = renewal(ctx, side, file).await?;
    if compiled.document.agreement.as_str() != a.agreement {
        return Err(Failure::usage(format!("{} is {}", file.display(), compiled.document.agreement)));
    }
    let body = ActBody::Approve {
        agreement: compiled.document.agreement.clone(),
        version: compiled.terms.version,
        revision: found["revision"].as_u64().unwrap_or_default(),
        what: ApprovalKind::Renew,
        terms_hash: compiled.terms_hash(),
        prev_terms_hash: hash_of(&found, "terms_hash")?,
        role: a.role.clone(),
        expires_ms: side.tick_ms().await? + DAY_MS,
    };
    side.act_about(&keys::approver(&a.role), body, file).await
}

/// `agreement reject`
async fn reject(ctx: &Ctx, r: &Reject) -> Result<(), Failure> {
    let side = Side::open(&ctx.dir()?)?;
    let agreement: AgreementId = r.agreement.parse()?;
    let found = side.newest(&agreement).await?;
    let body = ActBody::Reject {
        agreement: agreement.clone(),
        version: found["version"].as_u64().unwrap_or_default(),
        terms_hash: hash_of(&found, "terms_hash")?,
        reason: salted(&r.reason)?,
    };
    let answer = side.act(&keys::approver(&r.role), body).await?;
    ctx.out.result(&answer, || format!("{agreement} rejected: {}", answer["operation"].as_str().unwrap_or_default()));
    Ok(())
}

/// What the ledger gets of a reason.
fn salted(reason: &str) -> Result<Hash, Failure> {
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).map_err(|e| Failure::new(Exit::Failed, "randomness", e.to_string()))?;
    Ok(sha256(&[&salt, reason.as_bytes()]))
}

/// Suspends or revokes with the security key of `side`.
pub async fn stop_as(side: &Side, agreement: &AgreementId, kind: StopKind, reason: &str) -> Result<Value, Failure> {
    let version = side.newest(agreement).await?["version"].as_u64().unwrap_or_default();
    let reason = salted(reason)?;
    let agreement = agreement.clone();
    let body = match kind {
        StopKind::Suspend => ActBody::Suspend { agreement, version, reason },
        StopKind::Revoke => ActBody::Revoke { agreement, version, reason },
    };
    side.act(keys::SECURITY, body).await
}

/// `agreement suspend`, `agreement revoke`
pub async fn stop(ctx: &Ctx, s: &Stop, kind: StopKind) -> Result<(), Failure> {
    let side = Side::open(&ctx.dir()?)?;
    let agreement: AgreementId = s.agreement.parse()?;
    let answer = stop_as(&side, &agreement, kind, &s.reason).await?;
    let word = if kind == StopKind::Suspend { "suspended" } else { "revoked" };
    ctx.out.result(&answer, || format!("{agreement} {word}: {}", answer["operation"].as_str().unwrap_or_default()));
    Ok(())
}

/// `agreement status`
pub async fn status(ctx: &Ctx, agreement: Option<&str>) -> Result<(), Failure> {
    let api = ctx.api("operator")?;
    match agreement {
        Some(a) => {
            let id: AgreementId = a.parse()?;
            let found = api.get(&format!("/v1/agreements/{id}")).await?;
            ctx.out.result(&found, || super::op::lines(&found));
        }
        None => {
            let found = api.get("/v1/agreements").await?;
            let rows = found["agreements"].as_array().or(found.as_array()).cloned().unwrap_or_default();
            ctx.out.list(&rows, &["agreement", "version", "status", "assigner", "assignee", "dataset", "revision"]);
        }
    }
    Ok(())
}
