#![allow(clippy::unwrap_used)]
use super::*;
use crate::tree::value_leaf;
use ed25519_dalek::{Signer, SigningKey};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn value(i: u64) -> Vec<u8> {
    format!("entry {i}").into_bytes()
}

type Folder = BTreeMap<TileId, Vec<u8>>;

fn grow(edge: &mut Edge, to: u64, folder: &mut Folder) {
    for i in edge.size()..to {
        folder.extend(edge.push(&leaf_data(i, &value(i))));
    }
    folder.extend(edge.partials());
}

fn root_of(size: u64) -> Hash {
    let leaves: Vec<Hash> = (0..size).map(|i| value_leaf(&i.to_be_bytes(), &value(i))).collect();
    tree::root(&leaves)
}

#[test]
fn paths_are_those_of_the_specification() {
    let tile = |layer, index, width| TileId { layer, index, width };
    for (tile, path) in [
        (tile(Layer::Hashes(0), 1_234_067, 256), "tile/0/x001/x234/067"),
        (tile(Layer::Hashes(2), 0, 1), "tile/2/000.p/1"),
        (tile(Layer::Entries, 273, 112), "tile/entries/273.p/112"),
        (tile(Layer::Entries, 1_000, 256), "tile/entries/x001/000"),
    ] {
        assert_eq!(tile.to_string(), path);
        assert_eq!(path.parse(), Ok(tile));
    }
    for bad in [
        "tile/0/1",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/x000/001",
        "tile/00/001",
        "tile/0/001.p/01",
        "tile/+0/001",
        "tile/0/../../keys",
        "tile/0/xx01/001",
        "tile/0/",
        "tile/entries/000.p/",
        "0/000",
        "tile/0/000/",
        "tile/0//000",
        "tile/0/x999/x999/x999/x999/x999/x999/x999/999",
    ] {
        assert_eq!(bad.parse::<TileId>(), Err(C2spError::Path), "{bad}");
    }
}

#[test]
fn partial_tiles_are_those_of_the_specification() {
    let text = |size| partial_tiles(size).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(text(70_000), ["tile/entries/273.p/112", "tile/0/273.p/112", "tile/1/001.p/17", "tile/2/000.p/1"]);
    assert_eq!(text(256), ["tile/1/000.p/1"]);
    assert!(text(0).is_empty());
}

#[test]
fn the_root_is_the_ledgers_at_every_size() {
    let (mut edge, mut folder) = (Edge::new(), Folder::new());
    for size in [0, 1, 2, 3, 255, 256, 257, 511, 512, 513, 66_000] {
        grow(&mut edge, size, &mut folder);
        assert_eq!(edge.root(), root_of(size), "{size}");
        // What lies in the folder is enough to go on from.
        assert_eq!(Edge::resume(size, |t| folder.get(t).cloned()).unwrap().root(), edge.root());
    }
    assert_eq!(folder.keys().filter(|t| t.layer == Layer::Hashes(1) && t.width == 256).count(), 1);
    // A full tile above holds the roots of the tiles below, and a bundle the data of the leaves beside it.
    let hashes = |t: &TileId| folder[t].chunks(32).map(|c| c.try_into().unwrap()).collect::<Vec<Hash>>();
    let full = |layer, index| TileId { layer, index, width: 256 };
    for at in 0..256u64 {
        let below = hashes(&full(Layer::Hashes(0), at));
        assert_eq!(hashes(&full(Layer::Hashes(1), 0))[at as usize], tree::root(&below));
        let bundle = read_bundle(&folder[&full(Layer::Entries, at)]).unwrap();
        assert_eq!(bundle.iter().map(|d| tree::leaf_hash(d)).collect::<Vec<_>>(), below);
    }
}

#[test]
fn a_changed_folder_is_not_continued() {
    let (mut edge, mut folder) = (Edge::new(), Folder::new());
    grow(&mut edge, 300, &mut folder);
    for tile in partial_tiles(300) {
        let mut less = folder.clone();
        less.remove(&tile);
        assert_eq!(Edge::resume(300, |t| less.get(t).cloned()), Err(C2spError::Missing(tile)));
        for at in [0, folder[&tile].len() - 1] {
            let mut other = folder.clone();
            other.get_mut(&tile).unwrap()[at] ^= 1;
            // Changed leaves contradict their hashes; a changed hash leads to another root.
            let resumed = Edge::resume(300, |t| other.get(t).cloned());
            assert!(resumed.is_err() || resumed.unwrap().root() != edge.root(), "{tile} at {at}");
        }
        let mut short = folder.clone();
        short.get_mut(&tile).unwrap().pop();
        assert!(Edge::resume(300, |t| short.get(t).cloned()).is_err());
    }
}

fn key(seed: u8) -> (SigningKey, [u8; 32]) {
    let key = SigningKey::from_bytes(&[seed; 32]);
    let public = key.verifying_key().to_bytes();
    (key, public)
}

fn signed() -> (Note, VerifierKey, VerifierKey) {
    let head = TreeHead { origin: origin("city-1"), size: 300, root: root_of(300) };
    assert_eq!(head.to_string().parse::<TreeHead>().unwrap(), head);
    let (secret, public) = key(1);
    let log = VerifierKey::log(&head.origin, public).unwrap();
    let (eye, public) = key(2);
    let witness = VerifierKey::witness("witness.example/w1", public).unwrap();
    let text = head.to_string();
    let mut cosigned = 1_700_000_000u64.to_be_bytes().to_vec();
    cosigned.extend(eye.sign(cosignature_text(1_700_000_000, &text).as_bytes()).to_bytes());
    let signatures = vec![log.line(&secret.sign(text.as_bytes()).to_bytes()), witness.line(&cosigned)];
    (Note { text, signatures }, log, witness)
}

#[test]
fn notes_verify_with_their_keys_alone() {
    let (note, log, witness) = signed();
    assert_eq!(note.to_string().parse::<Note>().unwrap(), note);
    assert_eq!(log.to_string().parse::<VerifierKey>().unwrap(), log);
    assert_eq!(log.verify(&note), Ok(None));
    assert_eq!(witness.verify(&note), Ok(Some(1_700_000_000)));
    let stranger = VerifierKey::log(&log.name, key(3).1).unwrap();
    assert_eq!(stranger.verify(&note), Err(C2spError::Unsigned(log.name.clone())));
    let mut grown = note.clone();
    grown.text = grown.text.replace("\n300\n", "\n301\n");
    assert_eq!(log.verify(&grown), Err(C2spError::Signature(log.name.clone())));
    assert_eq!(witness.verify(&grown), Err(C2spError::Signature(witness.name.clone())));
    let mut later = note.clone();
    later.signatures[1].bytes[7] ^= 1;
    assert_eq!(witness.verify(&later), Err(C2spError::Signature(witness.name.clone())));
}

/// The example of c2sp.org/signed-note and tlog-checkpoint, with its key from golang.org/x/mod/sumdb/note.
#[test]
fn a_note_of_the_go_library_verifies() {
    let key: VerifierKey = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW".parse().unwrap();
    let text = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
    let line = "\u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
    let note: Note = format!("{text}\n{line}").parse().unwrap();
    assert_eq!(key.verify(&note), Ok(None));
}

proptest! {
    #[test]
    fn growing_in_steps_is_growing_at_once(steps in proptest::collection::vec(0u64..400, 1..6)) {
        let (mut folder, mut size) = (Folder::new(), 0);
        for step in steps {
            let mut edge = Edge::resume(size, |t| folder.get(t).cloned()).unwrap();
            size += step;
            grow(&mut edge, size, &mut folder);
            let mut once = Edge::new();
            grow(&mut once, size, &mut Folder::new());
            prop_assert_eq!(edge.root(), once.root());
            prop_assert_eq!(edge.partials(), once.partials());
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[\u{2014} a+\n0-9=/x.p]{0,80}", bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        if let Ok(tile) = text.parse::<TileId>() { prop_assert_eq!(tile.to_string(), text.clone()); }
        if let Ok(tile) = format!("tile/0/{text}").parse::<TileId>() { prop_assert_eq!(tile.to_string(), format!("tile/0/{text}")); }
        if let Ok(head) = text.parse::<TreeHead>() { prop_assert_eq!(head.to_string(), text.clone()); }
        let _ = text.parse::<VerifierKey>();
        let _ = text.parse::<Note>();
        let _ = read_bundle(&bytes);
        let _ = Edge::resume(bytes.len() as u64, |_| Some(bytes.clone()));
    }

    /// Whatever byte of a note is changed, no key verifies it any more, or only the other key's line was hit.
    #[test]
    fn a_changed_note_is_refused(at in any::<proptest::sample::Index>(), bit in 0u8..7) {
        let (note, log, witness) = signed();
        let mut bytes = note.to_string().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let Ok(text) = String::from_utf8(bytes) else { return Ok(()) };
        let Ok(other) = text.parse::<Note>() else { return Ok(()) };
        prop_assert!(log.verify(&other).is_err() || witness.verify(&other).is_err());
    }
}
