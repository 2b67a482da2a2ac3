//! Crashes, restarts, and stores that must not be used.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::StorageBackend;
use redb::backends::InMemoryBackend;
use tendermint_abci::Application;

use super::kit::{CHAIN, City, genesis, open};
use crate::app::App;
use crate::mock::Mock;
use crate::pool::MempoolLimits;
use crate::state::genesis::Genesis;
use crate::store::{Store, StoreError};

#[test]
fn a_crash_between_finalize_and_commit_is_replayed_to_the_same_hash() {
    let (mut city, a) = City::ready();
    for n in 1..=5 {
        let tx = city.batch("police/executor", vec![city.query(a.handles[1], a.session, n)]);
        city.mock.submit(tx);
        city.clock.advance(100);
        let txs = city.mock.propose();
        city.mock.finalize(txs);
        city.reopen();
        assert_eq!(city.log_size(), 7 + n, "each operation is there once");
    }
    let op = city.query(a.handles[0], a.session, 9);
    assert_eq!(city.say("police/executor", op).1, 0);
}

#[test]
fn a_crash_after_commit_loses_and_doubles_nothing() {
    let (mut city, a) = City::ready();
    for n in 1..=5 {
        let op = city.query(a.handles[0], a.session, n);
        assert_eq!(city.say("police/executor", op).1, 0);
        city.reopen();
        let op = city.query(a.handles[0], a.session, n);
        assert_eq!(city.say("police/executor", op).1, concordat_protocol::codes::REPLAY);
        city.reopen();
    }
    let other = open(&city.dir.path().join("other.redb"), &city.clock);
    city.mock.replay_into(other);
}

#[test]
fn a_crash_before_the_first_block_begins_again() {
    let mut city = City::new();
    city.reopen();
    city.clock.advance(100);
    let txs = city.mock.propose();
    city.mock.finalize(txs);
    city.reopen();
    assert_eq!((city.mock.height(), city.log_size()), (1, 1));
}

#[test]
fn a_second_process_on_the_same_store_is_refused() {
    let city = City::new();
    let error = Store::open(&city.store_path()).unwrap_err();
    assert_eq!(error.code(), "store_database");
    assert!(error.to_string().contains("no other process"), "{error}");
}

#[test]
fn a_store_of_another_format_is_refused_with_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.redb");
    drop(Store::open(&path).unwrap());
    let db = redb::Database::create(&path).unwrap();
    let write = db.begin_write().unwrap();
    let meta: redb::TableDefinition<'_, &str, &[u8]> = redb::TableDefinition::new("meta");
    write.open_table(meta).unwrap().insert("format", [9u8].as_slice()).unwrap();
    write.commit().unwrap();
    drop(db);
    let error = Store::open(&path).unwrap_err();
    assert!(matches!(error, StoreError::Format { found: 9, .. }));
    assert!(error.to_string().contains("has format 9, this version reads 4"), "{error}");
}

#[test]
fn a_store_whose_rows_were_changed_is_refused() {
    let (mut city, _) = City::ready();
    let path = city.store_path();
    let spare = open(&city.dir.path().join("spare.redb"), &city.clock);
    drop(std::mem::replace(&mut city.mock.app, spare));
    let db = redb::Database::create(&path).unwrap();
    let write = db.begin_write().unwrap();
    let rows: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new("rows");
    // Table 15: parameters.
    let mut key = vec![15];
    key.extend(concordat_protocol::cbor::encode(&"checkpoint_ms".to_owned()));
    let value = concordat_protocol::cbor::encode(&1u64);
    assert!(write.open_table(rows).unwrap().insert(key.as_slice(), value.as_slice()).unwrap().is_some());
    write.commit().unwrap();
    drop(db);
    let error = Store::open(&path).unwrap().load().unwrap_err();
    assert_eq!(error.code(), "store_damaged");
}

/// A disk that can fill up. What was written stays.
#[derive(Debug, Clone)]
struct Disk {
    bytes: Arc<InMemoryBackend>,
    full: Arc<AtomicBool>,
}

impl Disk {
    fn room(&self) -> std::io::Result<()> {
        if self.full.load(Ordering::SeqCst) {
            return Err(std::io::Error::from(std::io::ErrorKind::StorageFull));
        }
        Ok(())
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> std::io::Result<u64> {
        self.bytes.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.bytes.read(offset, out)
    }
    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.room()?;
        self.bytes.set_len(len)
    }
    fn sync_data(&self) -> std::io::Result<()> {
        self.room()?;
        self.bytes.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.room()?;
        self.bytes.write(offset, data)
    }
}

#[test]
fn a_full_disk_stops_the_application_and_keeps_the_block_before() {
    let city = City::new();
    let disk = Disk { bytes: Arc::new(InMemoryBackend::new()), full: Arc::new(AtomicBool::new(false)) };
    let on_disk = |disk: &Disk| {
        let db = redb::Builder::new().create_with_backend(disk.clone()).unwrap();
        let store = Store::with_database(db, "memory".as_ref()).unwrap();
        App::new(store, city.clock.clone(), MempoolLimits::default()).unwrap()
    };
    let mut mock = Mock::new(on_disk(&disk), CHAIN, &serde_json::to_string(&genesis()).unwrap());
    city.clock.advance(100);
    mock.block();
    let hash = mock.app_hash();
    city.clock.advance(100);
    let txs = mock.propose();
    mock.finalize(txs);
    disk.full.store(true, Ordering::SeqCst);
    assert!(catch_unwind(AssertUnwindSafe(|| mock.app.commit())).is_err(), "a full disk must not be passed over");
    // The process is gone; the disk has room again.
    let copy = Disk { full: Arc::new(AtomicBool::new(false)), ..disk };
    let app = on_disk(&copy);
    assert_eq!(app.info(Default::default()).last_block_app_hash, hash);
    mock.restart(app);
    assert_eq!(mock.height(), 2);
}

#[test]
fn a_genesis_that_breaks_a_rule_is_refused_with_its_field() {
    let good = serde_json::to_value(genesis()).unwrap();
    let with = |f: &dyn Fn(&mut serde_json::Value)| {
        let mut v = good.clone();
        f(&mut v);
        let parsed = Genesis::parse(v.to_string().as_bytes());
        parsed.and_then(|g| g.apply("test-city")).unwrap_err().to_string()
    };
    let table: [(&str, String); 8] = [
        ("unknown field `extra`", with(&|v| v["extra"] = 1.into())),
        ("version: is 2", with(&|v| v["version"] = 2.into())),
        ("params.speed", with(&|v| v["params"]["speed"] = 1.into())),
        ("is named twice", with(&|v| v["agencies"][1] = v["agencies"][0].clone())),
        ("must hold a root key", with(&|v| v["agencies"][0]["keys"] = serde_json::json!([]))),
        ("unknown role king", with(&|v| v["agencies"][0]["keys"][1]["role"] = "king".into())),
        ("keys[1]", with(&|v| v["agencies"][0]["keys"][1]["key"] = "00".into())),
        ("unknown field `rank`", with(&|v| v["agencies"][0]["keys"][0]["rank"] = 1.into())),
    ];
    for (want, got) in table {
        assert!(got.contains(want), "{want}: {got}");
    }
    let two = with(&|v| {
        let key = v["agencies"][0]["keys"][5]["key"].clone();
        v["agencies"][1]["keys"][5]["key"] = key;
    });
    assert!(two.contains("registered already"), "{two}");
}

#[test]
fn the_validators_of_cometbft_and_of_the_agencies_must_be_the_same() {
    use crate::state::genesis::GenesisValidator;
    let mut genesis = genesis();
    genesis.agencies[0].validator = Some(GenesisValidator { key: hex::encode([5; 32]), power: 10 });
    let same = (vec![5; 32], 10);
    assert!(genesis.check_validators(std::slice::from_ref(&same)).is_ok());
    for other in [vec![], vec![(vec![5; 32], 11)], vec![(vec![6; 32], 10)], vec![same, (vec![6; 32], 1)]] {
        assert_eq!(genesis.check_validators(&other).unwrap_err().code(), "genesis_rule");
    }
    assert!(genesis.apply(CHAIN).is_ok());
    genesis.agencies[0].validator = Some(GenesisValidator { key: "05".into(), power: 10 });
    assert!(genesis.apply(CHAIN).unwrap_err().to_string().contains("32-byte key"));
}
