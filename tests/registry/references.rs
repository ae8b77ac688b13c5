//! References: verify takes what a cluster and its tools have, and says what it is about.

use crate::harness::{Client, Registry, expect};
use proofmark::access::Role;
use proofmark::names::Digest;
use serde_json::{Value, json};

struct Scene {
    registry: Registry,
    builder: Client,
    promoter: Client,
    deployer: Client,
    host: String,
}

async fn scene() -> Scene {
    let registry = Registry::with(|settings| {
        settings.aliases = Some("mirror.internal:5000, cache".into());
    })
    .await;
    let builder = registry.client(Role::Pusher, "**").await;
    let promoter = registry.client(Role::Promoter, "**").await;
    let deployer = registry.client(Role::Deployer, "**").await;
    registry.environment("live", "").await;
    registry.environment("test", "").await;
    let host = registry.url.trim_start_matches("http://").to_owned();
    Scene { registry, builder, promoter, deployer, host }
}

impl Scene {
    async fn promoted(&self, repository: &str, version: &str, content: &str) -> Digest {
        let digest = self.builder.push_release(repository, version, content).await;
        expect(self.promoter.promote(repository, &digest, "live").await, 201).await;
        digest
    }

    async fn verify(&self, body: Value) -> Value {
        self.deployer.post_document("/api/v1/verify", &body, 200).await
    }

    async fn reference(&self, reference: &str) -> Value {
        self.verify(json!({"environment": "live", "reference": reference})).await
    }
}

#[tokio::test]
async fn a_reference_is_read_behind_the_schemes_and_hosts_of_its_users() {
    let scene = scene().await;
    let digest = scene.promoted("shop/cart", "2.0", "cart").await;
    for scheme in ["", "docker-pullable://", "docker://", "oci://", "https://", "http://"] {
        for host in [&format!("{}/", scene.host), "mirror.internal:5000/", "cache/", ""] {
            let reference = format!("{scheme}{host}shop/cart:2.0@{digest}");
            let answer = scene.reference(&reference).await;
            assert_eq!(answer["verdict"], "allow", "{reference}: {answer}");
            assert_eq!(answer["repository"], "shop/cart");
        }
    }
    let body = json!({"environment": "live", "reference": format!("containerd://{digest}")});
    let refused = scene.deployer.post_document("/api/v1/verify", &body, 400).await;
    assert!(refused["detail"].as_str().unwrap().contains("containerd://"), "{refused}");
    scene.registry.check().await;
}

#[tokio::test]
async fn what_another_registry_has_is_denied_by_name() {
    let scene = scene().await;
    for (reference, host) in [
        ("quay.io/prometheus/node-exporter:v1.8", "quay.io"),
        ("docker-pullable://mirror.internal:5001/x@sha256:00", "mirror.internal:5001"),
        ("localhost/x:1", "localhost"),
    ] {
        let answer = scene.reference(reference).await;
        assert_eq!((&answer["verdict"], &answer["gates"][0]["gate"]), (&json!("deny"), &json!("registry")));
        assert!(answer["reasons"][0].as_str().unwrap().contains(host), "{answer}");
        assert_eq!((&answer["repository"], &answer["digest"]), (&Value::Null, &Value::Null));
    }
    let test_only = scene.registry.named("tester", Role::Deployer, "**", Some(&["test"])).await;
    let body = json!({"environment": "live", "reference": "quay.io/x:1"});
    test_only.post_document("/api/v1/verify", &body, 404).await;
    scene.registry.check().await;
}

#[tokio::test]
async fn a_name_in_an_environments_view_is_verified_as_the_view_serves_it() {
    let scene = scene().await;
    let first = scene.promoted("shop/cart", "2.0", "first").await;
    let second = scene.promoted("shop/cart", "2.1", "second").await;
    let current = format!("{}/env/live/shop/cart:current", scene.host);
    let answer = scene.verify(json!({"reference": current})).await;
    assert_eq!((&answer["verdict"], &answer["digest"]), (&json!("allow"), &json!(second)));
    assert_eq!(scene.reference("env/live/shop/cart:2.0").await["digest"], json!(first));
    let by_digest = scene.reference(&format!("env/live/shop/cart@{first}")).await;
    assert_eq!((&by_digest["verdict"], &by_digest["version"]), (&json!("allow"), &json!("2.0")));

    scene.promoter.block("shop/cart", &second, None).await;
    assert_eq!(scene.reference(&current).await["digest"], json!(first));
    scene.promoter.block("shop/cart", &first, None).await;
    let none = scene.reference(&current).await;
    assert_eq!(none["verdict"], "deny");
    assert!(none["reasons"][0].as_str().unwrap().contains("it corrupts data"), "{none}");
    let unknown = scene.reference("env/live/shop/other:current").await;
    assert!(unknown["reasons"][0].as_str().unwrap().contains("nothing of shop/other was promoted"));

    for body in [
        json!({"environment": "test", "reference": current}),
        json!({"reference": "shop/cart:2.0"}),
        json!({"environment": "live", "reference": "env/live:2.0"}),
        json!({"environment": "live", "reference": current, "digest": first}),
    ] {
        scene.deployer.post_document("/api/v1/verify", &body, 400).await;
    }
    scene.registry.check().await;
}

#[tokio::test]
async fn a_digest_alone_is_verified_in_every_repository_that_the_caller_may_pull_from() {
    let scene = scene().await;
    let digest = scene.builder.push_release("aside/cart", "1", "same bytes").await;
    let again = scene.builder.push_release("shop/cart", "2.0", "same bytes").await;
    assert_eq!(digest, again);
    let ask = async |client: &Client| {
        let body = json!({"environment": "live", "digest": digest});
        client.post_document("/api/v1/verify", &body, 200).await
    };
    let never = ask(&scene.deployer).await;
    assert_eq!((&never["verdict"], &never["repository"]), (&json!("deny"), &Value::Null));
    let other = scene.promoted("aside/cart", "2", "other bytes").await;
    expect(scene.promoter.promote("shop/cart", &digest, "live").await, 201).await;
    let allowed = ask(&scene.deployer).await;
    assert_eq!((&allowed["verdict"], &allowed["repository"]), (&json!("allow"), &json!("shop/cart")));
    assert_eq!(scene.reference(&format!("docker://{digest}")).await["repository"], "shop/cart");
    let elsewhere = scene.registry.named("aside", Role::Deployer, "aside/**", Some(&["live"])).await;
    let hidden = ask(&elsewhere).await;
    assert_eq!((&hidden["verdict"], &hidden["repository"]), (&json!("deny"), &json!("aside/cart")));
    assert!(!hidden.to_string().contains("shop"), "{hidden}");

    scene.promoter.block("shop/cart", &digest, None).await;
    let blocked = ask(&scene.deployer).await;
    assert_eq!((&blocked["verdict"], &blocked["repository"]), (&json!("deny"), &json!("shop/cart")));
    assert_eq!(scene.reference(other.as_str()).await["repository"], "aside/cart");
    scene.registry.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_takes_the_references_that_the_service_takes() {
    let scene = scene().await;
    let digest = scene.promoted("shop/cart", "2.0", "cart").await;
    let admin = scene.registry.shell(Some(scene.registry.admin_token())).await;
    for subject in [
        "shop/cart:2.0".to_owned(),
        format!("docker-pullable://{}/shop/cart@{digest}", scene.host),
        "mirror.internal:5000/shop/cart:2.0".to_owned(),
        digest.to_string(),
    ] {
        let said = admin.yes(&["verify", &subject, "-e", "live"]).await;
        assert!(said.contains(&format!("shop/cart@{digest} may run in live")), "{subject}: {said}");
    }
    let view = format!("{}/env/live/shop/cart:current", scene.host);
    assert!(admin.yes(&["verify", &view]).await.contains("may run"));
    let unnamed = admin.run(&["verify", "shop/cart:2.0"]).await;
    assert!(unnamed.code == 2 && unnamed.err.contains("environment"), "{}", unnamed.err);
    let foreign = admin.run(&["verify", "ghcr.io/x/y:1", "-e", "live"]).await;
    assert!(foreign.code == 1 && foreign.err.contains("ghcr.io is another registry"), "{}", foreign.err);
    scene.registry.check().await;
}
