//! Rows of `build_types`.

use crate::attestation::build_types::{BuildType, Ended};
use crate::attestation::provenance::{Pointers, SourceLocation};
use crate::failure::Failure;
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

struct Row {
    id: i64,
    build_type: String,
    source: Option<String>,
    source_ref: Option<String>,
    branch: Option<String>,
    commit_id: Option<String>,
    dependency: Option<String>,
    declared_by: String,
    declared_at: DateTime<Utc>,
    ended_by: Option<String>,
    ended_at: Option<DateTime<Utc>>,
}

impl From<Row> for BuildType {
    fn from(row: Row) -> Self {
        let location = match row.source {
            Some(source) => SourceLocation::Parameters(Pointers {
                source,
                reference: row.source_ref,
                branch: row.branch,
                commit: row.commit_id,
            }),
            None => SourceLocation::Dependency(row.dependency.unwrap_or_default()),
        };
        let ended = row.ended_by.zip(row.ended_at).map(|(by, at)| Ended { by, at });
        Self {
            id: row.id,
            build_type: row.build_type,
            location,
            declared_by: row.declared_by,
            declared_at: row.declared_at,
            ended,
        }
    }
}

/// The declarations in force, of one build type or of all.
pub async fn in_force(
    connection: &mut PgConnection,
    build_type: Option<&str>,
) -> Result<Vec<BuildType>, Failure> {
    let all = page(connection, 0, i64::MAX, build_type).await?;
    Ok(all.into_iter().filter(|one| one.ended.is_none()).collect())
}

/// A page of declarations behind this one, ended ones among them.
pub async fn page(
    connection: &mut PgConnection,
    after: i64,
    limit: i64,
    build_type: Option<&str>,
) -> Result<Vec<BuildType>, Failure> {
    let rows = sqlx::query_as!(
        Row,
        r#"select b.id, b.build_type, b.source, b.source_ref, b.branch, b.commit_id, b.dependency, d.name as declared_by,
             b.declared_at, e.name as "ended_by?", b.ended_at
           from build_types b join principals d on d.id = b.declared_by left join principals e on e.id = b.ended_by
           where b.id > $1 and ($3::text is null or b.build_type = $3)
           order by b.id limit $2"#,
        after,
        limit,
        build_type,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("reading declared build types", error))?;
    Ok(rows.into_iter().map(BuildType::from).collect())
}

/// Declares a build type.
pub async fn insert(
    connection: &mut PgConnection,
    build_type: &str,
    location: &SourceLocation,
    (by, at): (i64, DateTime<Utc>),
) -> Result<i64, Failure> {
    let (pointers, dependency) = match location {
        SourceLocation::Parameters(pointers) => (Some(pointers), None),
        SourceLocation::Dependency(name) => (None, Some(name)),
    };
    sqlx::query_scalar!(
        "insert into build_types(build_type, source, source_ref, branch, commit_id, dependency, declared_by,
           declared_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8) returning id",
        build_type,
        pointers.map(|at| &at.source),
        pointers.and_then(|at| at.reference.as_ref()),
        pointers.and_then(|at| at.branch.as_ref()),
        pointers.and_then(|at| at.commit.as_ref()),
        dependency,
        by,
        at,
    )
    .fetch_one(connection)
    .await
    .map_err(|error| Failure::new("declaring a build type", error))
}

/// Ends a declaration.
pub async fn end(
    connection: &mut PgConnection,
    id: i64,
    (by, at): (i64, DateTime<Utc>),
) -> Result<(), Failure> {
    sqlx::query!("update build_types set ended_by = $2, ended_at = $3 where id = $1", id, by, at)
        .execute(connection)
        .await
        .map_err(|error| Failure::new("ending a declared build type", error))?;
    Ok(())
}

/// The build type of a declaration that is in force.
pub async fn open(connection: &mut PgConnection, id: i64) -> Result<Option<String>, Failure> {
    sqlx::query_scalar!("select build_type from build_types where id = $1 and ended_at is null", id)
        .fetch_optional(connection)
        .await
        .map_err(|error| Failure::new("reading a declared build type", error))
}
