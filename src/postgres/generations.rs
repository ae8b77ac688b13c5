//! Generations: a number for each thing that answers depend on, raised by every write that can change one.
//!
//! A cached answer keeps the generations of all that it depends on and is used only while none of them has
//! changed, which one indexed read confirms. A generation is about the narrowest thing that contains the change:
//! a row that many writers share would make each wait for the others' commits.

use crate::access::PrincipalId;
use crate::names::{Digest, EnvironmentName, RepositoryName, Tag};
use sha2::{Digest as _, Sha256};
use sqlx::PgConnection;
use std::collections::BTreeSet;

/// What an answer depends on, as the key of its row in `generations`.
///
/// Made from names, so that a reader needs no look-up, and what does not exist yet has a generation too: an answer
/// "unknown" ends with the write that makes it known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(i64);

impl Generation {
    /// A manifest's bytes in any repository: the manifest, its authors, versions, attestations, scans, approvals,
    /// blocks and referrers. Writers name it by the digest that they have, so an answer depends on both digests
    /// of a manifest, of each of its children, and of what it refers to.
    pub fn bytes(digest: &Digest) -> Self {
        Self::of("bytes", &[digest.as_ref()])
    }

    /// What a tag of the repository names.
    pub fn tag(repository: &RepositoryName, tag: &Tag) -> Self {
        Self::of("tag", &[repository.as_ref(), tag.as_ref()])
    }

    /// What holds for a whole repository: its rules, a hold on it in every environment, the end of a blob.
    pub fn repository(repository: &RepositoryName) -> Self {
        Self::of("repository", &[repository.as_ref()])
    }

    /// What was promoted in a release channel (a repository in an environment), its holds and its overrides.
    pub fn channel(repository: &RepositoryName, environment: &EnvironmentName) -> Self {
        Self::of("channel", &[environment.as_ref(), repository.as_ref()])
    }

    /// An environment: its policies, its holds, and which release channels it has.
    pub fn environment(environment: &EnvironmentName) -> Self {
        Self::of("environment", &[environment.as_ref()])
    }

    /// All signers.
    pub fn signers() -> Self {
        Self::of("signers", &[])
    }

    /// All waivers.
    pub fn waivers() -> Self {
        Self::of("waivers", &[])
    }

    /// What a principal may do: an approval counts only while its author may approve.
    pub fn rights(principal: PrincipalId) -> Self {
        Self::of("rights", &[&principal.to_string()])
    }

    /// The key of its row.
    pub fn key(self) -> i64 {
        self.0
    }

    /// The first 64 bits of a hash of the parts. No part contains a line feed.
    fn of(kind: &str, parts: &[&str]) -> Self {
        let mut hasher = Sha256::new_with_prefix(kind);
        for part in parts {
            hasher.update(b"\n");
            hasher.update(part);
        }
        let hash: [u8; 32] = hasher.finalize().into();
        let bits = hash.iter().take(8).fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
        Self(bits.cast_signed())
    }
}

/// Raises them, in one statement and in the order of their keys. The last statement of a transaction, so that it
/// holds these rows only while it commits, and no two transactions wait for each other.
pub(super) async fn raise(
    connection: &mut PgConnection,
    generations: &BTreeSet<Generation>,
) -> Result<(), sqlx::Error> {
    if generations.is_empty() {
        return Ok(());
    }
    let keys: Vec<i64> = generations.iter().map(|generation| generation.key()).collect();
    sqlx::query!(
        "insert into generations(key, value) select key, 1 from unnest($1::bigint[]) key
         on conflict (key) do update set value = generations.value + 1",
        &keys,
    )
    .execute(connection)
    .await
    .map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_generation_has_a_key_of_its_own() {
        let (a, b): (RepositoryName, RepositoryName) = ("a".parse().unwrap(), "b".parse().unwrap());
        let (env_a, env_b): (EnvironmentName, EnvironmentName) = ("a".parse().unwrap(), "b".parse().unwrap());
        let tag: Tag = "a".parse().unwrap();
        let all = [
            Generation::bytes(&Digest::sha256(b"a")),
            Generation::bytes(&Digest::sha256(b"b")),
            Generation::tag(&a, &tag),
            Generation::tag(&b, &tag),
            Generation::repository(&a),
            Generation::repository(&b),
            Generation::channel(&a, &env_b),
            Generation::channel(&b, &env_a),
            Generation::environment(&env_a),
            Generation::environment(&env_b),
            Generation::signers(),
            Generation::waivers(),
            Generation::rights(1),
            Generation::rights(2),
        ];
        assert_eq!(BTreeSet::from(all).len(), all.len());
    }

    #[test]
    fn a_key_is_the_same_in_every_release() {
        assert_eq!(Generation::signers().key().to_be_bytes(), sha256_prefix("signers"));
        let channel = Generation::channel(&"team/app".parse().unwrap(), &"prod".parse().unwrap());
        assert_eq!(channel.key().to_be_bytes(), sha256_prefix("channel\nprod\nteam/app"));
    }

    fn sha256_prefix(text: &str) -> [u8; 8] {
        let hex = Digest::sha256(text.as_bytes()).hex()[..16].to_owned();
        u64::from_str_radix(&hex, 16).unwrap().to_be_bytes()
    }
}
