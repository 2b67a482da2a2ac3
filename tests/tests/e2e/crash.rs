//! Crashes of the ledger: at each of CometBFT's own fail points, at random moments under load, on a full disk, with a torn
//! last write. Afterwards every node has the same app hashes, and every acknowledged operation stands in the log exactly once.
//!
//! `CONCORDAT_KILLS` is the number of random kills (6), `CONCORDAT_SEED` repeats a run's choice.

use crate::World;
use crate::kills::{Random, number};
use concordat_cli::layout::CometSettings;
use concordat_cli::servers::{self, Server};
use concordat_tests::chain::drill::{Load, all_agree, app_hashes, entries, wrong};
use concordat_tests::chain::failed::BenchError;
use concordat_tests::chain::supply::{self, Amount, Supply};
use concordat_tests::chain::{Kind, Network, Programs, Spec};
use concordat_tests::harness::wait;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Operations of one batch, about.
const BATCH_BYTES: usize = 1_600;
/// CometBFT's fail points: four around the end of a height's log, eight in applying a block.
const FAIL_POINTS: u64 = 12;

type Outcome = Result<(), BenchError>;

fn programs() -> Programs {
    let concordat = PathBuf::from(env!("CARGO_BIN_EXE_concordat-bench")).with_file_name("concordat");
    Programs { concordat, cometbft: servers::find(Server::CometBft).expect("CometBFT") }
}

async fn network(validators: &[&str], others: &[&str]) -> Result<Network, BenchError> {
    let spec = Spec { kind: Kind::Concordat, validators, others, writers: 1, comet: CometSettings::BASE };
    Network::start(&programs(), &spec).await
}

/// One writer's signed batches.
async fn supply(network: &Network, batches: usize) -> Result<Supply, BenchError> {
    let licences = supply::licence(network).await?;
    let mut all = supply::sign(network, &licences[..1], Amount { batches, bytes: BATCH_BYTES })?;
    Ok(all.remove(0))
}

/// What must hold after everything: all nodes agree at every height, and the writer's history is whole.
async fn check(network: &Network, load: Load, writer: &str, sent: u64) -> Outcome {
    load.more(1_000).await?;
    let acknowledged = load.stop();
    let head = all_agree(network, 0).await?;
    let first = app_hashes(&network.nodes[0]).await?;
    assert!(first.len() as u64 >= head.height, "{} headers of {}", first.len(), head.height);
    for node in &network.nodes {
        let other = app_hashes(node).await?;
        for (height, hash) in &first {
            assert!(other.get(height).is_none_or(|h| h == hash), "height {height}: another app hash");
        }
        let history = entries(node, writer).await?;
        assert_eq!(wrong(&history, acknowledged, sent), None);
    }
    Ok(())
}

pub fn every_fail_point_of_the_ledger_recovers(_: &World) {
    let run = async {
        let mut network = network(&["police"], &["court"]).await?;
        let supply = supply(&network, 4_000).await?;
        let (writer, sent) = (supply.writer.to_string(), supply.batches.last().map_or(0, |b| b.last_seq));
        let load = Load::begin(&network, supply);
        load.more(100).await?;
        for point in 0..FAIL_POINTS {
            network.stop(0);
            match network.restart_with(0, &[("FAIL_TEST_INDEX", &point.to_string())]).await {
                // It may get there before anybody saw it up.
                Err(BenchError::Process { words, .. }) if words.contains("fail-test") => {}
                other => other?,
            }
            // It ends by itself, at this point, while it works on a block.
            let end = Instant::now() + Duration::from_secs(30);
            while network.nodes[0].comet.is_up() {
                assert!(Instant::now() < end, "fail point {point} was not reached");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            network.stop(0);
            network.restart(0).await?;
            load.more(50).await?;
        }
        check(&network, load, &writer, sent).await
    };
    wait(run).unwrap();
}

/// Kills application, CometBFT or both of a random node at random moments, and starts both again, as a supervisor does.
async fn kill_at_random(network: &mut Network, load: &Load) -> Outcome {
    let seed = number("CONCORDAT_SEED", u64::from(std::process::id()) << 16 | 1);
    println!("seed {seed}");
    let mut random = Random::new(seed);
    for _ in 0..number("CONCORDAT_KILLS", 6) {
        let (at, what) = (random.below(network.nodes.len() as u64) as usize, random.below(3));
        tokio::time::sleep(Duration::from_millis(random.below(400))).await;
        let node = &mut network.nodes[at];
        if what != 1
            && let Some(app) = &mut node.app
        {
            app.stop();
        }
        if what != 0 {
            node.comet.stop();
        }
        network.stop(at);
        network.restart(at).await?;
        // A few blocks in between: a chain with one validator does not survive every second kill within one height.
        load.more(200).await?;
    }
    Ok(())
}

pub fn one_validator_survives_random_kills(_: &World) {
    random_kills(&["police"], &["court"]);
}

pub fn four_validators_survive_random_kills(_: &World) {
    random_kills(&["court", "grid", "police", "transport"], &[]);
}

fn random_kills(validators: &[&str], others: &[&str]) {
    let run = async {
        let mut network = network(validators, others).await?;
        let supply = supply(&network, 6_000).await?;
        let (writer, sent) = (supply.writer.to_string(), supply.batches.last().map_or(0, |b| b.last_seq));
        let load = Load::begin(&network, supply);
        kill_at_random(&mut network, &load).await?;
        check(&network, load, &writer, sent).await
    };
    wait(run).unwrap();
}

/// A small file system of memory on a folder; the folder's files move onto it.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// None where this user may not mount.
    fn on(folder: &Path, mb: u64) -> Option<Self> {
        let aside = folder.with_extension("aside");
        std::fs::rename(folder, &aside).ok()?;
        std::fs::create_dir(folder).ok()?;
        let size = format!("size={mb}m,mode=0700");
        let ok = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder).status();
        if !ok.is_ok_and(|s| s.success()) {
            std::fs::remove_dir(folder).ok()?;
            std::fs::rename(&aside, folder).ok()?;
            return None;
        }
        let copied = Command::new("cp").arg("-a").arg(aside.join(".")).arg(folder).status();
        assert!(copied.is_ok_and(|s| s.success()), "the files do not fit the small disk");
        Some(Self(folder.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

pub fn a_full_disk_stops_one_node_and_loses_nothing(_: &World) {
    let run = async {
        let mut network = network(&["court", "grid", "police", "transport"], &[]).await?;
        let supply = supply(&network, 6_000).await?;
        let (writer, sent) = (supply.writer.to_string(), supply.batches.last().map_or(0, |b| b.last_seq));
        let load = Load::begin(&network, supply);
        load.more(200).await?;
        let victim = 3;
        network.stop(victim);
        let folder = network.ledger_store(victim).parent().map(Path::to_owned).unwrap_or_default();
        let Some(disk) = SmallDisk::on(&folder, 64) else {
            println!("SKIPPED full disk: this user may not mount a file system");
            return Ok(());
        };
        network.restart(victim).await?;
        load.more(200).await?;
        // Full to the last byte: the application must stop rather than go on without its store.
        let ballast = folder.join("ballast");
        let _ = Command::new("dd")
            .args(["if=/dev/zero", "bs=4096", "status=none"])
            .arg(format!("of={}", ballast.display()))
            .status();
        let end = Instant::now() + Duration::from_secs(60);
        while network.nodes[victim].app.as_mut().is_some_and(|a| a.is_up()) {
            load.more(50).await?;
            assert!(Instant::now() < end, "the application went on with a full disk");
        }
        // The other three go on meanwhile.
        load.more(200).await?;
        std::fs::remove_file(&ballast).expect("the ballast");
        network.stop(victim);
        network.restart(victim).await?;
        check(&network, load, &writer, sent).await?;
        network.stop(victim);
        drop(disk);
        Ok::<_, BenchError>(())
    };
    wait(run).unwrap();
}

/// Cuts bytes off the end of a file, as a power loss does to the last write.
fn tear(file: &Path, bytes: u64) {
    let open = OpenOptions::new().write(true).open(file).expect("the file to tear");
    let len = open.metadata().expect("its length").len();
    open.set_len(len.saturating_sub(bytes)).expect("a shorter file");
}

pub fn a_torn_last_write_is_repaired(_: &World) {
    let run = async {
        let mut network = network(&["court", "grid", "police", "transport"], &[]).await?;
        let supply = supply(&network, 6_000).await?;
        let (writer, sent) = (supply.writer.to_string(), supply.batches.last().map_or(0, |b| b.last_seq));
        let load = Load::begin(&network, supply);
        for (victim, bytes) in [(0, 1), (1, 37), (2, 400)] {
            load.more(200).await?;
            network.stop(victim);
            tear(&network.comet_home(victim).join("data/cs.wal/wal"), bytes);
            network.restart(victim).await?;
        }
        check(&network, load, &writer, sent).await
    };
    wait(run).unwrap();
}
