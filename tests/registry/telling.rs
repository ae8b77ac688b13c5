//! What decides something and the event that tells of it say the same.

use crate::harness::{Client, Found, PROVENANCE, Registry, Signing, expect};
use proofmark::audit;
use proofmark::names::Digest;
use serde_json::{Value, json};

/// How many rows a question of the database counts.
async fn count(registry: &Registry, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(&mut *registry.sql().await).await.unwrap()
}

/// Roles that come with a token and alone, tokens and a signer: made, and ended.
async fn give_and_take_back(registry: &Registry, admin: &Client) {
    let own = json!({"principal": "pusher", "grants": [{"role": "pusher", "repositories": "team/**"}]});
    admin.post_document("/api/v1/tokens", &own, 201).await;
    let grant = json!({"principal": "ci", "role": "reader", "repositories": "team/**"});
    let given = admin.post_document("/api/v1/grants", &grant, 201).await;
    let made = admin.post_document("/api/v1/tokens", &json!({"principal": "ci"}), 201).await;
    let ended = [
        format!("/api/v1/grants/{}", given["id"]),
        format!("/api/v1/tokens/{}", made["id"].as_str().unwrap()),
    ];
    for path in ended {
        expect(admin.delete(&path).send().await.unwrap(), 204).await;
    }
    registry.know_signer("ci").await;
    let next = json!({"public_key": Signing::new(200).pem()});
    admin.post_document("/api/v1/signers/ci/keys", &next, 201).await;
    let lost = json!({"reason": "lost"});
    admin.post_document("/api/v1/signers/ci/revocation", &lost, 201).await;
}

#[tokio::test]
async fn what_is_made_or_ended_has_the_time_of_its_event() {
    let registry = Registry::start().await;
    give_and_take_back(&registry, &registry.admin()).await;
    let untimed = count(
        &registry,
        "select count(*) from (
           select 'token.created' as kind, created_at as at from tokens
           union all select 'token.revoked', ended_at from tokens where ended_at is not null
           union all select case when role = 'reader' then 'grant.given' else 'token.created' end, created_at
                     from grants
           union all select 'grant.ended', ended_at from grants where ended_at is not null
           union all select 'signer.revoked', revoked_at from signer_revocations) made
         where not exists (select from events e where e.kind = made.kind and e.at = made.at)",
    )
    .await;
    assert_eq!(untimed, 0);
    registry.check().await;
}

/// Facts about a release that people add, ended and open, some with an end of their own.
async fn judge(registry: &Registry, admin: &Client, digest: &Digest) {
    let soon = proofmark::clock::now() + chrono::TimeDelta::hours(1);
    let about = |extra: Value| {
        let mut body = json!({"repository": "app", "environment": "prod", "reason": "why"});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        body
    };
    let facts = [
        ("approvals", about(json!({"digest": digest}))),
        ("approvals", about(json!({"digest": digest, "until": soon}))),
        ("blocks", about(json!({"digest": digest}))),
        ("blocks", about(json!({"digest": digest, "environment": null, "until": soon}))),
        ("holds", about(json!({}))),
        ("holds", json!({"environment": "prod", "reason": "incident", "until": soon})),
        ("holds", json!({"repository": "app", "reason": "incident"})),
    ];
    for (kind, what) in facts {
        let path = format!("/api/v1/{kind}");
        let id = admin.post_document(&path, &what, 201).await["id"].as_i64().unwrap();
        admin.post_document(&format!("{path}/{id}/revocation"), &json!({"reason": "over"}), 200).await;
        admin.post_document(&path, &what, 201).await;
    }
    registry.policy("prod", "approvals: {count: 1}").await;
    let end = json!({"reason": "no more"});
    admin.post_document("/api/v1/policies/prod/default/revocation", &end, 204).await;
}

/// A registry with some of everything that an event tells of.
async fn busy() -> Registry {
    let registry = Registry::start().await;
    let admin = registry.admin();
    let rules = json!({"name": "app", "tags": {"floating": ["latest", "edge"]}});
    admin.put_document("/api/v1/repositories", &rules, 201).await;
    let digest = admin.push_release("app", "1.0", "one").await;
    let gone = admin.push_release("app", "latest", "two").await;
    for tag in ["latest", "edge", "again"] {
        let bytes = admin.get("/v2/app/manifests/1.0").send().await.unwrap().bytes().await.unwrap();
        admin.push_manifest_bytes("app", Some(tag), &bytes).await;
    }
    for reference in ["again", "latest", gone.as_str()] {
        assert_eq!(admin.deletes("app", reference).await, 202, "{reference}");
    }
    let rules = json!({"name": "app", "tags": {"floating": ["latest"]}});
    admin.put_document("/api/v1/repositories", &rules, 200).await;
    registry.environment("prod", "").await;
    registry.know_signer("builder").await;
    registry.state(&digest, "builder", PROVENANCE, None).await;
    let failed = Signing::new(99);
    admin.register_signer("tester", &failed.pem(), &["**"]).await;
    let failed = failed.statement(&digest, crate::attesting::TEST_RESULT, &json!({"result": "FAILED"}));
    for _ in 0..2 {
        admin.attest("app", &failed, 201).await;
    }
    registry.scanned(&digest, "grype", 9, &[Found { vulnerability: "CVE-1", severity: "low" }]).await;
    let scan = registry.admin().document("/api/v1/scans?repository=app").await["items"][0]["id"].clone();
    let path = format!("/api/v1/scans/{scan}/revocation");
    registry.admin().post_document(&path, &json!({"reason": "of another image"}), 200).await;
    registry.scanned(&digest, "grype", 1, &[Found { vulnerability: "CVE-1", severity: "low" }]).await;
    expect(admin.promote("app", &digest, "prod").await, 201).await;
    admin.block("app", &digest, Some("prod")).await;
    expect(admin.promote("app", &digest, "prod").await, 409).await;
    judge(&registry, &admin, &digest).await;
    give_and_take_back(&registry, &admin).await;
    let few = json!([{"role": "promoter", "repositories": "app", "environments": ["prod"]}]);
    admin.post_document("/api/v1/tokens", &json!({"principal": "few", "grants": few}), 201).await;
    registry.sequence_all().await;
    registry
}

/// Tampers once after the other, and sees each in what fsck says after it and had not said before.
async fn sees(registry: &Registry, tamperings: &[(&'static str, &str)]) {
    let mut before = audited(registry).await;
    assert_eq!(before, Vec::<String>::new());
    for (sql, says) in tamperings {
        registry.tamper(sql).await;
        let now = audited(registry).await;
        let new: Vec<&String> = now.iter().filter(|violation| !before.contains(violation)).collect();
        assert!(new.iter().any(|violation| violation.contains(says)), "{sql}: {new:#?}");
        before = now;
    }
}

async fn audited(registry: &Registry) -> Vec<String> {
    let report = audit::fsck(&registry.app.db, &registry.app.store).await.unwrap();
    report.violations.into_iter().map(|violation| violation.what).collect()
}

#[tokio::test]
async fn fsck_names_every_row_that_no_event_made_or_ended() {
    let registry = busy().await;
    let tamperings = [
        (
            "insert into blocks(repository_id, manifest, sha256, why, by, at, rank, repositories)
             select repository_id, manifest, sha256, why, by, now(), rank, repositories from blocks limit 1",
            "was placed by no event that says the same",
        ),
        ("update blocks set ended_at = now() where id = 1", "block 1 on "),
        ("update blocks set sha256 = 'sha256:00' where id = 2", "counts for other bytes"),
        ("update blocks set until = until - interval '1 day' where id = 4", "block 4 on "),
        (
            "insert into holds(environment_id, why, by, at, rank) select id, 'x', 1, now(), 'promoter' from environments",
            "was placed by no event that says the same",
        ),
        ("update holds set ended_at = now(), ended_by = by where id = 2", "hold 2 was lifted by no event"),
        ("update holds set environment_id = 99 where id = 4", "hold 4 was placed by no event"),
        ("update approvals set environment_id = 99 where id = 2", "approval 2 of "),
        (
            "update policies set ended_at = null where id = 1; update policies set digest = 'x' where id = 1",
            "policy 1 ",
        ),
        (
            "update signers set repositories = '{other}' where name = 'builder'",
            "signer builder was registered by no",
        ),
        (
            "update signer_identities set schemes = '{ed25519ph}' where signer_id = (
               select id from signers where name = 'builder')",
            "was registered by no event that says the same",
        ),
        (
            "update signer_revocations set distrusted_from = now() + interval '1 day'",
            "the revocation of signer",
        ),
        (
            "insert into grants(principal_id, role, repositories, created_by) values (1, 'admin', '**', 1)",
            "of admin on ** was given by no event",
        ),
        (
            "update grants set environments = null where environments is not null",
            "of promoter on app was given by no",
        ),
        ("update grants set role = 'admin' where role = 'reader'", "of admin on team/**"),
        ("update tokens set ended_at = now() where ended_at is null", "was revoked by no event"),
        ("update tokens set principal_id = 1", "was made by no event"),
        ("update scan_retractions set reason = 'another'", "was retracted by no event"),
        ("update scan_coverage set is_current = not is_current", "counts for other aspects"),
        ("update scan_runs set scope = jsonb_set(scope, '{kinds}', '[]')", "has another scope"),
        ("update scan_runs set finding_set = 'sha256:00'", "was recorded by no event"),
        (
            "insert into tags(repository_id, name, digest, claimed_by) select 1, '6.6', digest, 1 from tags limit 1",
            "the tag 6.6 -> sha256:",
        ),
        (
            "insert into floating_tags(repository_id, name, digest, moved_by)
             select 1, 'nightly', digest, 1 from tags limit 1",
            "the tag nightly of repository 1 was moved",
        ),
        ("update manifests set repository_id = 99", "of repository 99 was pushed by no event"),
    ];
    sees(&registry, &tamperings).await;
}

#[tokio::test]
async fn fsck_names_every_event_whose_rows_are_gone_or_say_otherwise() {
    let registry = busy().await;
    let tamperings = [
        ("update repositories set floating = '{*}'", "(repository.changed of app): the rows do not have"),
        ("delete from blocks where ended_at is null", "(block.placed of app@sha256:"),
        ("update blocks set ended_at = null, ended_by = null", "(block.ended of app@sha256:"),
        ("delete from holds where repository_id is null", "(hold.placed): the rows do not have"),
        ("update holds set ended_at = null, ended_by = null", "(hold.ended of app): the rows do not have"),
        ("delete from approvals where id = 1", "(approval.given of app@sha256:"),
        ("update approvals set ended_at = null where id = 3", "(approval.ended of app@sha256:"),
        ("update policies set ended_at = null where id = 2", "(policy.changed@sha256:"),
        ("delete from policies", "(policy.changed@sha256:"),
        ("delete from signer_revocations", "(signer.revoked): the rows do not have"),
        (
            "delete from signer_identities k using signers s
             where s.id = k.signer_id and s.name = 'ci' and k.id > (
               select min(id) from signer_identities where signer_id = s.id)",
            "(signer.key-added): the rows do not have",
        ),
        ("delete from signers where name = 'ci'", "(signer.registered): the rows do not have"),
        ("update grants set ended_at = null", "(grant.ended): the rows do not have"),
        ("delete from grants where role = 'reader'", "(grant.given): the rows do not have"),
        ("update tokens set ended_at = null", "(token.revoked): the rows do not have"),
        (
            "delete from grants where environments is not null",
            r#"(token.created): the role {"role": "promoter", "environments": ["prod"], "repositories": "app"} has no row"#,
        ),
        ("delete from tokens", "(token.created)"),
        ("update environments set description = 'another'", "(environment.changed): the rows do not have"),
        ("delete from attestation_receipts", "(attestation.repeated of app@sha256:"),
        ("delete from attestation_signatures", "): the signature by signer "),
        ("delete from scan_retractions", "(scan.retracted of app@sha256:"),
        ("delete from scan_coverage; delete from scan_runs", "(scan.recorded of app@sha256:"),
        ("delete from attestations", "(attestation.recorded of app@sha256:"),
        ("delete from promotions", "(promotion.allowed of app@sha256:"),
        ("delete from decisions", "(promotion.refused of app@sha256:"),
        ("delete from tag_visibility; delete from tags_hidden", "the tag again was not taken away"),
        ("delete from floating_tags where digest is null", "the tag latest was not taken away"),
        ("delete from floating_tags", "the tag latest was not given"),
        ("delete from tags where name = '1.0'", "the tag 1.0 was not given"),
        ("delete from manifests", "(manifest.pushed of app@sha256:"),
    ];
    sees(&registry, &tamperings).await;
}

#[tokio::test]
async fn fsck_finds_nothing_wrong_with_whatever_callers_may_say() {
    let registry = busy().await;
    let admin = registry.admin();
    let digest = admin.push_release("odd", "1.0", "one").await;
    let reason = " \"why\"\\ \\u0000 \u{e9}\u{1F600}\u{202e}{}'' ";
    let until = "2031-12-31T23:59:59.999999999+14:00";
    let rules = json!({"name": "odd", "quota_bytes": 9_007_199_254_740_991_i64, "description": reason,
        "tags": {"floating": ["b*", "a*", "a*", "\u{e9}?"]},
        "retention": {"enforce": false, "untagged_for": "0s", "rules": [{"tags": ["*"], "keep_last": 4_294_967_295_u32}]}});
    admin.put_document("/api/v1/repositories", &rules, 200).await;
    let quota = json!({"name": "odd", "quota_bytes": 9_007_199_254_740_992_i64});
    let refused = admin.put_document("/api/v1/repositories", &quota, 400).await;
    assert!(refused["detail"].as_str().unwrap().contains("at most 9007199254740991"), "{refused}");
    admin.put_document("/api/v1/environments", &json!({"name": "prod", "description": reason}), 200).await;
    let about = json!({"repository": "odd", "digest": digest, "environment": "prod", "reason": reason, "until": until});
    let hold = json!({"repository": "odd", "environment": "prod", "reason": reason, "until": until});
    for (kind, what) in [("blocks", &about), ("approvals", &about), ("holds", &hold)] {
        let id = admin.post_document(&format!("/api/v1/{kind}"), what, 201).await["id"].as_i64().unwrap();
        let path = format!("/api/v1/{kind}/{id}/revocation");
        admin.post_document(&path, &json!({"reason": reason}), 200).await;
    }
    let grants = json!([{"role": "promoter", "repositories": "odd", "environments": ["staging", "prod", "prod"]},
                       {"role": "promoter", "repositories": "odd", "environments": ["prod"]},
                       {"role": "reader", "repositories": "{a,b}/**"}, {"role": "reader", "repositories": "{a,b}/**"}]);
    registry.environment("staging", "").await;
    let token = json!({"principal": "odd", "grants": grants, "expires_in_seconds": 12_345});
    admin.post_document("/api/v1/tokens", &token, 201).await;
    let signer = json!({"name": "old", "public_key": Signing::new(9).pem(), "repositories": ["b", "a", "a"],
        "predicate_types": ["**", "\u{e9}*"], "valid_from": "1970-01-01T00:00:00Z", "valid_until": until});
    admin.post_document("/api/v1/signers", &signer, 201).await;
    let ended = json!({"reason": reason, "at": "1999-01-01T00:00:00.0000001-12:00", "compromised": true});
    admin.post_document("/api/v1/signers/old/revocation", &ended, 201).await;
    registry.sequence_all().await;
    assert_eq!(audited(&registry).await, Vec::<String>::new());
    registry.check().await;
}

#[tokio::test]
async fn fsck_goes_through_where_postgres_shares_a_page_among_processes() {
    let registry = busy().await;
    for setting in [
        "parallel_setup_cost",
        "parallel_tuple_cost",
        "min_parallel_table_scan_size",
        "min_parallel_index_scan_size",
    ] {
        let set = format!(
            "do $$ begin execute format('alter database %I set {setting} = 0', current_database()); end $$"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(set)).execute(&mut *registry.sql().await).await.unwrap();
    }
    // A replica's connections are new, and have the settings.
    let replica = registry.replica().await;
    assert_eq!(audited(&replica).await, Vec::<String>::new());
    replica.check().await;
    registry.check().await;
}

#[tokio::test]
async fn fsck_sees_a_deleted_manifest_that_was_put_back_behind_the_service() {
    let registry = Registry::start().await;
    let admin = registry.admin();
    let digest = admin.push_release("app", "1.0", "one").await;
    let kept = "create table kept as select * from manifests";
    sqlx::raw_sql(kept).execute(&mut *registry.sql().await).await.unwrap();
    assert_eq!(admin.deletes("app", digest.as_str()).await, 202);
    registry.sequence_all().await;
    sees(&registry, &[("insert into manifests select * from kept", "(manifest.deleted of app@sha256:")])
        .await;
}

/// Pushes, moves, deletes, blocks and gives roles, over and over.
async fn works(registry: &Registry, number: usize) {
    let admin = registry.admin();
    for round in 0..8 {
        let (version, content) = (format!("v{number}-{round}"), format!("{number}/{round}"));
        let digest = admin.push_release("app", &version, &content).await;
        let bytes =
            admin.get(&format!("/v2/app/manifests/{version}")).send().await.unwrap().bytes().await.unwrap();
        admin.push_manifest_bytes("app", Some("latest"), &bytes).await;
        let block = admin.block("app", &digest, Some("prod")).await;
        let lift = format!("/api/v1/blocks/{}/revocation", block["id"]);
        admin.post_document(&lift, &json!({"reason": "over"}), 200).await;
        let grant = json!({"principal": "ci", "role": "reader", "repositories": format!("{number}/{round}")});
        let given = admin.post_document("/api/v1/grants", &grant, 201).await;
        let path = format!("/api/v1/grants/{}", given["id"]);
        expect(admin.delete(&path).send().await.unwrap(), 204).await;
        if round % 2 == 0 {
            assert_eq!(admin.deletes("app", &version).await, 202);
            assert_eq!(admin.deletes("app", digest.as_str()).await, 202);
            admin.push_release("app", &version, &content).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fsck_beside_a_service_that_works_finds_nothing() {
    let registry = Registry::start().await;
    let rules = json!({"name": "app", "tags": {"floating": ["latest"]}});
    registry.admin().put_document("/api/v1/repositories", &rules, 201).await;
    registry.environment("prod", "").await;
    let working = futures::future::join_all((0..4).map(|number| works(&registry, number)));
    let audits = async {
        loop {
            assert_eq!(audited(&registry).await, Vec::<String>::new());
        }
    };
    tokio::select! {
        _ = working => {}
        () = audits => {}
    }
    registry.check().await;
}
