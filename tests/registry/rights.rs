//! Who may stop, who may release, and who counts: the attacks of one team on another, each by its number.

use crate::harness::{Client, Found, Registry, expect};
use proofmark::access::Role;
use proofmark::names::Digest;
use serde_json::{Value, json};

fn lift(kind: &str, row: &Value) -> String {
    format!("/api/v1/{kind}/{}/revocation", row["id"])
}

async fn place_both(client: &Client, digest: &Digest) -> (Value, Value) {
    let block = client.block("open/app", digest, Some("prod")).await;
    let hold = json!({"repository": "open/app", "environment": "prod", "reason": "an incident"});
    (block, client.post_document("/api/v1/holds", &hold, 201).await)
}

#[tokio::test]
async fn attack_5_a_promoter_lifts_neither_the_block_nor_the_hold_of_an_administrator() {
    let registry = Registry::start().await;
    registry.environment("prod", "").await;
    let admin = registry.admin();
    let digest = admin.push_release("open/app", "1.0", "one").await;
    let clients = [
        ("promoter", registry.named("pat", Role::Promoter, "open/**", None).await),
        ("security", registry.named("sue", Role::Security, "open/**", None).await),
        ("admin", registry.named("bob", Role::Admin, "open/**", None).await),
    ];
    for (placed, (rank, author)) in clients.iter().enumerate() {
        for (held, (name, client)) in clients.iter().enumerate() {
            let (block, hold) = place_both(author, &digest).await;
            assert_eq!((&block["rank"], &hold["rank"]), (&json!(rank), &json!(rank)));
            for (kind, row) in [("blocks", &block), ("holds", &hold)] {
                let because = json!({"reason": "it is fine"});
                if held >= placed {
                    client.post_document(&lift(kind, row), &because, 200).await;
                    continue;
                }
                let refused = client.post_document(&lift(kind, row), &because, 403).await;
                assert_eq!(refused["code"], "rank-too-low", "{refused}");
                let detail = refused["detail"].as_str().unwrap();
                assert!(detail.contains(&format!("the rank {rank}")), "{refused}");
                assert!(detail.contains(&format!("yours here is {name}")), "{refused}");
                expect(clients[0].1.promote("open/app", &digest, "prod").await, 409).await;
                let path = format!("/api/v1/{kind}?repository=open/app");
                assert_eq!(client.document(&path).await["items"][0]["rank"], *rank);
                let all = client.document("/api/v1/exceptions?repository=open/app").await;
                assert_eq!(all["items"][0]["rank"], *rank, "{all}");
                author.post_document(&lift(kind, row), &because, 200).await;
            }
        }
    }
    registry.check().await;
}

#[tokio::test]
async fn the_rank_of_a_role_elsewhere_lifts_nothing_here_and_the_highest_one_here_is_stored() {
    let registry = Registry::start().await;
    registry.environment("prod", "").await;
    registry.environment("staging", "").await;
    let digest = registry.admin().push_release("open/app", "1.0", "one").await;
    let both = registry.named("sue", Role::Promoter, "open/**", None).await;
    registry.named("sue", Role::Security, "open/app", Some(&["prod"])).await;
    registry.named("sue", Role::Admin, "other/**", None).await;
    let (block, hold) = place_both(&both, &digest).await;
    assert_eq!((&block["rank"], &hold["rank"]), (&json!("security"), &json!("security")));
    let pat = registry.named("pat", Role::Promoter, "open/**", None).await;
    registry.named("pat", Role::Admin, "other/**", None).await;
    registry.named("pat", Role::Security, "open/**", Some(&["staging"])).await;
    for (kind, row) in [("blocks", &block), ("holds", &hold)] {
        let refused = pat.post_document(&lift(kind, row), &json!({"reason": "x"}), 403).await;
        assert_eq!(refused["code"], "rank-too-low", "{refused}");
    }
    registry.check().await;
}

#[tokio::test]
async fn a_rollbacks_hold_is_lifted_by_a_promoter_whoever_rolled_back() {
    let registry = Registry::start().await;
    registry.environment("prod", "").await;
    let admin = registry.admin();
    for version in ["1.0", "2.0"] {
        let digest = admin.push_release("open/app", version, version).await;
        expect(admin.promote("open/app", &digest, "prod").await, 201).await;
    }
    let back = json!({"repository": "open/app", "environment": "prod", "reason": "it crashes"});
    admin.post_document("/api/v1/rollbacks", &back, 201).await;
    let pat = registry.named("pat", Role::Promoter, "open/**", None).await;
    let holds = pat.document("/api/v1/holds?repository=open/app").await;
    assert_eq!(holds["items"][0]["rank"], "promoter", "{holds}");
    pat.post_document(&lift("holds", &holds["items"][0]), &json!({"reason": "repaired"}), 200).await;
    registry.check().await;
}

#[tokio::test]
async fn security_stops_revokes_and_accepts_and_does_nothing_else() {
    let registry = Registry::start().await;
    registry.environment("prod", "").await;
    registry.know_signer("ci").await;
    let admin = registry.admin();
    let digest = admin.push_release("app", "1.0", "one").await;
    registry.scanned(&digest, "trivy", 2, &[Found { vulnerability: "CVE-1", severity: "high" }]).await;
    let scans = admin.document("/api/v1/scans?repository=app").await;
    let scan = format!("/api/v1/scans/{}/revocation", scans["items"][0]["id"]);
    let promoter = registry.client(Role::Promoter, "**").await;
    let team = registry.client(Role::Security, "team/*").await;
    let sue = registry.named("sue", Role::Security, "**", None).await;
    let because = json!({"reason": "stolen", "compromised": true});
    for (client, status) in [(&promoter, 403), (&team, 404), (&sue, 201)] {
        client.post_document("/api/v1/signers/ci/revocation", &because, status).await;
    }
    let because = json!({"reason": "made by hand"});
    for (client, status) in [(&promoter, 403), (&team, 404), (&sue, 200)] {
        client.post_document(&scan, &because, status).await;
    }
    let waiver = json!({"repositories": "app", "vulnerabilities": ["CVE-1"], "status": "accepted_risk",
        "reason": "no fix yet", "expires_at": proofmark::clock::now() + chrono::TimeDelta::days(3)});
    sue.post_document("/api/v1/waivers", &waiver, 403).await;
    let made = promoter.post_document("/api/v1/waivers", &waiver, 201).await;
    let approval = format!("/api/v1/waivers/{}/approval", made["id"]);
    promoter.post_document(&approval, &json!({}), 403).await;
    sue.post_document(&approval, &json!({}), 200).await;
    sue.post_document(&lift("waivers", &made), &json!({"reason": "it was exploited"}), 200).await;
    expect(sue.promote("app", &digest, "prod").await, 403).await;
    for path in ["/api/v1/audit/events?repository=app", "/api/v1/tokens"] {
        expect(sue.get(path).send().await.unwrap(), 403).await;
    }
    sue.put_document("/api/v1/environments", &json!({"name": "new"}), 403).await;
    let path = format!("/v2/app/manifests/{digest}");
    assert_eq!(sue.get(&path).send().await.unwrap().status(), 200);
    assert_eq!(sue.delete(&path).send().await.unwrap().status(), 401);
    registry.check().await;
}

#[tokio::test]
async fn attack_6_a_team_that_has_the_same_bytes_stops_them_in_its_own_repositories_only() {
    let registry = Registry::start().await;
    registry.environment("prod", "").await;
    let admin = registry.admin();
    let digest = admin.push_release("victim/app", "1.0", "the same bytes").await;
    expect(admin.promote("victim/app", &digest, "prod").await, 201).await;
    let evil = registry.named("evil", Role::Promoter, "evil/**", None).await;
    registry.named("evil", Role::Pusher, "evil/**", None).await;
    // A right in the victim's repository, but in another environment, or none to block.
    registry.environment("staging", "").await;
    registry.named("evil", Role::Promoter, "victim/**", Some(&["staging"])).await;
    registry.named("evil", Role::Approver, "victim/**", None).await;
    for repository in ["evil/one", "evil/two"] {
        evil.push_release(repository, "1.0", "the same bytes").await;
        expect(admin.promote(repository, &digest, "prod").await, 201).await;
    }
    for environment in [None, Some("prod")] {
        let block = evil.block("evil/one", &digest, environment).await;
        expect(admin.known_good("evil/one", "prod").await, 404).await;
        expect(admin.known_good("evil/two", "prod").await, 404).await;
        expect(admin.known_good("victim/app", "prod").await, 200).await;
        assert_eq!(admin.verdict("victim/app", &digest, "prod").await["verdict"], "allow");
        expect(admin.promote("victim/app", &digest, "prod").await, 201).await;
        let view = format!("/v2/env/prod/victim/app/manifests/{digest}");
        assert_eq!(admin.get(&view).send().await.unwrap().status(), 200);
        for list in ["blocks", "exceptions"] {
            let listed = admin.document(&format!("/api/v1/{list}?repository=victim/app")).await;
            assert_eq!(listed["items"], json!([]), "{listed}");
            let listed = admin.document(&format!("/api/v1/{list}?repository=evil/two")).await;
            assert_eq!(listed["items"].as_array().unwrap().len(), 1, "{listed}");
        }
        evil.post_document(&lift("blocks", &block), &json!({"reason": "x"}), 200).await;
    }
    registry.check().await;
}

#[tokio::test]
async fn a_block_counts_wherever_its_author_had_the_right_and_stays_when_the_right_is_gone() {
    let registry = Registry::start().await;
    registry.environment("prod", "").await;
    let admin = registry.admin();
    let mut digest = None;
    for repository in ["a/one", "a/two", "b/one", "c/one"] {
        let pushed = admin.push_release(repository, "1.0", "the same bytes").await;
        expect(admin.promote(repository, &pushed, "prod").await, 201).await;
        digest = Some(pushed);
    }
    let digest = digest.unwrap();
    let sue = registry.named("sue", Role::Security, "a/*", None).await;
    registry.named("sue", Role::Promoter, "b/o*", Some(&["prod"])).await;
    let block = sue.block("a/one", &digest, Some("prod")).await;
    assert_eq!(block["repositories"], json!(["a/*", "b/o*"]));
    let everywhere = sue.block("a/one", &digest, None).await;
    assert_eq!(everywhere["repositories"], json!(["a/*"]));
    // What it stood on is gone, and another right has come.
    for grant in admin.document("/api/v1/grants").await["items"].as_array().unwrap() {
        if grant["principal"] == "sue" {
            expect(admin.delete(&format!("/api/v1/grants/{}", grant["id"])).send().await.unwrap(), 204).await;
        }
    }
    registry.named("sue", Role::Promoter, "c/*", None).await;
    for (repository, status) in [("a/one", 404), ("a/two", 404), ("b/one", 404), ("c/one", 200)] {
        expect(admin.known_good(repository, "prod").await, status).await;
        let verdict = if status == 200 { "allow" } else { "deny" };
        assert_eq!(admin.verdict(repository, &digest, "prod").await["verdict"], verdict, "{repository}");
    }
    let other = registry.client(Role::Reader, "b/*").await;
    let told = other.document("/api/v1/blocks?repository=b/one").await;
    let told = &told["items"][0];
    assert_eq!((&told["id"], &told["repositories"], &told["by"]), (&block["id"], &Value::Null, &Value::Null));
    registry.check().await;
}

#[tokio::test]
async fn fsck_sees_a_rank_or_a_reach_that_no_event_gave() {
    let registry = Registry::start().await;
    registry.environment("prod", "").await;
    let admin = registry.admin();
    let digest = admin.push_release("open/app", "1.0", "one").await;
    place_both(&admin, &digest).await;
    for (tampering, back, named) in [
        ("update blocks set rank = 'promoter'", "update blocks set rank = 'admin'", "block 1 "),
        ("update blocks set repositories = '{a/*}'", "update blocks set repositories = '{**}'", "block 1 "),
        ("update holds set rank = 'promoter'", "update holds set rank = 'admin'", "hold 1 "),
    ] {
        registry.tamper(tampering).await;
        let report = proofmark::audit::fsck(&registry.app.db, &registry.app.store).await.unwrap();
        let found: Vec<_> = report.violations.iter().map(|one| one.what.as_str()).collect();
        assert!(matches!(found[..], [one] if one.starts_with(named)), "{tampering}: {found:?}");
        registry.tamper(back).await;
    }
    registry.check().await;
}

async fn status(client: &Client, path: &str) -> u16 {
    client.get(path).send().await.unwrap().status().as_u16()
}

/// What happens in staging is theirs.
async fn its_own_environment(stan: &Client, digest: &Digest) {
    for (path, body) in [
        ("/api/v1/promotions", json!({"repository": "open/app", "digest": digest, "environment": "staging"})),
        (
            "/api/v1/approvals",
            json!({"repository": "open/app", "digest": digest, "environment": "staging", "reason": "x"}),
        ),
        ("/api/v1/holds", json!({"repository": "open/app", "environment": "staging", "reason": "x"})),
        (
            "/api/v1/blocks",
            json!({"repository": "open/app", "digest": digest, "environment": "staging", "reason": "x"}),
        ),
    ] {
        stan.post_document(path, &body, 201).await;
    }
    let policy = "environment: staging\nrepositories: ['**']\ngates: [{min_age: 1s}]\n";
    assert!(stan.put("/api/v1/policies").body(policy).send().await.unwrap().status().is_success());
    for list in ["approvals", "blocks", "holds", "promotions", "policies"] {
        let listed = stan.document(&format!("/api/v1/{list}?repository=open/app")).await;
        let items = listed["items"].as_array().unwrap();
        assert!(
            !items.is_empty() && items.iter().all(|one| one["environment"] == "staging"),
            "{list}: {listed}"
        );
    }
}

#[tokio::test]
async fn attack_7_an_administrator_of_staging_does_nothing_outside_of_it() {
    let registry = Registry::start().await;
    registry.environment("prod", "").await;
    registry.environment("staging", "").await;
    let admin = registry.admin();
    let digest = admin.push_release("open/app", "1.0", "one").await;
    registry.scanned(&digest, "trivy", 2, &[Found { vulnerability: "CVE-1", severity: "high" }]).await;
    expect(admin.promote("open/app", &digest, "staging").await, 201).await;
    expect(admin.promote("open/app", &digest, "prod").await, 201).await;
    let stan = registry.named("stan", Role::Admin, "**", Some(&["staging"])).await;
    let manifest = format!("/v2/open/app/manifests/{digest}");
    let refused = [
        stan.delete(&manifest),
        stan.get(&manifest),
        stan.post("/v2/open/app/blobs/uploads/"),
        stan.get("/v2/open/app/tags/list"),
        stan.put("/api/v1/artifacts?repository=open/app&version=2.0&filename=x").body("x"),
        stan.put("/api/v1/repositories").json(&json!({"name": "open/app", "tags": {"floating": ["**"]}})),
        stan.post("/api/v1/tags/reservations")
            .json(&json!({"repository": "open/app", "tags": {"2.0": digest}})),
        stan.post(&format!("/api/v1/scans?repository=open/app&digest={digest}")).body("{}"),
        stan.post("/api/v1/attestations?repository=open/app").body("{}"),
        stan.get(&format!("/api/v1/artifacts/{digest}?repository=open/app")),
        stan.get("/api/v1/artifacts?repository=open/app"),
        stan.get("/api/v1/findings?repository=open/app"),
        stan.get("/api/v1/retention?repository=open/app"),
        stan.get("/api/v1/tags?repository=open/app"),
        stan.get("/api/v1/tokens"),
        stan.get("/api/v1/grants"),
        stan.get("/api/v1/signers"),
        stan.get("/api/v1/audit/events"),
        stan.put("/api/v1/policies").body("environment: prod\nrepositories: ['**']\ngates: []\n"),
        stan.post("/api/v1/blocks").json(&json!({"repository": "open/app", "digest": digest, "reason": "x"})),
    ];
    for request in refused {
        let answer = request.send().await.unwrap();
        let (status, path) = (answer.status().as_u16(), answer.url().path().to_owned());
        assert!([401, 403, 404].contains(&status), "{path}: {status}");
    }
    for list in ["/v2/_catalog", "/api/v1/repositories", "/api/v1/findings", "/api/v1/scans"] {
        let listed = stan.document(list).await;
        let items = listed.get("items").or(listed.get("repositories")).unwrap();
        assert_eq!(items, &json!([]), "{list}");
    }
    registry.sequence_all().await;
    let events = stan.document("/api/v1/audit/events?repository=open/app").await;
    let environments: Vec<_> =
        events["items"].as_array().unwrap().iter().map(|one| &one["event"]["environment"]).collect();
    assert!(!environments.is_empty() && environments.iter().all(|one| **one == "staging"), "{events}");

    its_own_environment(&stan, &digest).await;
    registry.check().await;
}

#[tokio::test]
async fn attack_8_a_deployer_of_prod_pulls_what_prod_runs_and_nothing_else() {
    let registry = Registry::start().await;
    registry.environment("prod", "").await;
    registry.environment("staging", "").await;
    let admin = registry.admin();
    let never = admin.push_release("open/app", "0.9", "never promoted").await;
    let digest = admin.push_release("open/app", "1.0", "one").await;
    for environment in ["prod", "staging"] {
        expect(admin.promote("open/app", &digest, environment).await, 201).await;
    }
    let deployer = registry.named("dep", Role::Deployer, "open/**", Some(&["prod"])).await;
    let runner = registry.named("run", Role::Runner, "open/**", None).await;
    let prod_runner = registry.named("prod-run", Role::Runner, "open/**", Some(&["prod"])).await;
    let reader = registry.client(Role::Reader, "open/**").await;
    for client in [&deployer, &runner, &prod_runner] {
        for beside in ["0.9", "1.0", never.as_str(), digest.as_str()] {
            assert_eq!(status(client, &format!("/v2/open/app/manifests/{beside}")).await, 401, "{beside}");
        }
        assert_eq!(status(client, "/v2/open/app/tags/list").await, 401);
        assert_eq!(status(client, &format!("/v2/open/app/referrers/{digest}")).await, 401);
        assert_eq!(client.document("/v2/_catalog").await["repositories"], json!([]));
        assert_eq!(status(client, &format!("/v2/env/prod/open/app/manifests/{digest}")).await, 200);
        assert_eq!(status(client, "/v2/env/prod/open/app/manifests/current").await, 200);
        assert_eq!(status(client, &format!("/v2/env/prod/open/app/manifests/{never}")).await, 404);
        let good = expect(client.known_good("open/app", "prod").await, 200).await;
        let reference = good["reference"].as_str().unwrap();
        assert!(reference.ends_with(&format!("/env/prod/open/app@{digest}")), "{reference}");
        assert!(good.get("repository_reference").is_none(), "{good}");
        assert_eq!(client.verdict("open/app", &digest, "prod").await["verdict"], "allow");
        let named = json!({"reference": reference});
        assert_eq!(client.post_document("/api/v1/verify", &named, 200).await["verdict"], "allow");
    }
    // Tokens of docker's flow do no more either.
    for (scope, pulls) in [("repository:open/app:pull", 401), ("repository:env/prod/open/app:pull", 401)] {
        let token = runner.document(&format!("/auth/token?service=x&scope={scope}")).await;
        let bearer = Client::new(&registry.url, token["token"].as_str().map(str::to_owned));
        assert_eq!(status(&bearer, "/v2/open/app/manifests/1.0").await, pulls, "{scope}");
    }
    let whole = reader.known_good("open/app", "prod").await;
    let etag = whole.headers()["etag"].to_str().unwrap().to_owned();
    let whole = expect(whole, 200).await;
    assert!(whole["reference"].as_str().unwrap().ends_with(&format!("/open/app@{digest}")));
    assert!(!whole["reference"].as_str().unwrap().contains("/env/"));
    assert_eq!(whole["reference"], whole["repository_reference"]);
    let path = "/api/v1/known-good?repository=open/app&environment=prod";
    let asked = deployer.get(path).header("if-none-match", etag).send().await.unwrap();
    assert_eq!((asked.status().as_u16(), &asked.headers()["vary"]), (200, &"authorization".parse().unwrap()));

    // A runner reads no list, no record and no decision.
    let decision = whole["decision"].as_str().unwrap();
    for path in [
        "approvals?repository=open/app",
        "approvals?pending=true&repository=open/app",
        "blocks?repository=open/app",
        "holds?repository=open/app",
        "promotions?repository=open/app",
        "policies?repository=open/app",
        "exceptions?repository=open/app",
        "waivers?repository=open/app",
        "overrides?repository=open/app",
        "environments/prod/releases",
        &format!("decisions/{decision}"),
        "audit/events?repository=open/app",
        &format!("artifacts/{digest}?repository=open/app"),
        "findings?repository=open/app&environment=prod",
        "attestations?repository=open/app",
        "scans?repository=open/app",
        "tags?repository=open/app",
    ] {
        for client in [&runner, &prod_runner] {
            let found = status(client, &format!("/api/v1/{path}")).await;
            assert!([403, 404].contains(&found), "{path}: {found}");
        }
    }
    for path in
        ["exceptions", "holds", "waivers", "overrides", "findings", "scans", "attestations", "environments"]
    {
        let listed = runner.document(&format!("/api/v1/{path}")).await;
        assert_eq!(listed["items"], json!([]), "{path}");
    }
    let dry = json!({"repository": "open/app", "digest": digest, "environment": "prod"});
    runner.post_document("/api/v1/promotions?dry_run=true", &dry, 403).await;
    assert_eq!(status(&prod_runner, "/v2/env/staging/open/app/manifests/current").await, 401);
    expect(prod_runner.known_good("open/app", "staging").await, 403).await;

    // What is blocked is pulled by neither.
    admin.block("open/app", &digest, None).await;
    for client in [&deployer, &runner] {
        assert_eq!(status(client, &format!("/v2/env/prod/open/app/manifests/{digest}")).await, 404);
    }
    registry.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_pulls_and_asks_through_the_view_where_that_is_all_that_its_token_may() {
    let registry = Registry::start().await;
    registry.environment("prod", "").await;
    let admin = registry.admin();
    let file = "/api/v1/artifacts?repository=open/tool&version=1.0&filename=tool.txt";
    let put = expect(admin.put(file).body("the tool").send().await.unwrap(), 201).await;
    let digest: Digest = put["digest"].as_str().unwrap().parse().unwrap();
    expect(admin.promote("open/tool", &digest, "prod").await, 201).await;
    for (name, role, environments) in
        [("run", Role::Runner, None), ("dep", Role::Deployer, Some(&["prod"][..]))]
    {
        let client = registry.named(name, role, "open/**", environments).await;
        let shell = registry.shell(client.token()).await;
        let file = registry.directory().join(name);
        shell.yes(&["pull", "open/tool", "--environment", "prod", "-o", file.to_str().unwrap()]).await;
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "the tool");
        let said = shell.yes(&["known-good", "open/tool", "-e", "prod", "--format", "text"]).await;
        assert!(said.contains(&format!("/env/prod/open/tool@{digest}")), "{said}");
        assert!(shell.yes(&["verify", said.trim(), "-e", "prod"]).await.contains("may run in prod"));
        shell.yes(&["verify", &format!("open/tool@{digest}"), "-e", "prod"]).await;
    }
    registry.check().await;
}

/// Ann pushes, and may approve.
async fn ann(registry: &Registry) -> (Client, Client) {
    let ann = registry.named("ann", Role::Pusher, "roles/**", None).await;
    registry.named("ann", Role::Approver, "roles/**", None).await;
    (ann, registry.named("bot", Role::Pusher, "roles/**", None).await)
}

async fn approve(client: &Client, repository: &str, digest: &Digest) {
    let body = json!({"repository": repository, "digest": digest, "environment": "prod", "reason": "looked"});
    client.post_document("/api/v1/approvals", &body, 201).await;
}

async fn refused_for(registry: &Registry, repository: &str, digest: &Digest, why: &str) {
    let refused = expect(registry.admin().promote(repository, digest, "prod").await, 409).await;
    assert!(refused["detail"].as_str().unwrap().contains(why), "{refused}");
}

#[tokio::test]
async fn attack_2_an_approval_of_somebody_whose_grant_and_token_are_gone_counts_no_more() {
    let registry = Registry::start().await;
    registry.environment("prod", "approvals: {count: 1}").await;
    let admin = registry.admin();
    let digest = admin.push_release("roles/a", "1.0", "one").await;
    let ann = registry.named("ann", Role::Approver, "roles/**", None).await;
    approve(&ann, "roles/a", &digest).await;
    for kind in ["grants", "tokens"] {
        for one in admin.document(&format!("/api/v1/{kind}?limit=1000")).await["items"].as_array().unwrap() {
            if one["principal"] == "ann" && one["ended_at"].is_null() {
                let id = one["id"].as_str().map_or_else(|| one["id"].to_string(), str::to_owned);
                let ended = admin.delete(&format!("/api/v1/{kind}/{id}")).send().await.unwrap().status();
                assert!([204, 404].contains(&ended.as_u16()), "{kind}: {ended}");
            }
        }
    }
    refused_for(&registry, "roles/a", &digest, "ann no longer has the right").await;
    registry.check().await;
}

#[tokio::test]
async fn attack_4b_the_author_of_bytes_that_a_bot_carried_elsewhere_is_their_author_there() {
    let registry = Registry::start().await;
    registry.environment("prod", "approvals: {count: 1}").await;
    let (ann, bot) = ann(&registry).await;
    let digest = ann.push_release("roles/dev", "1.0", "one").await;
    assert_eq!(bot.push_release("roles/c", "1.0", "one").await, digest);
    approve(&ann, "roles/c", &digest).await;
    refused_for(&registry, "roles/c", &digest, "ann is its author").await;

    // In an index that the bot made of them; and where the bot was first, and ann pushed the same later elsewhere.
    let index = bot.push_index("roles/c", "2.0", &[(&digest, "linux/amd64")]).await;
    approve(&ann, "roles/c", &index).await;
    refused_for(&registry, "roles/c", &index, "ann is its author").await;
    let first = bot.push_release("roles/c", "3.0", "three").await;
    approve(&ann, "roles/c", &first).await;
    assert_eq!(ann.push_release("roles/dev", "3.0", "three").await, first);
    refused_for(&registry, "roles/c", &first, "ann is its author").await;

    // Under another name, and without one: the bytes were there.
    let last = bot.push_release("roles/c", "4.0", "four").await;
    approve(&ann, "roles/c", &last).await;
    let bytes = ann.get("/v2/roles/c/manifests/4.0").send().await.unwrap().bytes().await.unwrap();
    ann.push_manifest_bytes("roles/c", None, &bytes).await;
    refused_for(&registry, "roles/c", &last, "ann is its author").await;
    // What nobody but the bot pushed.
    let free = bot.push_release("roles/c", "5.0", "five").await;
    approve(&ann, "roles/c", &free).await;
    expect(registry.admin().promote("roles/c", &free, "prod").await, 201).await;
    registry.check().await;
}

#[tokio::test]
async fn attack_4b_a_file_has_its_author_wherever_it_is_put_again() {
    let registry = Registry::start().await;
    registry.environment("prod", "approvals: {count: 1}").await;
    let (ann, bot) = ann(&registry).await;
    let mut digest = None;
    for (client, repository) in [(&ann, "roles/dev"), (&bot, "roles/tool")] {
        let path = format!("/api/v1/artifacts?repository={repository}&version=1.0&filename=tool");
        let put = expect(client.put(&path).body("the tool").send().await.unwrap(), 201).await;
        digest = put["digest"].as_str().map(|digest| digest.parse::<Digest>().unwrap());
    }
    let digest = digest.unwrap();
    approve(&ann, "roles/tool", &digest).await;
    refused_for(&registry, "roles/tool", &digest, "ann is its author").await;
    registry.check().await;
}

#[tokio::test]
async fn attack_4c_the_author_of_what_was_deleted_and_pushed_again_by_a_bot_is_its_author() {
    let registry = Registry::start().await;
    registry.environment("prod", "approvals: {count: 1}").await;
    let (ann, bot) = ann(&registry).await;
    let digest = ann.push_release("roles/d", "1.0", "one").await;
    let path = format!("/v2/roles/d/manifests/{digest}");
    assert_eq!(registry.admin().delete(&path).send().await.unwrap().status(), 202);
    assert_eq!(bot.push_release("roles/d", "1.0", "one").await, digest);
    approve(&ann, "roles/d", &digest).await;
    refused_for(&registry, "roles/d", &digest, "ann is its author").await;
    registry.check().await;
}

#[tokio::test]
async fn an_author_elsewhere_neither_approves_a_waiver_nor_reviews_an_override() {
    let registry = Registry::start().await;
    registry.environment("prod", "").await;
    let admin = registry.admin();
    let ann = registry.named("ann", Role::Admin, "roles/**", None).await;
    let bot = registry.named("bot", Role::Pusher, "roles/**", None).await;
    let digest = ann.push_release("roles/dev", "1.0", "one").await;
    bot.push_release("roles/c", "1.0", "one").await;
    let until = json!(proofmark::clock::now() + chrono::TimeDelta::hours(3));
    let waiver = json!({"repository": "roles/c", "digest": digest, "vulnerabilities": ["CVE-1"],
        "status": "accepted_risk", "reason": "no fix yet", "expires_at": until});
    let made = admin.post_document("/api/v1/waivers", &waiver, 201).await;
    let refused =
        ann.post_document(&format!("/api/v1/waivers/{}/approval", made["id"]), &json!({}), 409).await;
    assert_eq!(refused["code"], "approver-is-author", "{refused}");
    let body = json!({"repository": "roles/c", "digest": digest, "environment": "prod", "gates": ["min_age"],
        "reason": "incident 42", "expires_at": until});
    let made = admin.post_document("/api/v1/overrides", &body, 201).await;
    let refused =
        ann.post_document(&format!("/api/v1/overrides/{}/review", made["id"]), &json!({}), 409).await;
    assert_eq!(refused["code"], "reviewer-is-author", "{refused}");
    registry.check().await;
}

#[tokio::test]
async fn an_author_is_never_forgotten_and_fsck_sees_one_that_is() {
    let registry = Registry::start().await;
    let ann = registry.named("ann", Role::Pusher, "**", None).await;
    let digest = ann.push_release("app", "1.0", "one").await;
    for change in [
        "update manifest_authors set principal_id = 1",
        "delete from manifest_authors",
        "truncate manifest_authors",
    ] {
        sqlx::raw_sql(change).execute(&mut *registry.sql().await).await.unwrap_err();
    }
    registry.tamper("delete from manifest_authors").await;
    let report = proofmark::audit::fsck(&registry.app.db, &registry.app.store).await.unwrap();
    let found: Vec<_> = report.violations.iter().map(|one| one.what.as_str()).collect();
    assert!(
        matches!(found[..], [one] if one.contains("manifest.pushed") && one.contains(digest.as_str())),
        "{found:?}"
    );
}
