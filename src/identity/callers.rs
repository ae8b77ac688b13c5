//! Credentials -> authority, cached while nothing about anybody's authority has changed.

use super::docker::DockerToken;
use super::principals::Uses;
use super::secret::Secret;
use super::store;
use super::wrong::Tries;
use crate::access::{Authority, Principal};
use crate::clock;
use crate::failure::Failure;
use crate::keys::Keys;
use crate::postgres::Db;
use chrono::{DateTime, Utc};
use ipnet::IpNet;
use moka::sync::Cache;
use sqlx::PgConnection;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use subtle::ConstantTimeEq;
use uuid::Uuid;

/// Authenticated callers kept at the most.
const MAX_CACHED: u64 = 10_000;

/// For how long the generation that was last read is believed. A token revoked at another replica is
/// refused here after this at the latest.
const BELIEVED_FOR: Duration = Duration::from_secs(1);

/// The row of the anonymous public.
const ANONYMOUS: i64 = 1;

/// Who a credential turned out to be.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The principal and what it may do.
    pub authority: Arc<Authority>,
    /// The token that was shown, directly or behind a docker token; `None` for the public.
    pub token: Option<Uuid>,
    /// When the credential ends by itself.
    pub expires_at: Option<DateTime<Utc>>,
    /// The networks from which it may be used; everywhere when `None`.
    pub addresses: Option<Arc<[IpNet]>>,
    /// The generation that held before it was looked up.
    pub generation: i64,
}

impl Caller {
    /// Whether it may come from this address.
    pub fn may_come_from(&self, address: Option<IpAddr>) -> bool {
        let Some(networks) = &self.addresses else { return true };
        address.is_some_and(|address| networks.iter().any(|network| network.contains(&address)))
    }
}

/// The cache of callers. Its generation is Postgres' own: any change of a token or grant raises it,
/// and nothing that was looked up under another one is believed.
pub struct Callers {
    known: Cache<[u8; 32], Caller>,
    /// By the token, with all that it may do: a docker token is looked up no more often than the token it was made
    /// with, however many there are. `None` is the anonymous public.
    by_token: Cache<Option<Uuid>, Caller>,
    /// Credentials that did not hold, with the generation that held before they were looked up.
    wrong: Cache<[u8; 32], i64>,
    tries: Tries,
    read: Mutex<Read>,
    uses: Mutex<Uses>,
}

#[derive(Clone, Copy)]
struct Read {
    generation: i64,
    at: Option<Instant>,
}

impl Callers {
    /// An empty cache, and the maximum number of wrong credentials in a minute from one address.
    pub fn new(wrong_per_minute: u32) -> Self {
        let read = Read { generation: -1, at: None };
        let (known, wrong, by_token) =
            (Cache::new(MAX_CACHED), Cache::new(MAX_CACHED), Cache::new(MAX_CACHED));
        let (tries, read, uses) = (Tries::new(wrong_per_minute), Mutex::new(read), Mutex::default());
        Self { known, by_token, wrong, tries, read, uses }
    }

    /// Notes that the caller's token was used; the next [`Self::write_uses`] writes it.
    pub fn note_use(&self, caller: &Caller) {
        if let Some(token) = caller.token {
            self.uses.lock().unwrap_or_else(PoisonError::into_inner).note(token, clock::now());
        }
    }

    /// Writes when tokens were used since the last time.
    pub async fn write_uses(&self, db: &Db) -> Result<(), Failure> {
        let uses = std::mem::take(&mut *self.uses.lock().unwrap_or_else(PoisonError::into_inner));
        uses.write(db).await
    }

    /// Reads the generation, so that this replica's own changes hold for its very next request.
    pub async fn refresh(&self, db: &Db) -> Result<(), Failure> {
        let asked = Instant::now();
        let mut connection = db.pool().acquire().await?;
        let generation = store::grants::generation(&mut connection).await?;
        self.believe(generation, asked)
    }

    /// Believes what was read, unless somebody who asked later was answered sooner: the answer to the
    /// earlier question may be of before a change, and would bring back what it took away.
    fn believe(&self, generation: i64, asked: Instant) -> Result<(), Failure> {
        let mut read = self.read()?;
        if read.at.is_none_or(|at| at <= asked) {
            *read = Read { generation, at: Some(asked) };
        }
        Ok(())
    }

    fn read(&self) -> Result<MutexGuard<'_, Read>, Failure> {
        self.read.lock().map_err(|_| Failure::new("reading the access generation", "poisoned lock"))
    }

    /// The public.
    pub async fn anonymous(&self, db: &Db) -> Result<Caller, Failure> {
        let generation = self.generation(db).await?;
        let found = self.of_token(db, None, generation).await?;
        found.ok_or_else(|| Failure::new("reading what the public may do", "it is not there"))
    }

    /// Whether it is known without a connection who shows this, or nothing.
    pub fn is_cached(&self, secret: Option<&Secret>) -> bool {
        let Ok(Read { generation, at }) = self.read().map(|read| *read) else { return false };
        let is_known = match secret.map(Secret::sha256) {
            None => current(self.by_token.get(&None), generation).is_some(),
            Some(key) => {
                self.remembered(&key, generation).is_some() || self.wrong.get(&key) == Some(generation)
            }
        };
        is_known && at.is_some_and(|at| at.elapsed() < BELIEVED_FOR)
    }

    /// Whether the caller's credential holds still, and its token may do what it might when the caller was looked up.
    pub async fn is_unchanged(&self, db: &Db, caller: &Caller) -> Result<bool, Failure> {
        let generation = self.generation(db).await?;
        if generation == caller.generation {
            return Ok(true);
        }
        let now = self.of_token(db, caller.token, generation).await?;
        Ok(now.is_some_and(|now| now.authority.has_same_bindings(&caller.authority)))
    }

    /// The caller behind a credential that came from this address; `None` when it does not hold. After too many wrong
    /// ones only a credential is looked up that held before, or that we signed.
    pub async fn authenticate(
        &self,
        db: &Db,
        keys: &Keys,
        secret: &Secret,
        from: IpAddr,
    ) -> Result<Option<Caller>, Failure> {
        let (key, generation) = (secret.sha256(), self.generation(db).await?);
        if let Some(caller) = self.remembered(&key, generation) {
            return Ok(Some(caller));
        }
        let docker = DockerToken::read(keys, secret);
        // The same wrong credential again guesses nothing, and costs no look-up.
        if self.wrong.get(&key) == Some(generation) {
            return Ok(None);
        }
        let is_ours = docker.is_some() || self.known.contains_key(&key);
        if !is_ours {
            self.tries.take(from)?;
        }
        let found = match docker {
            Some(token) => self.by_docker_token(db, token, generation).await,
            None => by_secret(db, secret, generation).await,
        };
        if !is_ours && !matches!(found, Ok(None)) {
            self.tries.give_back(from);
        }
        match &found {
            Ok(Some(caller)) => self.known.insert(key, caller.clone()),
            Ok(None) => self.wrong.insert(key, generation),
            Err(_) => {}
        }
        found
    }

    /// The generation that is believed now.
    async fn generation(&self, db: &Db) -> Result<i64, Failure> {
        let fresh = self.read()?.at.is_some_and(|at| at.elapsed() < BELIEVED_FOR);
        if !fresh {
            self.refresh(db).await?;
        }
        Ok(self.read()?.generation)
    }

    fn remembered(&self, key: &[u8; 32], generation: i64) -> Option<Caller> {
        current(self.known.get(key), generation)
    }

    /// The caller with a token and all that it may do, or the public; `None` when the token does not hold.
    async fn of_token(
        &self,
        db: &Db,
        token: Option<Uuid>,
        generation: i64,
    ) -> Result<Option<Caller>, Failure> {
        if let Some(caller) = current(self.by_token.get(&token), generation) {
            return Ok(Some(caller));
        }
        let mut connection = db.pool().acquire().await?;
        let caller = match token {
            None => {
                let principal = Principal { id: ANONYMOUS, name: "anonymous".to_owned() };
                let authority = read_authority(&mut connection, principal, None).await?;
                Caller { authority, token: None, expires_at: None, addresses: None, generation }
            }
            Some(id) => match store::tokens::by_id(&mut connection, id).await? {
                Some(live) if live.valid => of_live(&mut connection, live, generation).await?,
                Some(_) | None => return Ok(None),
            },
        };
        self.by_token.insert(token, caller.clone());
        Ok(Some(caller))
    }

    /// A docker token holds while the token it was made with does, and can do no more than both.
    async fn by_docker_token(
        &self,
        db: &Db,
        docker: DockerToken,
        generation: i64,
    ) -> Result<Option<Caller>, Failure> {
        let Some(caller) = self.of_token(db, docker.token, generation).await? else { return Ok(None) };
        let expires_at = caller.expires_at.map_or(docker.expires_at, |end| end.min(docker.expires_at));
        let authority = Arc::new(caller.authority.narrowed(docker.narrowing));
        Ok(Some(Caller { authority, expires_at: Some(expires_at), ..caller }))
    }
}

/// A caller that was looked up under this generation and has not ended since. What is looked up while the generation
/// moves may be of before: it serves the request that began then, and bears the generation of before, whenever it is
/// put in a cache.
fn current(known: Option<Caller>, generation: i64) -> Option<Caller> {
    let caller = known.filter(|known| known.generation == generation)?;
    caller.expires_at.is_none_or(|end| end > clock::now()).then_some(caller)
}

async fn by_secret(db: &Db, secret: &Secret, generation: i64) -> Result<Option<Caller>, Failure> {
    let mut connection = db.pool().acquire().await?;
    let hash = secret.sha256();
    let Some(live) = store::tokens::by_secret(&mut connection, &hash).await? else { return Ok(None) };
    if !live.valid || !bool::from(live.secret_sha256.ct_eq(&hash)) {
        return Ok(None);
    }
    of_live(&mut connection, live, generation).await.map(Some)
}

async fn of_live(
    connection: &mut PgConnection,
    live: store::tokens::Live,
    generation: i64,
) -> Result<Caller, Failure> {
    let principal = Principal { id: live.principal_id, name: live.principal };
    let authority = read_authority(connection, principal, Some(live.id)).await?;
    let addresses = networks(live.addresses)?;
    Ok(Caller { authority, token: Some(live.id), expires_at: live.ends_at, addresses, generation })
}

/// The networks as they are kept, which is as they were given.
fn networks(kept: Option<Vec<String>>) -> Result<Option<Arc<[IpNet]>>, Failure> {
    let read = |all: Vec<String>| all.iter().map(|one| one.parse::<IpNet>()).collect::<Result<Arc<[_]>, _>>();
    kept.map(read).transpose().map_err(|error| Failure::new("reading the networks of a token", error))
}

async fn read_authority(
    connection: &mut PgConnection,
    principal: Principal,
    token: Option<Uuid>,
) -> Result<Arc<Authority>, Failure> {
    let bindings = store::grants::bindings(connection, principal.id, token).await?;
    Ok(Arc::new(Authority::new(principal, bindings)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [7; 32];

    fn remember(callers: &Callers, generation: i64, expires_at: Option<DateTime<Utc>>) {
        let principal = Principal { id: 3, name: "ci".to_owned() };
        let authority = Arc::new(Authority::new(principal, Vec::new()));
        let caller = Caller { authority, token: None, expires_at, addresses: None, generation };
        callers.known.insert(KEY, caller);
    }

    #[test]
    fn who_was_looked_up_before_a_change_is_forgotten_whenever_that_was_put_in_the_cache() {
        let callers = Callers::new(60);
        let asked = Instant::now();
        callers.believe(1, asked).unwrap();
        remember(&callers, 1, None);
        assert!(callers.remembered(&KEY, callers.read().unwrap().generation).is_some());
        callers.believe(2, asked + BELIEVED_FOR).unwrap();
        // The look-up of before ends only now.
        remember(&callers, 1, None);
        assert!(callers.remembered(&KEY, callers.read().unwrap().generation).is_none());
        // So does a question of before.
        callers.believe(1, asked).unwrap();
        assert!(callers.remembered(&KEY, callers.read().unwrap().generation).is_none());
    }

    #[test]
    fn who_has_ended_is_not_remembered() {
        let callers = Callers::new(60);
        for (seconds, remembered) in [(-1, false), (60, true)] {
            remember(&callers, 1, Some(clock::now() + chrono::TimeDelta::seconds(seconds)));
            assert_eq!(callers.remembered(&KEY, 1).is_some(), remembered);
        }
    }
}
