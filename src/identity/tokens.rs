//! Making and revoking tokens.

use super::callers::Caller;
use super::principals::Administrators;
use super::secret::{NoSecret, Secret, chosen_secret};
use super::store::{self, tokens::TokenRow};
use crate::access::{Action, Administer, Binding, Everything, Grant, Principal, Role};
use crate::config::SecretFileMode;
use crate::failure::Failure;
use crate::ledger::{self, Event, Kind};
use crate::names::Pattern;
use crate::postgres::{Db, Decisions, Generation, Scopes, Tx, act, agreed_time, database_time, refusal};
use chrono::{DateTime, TimeDelta, Utc};
use ipnet::IpNet;
use serde_json::json;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;
use uuid::Uuid;

/// The longest life of a token that ends by itself.
const LONGEST_LIFE: Duration = Duration::from_hours(100 * 366 * 24);

/// The longest time that a token lives on beside the one that took its place.
const LONGEST_OVERLAP: Duration = Duration::from_hours(30 * 24);

/// Networks that one token is bound to.
const MAX_ADDRESSES: usize = 100;

/// A token to make.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// The principal it speaks for, made when it is new.
    pub principal: String,
    /// What it may do. With any of them it has these grants and no others; without, it has those of its principal.
    pub grants: Vec<Binding>,
    /// How long it lives.
    pub expires: Expiry,
    /// The networks from which it may be used; everywhere when `None`.
    pub addresses: Option<Vec<IpNet>>,
}

/// How long a token lives.
#[derive(Clone, Copy, Debug)]
pub enum Expiry {
    /// This long, unless it can do no more than pull: that has no end.
    Default(Duration),
    /// This long.
    In(Duration),
    /// Until it is revoked.
    Never,
}

impl Expiry {
    /// A token without grants of its own may do more later, when its principal is given more.
    fn life(self, grants: &[Binding]) -> Option<Duration> {
        let only_pulls = |one: &Binding| {
            one.role.actions().iter().all(|action| matches!(action, Action::View | Action::Pull))
        };
        match self {
            Self::Default(_) if !grants.is_empty() && grants.iter().all(only_pulls) => None,
            Self::Default(life) | Self::In(life) => Some(life),
            Self::Never => None,
        }
    }
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
    /// Another token has taken its place.
    #[error("another token has taken this one's place; rotate that one, or make a new token")]
    Replaced,
    /// A life that no calendar can end.
    #[error("a token lives 1 second to 100 years; one that does not end by itself is given no end")]
    Life,
    /// The principal is disabled.
    #[error(
        "{0} is disabled: it gets no token and no grant until it is enabled (proofmark principal enable {0} --reason ...)"
    )]
    Disabled(String),
    /// The public or the service itself.
    #[error("the public and the service itself are not disabled; take back what was given to anonymous")]
    BuiltIn,
    /// It is disabled.
    #[error("{0} is disabled already")]
    DisabledAlready(String),
    /// It is not disabled.
    #[error("{0} is not disabled")]
    NotDisabled(String),
    /// Nobody could administer everything any more.
    #[error(
        "this would leave nobody who can administer the registry: no principal would have the role admin on '**', in all \
         environments, with a token that holds; make another administrator's token first (proofmark token create NAME \
         --role admin)"
    )]
    LastAdministrator,
    /// Too many or no networks.
    #[error(
        "a token is bound to 1 to {MAX_ADDRESSES} networks, such as 10.0.0.0/8; leave addresses out for everywhere"
    )]
    Addresses,
    /// Not a network.
    #[error(
        "{0:?} is no network: write an address with its prefix, such as 10.0.0.0/8, 192.0.2.7/32 or 2001:db8::/32"
    )]
    Address(String),
    /// An overlap that is too long.
    #[error("the old token lives on for at most {} days", LONGEST_OVERLAP.as_secs() / 86_400)]
    Overlap,
    /// A token that ended stands in the file.
    #[error(
        "the secret in the administrator's token file belongs to a token that was revoked or rotated, or has expired; \
         write another one"
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
    let own = if new.grants.is_empty() { Own::Principal } else { Own::Token };
    create(db, grant.principal(), new, own, Secret::generate()).await
}

/// Makes the first administrator's token, for somebody who has the server's own database in hand
/// and so needs no grant.
pub async fn create_first_token(db: &Db, principal: &str) -> Result<Issued, Refused> {
    create(db, &super::service(), &administrator(principal), Own::Principal, Secret::generate()).await
}

fn administrator(principal: &str) -> NewToken {
    let everything = Binding { role: Role::Admin, repositories: Pattern::everything(), environments: None };
    NewToken {
        principal: principal.to_owned(),
        grants: vec![everything],
        expires: Expiry::Never,
        addresses: None,
    }
}

/// Whose grants a token has: its own, which are made with it, or its principal's.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Own {
    Token,
    Principal,
}

async fn create(
    db: &Db,
    by: &Principal,
    new: &NewToken,
    own: Own,
    secret: Secret,
) -> Result<Issued, Refused> {
    check_principal(&new.principal)?;
    if new.principal == "anonymous" {
        return Err(Refused::PublicHasNoToken);
    }
    if new.expires.life(&new.grants).is_some_and(|life| life.is_zero() || life > LONGEST_LIFE) {
        return Err(Refused::Life);
    }
    if new.addresses.as_ref().is_some_and(|all| !(1..=MAX_ADDRESSES).contains(&all.len())) {
        return Err(Refused::Addresses);
    }
    act(|| async {
        let mut tx = db.begin().await?;
        let issued = insert(&mut tx, by, new, own, &secret).await?;
        tx.commit().await?;
        Ok(issued)
    })
    .await
}

async fn insert(
    tx: &mut Tx,
    by: &Principal,
    new: &NewToken,
    own: Own,
    secret: &Secret,
) -> Result<Issued, Refused> {
    let (principal_id, _) = store::tokens::principal(tx, &new.principal).await?;
    store::grants::raise_generation(tx).await?;
    // After the lock on the generation, which disabling a principal takes too.
    if store::tokens::is_disabled(tx, principal_id).await? {
        return Err(Refused::Disabled(new.principal.clone()));
    }
    let at = agreed_time(tx).await?;
    let life = new.expires.life(&new.grants).and_then(|life| TimeDelta::from_std(life).ok());
    let expires_at = life.map(|life| at + life);
    let id = Uuid::now_v7();
    let has_grants = own == Own::Token;
    let addresses: Option<Vec<String>> =
        new.addresses.as_ref().map(|all| all.iter().map(ToString::to_string).collect());
    let row = store::tokens::NewRow {
        id,
        principal_id,
        secret_sha256: secret.sha256(),
        has_grants,
        addresses: addresses.as_deref(),
        expires_at,
    };
    store::tokens::insert(tx, &row, by.id, at).await?;
    for binding in &new.grants {
        store::grants::insert(tx, (principal_id, has_grants.then_some(id)), binding, by.id, at).await?;
    }
    let grants: Vec<_> = new
        .grants
        .iter()
        .map(|b| json!({ "role": b.role, "repositories": b.repositories, "environments": b.environments }))
        .collect();
    let facts = json!({ "token": id, "for": principal_id, "for_name": new.principal, "grants": grants,
        "has_grants": has_grants, "addresses": addresses, "expires_at": expires_at });
    let changes = if new.grants.is_empty() { vec![] } else { vec![Generation::rights(principal_id)] };
    ledger::append(tx, Event { changes, ..event(Kind::TokenCreated, at, by, facts) }).await?;
    Ok(Issued { id, secret: secret.clone(), expires_at })
}

/// Revokes a token, and with it the grants that were made with it. Where its principal's approvals may count by them
/// no more, no promotion is decided with one once this is answered.
pub async fn revoke_token(db: &Db, grant: &Grant<Administer, Everything>, id: Uuid) -> Result<(), Refused> {
    act(|| async {
        let mut tx = db.begin().await?;
        let roles = store::grants::roles_of_token(&mut tx, id).await?;
        if roles.iter().any(|role| role.includes(Action::Approve)) {
            Scopes::decisions(Decisions::All).lock(&mut tx).await?;
        }
        let by = grant.principal();
        let administrators = Administrators::lock(&mut tx).await?;
        let at = database_time(&mut tx).await?;
        let principal = store::tokens::end(&mut tx, id, by.id, at).await?.ok_or(Refused::Unknown)?;
        let ended = store::grants::end_of_token(&mut tx, id, by.id, at).await?;
        administrators.remain(&mut tx).await?;
        // Whose rights it changes.
        let of = (!ended.is_empty()).then_some(principal);
        let changes = of.map(Generation::rights).into_iter().collect();
        let event = event(Kind::TokenRevoked, at, by, json!({ "token": id, "of": of }));
        ledger::append(&mut tx, Event { changes, ..event }).await?;
        tx.commit().await?;
        Ok(())
    })
    .await
}

/// The right to rotate a token.
#[derive(Clone, Copy, Debug)]
pub struct Rotator<'a> {
    by: &'a Principal,
    id: Uuid,
}

impl<'a> Rotator<'a> {
    /// The token itself. A docker token that was made with it, for some scopes, does not rotate it.
    pub fn itself(caller: &'a Caller, id: Uuid) -> Option<Self> {
        let is_own = caller.token == Some(id) && !caller.authority.is_narrowed();
        is_own.then(|| Self { by: caller.authority.principal(), id })
    }

    /// An administrator.
    pub fn administrator(grant: &'a Grant<Administer, Everything>, id: Uuid) -> Self {
        Self { by: grant.principal(), id }
    }
}

/// Makes a token that takes another's place: of the same principal, with the same grants and networks, and as long a
/// life. The other one ends when the overlap is over, and is not rotated again.
pub async fn rotate_token(
    db: &Db,
    rotator: Rotator<'_>,
    overlap: Duration,
) -> Result<(String, Issued), Refused> {
    let Rotator { by, id } = rotator;
    if overlap > LONGEST_OVERLAP {
        return Err(Refused::Overlap);
    }
    act(|| async {
        let mut tx = db.begin().await?;
        store::grants::raise_generation(&mut tx).await?;
        let old = store::tokens::by_id(&mut tx, id).await?.filter(|live| live.valid);
        let old = old.ok_or(Refused::Unknown)?;
        if old.is_replaced {
            return Err(Refused::Replaced);
        }
        let at = agreed_time(&mut tx).await?;
        let ends_at = at + TimeDelta::from_std(overlap).map_err(|_| Refused::Overlap)?;
        let life = store::tokens::life(&mut tx, id).await?.and_then(|life| life.to_std().ok());
        let grants = if old.has_grants {
            store::grants::bindings(&mut tx, old.principal_id, Some(id)).await?
        } else {
            Vec::new()
        };
        let addresses = old
            .addresses
            .as_ref()
            .map(|all| all.iter().map(|one| one.parse()).collect::<Result<Vec<IpNet>, _>>());
        let addresses = addresses.transpose().map_err(|error| Failure::new("reading a token", error))?;
        let new = NewToken {
            principal: old.principal,
            grants,
            expires: life.map_or(Expiry::Never, Expiry::In),
            addresses,
        };
        // One whose own grants were all taken back has none, and not its principal's.
        let own = if old.has_grants { Own::Token } else { Own::Principal };
        let issued = insert(&mut tx, by, &new, own, &Secret::generate()).await?;
        // It may end sooner anyway.
        if old.ends_at.is_none_or(|end| end > ends_at) {
            store::tokens::end(&mut tx, id, by.id, ends_at).await?;
        }
        let facts = json!({ "token": id, "replaced_by": issued.id, "ends_at": ends_at });
        ledger::append(&mut tx, event(Kind::TokenRotated, at, by, facts)).await?;
        tx.commit().await?;
        Ok((new.principal, issued))
    })
    .await
}

/// So long before its end a token is announced: in `whoami`, by an event, by a metric.
pub const ENDS_SOON: TimeDelta = TimeDelta::days(14);

/// Tokens whose ends are announced by one run.
const ANNOUNCED: i64 = 1000;

/// Announces the ends of tokens that are near, each once, and counts those that hold until then.
pub async fn announce_ends(db: &Db) -> Result<(), Refused> {
    let mut connection = db.acquire().await?;
    let before = database_time(&mut connection).await? + ENDS_SOON;
    let ending = store::tokens::ending(&mut connection, before, ANNOUNCED).await?;
    let count = store::tokens::count_ending(&mut connection, before).await?;
    drop(connection);
    #[allow(clippy::cast_precision_loss, reason = "nobody has so many tokens")]
    metrics::gauge!("proofmark_tokens_ending_soon").set(count as f64);
    for token in ending {
        act(|| async {
            let mut tx = db.begin().await?;
            let at = agreed_time(&mut tx).await?;
            if store::tokens::announce(&mut tx, token.id, at).await? {
                let facts = json!({ "token": token.id, "for": token.principal_id, "for_name": token.principal,
                    "ends_at": token.ends_at });
                ledger::append(&mut tx, event(Kind::TokenEndAnnounced, at, &super::service(), facts)).await?;
                tx.commit().await?;
            }
            Ok::<_, Refused>(())
        })
        .await?;
    }
    Ok(())
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
    take_admin_token(db, secret).await
}

/// Makes the content of the administrator's token file a token, if it is none yet. A missing file is an error.
pub async fn reload_admin_token(db: &Db, path: &Path, rule: SecretFileMode) -> Result<(), Refused> {
    take_admin_token(db, chosen_secret(path, rule)?).await
}

async fn take_admin_token(db: &Db, secret: Secret) -> Result<(), Refused> {
    let mut connection = db.pool().acquire().await?;
    match store::tokens::by_secret(&mut connection, &secret.sha256()).await? {
        Some(live) if live.valid => return Ok(()),
        Some(_) => return Err(Refused::Ended),
        None => {}
    }
    drop(connection);
    match create(db, &super::service(), &administrator("admin"), Own::Principal, secret).await {
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
