//! Access: tokens, roles, docker's token flow, and the public.

use crate::attesting::somebody_waits_for_a_scope;
use crate::bounding::Wire;
use crate::harness::{Client, Registry, eventually, expect};
use proofmark::access::Role;
use proofmark::identity::{self, Caller, Callers, DockerToken, Requested, Secret};
use serde_json::{Value, json};
use std::net::IpAddr;

#[tokio::test]
async fn a_token_says_who_it_speaks_for_and_what_it_may_do() {
    let registry = Registry::start().await;
    let ci = registry.named("ci/payments", Role::Pusher, "payments/*", None).await;
    let whoami = ci.document("/api/v1/whoami").await;
    assert_eq!(whoami["principal"], "ci/payments");
    assert_eq!(
        whoami["grants"],
        json!([{"role": "pusher", "repositories": "payments/*", "environments": null}])
    );
    assert_eq!(registry.anyone().get("/api/v1/whoami").send().await.unwrap().status(), 401);
    registry.check().await;
}

#[tokio::test]
async fn a_secret_is_kept_as_a_hash_and_never_listed() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let secret = ci.token().unwrap();
    let listed = registry.admin().document("/api/v1/tokens").await;
    assert!(!listed.to_string().contains(secret));
    let found: i64 = sqlx::query_scalar(
        "select count(*) from events where convert_from(leaf, 'UTF8') like '%' || $1 || '%'",
    )
    .bind(secret)
    .fetch_one(&mut *registry.sql().await)
    .await
    .unwrap();
    assert_eq!(found, 0);
    registry.check().await;
}

#[tokio::test]
async fn a_revoked_token_is_refused_by_the_next_request_and_soon_by_other_replicas() {
    let registry = Registry::start().await;
    let replica = registry.replica().await;
    let ci = registry.named("ci", Role::Pusher, "**", None).await;
    let there = ci.at(&replica.url);
    expect(there.get("/api/v1/whoami").send().await.unwrap(), 200).await;
    let listed = registry.admin().document("/api/v1/tokens").await;
    let token = listed["items"].as_array().unwrap().iter().find(|t| t["principal"] == "ci").unwrap();
    let path = format!("/api/v1/tokens/{}", token["id"].as_str().unwrap());
    expect(registry.admin().delete(&path).send().await.unwrap(), 204).await;
    expect(ci.get("/api/v1/whoami").send().await.unwrap(), 401).await;
    expect(registry.admin().delete(&path).send().await.unwrap(), 404).await;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while there.get("/api/v1/whoami").send().await.unwrap().status() != 401 {
        assert!(std::time::Instant::now() < deadline, "the replica believes its cache for a second at most");
    }
    replica.check().await;
    registry.check().await;
}

#[tokio::test]
async fn only_an_administrator_makes_tokens_and_others_do_not_learn_that_it_could_be_done() {
    let registry = Registry::start().await;
    let body = json!({ "principal": "mallory", "grants": [{ "role": "admin" }] });
    for role in Role::ALL.into_iter().filter(|role| *role != Role::Admin) {
        let client = registry.client(role, "team/**").await;
        let problem = client.post_document("/api/v1/tokens", &body, 404).await;
        assert_eq!(problem["code"], "not-found", "{role}");
    }
    let partial = registry.client(Role::Admin, "team/**").await;
    partial.post_document("/api/v1/tokens", &body, 404).await;
    registry.check().await;
}

#[tokio::test]
async fn a_docker_token_does_what_it_was_made_for_and_no_more() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "team/*").await;
    let scope = "repository:team/app:pull,push&scope=repository:other:pull";
    let answer = registry
        .anyone()
        .get(&format!("/auth/token?service=x&scope={scope}"))
        .basic_auth("anything", ci.token())
        .send()
        .await
        .unwrap();
    let document = expect(answer, 200).await;
    assert_eq!(document["token"], document["access_token"]);
    assert!(document["expires_in"].as_u64().unwrap() >= 60);
    let narrowed = crate::harness::Client::new(&registry.url, document["token"].as_str().map(str::to_owned));
    let whoami = narrowed.document("/api/v1/whoami").await;
    assert_eq!(whoami["anonymous"], false);
    narrowed.post_document("/api/v1/tokens", &json!({ "principal": "x" }), 404).await;
    let wrong =
        registry.anyone().get("/auth/token").basic_auth("anything", Some("pmk_wrong")).send().await.unwrap();
    expect(wrong, 401).await;
    registry.check().await;
}

#[tokio::test]
async fn a_docker_token_lists_nothing_beyond_its_scope_and_makes_no_other_token() {
    let registry = Registry::start().await;
    let admin = registry.admin();
    let secret = admin.push_release("secret/app", "1.0", "secret").await;
    let report = json!({"SchemaVersion": 2, "CreatedAt": "2026-11-23T12:00:00Z", "ArtifactName": "x",
        "ArtifactType": "container_image", "Trivy": {"Version": "0.60.0"}, "Results": [{"Target": "t",
        "Class": "os-pkgs", "Type": "debian", "Vulnerabilities": [{"VulnerabilityID": "CVE-2026-7777",
        "PkgName": "openssl", "InstalledVersion": "1", "Severity": "CRITICAL"}]}]});
    let path = format!("/api/v1/scans?repository=secret/app&digest={secret}");
    admin.post_document(&path, &report, 201).await;
    let reader = registry.client(Role::Reader, "**").await;
    let ask = async |token: Option<&str>, scope: &str| {
        let path = format!("/auth/token?service=x&scope={scope}");
        registry.anyone().get(&path).basic_auth("anything", token).send().await.unwrap()
    };
    let narrowed = async |scope: &str| {
        let document = expect(ask(reader.token(), scope).await, 200).await;
        crate::harness::Client::new(&registry.url, document["token"].as_str().map(str::to_owned))
    };
    let app = narrowed("repository:team/app:pull").await;
    let catalog = narrowed("registry:catalog:*").await;
    for path in ["/api/v1/findings", "/api/v1/scans", "/api/v1/attestations", "/api/v1/repositories"] {
        for token in [&app, &catalog] {
            assert_eq!(token.document(path).await["items"], json!([]), "{path}");
        }
    }
    assert_eq!(app.document("/v2/_catalog").await["repositories"], json!([]));
    assert_eq!(catalog.document("/v2/_catalog").await["repositories"], json!(["secret/app"]));
    expect(catalog.get("/v2/secret/app/tags/list").send().await.unwrap(), 401).await;
    assert_ne!(reader.document("/api/v1/findings").await["items"], json!([]));
    for scope in ["registry:catalog:*", "repository:team/app:pull"] {
        expect(ask(app.token(), scope).await, 401).await;
        expect(ask(catalog.token(), scope).await, 401).await;
    }
    registry.check().await;
}

#[tokio::test]
async fn the_oauth_form_takes_a_token_as_password_and_as_refresh_token() {
    let registry = Registry::start().await;
    let token = registry.admin_token().to_owned();
    for (grant_type, field) in [("password", "password"), ("refresh_token", "refresh_token")] {
        let form = [("grant_type", grant_type), ("service", "x"), ("username", "x"), (field, token.as_str())];
        let body = form.map(|(name, value)| format!("{name}={value}")).join("&");
        let request =
            registry.anyone().post("/auth/token").header("content-type", "application/x-www-form-urlencoded");
        expect(request.body(body).send().await.unwrap(), 200).await;
    }
    let request =
        registry.anyone().post("/auth/token").header("content-type", "application/x-www-form-urlencoded");
    expect(request.body("grant_type=magic").send().await.unwrap(), 400).await;
    registry.check().await;
}

#[tokio::test]
async fn the_scopes_of_one_request_for_a_token_are_united_however_they_are_written() {
    let registry = Registry::start().await;
    let admin = registry.admin();
    for repository in ["one", "two", "three"] {
        admin.push_release(repository, "1.0", repository).await;
    }
    let form = async |body: String| {
        let request = registry.anyone().post("/auth/token");
        request.header("content-type", "application/x-www-form-urlencoded").body(body).send().await.unwrap()
    };
    let credential = format!("grant_type=password&service=x&username=x&password={}", registry.admin_token());
    let scopes = "scope=repository:one:pull&scope=repository:two:pull%20repository:three:pull,push";
    let by_form = expect(form(format!("{credential}&{scopes}")).await, 200).await;
    let by_query = admin.document(&format!("/auth/token?service=x&{scopes}")).await;
    let split = "scope=repository:two:pull&scope=repository:two:push";
    let split = expect(form(format!("{credential}&{split}")).await, 200).await;
    let client =
        |token: &Value| Client::new(&registry.url, Some(token["token"].as_str().unwrap().to_owned()));
    for token in [&by_form, &by_query] {
        for repository in ["one", "two", "three"] {
            let path = format!("/v2/{repository}/manifests/1.0");
            assert_eq!(client(token).get(&path).send().await.unwrap().status(), 200, "{repository}");
        }
        let upload = client(token).post("/v2/one/blobs/uploads/").send().await.unwrap();
        assert_eq!(upload.status(), 401, "each scope has its own actions");
        client(token).open_session("three").await;
    }
    client(&split).open_session("two").await;
    // Two credentials are none.
    assert_eq!(form(format!("{credential}&password=x")).await.status(), 400);
    registry.check().await;
}

#[tokio::test]
async fn the_public_can_be_given_reading_and_nothing_else() {
    let registry = Registry::start().await;
    let give = |role: &str| json!({ "principal": "anonymous", "role": role, "repositories": "public/**" });
    registry.admin().post_document("/api/v1/grants", &give("pusher"), 422).await;
    let given = registry.admin().post_document("/api/v1/grants", &give("reader"), 201).await;
    let path = format!("/api/v1/grants/{}", given["id"]);
    expect(registry.admin().delete(&path).send().await.unwrap(), 204).await;
    expect(registry.admin().delete(&path).send().await.unwrap(), 404).await;
    registry.check().await;
}

#[tokio::test]
async fn bad_bodies_get_a_problem_that_says_what_is_wrong() {
    let registry = Registry::start().await;
    let admin = registry.admin();
    for (body, status) in
        [("{", 400), ("{\"principal\": 1}", 422), ("{\"principal\":\"a\",\"role\":\"x\"}", 422)]
    {
        let request = admin.post("/api/v1/tokens").header("content-type", "application/json").body(body);
        let problem = expect(request.send().await.unwrap(), status).await;
        assert_eq!(problem["code"], "invalid-request", "{problem}");
        assert!(problem["request_id"].as_str().is_some_and(|id| id.len() == 36));
    }
    registry.check().await;
}

#[tokio::test]
async fn a_token_with_an_end_that_no_calendar_has_is_refused_not_made_endless() {
    let registry = Registry::start().await;
    let ask = |seconds: u64| json!({"principal": "ci", "expires_in_seconds": seconds});
    for seconds in [0, 9_000_000_000_000, 9_223_372_036_854_776, u64::MAX] {
        let problem = registry.admin().post_document("/api/v1/tokens", &ask(seconds), 422).await;
        assert_eq!(problem["code"], "principal-refused", "{seconds}: {problem}");
    }
    let made = registry.admin().post_document("/api/v1/tokens", &ask(3_000_000_000), 201).await;
    assert!(made["expires_at"].is_string(), "{made}");
    registry.check().await;
}

#[tokio::test]
async fn what_can_never_be_kept_is_the_callers_fault_and_not_ours() {
    let registry = Registry::start().await;
    let admin = registry.admin();
    let digest = admin.push_release("team/app", "1.0", "one").await;
    for path in [
        "/api/v1/artifacts?repository=team/app&artifact_type=%00".to_owned(),
        "/api/v1/artifacts?repository=team/app&pushed_after=-200000-01-01T00:00:00Z".to_owned(),
        "/api/v1/attestations?signer=a%00b".to_owned(),
        "/api/v1/audit/events?since=-4714-01-01T00:00:00Z".to_owned(),
        "/api/v1/findings?vulnerability=%00".to_owned(),
        "/v2/_catalog?last=%00".to_owned(),
        "/v2/team/app/tags/list?last=%00".to_owned(),
        format!("/v2/team/app/referrers/{digest}?artifactType=%00"),
    ] {
        expect(admin.get(&path).send().await.unwrap(), 400).await;
    }
    let nul = json!({"name": "prod", "description": "a\u{0}b"});
    admin.put_document("/api/v1/environments", &nul, 422).await;
    admin.put_document("/api/v1/repositories", &nul, 400).await;
    let grant = json!({"principal": "ci", "role": "reader", "repositories": "a\u{0}b"});
    admin.post_document("/api/v1/grants", &grant, 400).await;
    registry.check().await;
}

#[tokio::test]
async fn lists_of_tokens_and_grants_come_in_pages() {
    let registry = Registry::start().await;
    let admin = registry.admin();
    for number in 0..5 {
        let body = json!({"principal": format!("ci-{number}"), "grants": [{"role": "reader"}]});
        admin.post_document("/api/v1/tokens", &body, 201).await;
    }
    for list in ["tokens", "grants"] {
        let mut found = Vec::new();
        let mut path = format!("/api/v1/{list}?limit=2");
        loop {
            let page = admin.document(&path).await;
            let items = page["items"].as_array().unwrap();
            assert!(items.len() <= 2, "{page}");
            found.extend(items.iter().map(|item| item["principal"].as_str().unwrap().to_owned()));
            let Some(next) = page["next"].as_str() else { break };
            path = format!("/api/v1/{list}?limit=2&cursor={next}");
        }
        assert_eq!(found, ["admin", "ci-0", "ci-1", "ci-2", "ci-3", "ci-4"], "{list}");
        let bad = admin.get(&format!("/api/v1/{list}?cursor=x")).send().await.unwrap();
        assert_eq!(expect(bad, 400).await["code"], "invalid-request");
    }
    registry.check().await;
}

#[tokio::test]
async fn the_same_role_given_again_is_the_same_grant() {
    let registry = Registry::start().await;
    let admin = registry.admin();
    let give = |environments: serde_json::Value| json!({"principal": "ci", "role": "deployer", "repositories": "a/*", "environments": environments});
    let first = admin.post_document("/api/v1/grants", &give(json!(["prod", "staging"])), 201).await;
    let again = admin.post_document("/api/v1/grants", &give(json!(["staging", "prod", "prod"])), 200).await;
    assert_eq!(first["id"], again["id"]);
    let many: Vec<String> = (0..500).map(|number| format!("an-environment-of-{number}")).collect();
    for other in [json!(null), json!([]), json!(many)] {
        admin.post_document("/api/v1/grants", &give(other.clone()), 201).await;
        admin.post_document("/api/v1/grants", &give(other), 200).await;
    }
    for _ in 0..2 {
        let issued = proofmark::identity::create_first_token(&registry.app.db, "admin").await.unwrap();
        let client = crate::harness::Client::new(&registry.url, Some(issued.secret.reveal().to_owned()));
        assert_eq!(client.document("/api/v1/whoami").await["grants"].as_array().unwrap().len(), 1);
    }
    let taken = format!("/api/v1/grants/{}", first["id"]);
    expect(admin.delete(&taken).send().await.unwrap(), 204).await;
    let anew = admin.post_document("/api/v1/grants", &give(json!(["prod", "staging"])), 201).await;
    assert_ne!(first["id"], anew["id"]);
    registry.check().await;
}

#[tokio::test]
async fn taking_back_the_right_to_approve_waits_for_decisions_and_taking_back_another_does_not() {
    let registry = Registry::start().await;
    let admin = registry.admin();
    let give = |role: &str| json!({"principal": "ann", "role": role, "repositories": "app"});
    let reader = admin.post_document("/api/v1/grants", &give("reader"), 201).await;
    let approver = admin.post_document("/api/v1/grants", &give("approver"), 201).await;
    let mut decision = registry.app.db.begin().await.unwrap();
    proofmark::postgres::Scopes::deciding(1, 1).lock(&mut decision).await.unwrap();
    expect(admin.delete(&format!("/api/v1/grants/{}", reader["id"])).send().await.unwrap(), 204).await;
    let waiting = tokio::spawn(admin.delete(&format!("/api/v1/grants/{}", approver["id"])).send());
    eventually("the right is taken back after the decision", async || {
        assert!(!waiting.is_finished(), "an approval stopped counting between a decision and its facts");
        somebody_waits_for_a_scope(&registry).await
    })
    .await;
    decision.commit().await.unwrap();
    expect(waiting.await.unwrap().unwrap(), 204).await;
    registry.check().await;
}

#[tokio::test]
async fn a_docker_token_says_what_it_was_made_for() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "team/*").await;
    assert_eq!(ci.document("/api/v1/whoami").await["narrowed_to"], json!(null));
    let path = "/auth/token?service=x&scope=repository:team/app:pull";
    let answer = registry.anyone().get(path).basic_auth("anything", ci.token()).send().await.unwrap();
    let document = expect(answer, 200).await;
    let narrowed = crate::harness::Client::new(&registry.url, document["token"].as_str().map(str::to_owned));
    let only = json!({"repositories": [{"repository": "team/app", "actions": ["pull"]}], "catalog": false});
    assert_eq!(narrowed.document("/api/v1/whoami").await["narrowed_to"], only);
    registry.check().await;
}

#[tokio::test]
async fn a_docker_token_ends_with_the_token_it_was_made_with() {
    let registry = Registry::start().await;
    let body = json!({"principal": "ci", "grants": [{"role": "reader"}], "expires_in_seconds": 40});
    let made = registry.admin().post_document("/api/v1/tokens", &body, 201).await;
    let (secret, end) = (made["token"].as_str().unwrap(), &made["expires_at"]);
    let end: chrono::DateTime<chrono::Utc> = serde_json::from_value(end.clone()).unwrap();
    let path = "/auth/token?service=x&scope=repository:team/app:pull";
    let answer = registry.anyone().get(path).basic_auth("x", Some(secret)).send().await.unwrap();
    let document = expect(answer, 200).await;
    assert!(document["expires_in"].as_i64().unwrap() <= 40, "{document}");
    let (app, docker) = (&registry.app, Secret::new(document["token"].as_str().unwrap()));
    assert!(DockerToken::read(&app.keys, &docker).unwrap().expires_at <= end);

    // Nor does one that says it lives longer.
    let (callers, here) = (Callers::new(60), IpAddr::from([127, 0, 0, 1]));
    let ci = callers.authenticate(&app.db, &app.keys, &Secret::new(secret), here).await.unwrap().unwrap();
    let endless = Caller { expires_at: None, ..ci };
    let longer = identity::issue(&app.keys, &endless, Requested::default(), app.config.token_life).unwrap();
    assert!(longer.expires_at > end);
    let caller =
        callers.authenticate(&app.db, &app.keys, &Secret::new(&longer.jwt), here).await.unwrap().unwrap();
    assert_eq!(caller.expires_at, Some(end));
    registry.check().await;
}

#[tokio::test]
async fn docker_tokens_are_looked_up_once_for_the_token_they_were_made_with() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Reader, "team/*").await;
    let (app, callers, here) = (&registry.app, Callers::new(60), IpAddr::from([127, 0, 0, 1]));
    let secret = Secret::new(ci.token().unwrap());
    let ci = callers.authenticate(&app.db, &app.keys, &secret, here).await.unwrap().unwrap();
    for whose in [ci, callers.anonymous(&app.db).await.unwrap()] {
        let mut looked_up = std::collections::BTreeSet::new();
        for scope in ["repository:team/a:pull", "repository:team/b:pull"] {
            let requested = Requested::parse([scope]).unwrap();
            let docker = identity::issue(&app.keys, &whose, requested, app.config.token_life).unwrap();
            let caller = callers.authenticate(&app.db, &app.keys, &Secret::new(&docker.jwt), here).await;
            looked_up.insert(caller.unwrap().unwrap().authority.bindings().as_ptr().addr());
        }
        assert_eq!(looked_up.len(), 1);
    }
    registry.check().await;
}

/// A request whose last byte is held back.
async fn held_back(registry: &Registry, line: &str, token: Option<&str>, kind: &str, body: &[u8]) -> Wire {
    let pieces = registry.app.document_room.free_pieces();
    let headers = format!("Content-Type: {kind}\r\nContent-Length: {}\r\n", body.len());
    let mut wire = Wire::begin(registry, line, token, &headers).await;
    wire.say(&body[..body.len() - 1]).await;
    eventually("its body is read", async || registry.app.document_room.free_pieces() < pieces).await;
    wire
}

#[tokio::test]
async fn who_loses_a_right_while_a_body_comes_is_refused_at_its_end() {
    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    let registry = Registry::start().await;
    let admin = registry.admin();
    let tokens =
        async || admin.document("/api/v1/tokens?limit=1000").await["items"].as_array().unwrap().clone();
    let successor = json!({"principal": "successor", "grants": [{"role": "admin"}]}).to_string();
    let make = "POST /api/v1/tokens";
    let leaving = registry.named("leaving", Role::Admin, "**", None).await;
    let pusher = registry.named("pusher", Role::Pusher, "team/*", None).await;
    let config = pusher.push_blob("team/app", b"{}").await;
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "layers": [],
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": 2}});
    let (manifest, push) = (manifest.to_string(), "PUT /v2/team/app/manifests/1.0");
    let json = "application/json";
    let mut revoked = held_back(&registry, make, leaving.token(), json, successor.as_bytes()).await;
    let mut taken_back = held_back(&registry, push, pusher.token(), MANIFEST, manifest.as_bytes()).await;
    let mut untouched = held_back(&registry, make, admin.token(), json, successor.as_bytes()).await;
    let id = tokens().await.iter().find(|token| token["principal"] == "leaving").unwrap()["id"].clone();
    let ended = admin.delete(&format!("/api/v1/tokens/{}", id.as_str().unwrap())).send().await.unwrap();
    assert_eq!(ended.status(), 204);
    let grants = admin.document("/api/v1/grants?limit=1000").await["items"].as_array().unwrap().clone();
    let grant = grants.iter().find(|grant| grant["principal"] == "pusher").unwrap()["id"].clone();
    assert_eq!(admin.delete(&format!("/api/v1/grants/{grant}")).send().await.unwrap().status(), 204);
    let count = tokens().await.len();
    for wire in [&mut revoked, &mut taken_back] {
        wire.say(b"}").await;
        let answer = wire.answer().await;
        assert!(answer.starts_with("HTTP/1.1 401 ") && answer.contains("send it again"), "{answer}");
    }
    assert_eq!(tokens().await.len(), count, "nothing was made");
    untouched.say(b"}").await;
    let answer = untouched.answer().await;
    assert!(answer.starts_with("HTTP/1.1 201 "), "others' rights are not its own: {answer}");
    registry.check().await;
}
