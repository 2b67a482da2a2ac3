#![allow(clippy::unwrap_used, clippy::expect_used)]
use super::*;
use crate::cbor::{decode, encode};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

fn fields() -> impl Strategy<Value = BTreeMap<String, Vec<u8>>> {
    btree_map("[a-z/]{1,12}", vec(any::<u8>(), 0..20), 0..12)
}

#[test]
fn salts_come_in_pairs() {
    let secret = [9; 32];
    let all = salts(&secret, 5);
    let second = sha256(&[&secret, &[0, 0, 0, 1]]);
    assert_eq!((all[2].as_slice(), all[3].as_slice()), second.split_at(16));
    assert_eq!(all.len(), 5);
    assert!((0..5).all(|i| all.iter().filter(|s| **s == all[i]).count() == 1));
}

#[test]
fn limits_are_kept() {
    let long = BTreeMap::from([("n".repeat(LEAF_NAME_MAX + 1), vec![])]);
    assert!(matches!(LeafSet::new(&[0; 32], long), Err(LeavesError::Name(_))));
    let many = (0..=LEAVES_MAX).map(|i| (i.to_string(), vec![])).collect();
    assert_eq!(LeafSet::new(&[0; 32], many), Err(LeavesError::Count(LEAVES_MAX + 1)));
}

#[test]
fn debug_shows_no_value() {
    let set = LeafSet::new(&[0; 32], BTreeMap::from([("name".into(), b"Ada".to_vec())])).unwrap();
    assert!(!format!("{set:?}").contains(&format!("{:?}", b"Ada")));
}

proptest! {
    /// Any subset can be shown, in one step or two, and proves itself against the one root.
    #[test]
    fn any_subset_redacts_and_verifies(secret: [u8; 32], fields in fields(), mask: u16, later: u16) {
        let set = LeafSet::new(&secret, fields.clone()).unwrap();
        let names: Vec<&String> = fields.keys().collect();
        let shows = |mask: u16, name: &str| names.iter().position(|n| *n == name).is_some_and(|i| mask >> i & 1 == 1);
        let shown = set.redact(|n| shows(mask, n));
        shown.verify(&set.root()).unwrap();
        let want: Vec<(&str, &[u8])> = fields.iter().filter(|(n, _)| shows(mask, n)).map(|(n, v)| (n.as_str(), v.as_slice())).collect();
        prop_assert_eq!(shown.opened().collect::<Vec<_>>(), want);
        prop_assert_eq!(&decode::<Redacted>(&encode(&shown)).unwrap(), &shown);
        prop_assert_eq!(shown.redact(|n| shows(later, n)), set.redact(|n| shows(mask & later, n)));
    }

    /// A forged one: whatever is changed in what is shown, it no longer belongs to the root.
    #[test]
    fn changed_fields_are_refused(secret: [u8; 32], fields in fields(), at: prop::sample::Index, what in 0..5u8) {
        prop_assume!(fields.len() > 1);
        let set = LeafSet::new(&secret, fields).unwrap();
        let mut shown = set.redact(|_| true);
        let i = at.index(shown.leaves.len());
        match (what, &mut shown.leaves[i]) {
            (0, LeafView::Opened { value, .. }) => value.0.push(0),
            (1, LeafView::Opened { name, .. }) => name.push('x'),
            (2, LeafView::Opened { salt, .. }) => salt[0] ^= 1,
            (3, _) => { shown.leaves.remove(i); }
            _ => { let leaf = shown.leaves[i].clone(); shown.leaves.insert(i, leaf); }
        }
        prop_assert!(shown.verify(&set.root()).is_err());
    }

    /// Moving a byte between name and value gives another root: lengths are part of the leaf.
    #[test]
    fn name_and_value_do_not_run_together(name in "[a-z]{2,8}", value in "[a-z]{1,8}") {
        let set = |n: &str, v: &str| LeafSet::new(&[1; 32], BTreeMap::from([(n.to_owned(), v.as_bytes().to_vec())])).unwrap().root();
        let (head, tail) = name.split_at(name.len() - 1);
        prop_assert_ne!(set(&name, &value), set(head, &format!("{tail}{value}")));
    }

    /// What is hidden shows in nothing but its hash.
    #[test]
    fn hidden_values_leave_no_trace(fields in fields(), other in vec(any::<u8>(), 0..30), at: prop::sample::Index, secrets: [[u8; 32]; 2]) {
        prop_assume!(!fields.is_empty());
        let hidden = fields.keys().nth(at.index(fields.len())).unwrap().clone();
        let mut changed = fields.clone();
        changed.insert(hidden.clone(), other);
        let blank = |secret, fields| {
            let mut shown = LeafSet::new(secret, fields).unwrap().redact(|n| n != hidden);
            for leaf in &mut shown.leaves {
                match leaf {
                    LeafView::Hidden { hash } => *hash = [0; 32],
                    LeafView::Opened { salt, .. } => *salt = [0; 16],
                }
            }
            encode(&shown)
        };
        prop_assert_eq!(blank(&secrets[0], fields), blank(&secrets[1], changed));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        if let Ok(shown) = decode::<Redacted>(&bytes) {
            prop_assert_eq!(encode(&shown), bytes);
            let _ = shown.verify(&[0; 32]);
        }
    }
}
