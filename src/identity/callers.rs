//! Credentials -> authority, cached while nothing about anybody's authority has changed.

use super::docker::DockerToken;
use super::secret::Secret;
use super::store;
use crate::access::{Authority, Principal};
use crate::clock;
use crate::failure::Failure;
use crate::keys::Keys;
use crate::postgres::Db;
use chrono::{DateTime, Utc};
use moka::sync::Cache;
use sqlx::PgConnection;
use std::sync::Arc;
use std::sync::Mutex;
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
}

#[derive(Clone)]
struct Known {
    caller: Caller,
    expires_at: Option<DateTime<Utc>>,
}

/// The cache of callers. Its generation is Postgres' own: any change of a token or grant raises it,
/// and everything cached under an older one is forgotten.
pub struct Callers {
    known: Cache<[u8; 32], Known>,
    read: Mutex<Read>,
}

#[derive(Clone, Copy)]
struct Read {
    generation: i64,
    at: Option<Instant>,
}

impl Callers {
    /// A cache that starts empty.
    pub fn new() -> Self {
        let read = Read { generation: -1, at: None };
        Self { known: Cache::new(MAX_CACHED), read: Mutex::new(read) }
    }

    /// Forgets what is cached when anything has changed, so that this replica's own changes hold for
    /// its very next request.
    pub async fn refresh(&self, db: &Db) -> Result<(), Failure> {
        let asked = Instant::now();
        let mut connection = db.pool().acquire().await?;
        let generation = store::grants::generation(&mut connection).await?;
        let mut read =
            self.read.lock().map_err(|_| Failure::new("reading the access generation", "poisoned lock"))?;
        if generation != read.generation {
            self.known.invalidate_all();
        }
        *read = Read { generation, at: Some(asked) };
        Ok(())
    }

    /// The public.
    pub async fn anonymous(&self, db: &Db) -> Result<Caller, Failure> {
        self.cached(db, [0; 32], async {
            let mut connection = db.pool().acquire().await?;
            let principal = Principal { id: ANONYMOUS, name: "anonymous".to_owned() };
            let authority = read_authority(&mut connection, principal).await?;
            Ok(Some(Known { caller: Caller { authority, token: None }, expires_at: None }))
        })
        .await
        .and_then(|known| known.ok_or_else(|| Failure::new("reading the public's grants", "no row")))
    }

    /// The caller behind a credential; `None` when it does not hold.
    pub async fn authenticate(
        &self,
        db: &Db,
        keys: &Keys,
        secret: &Secret,
    ) -> Result<Option<Caller>, Failure> {
        self.cached(db, secret.sha256(), async {
            match DockerToken::read(keys, secret) {
                Some(token) => by_docker_token(db, token).await,
                None => by_secret(db, secret).await,
            }
        })
        .await
    }

    async fn cached(
        &self,
        db: &Db,
        key: [u8; 32],
        look_up: impl Future<Output = Result<Option<Known>, Failure>>,
    ) -> Result<Option<Caller>, Failure> {
        let fresh = {
            let read = self
                .read
                .lock()
                .map_err(|_| Failure::new("reading the access generation", "poisoned lock"))?;
            read.at.is_some_and(|at| at.elapsed() < BELIEVED_FOR)
        };
        if !fresh {
            self.refresh(db).await?;
        }
        if let Some(known) = self.known.get(&key)
            && known.expires_at.is_none_or(|end| end > clock::now())
        {
            return Ok(Some(known.caller));
        }
        let before = self.generation();
        let Some(known) = look_up.await? else { return Ok(None) };
        // What was read while the generation moved may be of before; it serves this request, whose
        // look-up had begun, and is not kept.
        if self.generation() == before {
            self.known.insert(key, known.clone());
        }
        Ok(Some(known.caller))
    }

    fn generation(&self) -> i64 {
        self.read.lock().map_or(-1, |read| read.generation)
    }
}

impl Default for Callers {
    fn default() -> Self {
        Self::new()
    }
}

async fn by_secret(db: &Db, secret: &Secret) -> Result<Option<Known>, Failure> {
    let mut connection = db.pool().acquire().await?;
    let hash = secret.sha256();
    let Some(live) = store::tokens::by_secret(&mut connection, &hash).await? else { return Ok(None) };
    if !live.valid || !bool::from(live.secret_sha256.ct_eq(&hash)) {
        return Ok(None);
    }
    let principal = Principal { id: live.principal_id, name: live.principal };
    let authority = read_authority(&mut connection, principal).await?;
    Ok(Some(Known { caller: Caller { authority, token: Some(live.id) }, expires_at: live.expires_at }))
}

/// A docker token holds while the token it was made with does, and can do no more than both.
async fn by_docker_token(db: &Db, docker: DockerToken) -> Result<Option<Known>, Failure> {
    let mut connection = db.pool().acquire().await?;
    let principal = match docker.token {
        None => Principal { id: ANONYMOUS, name: "anonymous".to_owned() },
        Some(id) => match store::tokens::by_id(&mut connection, id).await? {
            Some(live) if live.valid => Principal { id: live.principal_id, name: live.principal },
            _ => return Ok(None),
        },
    };
    let authority = read_authority(&mut connection, principal).await?;
    let authority = Arc::new(authority.narrowed(docker.narrowing));
    Ok(Some(Known { caller: Caller { authority, token: docker.token }, expires_at: Some(docker.expires_at) }))
}

async fn read_authority(
    connection: &mut PgConnection,
    principal: Principal,
) -> Result<Arc<Authority>, Failure> {
    let bindings = store::grants::bindings(connection, principal.id).await?;
    Ok(Arc::new(Authority::new(principal, bindings)))
}
