//! Scopes: transaction advisory locks, always taken in one order and before the first read of facts.
//!
//! Row locks are not fair (a writer starves behind many readers), advisory locks queue. Who writes
//! a fact that can turn a yes into a no takes the narrowest scope that holds every decision it can
//! change, exclusive; who decides takes its scopes shared and its own lane exclusive.

use crate::failure::Failure;
use sqlx::PgConnection;

/// How a scope is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Beside others that share it.
    Shared,
    /// Alone.
    Exclusive,
}

/// The scopes of one transaction, by row id. Taken by [`Scopes::lock`] in the order global,
/// environment, repository, lane, in a statement of its own, so that the next statement's snapshot
/// is newer than the locks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scopes {
    /// The whole registry.
    pub global: Option<Mode>,
    /// An environment.
    pub environment: Option<(i64, Mode)>,
    /// A repository.
    pub repository: Option<(i64, Mode)>,
    /// A repository in an environment: (repository, environment).
    pub lane: Option<(i64, i64, Mode)>,
}

const GLOBAL: i32 = 1;
const ENVIRONMENT: i32 = 2;
const REPOSITORY: i32 = 3;
const LANE: i32 = 4;

impl Scopes {
    /// What a push takes: its repository, shared.
    pub fn push(repository_id: i64) -> Self {
        Self { repository: Some((repository_id, Mode::Shared)), ..Self::default() }
    }

    /// What a promotion takes: global, environment and repository shared, its own lane exclusive.
    pub fn promote(repository_id: i64, environment_id: i64) -> Self {
        Self {
            global: Some(Mode::Shared),
            environment: Some((environment_id, Mode::Shared)),
            repository: Some((repository_id, Mode::Shared)),
            lane: Some((repository_id, environment_id, Mode::Exclusive)),
        }
    }

    /// The whole registry, exclusive.
    pub fn everything() -> Self {
        Self { global: Some(Mode::Exclusive), ..Self::default() }
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
        let mut wanted: Vec<(i32, i32, Mode)> = Vec::with_capacity(4);
        wanted.extend(self.global.map(|mode| (GLOBAL, 0, mode)));
        wanted.extend(self.environment.map(|(id, mode)| (ENVIRONMENT, key(id), mode)));
        wanted.extend(self.repository.map(|(id, mode)| (REPOSITORY, key(id), mode)));
        wanted.extend(
            self.lane.map(|(repository, environment, mode)| (LANE, lane_key(repository, environment), mode)),
        );
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
}

/// Row ids are 64 bits, advisory keys beside a class 32: ids that collide only wait for each other.
#[allow(clippy::cast_possible_truncation, reason = "a collision is harmless")]
fn key(id: i64) -> i32 {
    id as i32
}

fn lane_key(repository: i64, environment: i64) -> i32 {
    key(repository.wrapping_mul(0x9E37_79B1).wrapping_add(environment))
}
