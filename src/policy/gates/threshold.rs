//! Counting signers for a threshold: each signer once, and each key once, whatever names it is registered under.

use std::collections::{BTreeMap, BTreeSet};

/// How many signers signed with a key that none of the others needs to be counted: the greatest number of pairs of a
/// signer and a key of which no two have the same signer or the same key.
pub(in crate::policy) fn count<'a>(signatures: impl IntoIterator<Item = (&'a str, &'a str)>) -> usize {
    let mut keys_of: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (signer, key) in signatures {
        keys_of.entry(signer).or_default().insert(key);
    }
    let mut owner = BTreeMap::new();
    keys_of.keys().filter(|signer| find(signer, &keys_of, &mut owner, &mut BTreeSet::new())).count()
}

/// Finds a key for the signer; who has it takes another one of its own, if it can. The depth is bounded by the
/// number of signers that share keys.
fn find<'a>(
    signer: &'a str,
    keys_of: &BTreeMap<&'a str, BTreeSet<&'a str>>,
    owner: &mut BTreeMap<&'a str, &'a str>,
    tried: &mut BTreeSet<&'a str>,
) -> bool {
    for key in keys_of.get(signer).into_iter().flatten() {
        if !tried.insert(key) {
            continue;
        }
        let free = match owner.get(key).copied() {
            None => true,
            Some(other) => find(other, keys_of, owner, tried),
        };
        if free {
            owner.insert(key, signer);
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn signers_that_share_a_key_count_once_and_those_with_their_own_each() {
        assert_eq!(count([]), 0);
        assert_eq!(count([("alice", "k"), ("bob", "k")]), 1);
        assert_eq!(count([("alice", "k"), ("alice", "l")]), 1);
        assert_eq!(count([("alice", "k"), ("bob", "k"), ("bob", "l")]), 2);
        assert_eq!(count([("bob", "l"), ("bob", "k"), ("alice", "k"), ("carol", "l")]), 2);
    }

    /// The same by trying every choice of a key for every signer.
    fn by_trying(pairs: &BTreeSet<(u8, u8)>) -> usize {
        let mut best = 0;
        for chosen in 0..(1_u32 << pairs.len()) {
            let taken = pairs.iter().enumerate().filter(|(at, _)| chosen & (1 << at) != 0);
            let taken: Vec<_> = taken.map(|(_, pair)| pair).collect();
            let signers: BTreeSet<_> = taken.iter().map(|(signer, _)| signer).collect();
            let keys: BTreeSet<_> = taken.iter().map(|(_, key)| key).collect();
            if signers.len() == taken.len() && keys.len() == taken.len() {
                best = best.max(taken.len());
            }
        }
        best
    }

    proptest! {
        #[test]
        fn no_key_and_no_signer_is_counted_twice_whatever_the_order(
            pairs in prop::collection::vec((0_u8..5, 0_u8..5), 0..10)
        ) {
            let words: Vec<_> = pairs.iter().map(|(s, k)| (format!("s{s}"), format!("k{k}"))).collect();
            let as_text = |pairs: &[(String, String)]| count(pairs.iter().map(|(s, k)| (s.as_str(), k.as_str())));
            let counted = as_text(&words);
            prop_assert_eq!(counted, by_trying(&pairs.iter().copied().collect()));
            let keys: BTreeSet<_> = pairs.iter().map(|(_, key)| key).collect();
            prop_assert!(counted <= keys.len());
            let turned: Vec<_> = words.iter().rev().chain(&words).cloned().collect();
            prop_assert_eq!(as_text(&turned), counted);
        }
    }
}
