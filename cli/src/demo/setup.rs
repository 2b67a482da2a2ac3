//! Making the city: folders, keys, genesis, data, agreements.

use super::assets::{AGENCIES, AGREEMENTS, ASSETS, HELD};
use crate::commands::Ctx;
use crate::commands::adapter::load_records;
use crate::commands::agreement::{Side, approve_as, propose_document};
use crate::commands::trust;
use crate::context::{Token, Tokens};
use crate::failure::{Exit, Failure, read_text};
use crate::layout::{City, CitySpec, create_city, private_dir, private_file};
use crate::servers::Servers;
use crate::supervisor;
use concordat_abci_app::state::genesis::{GENESIS_VERSION, Genesis, GenesisAgency, GenesisKey, GenesisValidator};
use concordat_broker::config::{HoldingConfig, SecretRef};
use concordat_broker::host::load_datasets;
use concordat_broker::keys::{self, KeyFolder};
use concordat_policies::template;
use concordat_protocol::acts::{ActBody, ApprovalKind, KeyRole};
use concordat_protocol::hash::sha256;
use concordat_protocol::ids::{AgencyId, AgreementId};
use concordat_protocol::keys::{PublicKey, Suite};
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the city may take to start.
const START_WITHIN: Duration = Duration::from_secs(90);
/// How long a MongoDB may work on one read of the demo, milliseconds: a server that uses no index (FerretDB) reads a whole collection.
const MONGODB_STATEMENT_MS: u64 = 25_000;
/// Approval roles of every agency of the demo.
const ROLES: [&str; 2] = ["data-steward", "legal"];
/// Users of every gateway of the demo, with their role.
const USERS: [(&str, &str); 5] = [
    ("clerk", "clerk"),
    ("planner", "planner"),
    ("duty-officer", "duty-officer"),
    ("operator", "operator"),
    ("adapter", "adapter"),
];

fn failed(code: &str, e: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Failed, code, e.to_string())
}

fn random_hex(n: usize) -> Result<String, Failure> {
    let mut bytes = vec![0; n];
    getrandom::fill(&mut bytes).map_err(|e| failed("randomness", e))?;
    Ok(hex::encode(bytes))
}

/// Makes and starts a new city in `root`.
pub async fn create(ctx: &Ctx, root: &Path) -> Result<City, Failure> {
    let servers = Servers::find()?;
    ctx.out.say(format!(
        "[1/6] servers    cometbft {} · nats-server {}",
        crate::servers::Server::CometBft.version(),
        crate::servers::Server::NatsServer.version()
    ));
    ctx.out.say(format!("[2/6] build      concordat {}", env!("CARGO_PKG_VERSION")));
    let spec = CitySpec {
        chain: format!("concordat-demo-{}", random_hex(4)?),
        agencies: AGENCIES.iter().map(|a| AgencyId::new(*a)).collect::<Result<_, _>>()?,
        ports: crate::layout::Ports::Free,
        comet: crate::layout::CometSettings::BASE,
        cometbft: servers.cometbft.clone(),
    };
    let city = create_city(root, &spec)?;
    write_genesis(&city)?;
    hold_in_mongodb(&city)?;
    for asset in ASSETS {
        let path = root.join(asset.agency).join(asset.path);
        if let Some(dir) = path.parent() {
            private_dir(dir)?;
        }
        private_file(&path, asset.bytes)?;
    }
    let trust = trust::of_node(&city.agencies[0].dir)?;
    private_file(&root.join("trust.json"), trust.to_json().as_bytes())?;
    let held = load_held(ctx, root)?;
    start(ctx, &city).await?;
    ctx.out.say(format!(
        "[3/6] network    {} · {} validators · trust {}",
        AGENCIES.join(" "),
        AGENCIES.len(),
        trust.fingerprint()
    ));
    ctx.out.say(format!("[4/6] data       {held}"));
    Ok(city)
}

/// Keys of every agency into its folder, their public halves into genesis.
fn write_genesis(city: &City) -> Result<(), Failure> {
    let mut agencies = Vec::new();
    for node in &city.agencies {
        let key = base64_key(&node.validator.pub_key)?;
        agencies.push(GenesisAgency {
            agency: node.agency.clone(),
            roles: vec![],
            keys: make_keys(&node.config.keys())?,
            validator: Some(GenesisValidator { key: hex::encode(key), power: crate::layout::comet::POWER }),
        });
        let tokens = USERS.iter().map(|(name, role)| {
            Ok(Token { name: (*name).into(), roles: vec![(*role).into()], token: random_hex(24)? })
        });
        let tokens = Tokens { tokens: tokens.collect::<Result<_, Failure>>()? };
        let text = serde_saphyr::to_string(&tokens).map_err(|e| failed("tokens", e))?;
        private_file(&node.config.keys().join("tokens.yaml"), text.as_bytes())?;
    }
    agencies.sort_by(|a, b| a.agency.cmp(&b.agency));
    let params = [("checkpoint_ms", 5_000), ("root_delay_ms", 5_000), ("run_close_ms", 5_000), ("run_root_delay", 2)];
    let params = params.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect();
    let genesis = Genesis { version: GENESIS_VERSION, agencies, params };
    let state: Value = serde_json::to_value(&genesis).map_err(|e| failed("genesis", e))?;
    Ok(city.write_genesis(&jiff::Timestamp::now().to_string(), &state)?)
}

fn base64_key(text: &str) -> Result<Vec<u8>, Failure> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).map_err(|e| failed("validator-key", e))
}

fn make_keys(dir: &Path) -> Result<Vec<GenesisKey>, Failure> {
    let folder = KeyFolder::new(dir);
    let entry = |role: KeyRole, label: &str, key: &PublicKey| GenesisKey {
        role: role.word().into(),
        label: label.into(),
        key: key.to_text(),
    };
    let approvers = ROLES.map(|r| (keys::approver(r), Suite::Hybrid, KeyRole::Approver, r));
    let rest = [
        (keys::ROOT.to_owned(), Suite::Hybrid, KeyRole::Root, "root"),
        (keys::SECURITY.to_owned(), Suite::Ed25519, KeyRole::Security, "security"),
        (keys::WRITER_EXECUTOR.to_owned(), Suite::Ed25519, KeyRole::Writer, "executor"),
        (keys::WRITER_BROKER.to_owned(), Suite::Ed25519, KeyRole::Writer, "broker"),
        (keys::ENVELOPE.to_owned(), Suite::Ed25519, KeyRole::Envelope, "envelope"),
        (keys::GATEWAY.to_owned(), Suite::Ed25519, KeyRole::Gateway, "gateway"),
        (keys::RELEASE.to_owned(), Suite::Ed25519, KeyRole::Release, "release"),
        (keys::COSIGN.to_owned(), Suite::Hybrid, KeyRole::Cosign, "cosign"),
    ];
    let mut out = Vec::new();
    for (file, suite, role, label) in rest.into_iter().chain(approvers) {
        out.push(entry(role, label, folder.create_signing(&file, suite)?.public()));
    }
    out.push(entry(KeyRole::Kem, "kem", folder.create_kem()?.public()));
    Ok(out)
}

/// With `MONGODB_URI` set, the city's records are held there, each agency's in a database of its own. What an earlier city
/// left there is the same sample data.
fn hold_in_mongodb(city: &City) -> Result<(), Failure> {
    let Ok(uri) = std::env::var("MONGODB_URI") else { return Ok(()) };
    for (agency, _) in HELD {
        for node in city.agencies.iter().filter(|n| n.agency.as_str() == agency) {
            private_file(&node.config.keys().join("holding.uri"), uri.as_bytes())?;
            let mut config = node.config.clone();
            let named = HoldingConfig::new(SecretRef::File("keys/holding.uri".into()));
            let (schema, statement_ms) = (Some(format!("concordat_demo_{agency}")), MONGODB_STATEMENT_MS);
            config.holding = Some(HoldingConfig { schema, statement_ms, ..named });
            crate::layout::save_node(&config)?;
        }
    }
    Ok(())
}

fn load_held(ctx: &Ctx, root: &Path) -> Result<String, Failure> {
    let mut parts = Vec::new();
    for (agency, adapter) in HELD {
        let loaded = load_records(&ctx.out, &root.join(agency), adapter)?;
        let dead = if loaded.bad > 0 { format!(" (+{} dead letters)", loaded.bad) } else { String::new() };
        parts.push(format!("{agency}/{adapter} {}{dead}", loaded.held));
    }
    parts.push("grid/load as a feed".into());
    Ok(parts.join(" · "))
}

/// Starts every node of a city and waits until the ledger moves.
pub async fn start(ctx: &Ctx, city: &City) -> Result<(), Failure> {
    let program = std::env::current_exe()?;
    let (begun_ms, mut started) = (jiff::Timestamp::now().as_millisecond() as u64, false);
    for dir in city.dirs() {
        if !supervisor::status(&dir).running {
            supervisor::start_detached(&dir, &program)?;
            started = true;
        }
    }
    let bar = ctx.out.bar(city.dirs().len() as u64, "starting");
    for dir in city.dirs() {
        tokio::task::block_in_place(|| supervisor::wait_up(&dir, START_WITHIN))?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    for node in &city.agencies {
        let side = Side::open(&node.dir)?;
        wait_ready(&side).await?;
        if started {
            wait_moving(&side, begun_ms).await?;
        }
    }
    Ok(())
}

/// Waits for a block that was made since the start: after a pause the newest one tells the time of before.
async fn wait_moving(side: &Side, begun_ms: u64) -> Result<(), Failure> {
    let end = Instant::now() + START_WITHIN;
    // A new chain has no block at first.
    while side.tick_ms().await.unwrap_or_default() < begun_ms {
        if Instant::now() >= end {
            let what = format!("the ledger made no block within {} s", START_WITHIN.as_secs());
            return Err(Failure::new(Exit::Unavailable, "ledger-still", what));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

async fn wait_ready(side: &Side) -> Result<(), Failure> {
    let end = Instant::now() + START_WITHIN;
    loop {
        match side.api.get("/readyz").await {
            Ok(_) => return Ok(()),
            Err(e) if Instant::now() >= end => return Err(e),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Registers datasets and brings the demo's agreements into force; what is done already is left as it is.
pub async fn agreements(ctx: &Ctx, city: &City) -> Result<(), Failure> {
    for node in &city.agencies {
        register_datasets(&Side::open(&node.dir)?, &node.dir).await?;
    }
    let mut said = Vec::new();
    for a in AGREEMENTS {
        let id = AgreementId::new(a.file.trim_end_matches(".yaml"))?;
        let provider = Side::open(&city.root.join(a.provider))?;
        let known = provider.newest(&id).await.ok();
        if known.is_none() {
            let (from, until) = validity(provider.tick_ms().await?)?;
            let yaml = template::fill(a.template, &[("from", &from), ("until", &until)])?;
            for holder in [Some(a.provider), a.consumer].into_iter().flatten() {
                let dir = city.root.join(holder).join("agreements");
                private_dir(&dir)?;
                private_file(&dir.join(a.file), yaml.as_bytes())?;
            }
            bring_into_force(city, &provider, a.consumer, &yaml).await?;
        }
        let to = a.consumer.map_or_else(|| "public".to_owned(), |c| format!("{}->{c}", a.provider));
        said.push(format!("{id} {to}"));
    }
    ctx.out.say(format!("[5/6] agreements {} active", said.join(" · ")));
    Ok(())
}

/// Proposes a document and approves it in every role it asks for, each with its own key.
pub async fn bring_into_force(city: &City, provider: &Side, consumer: Option<&str>, yaml: &str) -> Result<(), Failure> {
    let (compiled, _) = propose_document(provider, yaml, 7).await?;
    let terms = &compiled.terms;
    for role in &terms.assigner_roles {
        approve_as(provider, &terms.agreement, role, ApprovalKind::Activate).await?;
    }
    if let Some(consumer) = consumer {
        let side = Side::open(&city.root.join(consumer))?;
        side.reaches(&terms.agreement, "proposed").await?;
        for role in &terms.assignee_roles {
            approve_as(&side, &terms.agreement, role, ApprovalKind::Activate).await?;
        }
    }
    provider.reaches(&terms.agreement, "active").await
}

/// Validity that holds now: from the day's beginning for a year.
fn validity(tick_ms: u64) -> Result<(String, String), Failure> {
    let day = tick_ms / 86_400_000 * 86_400_000;
    let text =
        |ms: u64| jiff::Timestamp::from_millisecond(ms as i64).map(|t| t.to_string()).map_err(|e| failed("time", e));
    Ok((text(day)?, text(day + 365 * 86_400_000)?))
}

async fn register_datasets(side: &Side, dir: &Path) -> Result<(), Failure> {
    let known = side.api.get("/v1/catalogue/datasets").await?;
    for doc in load_datasets(dir)? {
        if known.to_string().contains(doc.id.as_str()) {
            continue;
        }
        let name = format!("schemas/{}@{}.json", doc.id.name(), doc.id.as_str().rsplit('@').next().unwrap_or_default());
        let schema_hash = sha256(&[read_text(&dir.join(name))?.as_bytes()]);
        side.act(keys::GATEWAY, ActBody::Dataset { id: doc.id.clone(), schema_hash }).await?;
    }
    Ok(())
}
