//! Facts as `policy` wants them. What never changes is remembered; what may have changed is gathered
//! in one statement at every question.

use super::store::facts::{self as store, Asked, Row};
use super::store::{holds, policies, releases};
use crate::access::{Approve, Authority, Binding, Lane, Principal};
use crate::clock;
use crate::exceptions::block_counts;
use crate::failure::Failure;
use crate::names::{Digest, EnvironmentName, RepositoryName};
use crate::policy::{
    Approval, Attestation, Block, Facts, Policies, Policy, PolicySets, Position, Scan, Severity, Subject,
};
use crate::postgres::Clocks;
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::sync::{Arc, LazyLock};

pub(super) use releases::{Promotion, Release};
pub(super) use store::Wanted;

/// Everything that is known about a release when it is judged.
pub(super) struct Gathered {
    /// The database's time when it saw the facts.
    pub now: DateTime<Utc>,
    pub facts: Facts,
    /// The policies in force that cover the channel, and those by which it was promoted.
    pub policies: PolicySets,
    /// The promotion of other bytes that came after it: when, and whether it was a rollback.
    pub later: Option<(DateTime<Utc>, bool)>,
    /// A rollback went back over it.
    pub skipped: bool,
    pub release: Arc<Release>,
}

impl Gathered {
    /// Where the version stands, as far as its own rows tell: an older version may be current all the same,
    /// where an answer falls back to it.
    pub fn position(&self) -> Position {
        match self.later {
            None => Position::Current,
            // A rollback as the next promotion went away from this version, whatever came after.
            Some((at, true)) => Position::RolledBackFrom { at },
            Some((at, false)) => Position::Superseded { at },
        }
    }
}

/// The newest releases of lanes, as they were last seen. A release never changes; that it is still the
/// newest is asked with the facts, by the digest of its decision, which pins where, when and on what
/// it was made. So an entry that is out of date, or of another database, is a miss and never an answer.
static NEWEST: LazyLock<moka::sync::Cache<(RepositoryName, EnvironmentName), Arc<Release>>> =
    LazyLock::new(|| {
        moka::sync::Cache::builder()
            .max_capacity(NEWEST_BYTES)
            .weigher(|_, release: &Arc<Release>| release.size_bytes().try_into().unwrap_or(u32::MAX))
            .build()
    });

/// Memory for the newest releases: some 15,000 lanes.
const NEWEST_BYTES: u64 = 64 << 20;

/// Gathers the facts about a manifest that is to be promoted, under the locks of its lane: with the holds,
/// which stop promotions only; without the times since when what a scan found is known, which give grace
/// only to what runs.
pub(super) async fn gather_for_promotion(
    connection: &mut PgConnection,
    wanted: Wanted<'_>,
) -> Result<Option<Gathered>, Failure> {
    let Some(release) = releases::find(connection, wanted).await? else { return Ok(None) };
    let holds = holds::stopping(connection, &release).await?;
    let mut gathered = look(connection, wanted, Arc::new(release)).await?.0;
    gathered.facts.holds = holds;
    let scans = std::mem::take(&mut gathered.facts.scans).into_iter();
    gathered.facts.scans = scans.map(|scan| Scan { known: BTreeSet::new(), ..scan }).collect();
    Ok(Some(gathered))
}

/// Gathers the facts about the newest promotion of the lane, or about an earlier one.
pub(super) async fn gather(
    connection: &mut PgConnection,
    wanted: Wanted<'_>,
) -> Result<Option<Gathered>, Failure> {
    let lane = (wanted.repository.clone(), wanted.environment.clone());
    let remembered = NEWEST.get(&lane).filter(|release| {
        let id = release.promotion.as_ref().map(|promotion| promotion.id);
        wanted.promotion.is_none() || wanted.promotion == id
    });
    if let Some(release) = remembered {
        let (gathered, seen) = look(connection, wanted, release).await?;
        // What is remembered may be of another database, where the ids of promotions are the same.
        if seen.is_newest(&gathered.release) && seen.is_renewed_as(&gathered.release) {
            return Ok(Some(gathered));
        }
    }
    while let Some(release) = releases::find(connection, wanted).await? {
        let (gathered, seen) = look(connection, wanted, Arc::new(release)).await?;
        // Otherwise another one was promoted, or a summary renewed, between the two statements.
        let is_newest = seen.is_newest(&gathered.release);
        if (wanted.promotion.is_some() || is_newest) && seen.is_renewed_as(&gathered.release) {
            if is_newest {
                NEWEST.insert(lane, Arc::clone(&gathered.release));
            }
            return Ok(Some(gathered));
        }
    }
    Ok(None)
}

/// Reads the newest releases of these repositories that are not remembered, in one statement.
pub(super) async fn remember_newest(
    connection: &mut PgConnection,
    environment: &EnvironmentName,
    repositories: &[RepositoryName],
) -> Result<(), Failure> {
    let unknown = |name: &&RepositoryName| !NEWEST.contains_key(&((*name).clone(), environment.clone()));
    let unknown: Vec<&RepositoryName> = repositories.iter().filter(unknown).collect();
    if unknown.is_empty() {
        return Ok(());
    }
    for release in releases::newest(connection, &unknown, environment).await? {
        NEWEST.insert((release.repository.clone(), environment.clone()), Arc::new(release));
    }
    Ok(())
}

/// What the gathering statement saw of what is remembered.
struct Seen {
    newest: Option<Digest>,
    summary_id: Option<i64>,
}

impl Seen {
    fn is_newest(&self, release: &Release) -> bool {
        release.promotion.as_ref().map(|promotion| &promotion.decision) == self.newest.as_ref()
    }

    /// No summary was renewed since.
    fn is_renewed_as(&self, release: &Release) -> bool {
        release.summary_id == self.summary_id
    }
}

/// The severities that are gathered whatever the policies in force deny: those of the recorded policies, and
/// critical, which no answer falls back to; and unknown, of which an answer warns.
fn severities(recorded: &Policies, also: Option<&Policy>) -> Vec<&'static str> {
    let policies = recorded.values().map(AsRef::as_ref).chain(also);
    let denied = policies.flat_map(Policy::denied_severities);
    let all: BTreeSet<Severity> = denied.chain([Severity::Critical, Severity::Unknown]).collect();
    all.into_iter().map(Severity::as_str).collect()
}

async fn look(
    connection: &mut PgConnection,
    wanted: Wanted<'_>,
    release: Arc<Release>,
) -> Result<(Gathered, Seen), Failure> {
    let named = release.promotion.as_ref().map(|promotion| &promotion.recorded.policies);
    let named: Vec<Digest> = named.into_iter().flatten().cloned().collect();
    let count = named.len();
    let recorded = documents(connection, named).await?;
    if recorded.len() != count {
        return Err(Failure::new("reading the policies of a promotion", "a recorded policy is not stored"));
    }
    let severities = severities(&recorded, wanted.also);
    let environments: Vec<&EnvironmentName> =
        wanted.also.map(|policy| policy.earlier_environments().into_iter().collect()).unwrap_or_default();
    let signatures = release.promotion.as_ref().map(|promotion| promotion.recorded.signatures());
    let envelopes: Vec<&str> = signatures.into_iter().flatten().collect();
    let expected = IN_FORCE.get(wanted.environment).unwrap_or_default();
    let mut in_force = covering(connection, wanted, expected).await?;
    let (row, in_force) = loop {
        let asked = statements(&recorded, &in_force, wanted.also);
        let (types, signers): (Vec<&str>, Vec<Option<&str>>) = asked.iter().copied().unzip();
        let asked_for = Asked {
            severities: &severities,
            environments: &environments,
            types: &types,
            signers: &signers,
            envelopes: &envelopes,
        };
        let row = store::gather(connection, &release, &asked_for).await?;
        let found = covering(connection, wanted, row.policies.clone()).await?;
        // Otherwise others are in force than were expected: what is gathered depends on nothing but the policies.
        if statements(&recorded, &found, wanted.also) == asked {
            break (row, found);
        }
        IN_FORCE.insert(wanted.environment.clone(), row.policies);
        in_force = found;
    };
    let seen = Seen { newest: row.newest.clone(), summary_id: row.summary_id };
    let mut gathered = gathered(wanted, release, row, PolicySets { in_force, recorded });
    let policies = gathered.policies.in_force.values().map(AsRef::as_ref).chain(wanted.also);
    let missing: BTreeSet<&str> =
        policies.flat_map(|policy| policy.missing_signers(&gathered.facts)).collect();
    if !missing.is_empty() {
        let missing: Vec<&str> = missing.into_iter().collect();
        for (signer, kind) in store::other_statements(connection, &gathered.release, &missing).await? {
            gathered.facts.other_statements.entry(signer).or_default().insert(kind);
        }
    }
    Ok((gathered, seen))
}

/// The policies that were in force in an environment when it was last looked at. Which are is asked with the facts, so
/// an entry that is out of date costs a second question and no more.
static IN_FORCE: LazyLock<moka::sync::Cache<EnvironmentName, Vec<Digest>>> =
    LazyLock::new(|| moka::sync::Cache::new(10_000));

/// Those of the policies that cover the channel.
async fn covering(
    connection: &mut PgConnection,
    wanted: Wanted<'_>,
    policies: Vec<Digest>,
) -> Result<Policies, Failure> {
    let mut found = documents(connection, policies).await?;
    found.retain(|_, policy| policy.covers(wanted.repository, wanted.environment));
    Ok(found)
}

/// The statements that the gates of these policies ask for. One by any signer is asked for once.
fn statements<'a>(
    recorded: &'a Policies,
    in_force: &'a Policies,
    also: Option<&'a Policy>,
) -> BTreeSet<(&'a str, Option<&'a str>)> {
    let policies = recorded.values().chain(in_force.values()).map(AsRef::as_ref).chain(also);
    let asked: BTreeSet<_> = policies.flat_map(Policy::asked).collect();
    let by_any: BTreeSet<&str> = asked.iter().filter(|(_, by)| by.is_none()).map(|(kind, _)| *kind).collect();
    asked.into_iter().filter(|(kind, by)| by.is_none() || !by_any.contains(kind)).collect()
}

/// An approval counts only while its author holds the right to approve in the lane.
fn approval(seen: store::ApprovalSeen, lane: &Lane) -> Approval {
    let store::ApprovalSeen { id, by, until, grants, .. } = seen;
    let bindings = grants.into_iter().map(|grant| Binding {
        role: grant.role,
        repositories: grant.repositories,
        environments: grant.environments,
    });
    let author = Authority::new(Principal { id: 0, name: by.clone() }, bindings.collect());
    let authorized = author.may::<Approve, _>(lane).is_ok();
    Approval { id, by, until, authorized }
}

/// The blocks that count in the repository.
fn blocks(seen: Vec<store::BlockSeen>, repository: &RepositoryName) -> BTreeSet<Block> {
    let counts = |one: &store::BlockSeen| block_counts(one.is_own, &one.repositories, repository);
    seen.into_iter().filter(counts).map(|one| one.block).collect()
}

/// Statements with all bytes that they are about.
fn attestations(rows: Vec<Attestation>) -> BTreeSet<Attestation> {
    let mut found = BTreeMap::<i64, Attestation>::new();
    for row in rows {
        match found.entry(row.id) {
            Entry::Vacant(place) => _ = place.insert(row),
            Entry::Occupied(mut place) => {
                place.get_mut().about.extend(row.about);
                place.get_mut().formerly_about.extend(row.formerly_about);
            }
        }
    }
    found.into_values().collect()
}

fn gathered(wanted: Wanted<'_>, release: Arc<Release>, row: Row, policies: PolicySets) -> Gathered {
    let scans = row.scans.0.into_iter().map(|run| Scan {
        id: run.id,
        sha256: run.sha256,
        scanner: run.scanner,
        scanned_at: run.scanned_at,
        database_updated_at: run.database_updated_at,
        report: run.report,
        finding_set: run.finding_set,
        covers: run.covers,
        is_image: run.is_image,
        is_bound: run.is_bound,
        scope: run.scope.unwrap_or_default(),
        retracted: run.retracted,
        statement: run.statement,
        findings: run.findings,
        known: run.known,
    });
    let lane = Lane { repository: wanted.repository.clone(), environment: wanted.environment.clone() };
    let repository = wanted.repository.as_str();
    let verifying = row.verifying.0.into_iter();
    let verifying = verifying
        .filter(|one| one.repositories.iter().any(|pattern| pattern.matches(repository)))
        .map(|one| one.signer)
        .collect();
    let facts = Facts {
        subject: Subject {
            repository: wanted.repository.clone(),
            environment: wanted.environment.clone(),
            digest: release.digest.clone(),
            sha256: release.sha256.clone(),
            pushed_at: release.pushed_at,
            authors: row.approvals.0.iter().filter(|one| one.is_author).map(|one| one.by.clone()).collect(),
            platforms: release.platforms.0.clone(),
        },
        blocks: blocks(row.blocks.0, wanted.repository),
        holds: BTreeSet::new(),
        attestations: attestations(row.attestations.0),
        other_statements: BTreeMap::new(),
        verifying,
        scans: scans.collect(),
        stays: row.stays.0,
        approvals: row.approvals.0.into_iter().map(|seen| approval(seen, &lane)).collect(),
        waivers: row.waivers.0.into_iter().filter(|one| one.repositories.matches(repository)).collect(),
        overrides: row.overrides.0,
    };
    let later = row.later_at.map(|at| (at, row.later_kind.as_deref() == Some("rollback")));
    let Row { database_time: database, newest_event, skipped, .. } = row;
    let now = Clocks { database, service: clock::now(), newest_event }.time();
    Gathered { now, facts, policies, later, skipped, release }
}

/// Parsed policies by their digest: a document never changes, so neither does an entry.
static PARSED: LazyLock<moka::future::Cache<Digest, Arc<Policy>>> =
    LazyLock::new(|| moka::future::Cache::new(1024));

/// The documents with these digests.
pub(super) async fn documents(
    connection: &mut PgConnection,
    wanted: Vec<Digest>,
) -> Result<Policies, Failure> {
    let mut found = Policies::new();
    let mut missing = Vec::new();
    for digest in wanted {
        match PARSED.get(&digest).await {
            Some(policy) => {
                found.insert(digest, policy);
            }
            None => missing.push(digest),
        }
    }
    if !missing.is_empty() {
        for (digest, body) in policies::bodies(connection, &missing).await? {
            if Digest::sha256(&body) != digest {
                return Err(Failure::new("reading a stored policy", format!("{digest} has other content")));
            }
            let policy = Arc::new(Policy::from_canonical(&body)?);
            PARSED.insert(digest.clone(), Arc::clone(&policy)).await;
            found.insert(digest, policy);
        }
    }
    Ok(found)
}
