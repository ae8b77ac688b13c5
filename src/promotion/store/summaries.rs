//! Rows of `summaries`: renewed verification summaries.

use crate::access::Lane;
use crate::failure::Failure;
use crate::names::{Digest, EnvironmentName, Pattern, RepositoryName};
use crate::promotion::lane::Place;
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

/// A release channel, by its names.
struct Names {
    repository: RepositoryName,
    environment: EnvironmentName,
}

impl From<Names> for Lane {
    fn from(Names { repository, environment }: Names) -> Self {
        Self { repository, environment }
    }
}

fn lanes(rows: Vec<Names>) -> Vec<Lane> {
    rows.into_iter().map(Lane::from).collect()
}

/// Release channels whose newest summary ends before this time, the earliest first.
pub async fn ending(
    connection: &mut PgConnection,
    before: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<Lane>, Failure> {
    let rows = sqlx::query_as!(
        Names,
        r#"select r.name as "repository: RepositoryName", e.name as "environment: EnvironmentName"
           from release_channels c join repositories r on r.id = c.repository_id
           join environments e on e.id = c.environment_id
           where c.summary_until < $1 order by c.summary_until limit $2"#,
        before,
        limit,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("looking for summaries to renew", error))?;
    Ok(lanes(rows))
}

/// Release channels to which bytes with one of these digests were promoted, or an index that holds them.
pub async fn carrying(connection: &mut PgConnection, digests: &[Digest]) -> Result<Vec<Lane>, Failure> {
    let rows = sqlx::query_as!(
        Names,
        r#"with recursive above(repository_id, digest, depth) as (
             select m.repository_id, m.digest, 0 from manifests m
             where m.sha256 = any($1) or m.sha512 = any($1)
             union
             select c.repository_id, c.manifest, a.depth + 1 from above a
             join manifest_children c on c.repository_id = a.repository_id and c.child = a.digest
             where a.depth < 4)
           select distinct r.name as "repository!: RepositoryName", e.name as "environment!: EnvironmentName"
           from above a join manifests m on m.repository_id = a.repository_id and m.digest = a.digest
           join release_channels c on c.repository_id = a.repository_id
           join repositories r on r.id = c.repository_id join environments e on e.id = c.environment_id
           where exists (select from promotions p where p.repository_id = c.repository_id
             and p.environment_id = c.environment_id and p.sha256 = m.sha256)"#,
        digests as &[Digest],
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("looking for release channels of a digest", error))?;
    Ok(lanes(rows))
}

/// Release channels of repositories with a statement that this signer signed. Reads all release channels.
pub async fn resting_on(connection: &mut PgConnection, signer: &str) -> Result<Vec<Lane>, Failure> {
    let rows = sqlx::query_as!(
        Names,
        r#"select r.name as "repository: RepositoryName", e.name as "environment: EnvironmentName"
           from release_channels c
           join repositories r on r.id = c.repository_id join environments e on e.id = c.environment_id
           where exists (select from signers n join attestation_signatures i on i.signer_id = n.id
             where n.name = $1 and i.repository_id = c.repository_id)"#,
        signer,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("looking for release channels that rest on a signer", error))?;
    Ok(lanes(rows))
}

/// What a statement is about, of what is here.
pub async fn subjects(connection: &mut PgConnection, attestation: i64) -> Result<Vec<Digest>, Failure> {
    sqlx::query_scalar!(
        r#"select digest as "digest: Digest" from attestation_subjects where attestation_id = $1"#,
        attestation,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("reading what a statement is about", error))
}

/// Release channels that a waiver covers.
pub async fn waived(connection: &mut PgConnection, waiver: i64) -> Result<Vec<Lane>, Failure> {
    let rows = sqlx::query!(
        r#"select r.name as "repository: RepositoryName", e.name as "environment: EnvironmentName",
             w.repositories as "repositories: Pattern"
           from waivers w join release_channels c on w.environment_id is null or w.environment_id = c.environment_id
           join repositories r on r.id = c.repository_id join environments e on e.id = c.environment_id
           where w.id = $1"#,
        waiver,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("looking for release channels that a waiver covers", error))?;
    let covered = rows.into_iter().filter(|row| row.repositories.matches(row.repository.as_str()));
    Ok(covered.map(|row| Lane { repository: row.repository, environment: row.environment }).collect())
}

/// The release channels of an environment.
pub async fn of_environment(
    connection: &mut PgConnection,
    environment: &EnvironmentName,
) -> Result<Vec<Lane>, Failure> {
    let rows = sqlx::query_as!(
        Names,
        r#"select r.name as "repository: RepositoryName", e.name as "environment: EnvironmentName"
           from environments e join release_channels c on c.environment_id = e.id
           join repositories r on r.id = c.repository_id where e.name = $1"#,
        environment as &EnvironmentName,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("listing the release channels of an environment", error))?;
    Ok(lanes(rows))
}

/// Writes a renewed summary.
pub async fn insert(
    connection: &mut PgConnection,
    promotion: i64,
    envelope: &[u8],
    valid_until: DateTime<Utc>,
    at: DateTime<Utc>,
    event_id: i64,
) -> Result<(), Failure> {
    sqlx::query!(
        r#"insert into summaries(promotion_id, envelope, valid_until, created_at, event_id)
           values ($1, $2, $3, $4, $5)"#,
        promotion,
        envelope,
        valid_until,
        at,
        event_id,
    )
    .execute(connection)
    .await
    .map_err(|error| Failure::new("writing a renewed summary", error))?;
    Ok(())
}

/// Every channel is due.
pub async fn all_end(connection: &mut PgConnection, at: DateTime<Utc>) -> Result<(), Failure> {
    sqlx::query!("update release_channels set summary_until = $1 where summary_until > $1", at)
        .execute(connection)
        .await
        .map_err(|error| Failure::new("dating the renewal of all summaries", error))?;
    Ok(())
}

/// When the summaries of the channel are looked at again.
pub async fn look_again(
    connection: &mut PgConnection,
    place: &Place,
    at: DateTime<Utc>,
) -> Result<(), Failure> {
    sqlx::query!(
        r#"update release_channels set summary_until = $3 where repository_id = $1 and environment_id = $2"#,
        place.repository_id,
        place.environment_id,
        at,
    )
    .execute(connection)
    .await
    .map_err(|error| Failure::new("dating the renewal of a summary", error))?;
    Ok(())
}
