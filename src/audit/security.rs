//! Security events: refused credentials, refused access, and who read the audit trail.
//!
//! They change nothing, and anybody can cause any number of them. So they are counted together in memory, for each
//! principal or address, and written once a minute: as many records as a setting says, and for what is beyond it one
//! record for each kind. A crash loses those of the last minute. They are no part of the log, which has every change
//! and nothing else.

use super::store::security as store;
use crate::access::{Action, Audit, Everything, Grant, Principal, PrincipalId};
use crate::clock;
use crate::failure::Failure;
use crate::names::{RepositoryName, client_network};
use crate::postgres::Db;
use chrono::{DateTime, TimeDelta, Utc};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use uuid::Uuid;

pub use store::SecurityEventRow;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SecurityEventKind {
    /// A credential was shown that does not hold.
    AuthenticationFailed,
    /// Something was refused for want of a right: 401, 403, or a 404 that hides what the caller may not see.
    AccessRefused,
    /// Events, or security events, were read.
    AuditRead,
    /// Events were exported.
    AuditExported,
}

impl SecurityEventKind {
    /// Every kind.
    pub const ALL: [Self; 4] =
        [Self::AuthenticationFailed, Self::AccessRefused, Self::AuditRead, Self::AuditExported];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AuthenticationFailed => "authentication.failed",
            Self::AccessRefused => "access.refused",
            Self::AuditRead => "audit.read",
            Self::AuditExported => "audit.exported",
        }
    }
}

/// A word for no kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no kind of security event: authentication.failed, access.refused, audit.read, audit.exported"
)]
pub struct UnknownSecurityEventKind(String);

impl FromStr for SecurityEventKind {
    type Err = UnknownSecurityEventKind;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|kind| kind.as_str() == text);
        found.ok_or_else(|| UnknownSecurityEventKind(text.to_owned()))
    }
}

/// One of them, as a request caused it.
#[derive(Clone, Debug)]
pub struct SecurityEvent {
    /// What happened.
    pub kind: SecurityEventKind,
    /// Who asked; `None` where no credential held.
    pub principal: Option<Principal>,
    /// By which token.
    pub token: Option<Uuid>,
    /// From where.
    pub address: IpAddr,
    /// What was to be done.
    pub action: Option<Action>,
    /// On what, where the caller may see it.
    pub repository: Option<RepositoryName>,
}

/// What is counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    kind: SecurityEventKind,
    who: Who,
    action: Option<Action>,
    repository: Option<RepositoryName>,
}

impl Key {
    /// Whether it says more than what happened, and by whom.
    fn is_detailed(&self) -> bool {
        self.action.is_some() || self.repository.is_some()
    }
}

/// Maximum number of records of one principal or address that name an action or a repository; what is beyond is
/// counted without them.
const MAX_DETAILED: usize = 10;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Who {
    Principal(PrincipalId),
    /// A client whose credential does not hold, or that shows none: its address, of IPv6 the first 64 bits, which
    /// belong to one customer.
    Address(IpAddr),
    /// More than there are records for.
    Others,
}

impl Who {
    /// Whether both have a credential that holds, or neither has.
    fn is_like(&self, other: &Self) -> bool {
        match self {
            Self::Principal(_) => matches!(other, Self::Principal(_)),
            Self::Address(_) => matches!(other, Self::Address(_)),
            Self::Others => matches!(other, Self::Others),
        }
    }
}

/// What is known of those that are counted together.
#[derive(Clone, Debug)]
struct Counted {
    count: i64,
    principal: Option<Principal>,
    token: Option<Uuid>,
    address: Option<IpAddr>,
    first_at: DateTime<Utc>,
    last_at: DateTime<Utc>,
}

/// The events of this replica that are not written yet. Cheap to clone; every clone is the same.
#[derive(Clone, Debug)]
pub struct SecurityEvents {
    pending: Arc<Mutex<HashMap<Key, Counted>>>,
    /// Records until they are written.
    records: usize,
}

impl SecurityEvents {
    /// None yet; maximum number of records between two writes. Half of them are for clients without a credential, and
    /// of either half one half is for records without an action or a repository.
    pub fn new(records: usize) -> Self {
        Self { pending: Arc::default(), records }
    }

    /// Counts one.
    pub fn note(&self, event: SecurityEvent) {
        metrics::counter!("proofmark_security_events_total", "kind" => event.kind.as_str()).increment(1);
        let now = clock::now();
        let who = match &event.principal {
            Some(principal) => Who::Principal(principal.id),
            None => Who::Address(client_network(event.address)),
        };
        let key = Key { kind: event.kind, who, action: event.action, repository: event.repository };
        let counted = Counted {
            count: 1,
            principal: event.principal,
            token: event.token,
            address: Some(event.address),
            first_at: now,
            last_at: now,
        };
        self.add(key, counted);
    }

    /// Adds to the record, to a coarser one where there are as many as may be, or to that of all others. The names of
    /// repositories may be made up, so they take neither more than a few records of one client nor the half that is
    /// for clients alone.
    fn add(&self, key: Key, counted: Counted) {
        let mut pending = self.pending();
        let most = match key.who {
            Who::Principal(_) => self.records - self.records / 2,
            Who::Address(_) => self.records / 2,
            Who::Others => usize::MAX,
        };
        let of_such: Vec<_> = pending.keys().filter(|one| one.who.is_like(&key.who)).collect();
        let is_full = |new: &Key| {
            let detailed = of_such.iter().filter(|one| one.is_detailed());
            let own = detailed.clone().filter(|one| one.who == new.who);
            let has_details =
                new.is_detailed() && (own.count() >= MAX_DETAILED || detailed.count() >= most / 2);
            of_such.len() >= most || has_details
        };
        let without_details = Key { action: None, repository: None, ..key.clone() };
        let others = Key { who: Who::Others, ..without_details.clone() };
        let fits = |key: &Key| pending.contains_key(key) || !is_full(key);
        let key = [key, without_details].into_iter().find(fits).unwrap_or(others);
        let counted = if key.who == Who::Others {
            Counted { principal: None, token: None, address: None, ..counted }
        } else {
            counted
        };
        match pending.entry(key) {
            Entry::Vacant(vacant) => {
                vacant.insert(counted);
            }
            Entry::Occupied(mut known) => known.get_mut().join(&counted),
        }
    }

    /// Writes what is pending, as one record each, to the database and to the log. What cannot be written stays.
    pub async fn write(&self, db: &Db) -> Result<usize, Failure> {
        let taken: Vec<_> = self.pending().drain().collect();
        if taken.is_empty() {
            return Ok(0);
        }
        let rows: Vec<_> = taken.iter().map(|(key, counted)| row(key, counted)).collect();
        let written: Result<(), Failure> =
            async { store::insert(&mut *db.acquire().await?, &rows).await }.await;
        if let Err(failure) = written {
            for (key, counted) in taken {
                self.add(key, counted);
            }
            return Err(failure);
        }
        for (key, counted) in &taken {
            tracing::warn!(
                kind = key.kind.as_str(),
                count = counted.count,
                principal_id = counted.principal.as_ref().map(|principal| principal.id),
                principal = counted.principal.as_ref().map(|principal| principal.name.as_str()),
                token_id = counted.token.map(tracing::field::display),
                client_address = shown_address(key, counted),
                action = key.action.map(Action::as_str),
                repository = key.repository.as_ref().map(RepositoryName::as_str),
                first_at = %counted.first_at.to_rfc3339(),
                last_at = %counted.last_at.to_rfc3339(),
                "security event"
            );
        }
        Ok(taken.len())
    }

    fn pending(&self) -> MutexGuard<'_, HashMap<Key, Counted>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counted {
    fn join(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        self.first_at = self.first_at.min(other.first_at);
        if other.last_at >= self.last_at {
            (self.last_at, self.token, self.address) = (other.last_at, other.token, other.address);
        }
    }
}

/// The address; over IPv6 without a credential that holds, the range that was counted together.
fn shown_address(key: &Key, counted: &Counted) -> Option<String> {
    match &key.who {
        Who::Address(IpAddr::V6(network)) => Some(format!("{network}/64")),
        Who::Address(IpAddr::V4(_)) | Who::Principal(_) | Who::Others => {
            counted.address.map(|address| address.to_string())
        }
    }
}

fn row(key: &Key, counted: &Counted) -> store::NewSecurityEvent {
    store::NewSecurityEvent {
        kind: key.kind.as_str(),
        principal_id: counted.principal.as_ref().map(|principal| principal.id),
        token_id: counted.token,
        client_address: shown_address(key, counted),
        action: key.action.map(Action::as_str),
        repository: key.repository.clone(),
        count: counted.count,
        first_at: counted.first_at,
        last_at: counted.last_at,
    }
}

/// Which security events are asked for.
#[derive(Clone, Debug, Default)]
pub struct SecurityQuestion {
    /// Only of this kind.
    pub kind: Option<SecurityEventKind>,
    /// Only by this principal.
    pub principal: Option<String>,
    /// Only those of which the last was at or after this time.
    pub since: Option<DateTime<Utc>>,
    /// Only those of which the first was before this time.
    pub until: Option<DateTime<Utc>>,
    /// Only those that were written before this one.
    pub before: Option<i64>,
}

/// Security events, the newest first, at most `limit`.
pub async fn security_events(
    db: &Db,
    _grant: &Grant<Audit, Everything>,
    question: &SecurityQuestion,
    limit: i64,
) -> Result<Vec<SecurityEventRow>, Failure> {
    store::page(&mut *db.acquire().await?, question, limit).await
}

/// Deletes those that are older than `days`, and of each kind the oldest beyond `most`. How many.
pub async fn forget_security_events(db: &Db, days: u32, most: i64) -> Result<u64, Failure> {
    let mut connection = db.acquire().await?;
    // A number of days beyond the calendar keeps all.
    let before = TimeDelta::try_days(days.into()).and_then(|life| clock::now().checked_sub_signed(life));
    let mut deleted = match before {
        Some(before) => store::delete_before(&mut connection, before).await?,
        None => 0,
    };
    for kind in SecurityEventKind::ALL {
        deleted += store::delete_beyond(&mut connection, kind.as_str(), most).await?;
    }
    Ok(deleted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv6Addr;

    fn event(
        kind: SecurityEventKind,
        principal: Option<i64>,
        address: IpAddr,
        repository: &str,
    ) -> SecurityEvent {
        let principal = principal.map(|id| Principal { id, name: format!("p{id}") });
        let repository = repository.parse().ok();
        SecurityEvent { kind, principal, token: None, address, action: Some(Action::Pull), repository }
    }

    fn counts(events: &SecurityEvents) -> Vec<i64> {
        let mut counts: Vec<_> = events.pending().values().map(|counted| counted.count).collect();
        counts.sort_unstable();
        counts
    }

    #[test]
    fn a_flood_from_one_customers_many_addresses_is_one_record() {
        let events = SecurityEvents::new(100);
        for low in 0..1000_u64 {
            let address = Ipv6Addr::from_bits((0x2001_0db8_u128 << 96) | u128::from(low));
            events.note(event(SecurityEventKind::AuthenticationFailed, None, address.into(), ""));
        }
        assert_eq!(counts(&events), [1000]);
    }

    #[test]
    fn a_flood_without_credentials_hides_no_principal() {
        let events = SecurityEvents::new(20);
        for number in 0..10_000_u32 {
            let address = IpAddr::from(number.to_be_bytes());
            events.note(event(SecurityEventKind::AccessRefused, None, address, ""));
        }
        for id in 3..13 {
            events.note(event(SecurityEventKind::AuditExported, Some(id), IpAddr::from([10, 0, 0, 1]), ""));
        }
        let pending = events.pending();
        let named = pending.keys().filter(|key| matches!(key.who, Who::Principal(_))).count();
        assert_eq!((named, pending.len()), (10, 21));
        assert_eq!(pending.values().map(|counted| counted.count).sum::<i64>(), 10_010);
    }

    #[test]
    fn a_principal_that_makes_up_names_hides_no_other() {
        let events = SecurityEvents::new(400);
        let address = IpAddr::from([10, 0, 0, 1]);
        let named = |events: &SecurityEvents, id: i64| {
            let pending = events.pending();
            let of = pending.iter().filter(|(key, _)| key.who == Who::Principal(id));
            of.map(|(_, counted)| (counted.principal.is_some(), counted.count)).collect::<Vec<_>>()
        };
        for number in 0..1000 {
            let made_up = format!("made/up-{number}");
            events.note(event(SecurityEventKind::AccessRefused, Some(3), address, &made_up));
        }
        let found = named(&events, 3);
        assert_eq!(found.len(), MAX_DETAILED + 1);
        assert_eq!(found.iter().map(|(_, count)| count).sum::<i64>(), 1000);
        // Of many that do it the last is known too.
        for id in 4..60 {
            for number in 0..20 {
                let made_up = format!("made/up-{number}");
                events.note(event(SecurityEventKind::AccessRefused, Some(id), address, &made_up));
            }
        }
        events.note(event(SecurityEventKind::AuditExported, Some(60), address, ""));
        assert_eq!(named(&events, 60), [(true, 1)]);
    }

    proptest! {
        #[test]
        fn records_are_bounded_and_every_event_is_counted(
            asked in prop::collection::vec((0..4_usize, prop::option::of(3..40_i64), any::<[u8; 4]>(), "[a-f]{1,2}"), 0..300)
        ) {
            let events = SecurityEvents::new(30);
            for (kind, principal, address, repository) in &asked {
                let kind = SecurityEventKind::ALL[*kind];
                events.note(event(kind, *principal, IpAddr::from(*address), repository));
            }
            prop_assert!(events.pending().len() <= 30 + SecurityEventKind::ALL.len());
            prop_assert_eq!(counts(&events).iter().sum::<i64>(), i64::try_from(asked.len()).unwrap());
        }
    }
}
