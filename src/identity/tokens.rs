//! Making and revoking tokens.

use super::secret::{NoSecret, Secret, chosen_secret};
use super::store::{self, tokens::TokenRow};
use crate::access::{Administer, Binding, Everything, Grant, Principal, Role};
use crate::config::SecretFileMode;
use crate::failure::Failure;
use crate::ledger::{self, Event, Kind};
use crate::names::Pattern;
use crate::postgres::{Db, Generation, Tx, act, agreed_time, database_time, refusal};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;
use uuid::Uuid;

/// The longest life of a token that ends by itself.
const LONGEST_LIFE: Duration = Duration::from_hours(100 * 366 * 24);

/// A token to make.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// The principal it speaks for, made when it is new.
    pub principal: String,
    /// Roles that the principal is given with it.
    pub grants: Vec<Binding>,
    /// How long it lives; for ever when `None`.
    pub expires_in: Option<Duration>,
}

/// A token as it is shown, once.
#[derive(Debug)]
pub struct Issued {
    /// Its id, by which it is revoked.
    pub id: Uuid,
    /// Its secret; nothing can show it again.
    pub secret: Secret,
    /// When it ends by itself.
    pub expires_at: Option<DateTime<Utc>>,
}

/// Why a token or grant was not made or ended.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The principal's name breaks the grammar.
    #[error(
        "a principal's name is 1 to 128 letters, digits, '.', '_', '-', '@', '/' or ':', and not 'proofmark'"
    )]
    PrincipalName,
    /// The public has no token.
    #[error("the anonymous public has no token; give it the role reader with a grant")]
    PublicHasNoToken,
    /// The public was to be given more than reading.
    #[error("the anonymous public can be given the role reader and no other")]
    PublicOnlyReads,
    /// No open token or grant of this id.
    #[error("there is no open token or grant of this id")]
    Unknown,
    /// A life that no calendar can end.
    #[error("a token lives 1 second to 100 years; one that does not end by itself is given no end")]
    Life,
    /// A token that was revoked stands in the file.
    #[error(
        "the secret in the administrator's token file belongs to a token that was revoked or has expired; write another one"
    )]
    Ended,
    /// A chosen secret that cannot be taken.
    #[error(transparent)]
    NoSecret(#[from] NoSecret),
    /// A fault of ours.
    #[error(transparent)]
    Failed(#[from] Failure),
}

refusal!(Refused);

impl From<sqlx::Error> for Refused {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(error.into())
    }
}

/// Makes a token for a principal and gives the principal the roles that come with it, in one
/// transaction.
pub async fn create_token(
    db: &Db,
    grant: &Grant<Administer, Everything>,
    new: &NewToken,
) -> Result<Issued, Refused> {
    create(db, grant.principal(), new, Secret::generate()).await
}

/// Makes the first administrator's token, for somebody who has the server's own database in hand
/// and so needs no grant.
pub async fn create_first_token(db: &Db, principal: &str) -> Result<Issued, Refused> {
    create(db, &super::service(), &administrator(principal), Secret::generate()).await
}

fn administrator(principal: &str) -> NewToken {
    let everything = Binding { role: Role::Admin, repositories: Pattern::everything(), environments: None };
    NewToken { principal: principal.to_owned(), grants: vec![everything], expires_in: None }
}

async fn create(db: &Db, by: &Principal, new: &NewToken, secret: Secret) -> Result<Issued, Refused> {
    check_principal(&new.principal)?;
    if new.principal == "anonymous" {
        return Err(Refused::PublicHasNoToken);
    }
    if new.expires_in.is_some_and(|life| life.is_zero() || life > LONGEST_LIFE) {
        return Err(Refused::Life);
    }
    act(|| async {
        let mut tx = db.begin().await?;
        let issued = insert(&mut tx, by, new, &secret).await?;
        tx.commit().await?;
        Ok(issued)
    })
    .await
}

async fn insert(tx: &mut Tx, by: &Principal, new: &NewToken, secret: &Secret) -> Result<Issued, Refused> {
    let at = agreed_time(tx).await?;
    let expires_at = new.expires_in.and_then(|life| TimeDelta::from_std(life).ok()).map(|life| at + life);
    let (principal_id, _) = store::tokens::principal(tx, &new.principal).await?;
    let id = Uuid::now_v7();
    store::tokens::insert(tx, id, principal_id, &secret.sha256(), by.id, at, expires_at).await?;
    for binding in &new.grants {
        store::grants::insert(tx, principal_id, binding, by.id, at).await?;
    }
    store::grants::raise_generation(tx).await?;
    let grants: Vec<_> = new
        .grants
        .iter()
        .map(|b| json!({ "role": b.role, "repositories": b.repositories, "environments": b.environments }))
        .collect();
    let facts = json!({ "token": id, "for": principal_id, "for_name": new.principal, "grants": grants,
        "expires_at": expires_at });
    let changes = if new.grants.is_empty() { vec![] } else { vec![Generation::rights(principal_id)] };
    ledger::append(tx, Event { changes, ..event(Kind::TokenCreated, at, by, facts) }).await?;
    Ok(Issued { id, secret: secret.clone(), expires_at })
}

/// Revokes a token.
pub async fn revoke_token(db: &Db, grant: &Grant<Administer, Everything>, id: Uuid) -> Result<(), Refused> {
    act(|| async {
        let mut tx = db.begin().await?;
        let at = database_time(&mut tx).await?;
        store::tokens::end(&mut tx, id, grant.principal().id, at).await?.ok_or(Refused::Unknown)?;
        store::grants::raise_generation(&mut tx).await?;
        ledger::append(&mut tx, event(Kind::TokenRevoked, at, grant.principal(), json!({ "token": id })))
            .await?;
        tx.commit().await?;
        Ok(())
    })
    .await
}

/// A page of the tokens, ended ones included; never a secret.
pub async fn tokens(
    db: &Db,
    _grant: &Grant<Administer, Everything>,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<TokenRow>, Failure> {
    let mut connection = db.acquire().await?;
    Ok(store::tokens::list(&mut connection, after, limit).await?)
}

/// The first administrator's token for unattended set-ups: the file's content becomes (and stays)
/// one; a missing file is written with mode 0600.
///
/// The file is written before the row: a crash between the two leaves a file whose content the next
/// start takes.
pub async fn ensure_admin_token(db: &Db, path: &Path, rule: SecretFileMode) -> Result<(), Refused> {
    let secret = match chosen_secret(path, rule) {
        Err(NoSecret::Unusable(unusable)) if unusable.is_missing() => write_new(path)?,
        chosen => chosen?,
    };
    let mut connection = db.pool().acquire().await?;
    match store::tokens::by_secret(&mut connection, &secret.sha256()).await? {
        Some(live) if live.valid => return Ok(()),
        Some(_) => return Err(Refused::Ended),
        None => {}
    }
    drop(connection);
    match create(db, &super::service(), &administrator("admin"), secret).await {
        // Another replica that starts at the same time has just written the same secret.
        Err(Refused::Failed(failure)) if failure.broke("a_secret_belongs_to_one_token") => Ok(()),
        other => other.map(|_| ()),
    }
}

fn write_new(path: &Path) -> Result<Secret, Failure> {
    let failed = |error| Failure::new("writing the administrator's token file", error);
    let secret = Secret::generate();
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    writeln!(file, "{}", secret.reveal()).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    Ok(secret)
}

/// A principal's name as people and pipelines are called.
pub(super) fn check_principal(name: &str) -> Result<(), Refused> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-@/:".contains(&b);
    let good = (1..=128).contains(&name.len()) && name.bytes().all(allowed) && name != "proofmark";
    if good { Ok(()) } else { Err(Refused::PrincipalName) }
}

fn event(kind: Kind, at: DateTime<Utc>, principal: &Principal, facts: serde_json::Value) -> Event<'_> {
    // A token changes nothing that is recorded; who calls with it is looked up by its own generation.
    let changes = vec![];
    Event { kind, at, principal, repository: None, environment: None, digest: None, facts, changes }
}
