//! The two roles of Postgres: one owns the tables and migrates them, the other is the service's and does no more than
//! its statements need.
//!
//! Who steals the runtime role's credentials, or makes the service run a statement, changes no event, no tag and no
//! table: what never changes has no UPDATE and no DELETE, nothing has TRUNCATE, and only the owner disables triggers.

use super::db::MIGRATOR;
use crate::failure::Failure;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::fmt::Write;
use std::str::FromStr;

/// What the service does with the rows of each table beside reading them. An UPDATE of one column alone is what
/// Postgres asks for where a row is only locked; a trigger refuses the change itself.
pub const PRIVILEGES: &[(&str, &str)] = &[
    ("access_generation", "update"),
    ("approvals", "insert, update"),
    ("attestation_evidence", "insert"),
    ("attestation_materials", "insert"),
    ("attestation_receipts", "insert"),
    ("attestation_signatures", "insert"),
    ("attestation_signatures_found", "insert, delete"),
    ("attestation_subjects", "insert, update"),
    ("attestations", "insert"),
    ("attestations_unreadable", "insert"),
    ("attestations_waiting", "insert, delete"),
    ("blob_links", "insert, update, delete"),
    ("blobs", "insert, update, delete"),
    ("blocks", "insert, update"),
    ("build_types", "insert, update"),
    ("decisions", "insert"),
    ("doomed_objects", "insert, delete"),
    ("envelopes", "insert"),
    ("environments", "insert, update"),
    ("events", "insert"),
    ("evidence_documents", "insert, update, delete"),
    ("finding_sets", "insert"),
    ("findings", "insert"),
    ("floating_tags", "insert"),
    ("generations", "insert, update"),
    ("grants", "insert, update"),
    ("holds", "insert, update"),
    ("idempotency_keys", "insert, update (created_at), delete"),
    ("job_leases", "insert, update"),
    ("job_queue", "insert, update, delete"),
    ("log_entries", "insert"),
    ("log_pending", "insert, delete"),
    ("log_state", "update"),
    ("manifest_authors", "insert"),
    ("manifest_blobs", "insert, delete"),
    ("manifest_children", "insert, delete"),
    ("manifests", "insert, update (total_size_bytes), delete"),
    ("overrides", "insert, update"),
    ("pins", "insert, delete"),
    ("policies", "insert, update"),
    ("policy_documents", "insert"),
    ("predicate_types", "insert"),
    ("principals", "insert"),
    ("principals_disabled", "insert, delete"),
    ("promotion_refusals", "insert, update"),
    ("promotions", "insert"),
    ("provenance_origins", "insert, update"),
    ("registry_identity", "insert"),
    ("release_channels", "insert, update"),
    ("repositories", "insert, update"),
    ("repository_usage", "insert, delete"),
    ("scan_coverage", "insert, update"),
    ("scan_retractions", "insert"),
    ("scan_revocations_unsettled", "insert, delete"),
    ("scan_runs", "insert"),
    ("security_events", "insert, delete"),
    ("signer_identities", "insert, update"),
    ("signer_revocations", "insert"),
    ("signers", "insert"),
    ("summaries", "insert"),
    ("tag_visibility", "insert"),
    ("tags", "insert, update (claimed_at)"),
    ("tags_hidden", "insert, delete"),
    ("token_ends_announced", "insert"),
    ("token_uses", "insert, update"),
    ("tokens", "insert, update"),
    ("trust_files", "insert"),
    ("uploads", "insert, update, delete"),
    ("vulnerabilities_known", "insert, update"),
    ("waiver_vulnerabilities", "insert"),
    ("waivers", "insert, update"),
];

/// Whose the tables are, and what the service may do with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuntimeRole {
    /// It has the rights that the service needs and no others.
    Limited,
    /// It owns the database, its schema, a table or a function, by itself or as a member of another role, or is a
    /// superuser: who has its credentials may drop or replace what keeps history.
    Unlimited,
}

/// Brings the schema up to date as the migration role, and gives the runtime role its rights on it.
pub async fn migrate_as(migration_url: &str, runtime_role: &str) -> Result<(), Failure> {
    let failed = |error| Failure::new("connecting to Postgres with PROOFMARK_MIGRATION_DATABASE_URL", error);
    let options =
        PgConnectOptions::from_str(migration_url).map_err(failed)?.application_name("proofmark-migrate");
    let mut connection = PgConnection::connect_with(&options).await.map_err(failed)?;
    sqlx::raw_sql("set statement_timeout = 0").execute(&mut connection).await?;
    let migrating = |error| Failure::new("migrating the database", error);
    MIGRATOR.run(&mut connection).await.map_err(migrating)?;
    grant(&mut connection, runtime_role).await?;
    connection.close().await.map_err(Failure::from)
}

/// Gives the role the rights of the service, and takes all others on its tables.
pub async fn grant(connection: &mut PgConnection, role: &str) -> Result<(), Failure> {
    let failed = |error| Failure::new("giving the runtime role its rights", error);
    let own: String =
        sqlx::query_scalar("select current_user::text").fetch_one(&mut *connection).await.map_err(failed)?;
    if own == role {
        return Ok(());
    }
    // Of several replicas that start at once one changes the catalogue at a time.
    let sql = format!(
        "begin; select pg_advisory_xact_lock(hashtext('proofmark grants')); {} commit;",
        grants(role)
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.map(|_| ()).map_err(failed)
}

/// The statements that do it.
pub fn grants(role: &str) -> String {
    let role = quoted(role);
    let mut sql = format!(
        "revoke all on all tables in schema public from {role};\n\
         revoke create on schema public from {role};\n\
         grant usage on schema public to {role};\n\
         grant select on all tables in schema public to {role};\n"
    );
    for (table, privileges) in PRIVILEGES {
        let _ = writeln!(sql, "grant {privileges} on {table} to {role};");
    }
    sql
}

/// The role that a URL names.
pub fn user_of(url: &str) -> Option<String> {
    PgConnectOptions::from_str(url).ok().map(|options| options.get_username().to_owned())
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Makes the role where it is missing: it may log in and nothing else.
pub async fn ensure(url: &str, role: &str) -> Result<(), Failure> {
    let failed = |error| Failure::new("making the runtime role", error);
    let options = PgConnectOptions::from_str(url).map_err(failed)?;
    let mut connection = PgConnection::connect_with(&options).await.map_err(failed)?;
    let there: bool = sqlx::query_scalar("select exists(select from pg_roles where rolname = $1)")
        .bind(role)
        .fetch_one(&mut connection)
        .await
        .map_err(failed)?;
    if !there {
        let sql =
            format!("create role {} login nosuperuser nocreatedb nocreaterole noreplication", quoted(role));
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.map_err(failed)?;
    }
    connection.close().await.map_err(failed)
}

/// The role's name, and whether it may do more than the service needs.
pub async fn current(connection: &mut PgConnection) -> Result<(String, RuntimeRole), Failure> {
    let (name, unlimited): (String, bool) = sqlx::query_as(
        "select current_user::text,
                (select rolsuper from pg_roles where rolname = current_user)
                or exists(select from (
                     select datdba from pg_database where datname = current_database()
                     union select nspowner from pg_namespace where nspname = 'public'
                     union select relowner from pg_class where relnamespace = to_regnamespace('public')
                     union select proowner from pg_proc where pronamespace = to_regnamespace('public')) o(owner)
                   where pg_has_role(owner, 'member'))",
    )
    .fetch_one(connection)
    .await
    .map_err(|error| Failure::new("reading the role of the service", error))?;
    Ok((name, if unlimited { RuntimeRole::Unlimited } else { RuntimeRole::Limited }))
}
