//! Waivers, overrides, and the one list over all exceptions.

use crate::harness::{Client, Found, Registry, eventually, expect};
use proofmark::access::Role;
use proofmark::names::Digest;
use proofmark::postgres::Scopes;
use serde_json::{Value, json};

const WAIVERS: &str = "/api/v1/waivers";
const OVERRIDES: &str = "/api/v1/overrides";
const EXCEPTIONS: &str = "/api/v1/exceptions";

/// A time some hours from now.
fn hence(hours: i64) -> Value {
    json!(proofmark::clock::now() + chrono::TimeDelta::hours(hours))
}

/// A waiver of CVE-1 for a month.
fn waiver(scope: impl Into<Value>) -> Value {
    let scope = scope.into();
    let mut body = json!({"vulnerabilities": ["CVE-1"], "status": "accepted_risk", "reason": "no fix yet",
        "expires_at": hence(24 * 30)});
    for (name, value) in scope.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

fn override_of(digest: &Digest, gates: &[&str], hours: i64) -> Value {
    json!({"repository": "app", "digest": digest, "environment": "prod", "gates": gates,
        "reason": "incident 42", "expires_at": hence(hours)})
}

async fn refused(client: &Client, path: &str, body: &Value, status: u16, code: &str) -> Value {
    let problem = client.post_document(path, body, status).await;
    assert_eq!(problem["code"], code, "{problem}");
    problem
}

fn path(row: &Value, list: &str, act: &str) -> String {
    format!("{list}/{}/{act}", row["id"])
}

fn ids(list: &Value) -> Vec<i64> {
    list["items"].as_array().unwrap().iter().map(|item| item["id"].as_i64().unwrap()).collect()
}

/// The kinds and flags of a list of exceptions.
fn flags(list: &Value) -> Vec<(String, Vec<String>)> {
    let items = list["items"].as_array().unwrap().iter();
    let words = |value: &Value| {
        value.as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
    };
    items.map(|item| (item["kind"].as_str().unwrap().to_owned(), words(&item["needs_attention"]))).collect()
}

async fn kinds_of_events(registry: &Registry) -> Vec<String> {
    sqlx::query_scalar(
        "select kind from events where kind like 'waiver.%' or kind like 'override.%' order by id",
    )
    .fetch_all(&mut *registry.sql().await)
    .await
    .unwrap()
}

#[tokio::test]
async fn a_waiver_is_proposed_by_one_person_and_approved_by_another() {
    let registry = Registry::start().await;
    let creator = registry.named("ann", Role::Approver, "payments/*", None).await;
    let admin = registry.named("bob", Role::Admin, "payments/*", None).await;
    let made =
        creator.post(WAIVERS).json(&waiver(json!({"repositories": "payments/*"}))).send().await.unwrap();
    let location = made.headers()["location"].to_str().unwrap().to_owned();
    let made = expect(made, 201).await;
    assert_eq!(location, format!("{WAIVERS}/{}", made["id"]));
    assert_eq!((&made["state"], &made["created_by"]), (&json!("proposed"), &json!("ann")));
    assert_eq!(creator.document(&location).await, made);

    let approval = path(&made, WAIVERS, "approval");
    assert_eq!(expect(creator.post(&approval).send().await.unwrap(), 403).await["code"], "forbidden");
    let approved = admin.post_document(&approval, &json!({"reason": "agreed"}), 200).await;
    assert_eq!((&approved["state"], &approved["approved_by"]), (&json!("in_force"), &json!("bob")));
    refused(&registry.admin(), &approval, &json!({}), 409, "already-approved").await;

    let revocation = path(&made, WAIVERS, "revocation");
    let ended = creator.post_document(&revocation, &json!({"reason": "a fix is out"}), 200).await;
    assert_eq!((&ended["state"], &ended["ended_by"]), (&json!("ended"), &json!("ann")));
    refused(&creator, &revocation, &json!({"reason": "again"}), 404, "not-found").await;
    refused(&registry.admin(), &approval, &json!({}), 409, "not-open").await;
    assert_eq!(kinds_of_events(&registry).await, ["waiver.created", "waiver.approved", "waiver.revoked"]);
    registry.check().await;
}

#[tokio::test]
async fn a_waiver_covers_a_finding_in_any_case_before_and_after_the_promotion() {
    let registry = Registry::start().await;
    registry.environment("prod", "scan: {max_age: 30d, deny: {severity: high}, grace: {high: 0s}}").await;
    let (admin, ann) = (registry.admin(), registry.named("ann", Role::Approver, "**", None).await);
    for (found, waived) in [
        ("GHSA-AAAA-bbbb-cccc", "ghsa-aaaa-BBBB-cccc"),
        ("ghsa-dddd-eeee-ffff", "GHSA-DDDD-EEEE-FFFF"),
        ("RUSTSEC-2021-2", "Rustsec-2021-2"),
        ("Temp-000-AB12cd", "temp-000-ab12CD"),
        ("cve-2026-1", "CVE-2026-1"),
    ] {
        let digest = admin.push_release("app", &found.replace('-', "_"), found).await;
        let high = [Found { vulnerability: found, severity: "high" }];
        registry.scanned(&digest, "trivy", 2, &high).await;
        expect(admin.promote("app", &digest, "prod").await, 409).await;
        let body = waiver(json!({"repositories": "app", "vulnerabilities": [waived]}));
        let made = ann.post_document(WAIVERS, &body, 201).await;
        admin.post_document(&path(&made, WAIVERS, "approval"), &json!({}), 200).await;
        expect(admin.promote("app", &digest, "prod").await, 201).await;
        registry.scanned(&digest, "trivy", 1, &high).await;
        assert_eq!(admin.verdict("app", &digest, "prod").await["verdict"], "allow", "{found} {waived}");
    }
    registry.check().await;
}

#[tokio::test]
async fn neither_the_creator_nor_an_author_approves_a_waiver() {
    let registry = Registry::start().await;
    registry.environment("prod", "").await;
    let pusher = registry.named("ann", Role::Admin, "**", None).await;
    let tagger = registry.named("bob", Role::Admin, "**", None).await;
    let other = registry.named("cleo", Role::Admin, "**", None).await;
    let child = pusher.push_release("app", "1.0-amd64", "amd64").await;
    let index = tagger.push_index("app", "1.0", &[(&child, "linux/amd64")]).await;

    let made =
        tagger.post_document(WAIVERS, &waiver(json!({"repository": "app", "digest": index})), 201).await;
    assert_eq!((&made["repositories"], &made["digest"]), (&json!("app"), &json!(index)));
    let approval = path(&made, WAIVERS, "approval");
    refused(&tagger, &approval, &json!({}), 409, "approver-is-creator").await;
    refused(&pusher, &approval, &json!({}), 409, "approver-is-author").await;
    other.post_document(&approval, &json!({}), 200).await;

    let made =
        other.post_document(WAIVERS, &waiver(json!({"repository": "app", "digest": index})), 201).await;
    refused(&tagger, &path(&made, WAIVERS, "approval"), &json!({}), 409, "approver-is-author").await;
    let pattern = other.post_document(WAIVERS, &waiver(json!({"repositories": "*"})), 201).await;
    pusher.post_document(&path(&pattern, WAIVERS, "approval"), &json!({}), 200).await;
    registry.check().await;
}

#[tokio::test]
async fn both_rights_cover_all_repositories_and_the_environment_of_a_waiver() {
    let registry = Registry::start().await;
    registry.environment("prod", "").await;
    registry.environment("staging", "").await;
    let payments = registry.named("ann", Role::Promoter, "payments/*", None).await;
    let of_prod = registry.named("bob", Role::Approver, "payments/*", Some(&["prod"])).await;
    let reader = registry.named("rita", Role::Reader, "**", None).await;
    let prod = json!({"repositories": "payments/*", "environment": "prod"});
    for (client, scope, status) in [
        (&payments, json!({"repositories": "payments/*"}), 201),
        (&payments, json!({"repositories": "payments/api"}), 201),
        (&payments, json!({"repository": "payments/api", "environment": "prod"}), 201),
        (&payments, json!({"repositories": "**"}), 403),
        (&payments, json!({"repositories": "payments/**"}), 403),
        (&payments, json!({"repositories": "other"}), 404),
        (&of_prod, prod.clone(), 201),
        (&of_prod, json!({"repositories": "payments/*", "environment": "staging"}), 403),
        (&of_prod, json!({"repositories": "payments/*"}), 403),
        (&reader, prod.clone(), 403),
    ] {
        let answer = client.post_document(WAIVERS, &waiver(scope.clone()), status).await;
        if status == 403 {
            assert!(answer["detail"].as_str().unwrap().contains("right to waive"), "{scope}: {answer}");
        }
    }
    let made =
        registry.admin().post_document(WAIVERS, &waiver(json!({"repositories": "payments/**"})), 201).await;
    let approval = path(&made, WAIVERS, "approval");
    let narrow = registry.named("nina", Role::Admin, "payments/*", None).await;
    refused(&narrow, &approval, &json!({}), 403, "forbidden").await;
    let made =
        registry.admin().post_document(WAIVERS, &waiver(json!({"repositories": "payments/*"})), 201).await;
    let staging = registry.named("stan", Role::Admin, "**", Some(&["staging"])).await;
    refused(&staging, &path(&made, WAIVERS, "approval"), &json!({}), 403, "forbidden").await;
    refused(&staging, &path(&made, WAIVERS, "revocation"), &json!({"reason": "no"}), 403, "forbidden").await;
    narrow.post_document(&path(&made, WAIVERS, "approval"), &json!({}), 200).await;
    let stranger = registry.named("sid", Role::Admin, "other/*", None).await;
    refused(&stranger, &path(&made, WAIVERS, "approval"), &json!({}), 404, "not-found").await;
    registry.check().await;
}

#[tokio::test]
async fn a_waiver_that_does_not_fit_together_is_refused_in_words() {
    let registry = Registry::start().await;
    registry.environment("prod", "").await;
    let admin = registry.admin();
    let digest = admin.push_release("app", "1.0", "one").await;
    let everywhere = json!({"repositories": "**"});
    for (change, says) in [
        (json!({"vulnerabilities": []}), "1 to 100"),
        (json!({"vulnerabilities": ["a b"]}), "names no vulnerability"),
        (json!({"expires_at": null}), "accepted_risk needs expires_at"),
        (json!({"expires_at": hence(-1)}), "in the future"),
        (json!({"status": "not_affected"}), "needs a justification"),
        (json!({"justification": "component_not_present"}), "only not_affected"),
        (json!({"package": "openssl"}), "not a package URL"),
        (json!({"digest": digest}), "give either"),
        (json!({"repository": "app"}), "give either"),
    ] {
        let mut body = waiver(everywhere.clone());
        for (name, value) in change.as_object().unwrap() {
            body[name] = value.clone();
        }
        let problem = refused(&admin, WAIVERS, &body, 422, "invalid-request").await;
        assert!(problem["detail"].as_str().unwrap().contains(says), "{change}: {problem}");
    }
    let unknown = Digest::sha256(b"none");
    let body = waiver(json!({"repository": "app", "digest": unknown}));
    refused(&admin, WAIVERS, &body, 404, "artifact-unknown").await;
    let body = waiver(json!({"repositories": "**", "environment": "none"}));
    refused(&admin, WAIVERS, &body, 404, "environment-unknown").await;
    let body = json!({"repositories": "**", "vulnerabilities": ["cve-2021-44228", "ghsa-JFH8-c2jp-5v3q"],
        "package": "pkg:pypi/Some_Name", "status": "not_affected", "justification": "component_not_present",
        "reason": "it is only in the tests"});
    let made = admin.post_document(WAIVERS, &body, 201).await;
    assert_eq!(made["vulnerabilities"], json!(["CVE-2021-44228", "GHSA-jfh8-c2jp-5v3q"]));
    assert_eq!(made["package"], "pkg:pypi/some-name");
    registry.check().await;
}

#[tokio::test]
async fn waivers_are_listed_by_what_they_cover_and_to_those_whom_they_concern() {
    let registry = Registry::start().await;
    registry.environment("prod", "").await;
    registry.environment("staging", "").await;
    let admin = registry.admin();
    admin.push_release("payments/api", "1.0", "one").await;
    let mut made = Vec::new();
    for scope in [
        json!({"repositories": "**", "environment": "prod"}),
        json!({"repositories": "payments/*"}),
        json!({"repositories": "other/*", "vulnerabilities": ["CVE-2"]}),
        json!({"repositories": "payments/api", "environment": "staging"}),
    ] {
        let row = admin.post_document(WAIVERS, &waiver(scope), 201).await;
        made.push(row["id"].as_i64().unwrap());
    }
    let second = registry.client(Role::Admin, "**").await;
    second.post_document(&format!("{WAIVERS}/{}/approval", made[1]), &json!({}), 200).await;
    registry
        .tamper("update waivers set expires_at = now() - interval '1 second' where repositories = '**'")
        .await;
    for (query, expected) in [
        ("", vec![made[3], made[2], made[1], made[0]]),
        ("repository=payments/api", vec![made[3], made[1], made[0]]),
        ("repository=payments/api&environment=prod", vec![made[1], made[0]]),
        ("vulnerability=cve-2", vec![made[2]]),
        ("status=in_force", vec![made[1]]),
        ("state=proposed", vec![made[3], made[2]]),
        ("state=expired", vec![made[0]]),
        ("state=ended", vec![]),
    ] {
        assert_eq!(ids(&admin.document(&format!("{WAIVERS}?{query}")).await), expected, "{query}");
    }
    let first = admin.document(&format!("{WAIVERS}?limit=3")).await;
    let rest = admin.document(&format!("{WAIVERS}?limit=3&cursor={}", first["next"].as_str().unwrap())).await;
    assert_eq!((ids(&rest), &rest["next"]), (vec![made[0]], &Value::Null));

    let api = registry.named("rita", Role::Reader, "payments/api", Some(&["prod"])).await;
    assert_eq!(ids(&api.document(WAIVERS).await), [made[1], made[0]]);
    expect(api.get(&format!("{WAIVERS}/{}", made[3])).send().await.unwrap(), 404).await;
    expect(api.get(&format!("{WAIVERS}?repository=other/x")).send().await.unwrap(), 404).await;
    expect(registry.anyone().get(WAIVERS).send().await.unwrap(), 401).await;
}

#[tokio::test]
async fn a_waiver_that_matches_no_open_finding_or_ends_soon_says_so() {
    let registry = Registry::start().await;
    let admin = registry.admin();
    let digest = admin.push_release("app", "1.0", "one").await;
    let found = |vulnerability| [Found { vulnerability, severity: "high" }];
    registry.scanned(&digest, "trivy", 5, &found("CVE-2026-0001")).await;
    let of = |name: &'static str, scope: Value| {
        let mut body = waiver(scope);
        body["vulnerabilities"] = json!([name]);
        body
    };
    let everywhere = json!({"repositories": "**"});
    let matching = admin.post_document(WAIVERS, &of("cve-2026-0001", everywhere.clone()), 201).await;
    assert_eq!(
        (&matching["matches_nothing"], &matching["ends_within_a_week"]),
        (&json!(false), &json!(false))
    );
    let bound = json!({"repository": "app", "digest": digest});
    assert_eq!(
        admin.post_document(WAIVERS, &of("CVE-2026-0001", bound), 201).await["matches_nothing"],
        false
    );
    for (name, scope) in [
        ("CVE-2026-0002", everywhere.clone()),
        ("CVE-2026-0001", json!({"repositories": "other/*"})),
        ("CVE-2026-0001", json!({"repositories": "**", "package": "pkg:deb/debian/openssl"})),
    ] {
        let made = admin.post_document(WAIVERS, &of(name, scope.clone()), 201).await;
        assert_eq!(made["matches_nothing"], true, "{name} in {scope}: the finding has no package URL");
    }
    let mut soon = of("CVE-2026-0001", everywhere);
    soon["expires_at"] = hence(24);
    assert_eq!(admin.post_document(WAIVERS, &soon, 201).await["ends_within_a_week"], true);

    registry.scanned(&digest, "trivy", 1, &found("CVE-2026-0003")).await;
    let path = format!("{WAIVERS}/{}", matching["id"]);
    assert_eq!(admin.document(&path).await["matches_nothing"], true, "the newest run no longer has it");
    registry.check().await;
}

#[tokio::test]
async fn an_override_counts_at_once_and_another_person_reviews_it() {
    let registry = Registry::start().await;
    registry.environment("prod", "").await;
    let ann = registry.named("ann", Role::Admin, "**", None).await;
    let bob = registry.named("bob", Role::Admin, "app", Some(&["prod"])).await;
    let promoter = registry.client(Role::Promoter, "**").await;
    let digest = ann.push_release("app", "1.0", "one").await;
    let body = override_of(&digest, &["min_age", "approvals"], 4);
    refused(&promoter, OVERRIDES, &body, 403, "forbidden").await;
    let made = ann.post(OVERRIDES).json(&body).send().await.unwrap();
    let location = made.headers()["location"].to_str().unwrap().to_owned();
    let made = expect(made, 201).await;
    assert_eq!(made["gates"], json!(["approvals", "min_age"]));
    assert_eq!((&made["state"], &made["reviewed_by"]), (&json!("in_force"), &Value::Null));
    assert_eq!(promoter.document(&location).await, made);

    let review = path(&made, OVERRIDES, "review");
    refused(&promoter, &review, &json!({}), 403, "forbidden").await;
    refused(&ann, &review, &json!({}), 409, "reviewer-is-creator").await;
    let unreviewed = format!("{OVERRIDES}?reviewed=false");
    assert_eq!(ids(&promoter.document(&unreviewed).await), [made["id"].as_i64().unwrap()]);
    let revocation = path(&made, OVERRIDES, "revocation");
    let ended = ann.post_document(&revocation, &json!({"reason": "over"}), 200).await;
    assert_eq!(ended["state"], "ended");
    let reviewed = bob.post_document(&review, &json!({"reason": "it was right"}), 200).await;
    assert_eq!(
        (&reviewed["state"], &reviewed["reviewed_by"]),
        (&json!("ended"), &json!("bob")),
        "also afterwards"
    );
    refused(&bob, &review, &json!({}), 409, "already-reviewed").await;
    assert_eq!(ids(&promoter.document(&unreviewed).await), [0_i64; 0]);
    assert_eq!(
        kinds_of_events(&registry).await,
        ["override.created", "override.revoked", "override.reviewed"]
    );
    let body = json!({"repository": "app", "version": "1.0", "environment": "prod", "gates": ["scan"],
        "reason": "incident 43", "expires_at": hence(1)});
    assert_eq!(ann.post_document(OVERRIDES, &body, 201).await["digest"], json!(digest));
    registry.check().await;
}

#[tokio::test]
async fn an_override_passes_no_block_no_signature_and_no_provenance_and_ends_within_30_days() {
    let registry = Registry::start().await;
    registry.environment("prod", "").await;
    let admin = registry.admin();
    let digest = admin.push_release("app", "1.0", "one").await;
    for gate in ["signed_by", "provenance", "not_blocked", "holds", "none", "sbom"] {
        let body = override_of(&digest, &["approvals", gate], 4);
        let problem = refused(&admin, OVERRIDES, &body, 422, "gate-not-overridable").await;
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.starts_with(gate) && detail.contains("attestation, scan, promoted_in"), "{detail}");
        assert!(detail.contains("never passes a block, signed_by or provenance"), "{detail}");
    }
    for (gates, hours) in [(&["scan"][..], -1), (&["scan"], 24 * 31), (&[], 4)] {
        refused(&admin, OVERRIDES, &override_of(&digest, gates, hours), 422, "invalid-request").await;
    }
    let mut never = override_of(&digest, &["scan"], 4);
    never["expires_at"] = Value::Null;
    admin.post_document(OVERRIDES, &never, 422).await;
    let unknown = Digest::sha256(b"none");
    refused(&admin, OVERRIDES, &override_of(&unknown, &["scan"], 4), 404, "artifact-unknown").await;
    admin.post_document(OVERRIDES, &override_of(&digest, &["scan"], 24 * 30 - 1), 201).await;
    registry.check().await;
}

#[tokio::test]
async fn one_list_has_every_exception_with_what_needs_attention() {
    let registry = Registry::start().await;
    registry.environment("prod", "").await;
    registry.environment("staging", "").await;
    let admin = registry.admin();
    let digest = admin.push_release("app", "1.0", "one").await;
    let approval = json!({"repository": "app", "digest": digest, "environment": "prod", "reason": "looked"});
    admin.post_document("/api/v1/approvals", &approval, 201).await;
    let block = admin.block("app", &digest, Some("staging")).await;
    let hold = json!({"environment": "prod", "reason": "incident", "until": hence(24)});
    admin.post_document("/api/v1/holds", &hold, 201).await;
    admin.post_document(OVERRIDES, &override_of(&digest, &["scan"], 24 * 20), 201).await;
    admin.post_document(WAIVERS, &waiver(json!({"repositories": "**"})), 201).await;

    let flag =
        |kind: &str, flags: &[&str]| (kind.to_owned(), flags.iter().map(|flag| (*flag).to_owned()).collect());
    let all = [
        flag("waiver", &["proposed", "matches_nothing"]),
        flag("override", &["unreviewed"]),
        flag("hold", &["ends_within_a_week"]),
        flag("block", &[]),
        flag("approval", &[]),
    ];
    let list = admin.document(EXCEPTIONS).await;
    assert_eq!(flags(&list), all);
    let fields =
        ["kind", "id", "scope", "reason", "created_by", "created_at", "expires_at", "ended_at", "origin"];
    for item in list["items"].as_array().unwrap() {
        assert!(fields.iter().all(|field| item.get(field).is_some()), "{item}");
    }
    for (query, expected) in [
        ("repository=app", vec!["waiver", "override", "hold", "block", "approval"]),
        ("environment=prod", vec!["waiver", "override", "hold", "approval"]),
        ("environment=staging", vec!["waiver", "block"]),
        ("kind=hold", vec!["hold"]),
    ] {
        let kinds: Vec<String> = flags(&admin.document(&format!("{EXCEPTIONS}?{query}")).await)
            .into_iter()
            .map(|(kind, _)| kind)
            .collect();
        assert_eq!(kinds, expected, "{query}");
    }
    let soon = hence(48);
    let ending = format!("{EXCEPTIONS}?ending_before={}", soon.as_str().unwrap());
    assert_eq!(flags(&admin.document(&ending).await), [all[2].clone()]);

    let mut pages = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = admin.document(&format!("{EXCEPTIONS}?limit=2{cursor}")).await;
        pages.extend(flags(&page));
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(pages, all);

    let revocation = format!("/api/v1/blocks/{}/revocation", block["id"]);
    admin.post_document(&revocation, &json!({"reason": "over"}), 200).await;
    assert_eq!(ids(&admin.document(&format!("{EXCEPTIONS}?kind=block")).await), [0_i64; 0]);
    assert_eq!(ids(&admin.document(&format!("{EXCEPTIONS}?kind=block&ended=true")).await).len(), 1);
    registry.check().await;
}

#[tokio::test]
async fn the_list_of_exceptions_tells_nobody_of_what_they_may_not_see() {
    let registry = Registry::start().await;
    registry.environment("prod", "").await;
    registry.environment("staging", "").await;
    let admin = registry.admin();
    let digest = admin.push_release("secret/app", "1.0", "one").await;
    assert_eq!(admin.push_release("open/app", "1.0", "one").await, digest, "the same bytes elsewhere");
    admin.block("secret/app", &digest, None).await;
    let hold = json!({"repository": "secret/app", "reason": "incident"});
    admin.post_document("/api/v1/holds", &hold, 201).await;
    admin.post_document(WAIVERS, &waiver(json!({"repositories": "secret/*"})), 201).await;
    let of_staging = json!({"environment": "staging", "reason": "incident"});
    admin.post_document("/api/v1/holds", &of_staging, 201).await;

    let reader = registry.named("rita", Role::Reader, "open/*", Some(&["prod"])).await;
    assert_eq!(flags(&reader.document(EXCEPTIONS).await), []);
    let shown = reader.document(&format!("{EXCEPTIONS}?repository=open/app")).await;
    assert_eq!(flags(&shown), [("block".to_owned(), vec![])]);
    let block = &shown["items"][0];
    assert_eq!((&block["reason"], &block["created_by"]), (&Value::Null, &Value::Null));
    assert_eq!((&block["scope"]["repository"], &block["scope"]["digest"]), (&Value::Null, &json!(digest)));
    expect(reader.get(&format!("{EXCEPTIONS}?repository=secret/app")).send().await.unwrap(), 404).await;
    expect(registry.anyone().get(EXCEPTIONS).send().await.unwrap(), 401).await;
    registry.check().await;
}

#[tokio::test]
async fn a_repeated_request_for_a_waiver_or_an_override_is_answered_and_not_done_again() {
    let registry = Registry::start().await;
    registry.environment("prod", "").await;
    let admin = registry.admin();
    let digest = admin.push_release("app", "1.0", "one").await;
    for (path, body) in
        [(WAIVERS, waiver(json!({"repositories": "**"}))), (OVERRIDES, override_of(&digest, &["scan"], 4))]
    {
        let mut answers = Vec::new();
        for _ in 0..2 {
            let answer = admin.post(path).header("idempotency-key", path).json(&body).send().await.unwrap();
            answers.push((answer.headers()["location"].clone(), expect(answer, 201).await));
        }
        assert_eq!(answers[0], answers[1]);
        assert_eq!(ids(&admin.document(path).await).len(), 1);
    }
    let second = registry.client(Role::Admin, "**").await;
    for act in [format!("{WAIVERS}/1/approval"), format!("{OVERRIDES}/1/review")] {
        for _ in 0..2 {
            let answer =
                second.post(&act).header("idempotency-key", &act).json(&json!({})).send().await.unwrap();
            expect(answer, 200).await;
        }
    }
    registry.check().await;
}

#[tokio::test]
async fn ending_a_waiver_or_an_override_waits_for_the_decisions_that_it_can_change() {
    let registry = Registry::start().await;
    registry.environment("prod", "").await;
    let admin = registry.admin();
    let second = registry.client(Role::Admin, "**").await;
    let digest = admin.push_release("app", "1.0", "one").await;
    let place = "select r.id, e.id from repositories r, environments e";
    let (repository, environment): (i64, i64) =
        sqlx::query_as(place).fetch_one(&mut *registry.sql().await).await.unwrap();
    let waits = "select exists (select from pg_locks where locktype = 'advisory' and not granted
        and database = (select oid from pg_database where datname = current_database()))";
    for scope in [
        None,
        Some(json!({"repository": "app", "digest": digest, "environment": "prod"})),
        Some(json!({"repository": "app", "digest": digest})),
        Some(json!({"repositories": "app", "environment": "prod"})),
        Some(json!({"repositories": "**"})),
    ] {
        // What a promotion holds while it is decided.
        let mut deciding = registry.app.db.begin().await.unwrap();
        Scopes::deciding(repository, environment).lock(&mut deciding).await.unwrap();
        let (list, body, second_act) = match &scope {
            None => (OVERRIDES, override_of(&digest, &["scan"], 4), "review"),
            Some(scope) => (WAIVERS, waiver(scope.clone()), "approval"),
        };
        let made = admin.post_document(list, &body, 201).await;
        second.post_document(&path(&made, list, second_act), &json!({}), 200).await;
        let (client, revocation) = (admin.clone(), path(&made, list, "revocation"));
        let ending =
            tokio::spawn(
                async move { client.post_document(&revocation, &json!({"reason": "over"}), 200).await },
            );
        eventually("the revocation waits", async || {
            assert!(!ending.is_finished(), "{scope:?} did not wait");
            sqlx::query_scalar::<_, bool>(waits).fetch_one(&mut *registry.sql().await).await.unwrap()
        })
        .await;
        deciding.commit().await.unwrap();
        assert_eq!(ending.await.unwrap()["state"], "ended");
    }
    registry.check().await;
}

#[tokio::test]
async fn the_database_lets_a_second_person_act_once_and_a_row_end_once() {
    let registry = Registry::start().await;
    registry.environment("prod", "").await;
    let admin = registry.admin();
    let second = registry.client(Role::Admin, "**").await;
    let digest = admin.push_release("app", "1.0", "one").await;
    let proposed = admin.post_document(WAIVERS, &waiver(json!({"repositories": "**"})), 201).await;
    let given = admin.post_document(OVERRIDES, &override_of(&digest, &["scan"], 4), 201).await;
    second.post_document(&path(&proposed, WAIVERS, "approval"), &json!({}), 200).await;
    second.post_document(&path(&given, OVERRIDES, "review"), &json!({}), 200).await;
    for sql in [
        "update waivers set approved_at = now()",
        "update waivers set approved_by = null, approved_at = null",
        "update waivers set reason = 'another'",
        "update waivers set ended_by = 1",
        "update waiver_vulnerabilities set vulnerability = 'CVE-2'",
        "update overrides set reviewed_at = now()",
        "update overrides set gates = array['approvals']",
    ] {
        let error = sqlx::query(sql).execute(&mut *registry.sql().await).await.unwrap_err();
        assert_eq!(error.as_database_error().unwrap().code().as_deref(), Some("23001"), "{sql}: {error}");
    }
    admin.post_document(&path(&proposed, WAIVERS, "revocation"), &json!({"reason": "over"}), 200).await;
    let again = "update waivers set ended_at = now()";
    assert!(sqlx::query(again).execute(&mut *registry.sql().await).await.is_err());
    registry.check().await;
}

#[tokio::test]
async fn fsck_sees_waivers_and_overrides_that_were_changed_behind_the_service() {
    for (sql, says) in [
        ("update waivers set reason = 'another'", "waiver 1 was created by no event that says the same"),
        ("update waivers set package = 'pkg:npm/a'", "waiver 1 was created by no event that says the same"),
        (
            "update waivers set expires_at = null, status = 'false_positive'",
            "waiver 1 was created by no event",
        ),
        ("delete from waiver_vulnerabilities where waiver_id = 2", "waiver 2 was created by no event"),
        ("update waivers set approved_at = now() where id = 2", "waiver 2 was approved by no event"),
        (
            "update waivers set ended_at = now(), ended_by = 1 where id = 1",
            "waiver 1 was revoked by no event",
        ),
        ("update waivers set sha256 = 'sha256:00' where id = 2", "waiver 2 counts for other bytes"),
        ("delete from waivers where id = 1", "(waiver.created): the rows do not have what it tells of"),
        ("update waivers set approved_at = null, approved_by = null", "(waiver.approved"),
        ("update overrides set gates = array['approvals']", "was created by no event that says the same"),
        ("update overrides set expires_at = expires_at + interval '1 day'", "was created by no event"),
        ("update overrides set sha256 = 'sha256:00'", "counts for other bytes"),
        ("update overrides set reviewed_at = now()", "was reviewed by no event"),
        ("update overrides set ended_at = now(), ended_by = 1", "was revoked by no event"),
        ("delete from overrides", "(override.created"),
        ("update holds set origin = 'rollback'", "hold 1 was placed by no event that says the same"),
    ] {
        let registry = Registry::start().await;
        registry.environment("prod", "").await;
        let admin = registry.admin();
        let second = registry.client(Role::Admin, "**").await;
        let digest = admin.push_release("app", "1.0", "one").await;
        admin.post_document(WAIVERS, &waiver(json!({"repositories": "**"})), 201).await;
        let bound = waiver(json!({"repository": "app", "digest": digest, "environment": "prod"}));
        let bound = admin.post_document(WAIVERS, &bound, 201).await;
        second.post_document(&path(&bound, WAIVERS, "approval"), &json!({}), 200).await;
        let given = admin.post_document(OVERRIDES, &override_of(&digest, &["scan"], 4), 201).await;
        second.post_document(&path(&given, OVERRIDES, "review"), &json!({}), 200).await;
        let hold = json!({"environment": "prod", "reason": "incident"});
        admin.post_document("/api/v1/holds", &hold, 201).await;
        registry.sequence_all().await;
        registry.tamper(sql).await;
        let report = proofmark::audit::fsck(&registry.app.db, &registry.app.store).await.unwrap();
        assert!(report.violations.iter().any(|it| it.what.contains(says)), "{sql}: {:#?}", report.violations);
    }
}
