//! The service's role in Postgres does what its statements need, and whoever steals it changes no history.

use crate::harness::{PROVENANCE, Registry, expect, fresh_database, noise};
use proofmark::access::Role;
use proofmark::jobs::Due;
use proofmark::postgres::roles::{self, RuntimeRole};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A database that one role owns, and a URL of it for another one that owns nothing.
async fn two_roles() -> (String, String, String) {
    let owner = fresh_database().await;
    let role = format!("runtime_{}", uuid::Uuid::new_v4().simple());
    roles::ensure(&owner, &role).await.unwrap();
    let mut runtime = url::Url::parse(&owner).unwrap();
    runtime.set_username(&role).unwrap();
    (owner, runtime.to_string(), role)
}

async fn refused(connection: &mut PgConnection, sql: &'static str) -> bool {
    let ran = sqlx::raw_sql(sql).execute(&mut *connection).await;
    ran.is_err_and(|error| {
        // 42501: insufficient privilege.
        error
            .as_database_error()
            .and_then(sqlx::error::DatabaseError::code)
            .is_some_and(|code| code == "42501")
    })
}

/// Pushes, evidence, promotions, a rollback, exceptions, tokens, deletes and a collection.
async fn release(registry: &Registry) {
    let (admin, ci) = (registry.admin(), registry.client(Role::Pusher, "**").await);
    let approver = registry.client(Role::Approver, "**").await;
    registry.know_signer("ci").await;
    registry.environment("prod", "approvals: {count: 1}").await;
    let mut releases = Vec::new();
    for version in ["1.0", "2.0"] {
        let digest = ci.push_release("team/app", version, &format!("release {version}")).await;
        registry.state(&digest, "ci", PROVENANCE, None).await;
        registry.scanned(&digest, "trivy", 5, &[]).await;
        let about =
            json!({"repository": "team/app", "digest": digest, "environment": "prod", "reason": "good"});
        approver.post_document("/api/v1/approvals", &about, 201).await;
        expect(admin.promote("team/app", &digest, "prod").await, 201).await;
        releases.push(digest);
    }
    ci.push_blob("team/app", &noise(1, 300_000)).await;
    expect(ci.known_good("team/app", "prod").await, 200).await;
    let back = json!({"repository": "team/app", "environment": "prod", "reason": "it is slow"});
    admin.post_document("/api/v1/rollbacks", &back, 201).await;
    let block = admin.block("team/app", &releases[1], Some("prod")).await;
    let over = json!({"reason": "over"});
    admin.post_document(&format!("/api/v1/blocks/{}/revocation", block["id"]), &over, 200).await;
    let made = admin.post_document("/api/v1/tokens", &json!({"principal": "ci"}), 201).await;
    expect(
        admin.delete(&format!("/api/v1/tokens/{}", made["id"].as_str().unwrap())).send().await.unwrap(),
        204,
    )
    .await;
    let extra = ci.push_release("team/app", "extra", "not promoted").await;
    expect(admin.delete(&format!("/v2/team/app/manifests/{extra}")).send().await.unwrap(), 202).await;
    admin.post_document("/api/v1/signers/ci/revocation", &json!({"reason": "lost"}), 201).await;
    registry.app.write_security_events().await.unwrap();
    registry.app.collect(Due::Every(Duration::ZERO), &CancellationToken::new()).await.unwrap();
    registry.app.retain(Due::Every(Duration::ZERO), &CancellationToken::new()).await.unwrap();
    registry.sequence_all().await;
}

#[tokio::test]
async fn a_stolen_database_url_of_the_service_changes_no_history() {
    let (owner, runtime, role) = two_roles().await;
    let registry = Registry::with(|settings| {
        settings.database_url = Some(runtime.clone());
        settings.migration_database_url = Some(owner.clone());
    })
    .await;
    // A whole release: pushed, attested, scanned, promoted, blocked, deleted, collected.
    let admin = registry.admin();
    release(&registry).await;
    expect(admin.get("/readyz").send().await.unwrap(), 200).await;
    let ready = admin.document("/readyz").await;
    let codes: Vec<_> = ready["reasons"].as_array().unwrap().iter().map(|reason| &reason["code"]).collect();
    assert!(codes.is_empty(), "{ready}");

    // The owner's URL may be kept from the service once the schema is up to date.
    let alone = registry.replica_with(|settings| settings.database_url = Some(runtime.clone())).await;
    let ready = alone.anyone().document("/readyz").await;
    assert_eq!(ready["status"], "ready", "{ready}");

    let mut thief = PgConnection::connect(&runtime).await.unwrap();
    for sql in [
        "truncate events",
        "truncate tags cascade",
        "drop table events",
        "alter table events disable trigger all",
        "alter table tags disable trigger tags_never_change",
        "drop trigger tags_never_change on tags",
        "create trigger mine before insert on events for each row execute function refuse_change()",
        "set session_replication_role = replica",
        "update events set at = at",
        "delete from events",
        "update log_entries set idx = idx",
        "delete from log_entries",
        "update decisions set inputs = inputs",
        "delete from decisions",
        "delete from tags",
        "update summaries set envelope = envelope",
        "delete from blocks",
        "delete from tokens",
        "insert into registry_keys select * from registry_keys",
        "create table mine(id int)",
        "create function mine() returns int language sql as 'select 1'",
    ] {
        assert!(refused(&mut thief, sql).await, "{sql} was not refused");
    }
    drop(thief);
    let mut superuser = PgConnection::connect(&owner).await.unwrap();
    registry.check().await;
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("drop owned by {role}; drop role {role}")))
        .execute(&mut superuser)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_role_that_owns_the_tables_is_told_of() {
    let registry = Registry::start().await;
    let ready = registry.anyone().document("/readyz").await;
    let reasons = ready["reasons"].as_array().unwrap();
    let reason = reasons.iter().find(|reason| reason["code"] == "database-role-unlimited").unwrap();
    assert!(reason["message"].as_str().unwrap().contains("PROOFMARK_MIGRATION_DATABASE_URL"), "{ready}");
    assert_eq!(ready["status"], "degraded");
    registry.check().await;
}

#[tokio::test]
async fn a_role_that_may_drop_or_replace_what_keeps_history_is_not_called_limited() {
    let (owner, runtime, role) = two_roles().await;
    roles::migrate_as(&owner, &role).await.unwrap();
    let mut migrator = PgConnection::connect(&owner).await.unwrap();
    let database: String =
        sqlx::query_scalar("select current_database()::text").fetch_one(&mut migrator).await.unwrap();
    let mut run =
        async |sql: String| sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut migrator).await.unwrap();
    let current = async || {
        let mut service = PgConnection::connect(&runtime).await.unwrap();
        roles::current(&mut service).await.unwrap().1
    };
    assert_eq!(current().await, RuntimeRole::Limited);
    let group = format!("{role}_group");
    run(format!("create role {group}; grant {group} to {role}")).await;
    for what in [&format!("database {database}"), "schema public", "table events", "function refuse_change()"]
    {
        for owns in [&role, &group] {
            run(format!("alter {what} owner to {owns}")).await;
            assert_eq!(current().await, RuntimeRole::Unlimited, "{what} of {owns}");
            // What the documentation says about an installation that began with one role.
            run(format!("reassign owned by {owns} to current_user")).await;
            assert_eq!(current().await, RuntimeRole::Limited, "{what} of {owns}");
        }
    }
    run(format!("drop owned by {role}; drop role {role}; drop role {group}")).await;
}

/// What statements do with tables, as far as words tell.
fn used(sql: &str, tables: &BTreeSet<&str>, found: &mut BTreeMap<String, BTreeSet<&'static str>>) {
    let sql: String =
        sql.lines().map(|line| line.split("--").next().unwrap_or_default()).collect::<Vec<_>>().join(" ");
    let words: Vec<String> = sql
        .to_lowercase()
        .split(|c: char| !(c.is_alphanumeric() || c == '_'))
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect();
    let mut inserted = None;
    for window in 0..words.len() {
        let word = |offset: usize| words.get(window + offset).map_or("", String::as_str);
        let (verb, table) = match (word(0), word(1)) {
            ("insert", "into") => ("insert", word(2)),
            ("delete", "from") => ("delete", word(2)),
            ("do", "update") => ("update", inserted.unwrap_or("")),
            ("update", table) => ("update", table),
            _ => continue,
        };
        let Some(table) = tables.get(table) else { continue };
        if verb == "insert" {
            inserted = Some(*table);
        }
        found.entry((*table).to_owned()).or_default().insert(verb);
    }
}

#[test]
fn the_runtime_role_has_the_rights_that_statements_need_and_no_more_on_what_never_changes() {
    let root = env!("CARGO_MANIFEST_DIR");
    let migrations: Vec<String> = fs::read_dir(format!("{root}/migrations"))
        .unwrap()
        .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    let all = migrations.join("\n");
    let tables: BTreeSet<&str> = all
        .split("create table ")
        .skip(1)
        .filter_map(|rest| rest.split(|c: char| !(c.is_alphanumeric() || c == '_')).next())
        .collect();
    let mut needed = BTreeMap::new();
    for entry in fs::read_dir(format!("{root}/.sqlx")).unwrap() {
        let query: Value = serde_json::from_str(&fs::read_to_string(entry.unwrap().path()).unwrap()).unwrap();
        used(query["query"].as_str().unwrap(), &tables, &mut needed);
    }
    // What functions and triggers do, they do with the rights of who calls.
    for body in all.split("$$").skip(1).step_by(2) {
        used(body, &tables, &mut needed);
    }
    let granted: BTreeMap<&str, BTreeSet<&str>> = roles::PRIVILEGES
        .iter()
        .map(|(table, privileges)| {
            (*table, privileges.split(", ").filter(|one| !one.contains('(')).collect())
        })
        .collect();
    let none = BTreeSet::new();
    let wrong: Vec<_> = tables
        .iter()
        .filter_map(|table| {
            let needed: BTreeSet<&str> = needed.get(*table).into_iter().flatten().copied().collect();
            let granted = granted.get(table).unwrap_or(&none);
            (needed != *granted).then(|| format!("{table}: statements need {needed:?}, granted {granted:?}"))
        })
        .collect();
    assert!(wrong.is_empty(), "src/postgres/roles.rs:\n{}", wrong.join("\n"));
    for table in ["events", "log_entries", "tags", "decisions", "summaries", "trust_files", "signers"] {
        assert_eq!(granted[table], BTreeSet::from(["insert"]), "{table} never changes");
    }
}
