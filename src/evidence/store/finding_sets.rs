//! Sets of findings, each stored once.

use crate::evidence::{Class, Finding, FindingSet, Target};
use crate::failure::Failure;
use crate::names::Digest;
use serde_json::{Value, json};
use sqlx::PgConnection;

/// Findings of one statement.
const BATCH: usize = 1000;

/// Stores the set unless it is known; says whether it was new. The set's row comes first: of two
/// transactions with the same new set the second waits for the first, and finds it stored (or, if
/// that was rolled back, stores it itself).
pub async fn store(connection: &mut PgConnection, set: &FindingSet) -> Result<bool, Failure> {
    let new = sqlx::query!(
        "insert into finding_sets(digest, counts) values ($1, $2) on conflict do nothing",
        set.digest() as &Digest,
        json!(set.counts()),
    )
    .execute(&mut *connection)
    .await
    .map_err(|error| Failure::new("storing a set of findings", error))?
    .rows_affected()
        == 1;
    if new {
        for (n, batch) in set.findings().chunks(BATCH).enumerate() {
            insert(connection, set.digest(), n * BATCH, batch).await?;
        }
    }
    Ok(new)
}

/// One statement for many rows: a column of values each. Lists travel as JSON, since an array of
/// arrays would be flattened.
async fn insert(
    connection: &mut PgConnection,
    set: &Digest,
    first: usize,
    batch: &[Finding],
) -> Result<(), Failure> {
    fn texts<'a>(batch: &'a [Finding], of: impl Fn(&'a Finding) -> &'a str) -> Vec<&'a str> {
        batch.iter().map(of).collect()
    }
    let class = texts(batch, |f| f.class.as_str());
    let vulnerability = texts(batch, |f| &f.vulnerability);
    let aliases: Vec<Value> = batch.iter().map(|f| json!(f.aliases)).collect();
    let target: Vec<Option<&str>> = batch.iter().map(|f| f.target.map(Target::as_str)).collect();
    let path: Vec<Option<String>> = batch.iter().map(|f| f.path.clone()).collect();
    let package = texts(batch, |f| &f.package);
    let purl: Vec<Option<String>> = batch.iter().map(|f| f.purl.clone()).collect();
    let installed = texts(batch, |f| &f.installed);
    let fixed_in: Vec<Value> = batch.iter().map(|f| json!(f.fixed_in)).collect();
    let severity = texts(batch, |f| f.severity.as_str());
    let severity_source = texts(batch, |f| &f.severity_source);
    let ratings: Vec<Value> = batch.iter().map(|f| json!(f.ratings)).collect();
    let suppressed: Vec<Option<String>> = batch.iter().map(|f| f.suppressed.clone()).collect();
    let title = texts(batch, |f| &f.title);
    sqlx::query!(
        r#"insert into findings(finding_set, position, class, vulnerability, aliases, package, purl, installed,
             fixed_in, severity, severity_source, ratings, suppressed, title, target, path)
           select $1, $2 + n - 1, class, vulnerability, array(select jsonb_array_elements_text(aliases)), package, purl,
             installed, array(select jsonb_array_elements_text(fixed_in)), severity, severity_source, ratings,
             suppressed, title, target, path
           from unnest($3::text[], $4::text[], $5::jsonb[], $6::text[], $7::text[], $8::text[], $9::jsonb[],
             $10::text[], $11::text[], $12::jsonb[], $13::text[], $14::text[], $15::text[], $16::text[]) with ordinality
             as t(class, vulnerability, aliases, package, purl, installed, fixed_in, severity, severity_source,
               ratings, suppressed, title, target, path, n)"#,
        set as &Digest,
        i64::try_from(first).unwrap_or(i64::MAX),
        &class as &[&str],
        &vulnerability as &[&str],
        &aliases,
        &package as &[&str],
        &purl as &[Option<String>],
        &installed as &[&str],
        &fixed_in,
        &severity as &[&str],
        &severity_source as &[&str],
        &ratings,
        &suppressed as &[Option<String>],
        &title as &[&str],
        &target as &[Option<&str>],
        &path as &[Option<String>],
    )
    .execute(connection)
    .await
    .map_err(|error| Failure::new("storing findings", error))?;
    Ok(())
}

/// A page of sets by digest, with the counts that are stored beside them.
pub async fn page(
    connection: &mut PgConnection,
    last: Option<&Digest>,
    limit: i64,
) -> Result<Vec<(Digest, Value)>, Failure> {
    let rows = sqlx::query!(
        r#"select digest as "digest: Digest", counts from finding_sets
           where $1::text is null or digest > $1 order by digest limit $2"#,
        last as Option<&Digest>,
        limit,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("reading sets of findings", error))?;
    Ok(rows.into_iter().map(|row| (row.digest, row.counts)).collect())
}

/// The set as its rows say, or which of them cannot be read.
pub async fn read(
    connection: &mut PgConnection,
    digest: &Digest,
) -> Result<Result<FindingSet, String>, Failure> {
    let rows = sqlx::query!(
        r#"select class, vulnerability, aliases, package, purl, installed, fixed_in, severity, severity_source,
             ratings, suppressed, title, target, path
           from findings where finding_set = $1 order by position"#,
        digest as &Digest,
    )
    .fetch_all(connection)
    .await
    .map_err(|error| Failure::new("reading findings", error))?;
    let mut findings = Vec::with_capacity(rows.len());
    for row in rows {
        let target = row.target.as_deref().map(str::parse).transpose();
        let (Some(class), Ok(severity), Ok(ratings), Ok(target)) =
            (Class::of(&row.class), row.severity.parse(), serde_json::from_value(row.ratings), target)
        else {
            return Ok(Err(format!(
                "{} is of an unknown class, target, severity or rating",
                row.vulnerability
            )));
        };
        findings.push(Finding {
            class,
            vulnerability: row.vulnerability,
            aliases: row.aliases,
            target,
            path: row.path,
            package: row.package,
            purl: row.purl,
            installed: row.installed,
            fixed_in: row.fixed_in,
            severity,
            severity_source: row.severity_source,
            ratings,
            suppressed: row.suppressed,
            title: row.title,
        });
    }
    FindingSet::of(findings).map(Ok)
}
