//! Scopes: transaction advisory locks, always taken in one order and before the first read of facts.
//!
//! Row locks are not fair (a writer starves behind many readers), advisory locks queue. Who writes
//! a fact that can turn an allow into a deny takes the narrowest scope that holds every decision it can
//! change, exclusive; who decides takes its scopes shared and its own lane exclusive. What stops something
//! (a block, a hold, a revocation) takes the lock on decisions alone, which is the last in the order.

use crate::failure::Failure;
use crate::names::Digest;
use sqlx::PgConnection;

/// How a scope is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Beside others that share it.
    Shared,
    /// Alone.
    Exclusive,
}

/// The locks of one transaction, by row id. Taken by [`Scopes::lock`] in the order environment, repository,
/// lanes, manifests, signers, decisions, in a statement of its own, so that the next statement's snapshot is
/// newer than the locks.
///
/// The locks on decisions are the last ones: a promotion takes them, shared, when it has all others and only
/// its evaluation and its commit are left. A block, a hold or a revocation takes one of them alone and no other
/// lock, so it waits for promotions that are being decided, and never for a push, a scan or an attestation, nor
/// for a promotion that waits for one of these.
#[derive(Clone, Debug, Default)]
pub struct Scopes {
    /// An environment.
    pub environment: Option<(i64, Mode)>,
    /// A repository.
    pub repository: Option<(i64, Mode)>,
    /// Repositories in environments: (repository, environment).
    pub lanes: Vec<(i64, i64, Mode)>,
    /// Who made a manifest what it is: its repository and digest.
    pub manifests: Vec<(i64, Digest, Mode)>,
    /// Which keys count. What records evidence and what decides share it; what makes a key count takes it alone.
    pub signers: Option<Mode>,
    /// Decisions that are being made.
    pub decisions: Vec<(Decisions, Mode)>,
}

/// Decisions on promotions, as widely as a fact may change them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Decisions {
    /// All of them.
    All,
    /// In an environment.
    Environment(i64),
    /// Of a repository.
    Repository(i64),
    /// Of a repository in an environment.
    Channel {
        /// The repository.
        repository: i64,
        /// The environment.
        environment: i64,
    },
}

// All classes of advisory locks, whoever takes them: of one class twice, two that have nothing to do
// with each other would wait for each other, or lock each other out.
const ENVIRONMENT: i32 = 2;
const REPOSITORY: i32 = 3;
const LANE: i32 = 4;
/// No scope: the name of a floating tag, while it moves.
#[cfg(test)]
const FLOATING_NAME: i32 = 5;
const MANIFEST: i32 = 6;
/// No scope: what a repository holds, while it is compared with its quota.
pub const QUOTA: i32 = 7;
/// No scope: the job queue, while jobs of it are claimed.
pub(super) const QUEUE: i32 = 8;
const SIGNERS: i32 = 9;
const ALL_DECISIONS: i32 = 10;
const DECISIONS_IN_ENVIRONMENT: i32 = 11;
const DECISIONS_OF_REPOSITORY: i32 = 12;
const DECISIONS_IN_CHANNEL: i32 = 13;
/// No scope: what a repository holds of evidence, while it is compared with its quota.
pub const EVIDENCE_QUOTA: i32 = 14;

impl Decisions {
    fn lock(self) -> (i32, i32) {
        match self {
            Self::All => (ALL_DECISIONS, 0),
            Self::Environment(id) => (DECISIONS_IN_ENVIRONMENT, key(id)),
            Self::Repository(id) => (DECISIONS_OF_REPOSITORY, key(id)),
            Self::Channel { repository, environment } => {
                (DECISIONS_IN_CHANNEL, lane_key(repository, environment))
            }
        }
    }
}

impl Scopes {
    /// What a push takes: its repository, shared.
    pub fn push(repository_id: i64) -> Self {
        Self { repository: Some((repository_id, Mode::Shared)), ..Self::default() }
    }

    /// With the manifest that is given a name, alone: whoever names it is one of its authors, and an
    /// author's approval may not count.
    #[must_use]
    pub fn naming(mut self, repository_id: i64, digest: &Digest) -> Self {
        self.manifests.push((repository_id, digest.clone(), Mode::Exclusive));
        self
    }

    /// What a promotion takes first: environment and repository, shared.
    pub fn promote(repository_id: i64, environment_id: i64) -> Self {
        Self {
            environment: Some((environment_id, Mode::Shared)),
            repository: Some((repository_id, Mode::Shared)),
            ..Self::default()
        }
    }

    /// What it takes then: its own lane alone, and shared those in which the bytes are to have stood
    /// before, so that no other version takes their place there meanwhile.
    pub fn lanes(repository_id: i64, environment_id: i64, earlier: &[i64]) -> Self {
        let earlier = earlier.iter().map(|earlier| (repository_id, *earlier, Mode::Shared));
        let lanes = earlier.chain([(repository_id, environment_id, Mode::Exclusive)]).collect();
        Self { lanes, ..Self::default() }
    }

    /// What it takes before it evaluates: the manifests that may be promoted, shared.
    pub fn candidates<'a>(repository_id: i64, digests: impl IntoIterator<Item = &'a Digest>) -> Self {
        let manifests = digests.into_iter().map(|digest| (repository_id, digest.clone(), Mode::Shared));
        Self { manifests: manifests.collect(), ..Self::default() }
    }

    /// What it takes last, shared: which keys count, and then every scope whose facts may change the decision.
    pub fn deciding(repository: i64, environment: i64) -> Self {
        let decisions = [
            Decisions::All,
            Decisions::Environment(environment),
            Decisions::Repository(repository),
            Decisions::Channel { repository, environment },
        ];
        let decisions = decisions.map(|one| (one, Mode::Shared)).to_vec();
        Self { signers: Some(Mode::Shared), decisions, ..Self::default() }
    }

    /// What a block, a hold or the end of a right takes: the decisions that it can change, alone.
    pub fn decisions(decisions: Decisions) -> Self {
        Self { decisions: vec![(decisions, Mode::Exclusive)], ..Self::default() }
    }

    /// What makes a key count takes: no evidence is being recorded, and nothing decided. It may take long, and what
    /// stops something does not wait for it.
    pub fn signers() -> Self {
        Self { signers: Some(Mode::Exclusive), ..Self::default() }
    }

    /// One environment, exclusive.
    pub fn environment(environment_id: i64) -> Self {
        Self { environment: Some((environment_id, Mode::Exclusive)), ..Self::default() }
    }

    /// One repository, exclusive.
    pub fn repository(repository_id: i64) -> Self {
        Self { repository: Some((repository_id, Mode::Exclusive)), ..Self::default() }
    }

    /// Waits for the locks, in order; they end with the transaction.
    pub async fn lock(self, connection: &mut PgConnection) -> Result<(), Failure> {
        let wanted = self.keys();
        let classes: Vec<i32> = wanted.iter().map(|(class, _, _)| *class).collect();
        let keys: Vec<i32> = wanted.iter().map(|(_, key, _)| *key).collect();
        let exclusive: Vec<bool> = wanted.iter().map(|(_, _, mode)| *mode == Mode::Exclusive).collect();
        // The function takes the locks in the order of the arrays, one after the other.
        sqlx::query!("select take_scopes($1, $2, $3)", &classes, &keys, &exclusive)
            .execute(connection)
            .await
            .map_err(|error| Failure::new("taking scope locks", error))?;
        Ok(())
    }

    /// Class, key and mode of each lock, in order. Lanes and manifests in the order of their keys, whoever takes
    /// them; what is wanted in both modes is taken alone at once, since a share that is raised later would wait
    /// for another's.
    fn keys(&self) -> Vec<(i32, i32, Mode)> {
        let mut wanted = Vec::with_capacity(8 + self.lanes.len());
        wanted.extend(self.environment.map(|(id, mode)| (ENVIRONMENT, key(id), mode)));
        wanted.extend(self.repository.map(|(id, mode)| (REPOSITORY, key(id), mode)));
        let lanes = self.lanes.iter().map(|(r, e, mode)| (LANE, lane_key(*r, *e), *mode));
        wanted.extend(in_order(lanes.collect()));
        let manifests = self.manifests.iter();
        let manifests = manifests.map(|(id, digest, mode)| (MANIFEST, manifest_key(*id, digest), *mode));
        wanted.extend(in_order(manifests.collect()));
        wanted.extend(self.signers.map(|mode| (SIGNERS, 0, mode)));
        let decisions = self.decisions.iter().map(|(decisions, mode)| {
            let (class, key) = decisions.lock();
            (class, key, *mode)
        });
        wanted.extend(in_order(decisions.collect()));
        wanted
    }
}

/// Locks in the order of their classes and keys, each once: what is wanted in both modes is taken alone.
fn in_order(mut locks: Vec<(i32, i32, Mode)>) -> Vec<(i32, i32, Mode)> {
    locks.sort_unstable_by_key(|(class, key, mode)| (*class, *key, *mode == Mode::Shared));
    locks.dedup_by_key(|(class, key, _)| (*class, *key));
    locks
}

/// Row ids are 64 bits, advisory keys beside a class 32: ids that collide only wait for each other.
#[allow(clippy::cast_possible_truncation, reason = "a collision is harmless")]
fn key(id: i64) -> i32 {
    id as i32
}

fn lane_key(repository: i64, environment: i64) -> i32 {
    key(repository.wrapping_mul(0x9E37_79B1).wrapping_add(environment))
}

fn manifest_key(repository: i64, digest: &Digest) -> i32 {
    let hex = digest.hex();
    let start = hex.get(..8).and_then(|start| i64::from_str_radix(start, 16).ok());
    key(repository.wrapping_mul(0x9E37_79B1).wrapping_add(start.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_class_of_locks_is_its_own() {
        let decisions =
            [ALL_DECISIONS, DECISIONS_IN_ENVIRONMENT, DECISIONS_OF_REPOSITORY, DECISIONS_IN_CHANNEL];
        let classes =
            [ENVIRONMENT, REPOSITORY, LANE, FLOATING_NAME, MANIFEST, QUOTA, QUEUE, SIGNERS, EVIDENCE_QUOTA];
        let classes = [&classes[..], &decisions].concat();
        assert_eq!(classes.iter().collect::<BTreeSet<_>>().len(), classes.len());
    }

    #[test]
    fn lanes_are_taken_in_one_order_and_each_once() {
        let lanes = |own, earlier: &[i64]| {
            let keys = Scopes::lanes(7, own, earlier).keys();
            keys.into_iter().map(|(_, key, mode)| (key, mode)).collect::<Vec<_>>()
        };
        let (one, other) = (lanes(1, &[2, 3]), lanes(3, &[1, 2, 3]));
        let order = |keys: &[(i32, Mode)]| keys.iter().map(|(key, _)| *key).collect::<Vec<_>>();
        assert_eq!(order(&one), order(&other));
        assert_eq!(other.iter().filter(|(_, mode)| *mode == Mode::Exclusive).count(), 1);
        assert!(other.contains(&(lane_key(7, 3), Mode::Exclusive)));
    }
}
