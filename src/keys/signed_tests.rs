use super::*;
use crate::keys::ceremony::{First, Next};
use crate::keys::chain::Chain;
use chrono::TimeDelta;
use ed25519_dalek::SigningKey;
use proptest::prelude::*;
use serde_json::json;

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn online(seed: u8) -> BTreeMap<KeyRole, PublicKey> {
    let key = |role: KeyRole| {
        let secret = [100 + seed * 5 + role as u8; 32];
        PublicKey::of(SigningKey::from_bytes(&secret).verifying_key())
    };
    KeyRole::ALL.into_iter().map(|role| (role, key(role))).collect()
}

fn root(threshold: usize, seeds: &[u8]) -> Root {
    Root { threshold, keys: seeds.iter().map(|seed| RootKey::of(*seed).public()).collect() }
}

fn first(root: Root) -> Draft {
    let (keys, now) = (online(0), at("2026-11-30T10:00:00Z"));
    First { public_name: "registry.example", root, keys: &keys, valid_from: now, at: now }.draft().unwrap()
}

fn signed(mut draft: Draft, seeds: &[u8]) -> Draft {
    for seed in seeds {
        draft.sign(&RootKey::of(*seed));
    }
    draft
}

fn nothing() -> Next<'static> {
    Next {
        keys: None,
        overlap: TimeDelta::hours(1),
        revoked: &[],
        added: Vec::new(),
        removed: &[],
        threshold: None,
        at: at("2026-12-01T10:00:00Z"),
    }
}

#[test]
fn a_trust_file_comes_back_as_it_was_written_and_is_for_jq() {
    let file = signed(first(root(1, &[1])), &[1]).complete().unwrap();
    let read = TrustFile::parse(&file.bytes()).unwrap();
    assert!(read == file && read.trust() == file.trust());
    // Another layout of the same document is the same file.
    let value: Value = serde_json::from_slice(&file.bytes()).unwrap();
    assert!(TrustFile::parse(value.to_string().as_bytes()).unwrap() == file);
    assert!(value["signed"]["keys"]["summary"][0]["public_key"].as_str().unwrap().starts_with("-----BEGIN"));
    assert_eq!(value["signed"]["keys"].as_object().unwrap().len(), 5);
    assert!(file.trust().fingerprint().unwrap().starts_with("sha256:"));
}

#[test]
fn two_of_three_root_keys_sign_and_one_that_signs_twice_counts_once() {
    let draft = || first(root(2, &[1, 2, 3]));
    let refused = signed(draft(), &[2]).complete().unwrap_err();
    assert_eq!(refused, TrustRefused::OwnRoot { version: 1, have: 1, need: 2 });
    assert_eq!(
        signed(draft(), &[2, 2, 9]).complete().unwrap_err(),
        refused,
        "a stranger's counts for nothing"
    );
    signed(draft(), &[3, 1]).complete().unwrap();

    // The same signature under a second name of a key, and under that of another root key.
    let one = signed(draft(), &[1]);
    let mut value: Value = serde_json::from_slice(&one.bytes()).unwrap();
    let sig = value["signatures"][0]["sig"].clone();
    for name in ["another-name".to_owned(), RootKey::of(2).public().id().to_owned()] {
        value["signatures"] = json!([value["signatures"][0], {"keyid": name, "sig": sig}]);
        assert_eq!(TrustFile::parse(value.to_string().as_bytes()).unwrap_err(), refused, "{name}");
    }
    // The same key twice in the root, under its own id and under another one.
    let mut twice = draft().signed.clone();
    twice["root"]["keys"][1] = twice["root"]["keys"][0].clone();
    let document = |signed: &Value| json!({"signed": signed, "signatures": []}).to_string();
    let why = Draft::read(document(&twice).as_bytes()).unwrap_err().to_string();
    assert!(why.contains("twice"), "{why}");
    twice["root"]["keys"][1]["key_id"] = json!("a".repeat(64));
    let why = Draft::read(document(&twice).as_bytes()).unwrap_err().to_string();
    assert!(why.contains("the key with the key_id"), "{why}");
}

#[test]
fn hostile_and_truncated_trust_files_are_refused_in_words() {
    let file = signed(first(root(1, &[1])), &[1]).complete().unwrap();
    let bytes = file.bytes();
    for end in (0..bytes.len() - 2).step_by(17) {
        assert!(TrustFile::parse(&bytes[..end]).is_err(), "{end}");
    }
    let base: Value = serde_json::from_slice(&bytes).unwrap();
    let why = |change: &dyn Fn(&mut Value)| {
        let mut value = base.clone();
        change(&mut value);
        TrustFile::parse(value.to_string().as_bytes()).unwrap_err()
    };
    assert!(matches!(why(&|v| v["signed"]["version"] = json!(2)), TrustRefused::OwnRoot { have: 0, .. }));
    assert!(matches!(why(&|v| v["signed"]["unknown"] = json!(1)), TrustRefused::OwnRoot { have: 0, .. }));
    assert!(matches!(
        why(&|v| v["signed"]["format"] = json!("proofmark-trust-v2")),
        TrustRefused::OtherFormat(_)
    ));
    assert!(
        why(&|v| v["beside"] = json!(1)).to_string().contains("beside"),
        "nothing stands beside what is signed"
    );
    for version in [json!(0), json!(-1), json!(1.5), json!(5_000_000_000_u64), json!("1")] {
        assert!(matches!(why(&|v| v["signed"]["version"] = version.clone()), TrustRefused::Malformed(_)));
    }
    for threshold in [json!(0), json!(2), json!(-1)] {
        assert!(matches!(
            why(&|v| v["signed"]["root"]["threshold"] = threshold.clone()),
            TrustRefused::Malformed(_)
        ));
    }
    let many: Vec<Value> = (0..65).map(|n| json!({"keyid": n.to_string(), "sig": ""})).collect();
    assert!(why(&|v| v["signatures"] = json!(many)).to_string().contains("64"));
    assert!(why(&|v| v["signatures"][0]["sig"] = json!("!")).to_string().contains("base64"));
    assert!(why(&|v| v["signed"]["public_name"] = json!("a\u{202e}b")).to_string().contains("public_name"));
    // A key of one role does not sign for another.
    assert!(
        why(&|v| v["signed"]["keys"]["log"] = v["signed"]["keys"]["summary"].clone())
            .to_string()
            .contains("twice")
    );
    let text = String::from_utf8(bytes.clone()).unwrap();
    let doubled = text.replacen("\"version\": 1", "\"version\": 1, \"version\": 2", 1);
    assert!(TrustFile::parse(doubled.as_bytes()).unwrap_err().to_string().contains("twice"));
    let old = json!({"version": 1, "verifier_id": "https://registry.example/proofmark", "keys": {}});
    assert_eq!(TrustFile::parse(old.to_string().as_bytes()).unwrap_err(), TrustRefused::Unsigned);
    assert_eq!(TrustFile::parse(&vec![b' '; MAX_TRUST_BYTES + 1]).unwrap_err(), TrustRefused::TooLarge);
    assert!(TrustFile::parse("[".repeat(60_000).as_bytes()).is_err());
}

#[test]
fn what_a_newer_build_says_is_signed_and_otherwise_ignored() {
    let mut value = first(root(1, &[1])).signed.clone();
    value["map_secret"] = json!("sha256:aa");
    value["keys"]["mirror"] = value["keys"]["log"].clone();
    value["keys"]["summary"][0]["hint"] = json!(1);
    value["keys"]["mirror"][0]["scheme"] = json!("ml-dsa-44");
    let draft = Draft::of(value, BTreeMap::new()).unwrap();
    let file = TrustFile::parse(&signed(draft, &[1]).bytes()).unwrap();
    assert_eq!(file.trust().keys.len(), 5);
    // This build would lose it in the next version.
    assert!(nothing().draft(&file).unwrap_err().chain().contains("newer proofmark"));
}

#[test]
fn a_next_version_rotates_keys_with_an_overlap_and_revokes() {
    let old = signed(first(root(1, &[1])), &[1]).complete().unwrap();
    let (new, now) = (online(1), at("2026-12-01T10:00:00Z"));
    let next = Next { keys: Some(&new), ..nothing() }.draft(&old).unwrap();
    for role in KeyRole::ALL {
        let count = |at| next.trust().in_force(role, at).count();
        assert_eq!((count(now), count(now + TimeDelta::hours(1))), (2, 1), "{role}");
        assert_eq!(next.trust().keys[&role][0].key_id, new[&role].id(), "newest first");
    }
    assert_eq!(next.trust().owner(), old.trust().owner(), "the store is the same registry's");
    let stolen = [online(0)[&KeyRole::Summary].id().to_owned()];
    let none_left = Next { revoked: &stolen, ..nothing() }.draft(&old).unwrap_err().chain();
    assert!(none_left.contains("no summary key"), "{none_left}");
    let next = Next { keys: Some(&new), revoked: &stolen, ..nothing() }.draft(&old).unwrap();
    let keys = &next.trust().keys[&KeyRole::Summary];
    assert_eq!((keys[1].revoked_at, keys[1].valid_until), (Some(now), Some(now)));
    let unknown = ["x".to_owned()];
    assert!(Next { revoked: &unknown, ..nothing() }.draft(&old).is_err());
    assert!(Next { removed: &unknown, ..nothing() }.draft(&old).is_err());
    assert!(Next { threshold: Some(2), ..nothing() }.draft(&old).is_err());
}

#[test]
fn a_root_is_rotated_by_the_roots_of_both_versions_over_two_at_once() {
    let one = signed(first(root(1, &[1])), &[1]).complete().unwrap();
    let removed = [RootKey::of(1).public().id().to_owned()];
    let next = Next { added: vec![RootKey::of(2).public()], removed: &removed, ..nothing() };
    let two = next.draft(&one).unwrap();
    let alone = signed(two.clone(), &[2]).complete().unwrap();
    assert!(matches!(one.is_followed_by(&alone), Err(TrustRefused::EarlierRoot { have: 0, need: 1, .. })));
    let two = signed(two, &[1, 2]).complete().unwrap();
    assert_eq!(one.is_followed_by(&two), Ok(true));
    let removed = [RootKey::of(2).public().id().to_owned()];
    let next = Next { added: vec![RootKey::of(3).public()], removed: &removed, ..nothing() };
    let three = signed(next.draft(&two).unwrap(), &[2, 3]).complete().unwrap();
    assert_eq!(one.is_followed_by(&three), Err(TrustRefused::Gap { found: 3, next: 2 }));
    let mut chain = Chain::begin(one.clone());
    assert_eq!(chain.extend(two.clone()), Ok(true));
    assert_eq!(chain.extend(three.clone()), Ok(true));
    assert_eq!((chain.extend(one.clone()), chain.extend(three.clone())), (Ok(false), Ok(false)));
    assert_eq!((chain.newest().version(), chain.oldest().version()), (3, 1));
    assert!(
        chain.get(2).is_some_and(|file| **file == two) && chain.get(4).is_none() && chain.get(0).is_none()
    );
    assert!(matches!(three.is_followed_by(&one), Err(TrustRefused::Older { found: 1, trusted: 3 })));
    // The root key that is gone makes nothing any more, not even with the right number.
    let stolen = signed(nothing().draft(&three).unwrap(), &[1]);
    assert!(matches!(stolen.complete(), Err(TrustRefused::OwnRoot { have: 0, .. })));
}

/// A trust file that somebody shows a client.
#[derive(Clone, Debug)]
struct Shown {
    version: u32,
    of: u8,
    threshold: usize,
    roots: BTreeSet<u8>,
    signers: BTreeSet<u8>,
    content: u8,
}

fn shown() -> impl Strategy<Value = Shown> {
    let seeds = || proptest::collection::btree_set(1_u8..5, 1..4);
    (1_u32..5, 0_u8..8, 1_usize..4, seeds(), seeds(), 0_u8..2).prop_map(
        |(version, of, threshold, roots, signers, content)| {
            let threshold = threshold.min(roots.len());
            Shown { version, of: of / 7, threshold, roots, signers, content }
        },
    )
}

impl Shown {
    fn draft(&self) -> Draft {
        let roots: Vec<u8> = self.roots.iter().copied().collect();
        let mut trust = first(root(self.threshold, &roots)).trust().clone();
        trust.version = self.version;
        trust.issued_at += TimeDelta::hours(self.content.into());
        if self.of == 1 {
            trust.public_name = "other.example".into();
        }
        let signers: Vec<u8> = self.signers.iter().copied().collect();
        signed(Draft::new(&trust).unwrap(), &signers)
    }

    fn by(&self, roots: &BTreeSet<u8>) -> usize {
        self.signers.intersection(roots).count()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever a client is shown, in whatever order, what it trusts only goes up by one, within one registry, by
    /// files that enough root keys of the version before and of their own signed.
    #[test]
    fn a_client_only_ever_follows_what_the_roots_of_both_versions_signed(history in proptest::collection::vec(shown(), 1..12)) {
        let start = Shown {
            version: 1, of: 0, threshold: 1, roots: [1].into(), signers: [1].into(), content: 0,
        };
        let mut model = start.clone();
        let mut trusted = start.draft().complete().unwrap();
        for next in history {
            let complete = next.draft().complete();
            prop_assert_eq!(complete.is_ok(), next.by(&next.roots) >= next.threshold);
            let Ok(file) = complete else { continue };
            let follows = trusted.is_followed_by(&file);
            let may = next.of == model.of && next.version == model.version + 1 && next.by(&model.roots) >= model.threshold;
            prop_assert_eq!(follows == Ok(true), may, "{:?} after {:?}", next, model);
            let same = next.of == model.of && next.version == model.version && next.content == model.content
                && next.roots == model.roots && next.threshold == model.threshold;
            prop_assert_eq!(follows == Ok(false), same, "{:?} after {:?}", next, model);
            if follows == Ok(true) {
                trusted = file;
                model = next;
            }
        }
    }
}
