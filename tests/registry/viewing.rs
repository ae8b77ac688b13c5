//! Viewing: an environment as a repository, for clients that speak only OCI. Judged at each asking,
//! writing nothing.

use crate::harness::oci::{Document, refusal};
use crate::harness::{Client, Registry, expect, header, sha512};
use proofmark::access::Role;
use proofmark::names::Digest;
use serde_json::{Value, json};

struct Scene {
    registry: Registry,
    builder: Client,
    promoter: Client,
    deployer: Client,
}

async fn scene() -> Scene {
    let registry = Registry::start().await;
    let builder = registry.client(Role::Pusher, "**").await;
    let promoter = registry.client(Role::Promoter, "**").await;
    let deployer = registry.client(Role::Deployer, "**").await;
    registry.environment("prod", "").await;
    Scene { registry, builder, promoter, deployer }
}

impl Scene {
    async fn promote(&self, digest: &Digest) {
        expect(self.promoter.promote("team/app", digest, "prod").await, 201).await;
    }

    async fn promoted(&self, version: &str) -> Digest {
        let digest = self.builder.push_release("team/app", version, version).await;
        self.promote(&digest).await;
        digest
    }

    /// What the view answers for a reference: its digest, or the refusal's message.
    async fn seen(&self, reference: &str) -> Result<Digest, String> {
        let path = format!("/v2/env/prod/team/app/manifests/{reference}");
        let answer = self.deployer.get(&path).send().await.unwrap();
        if answer.status() == 200 {
            return Ok(header(&answer, "docker-content-digest").parse().unwrap());
        }
        let (status, error) = refusal(answer).await;
        assert_eq!((status, error["code"].as_str()), (404, Some("MANIFEST_UNKNOWN")));
        Err(error["message"].as_str().unwrap().to_owned())
    }

    async fn tags(&self) -> Value {
        self.deployer.document("/v2/env/prod/team/app/tags/list").await["tags"].clone()
    }
}

#[tokio::test]
async fn the_tag_current_of_a_view_follows_promotion_and_blocks() {
    let scene = scene().await;
    let pushed = scene.builder.push_release("team/app", "0.9", "only pushed").await;
    assert!(scene.seen("current").await.unwrap_err().contains("never promoted"));
    assert_eq!(scene.tags().await, json!([]));
    let first = scene.promoted("1.0").await;
    assert_eq!(scene.seen("current").await, Ok(first.clone()));
    let second = scene.promoted("1.1").await;
    assert_eq!(scene.seen("current").await, Ok(second.clone()));
    assert_eq!(scene.seen("1.0").await, Ok(first.clone()));
    assert_eq!(scene.tags().await, json!(["1.0", "1.1", "current"]));
    for not_there in ["0.9", pushed.as_ref(), "2.0"] {
        assert!(scene.seen(not_there).await.unwrap_err().contains("never promoted"), "{not_there}");
    }
    let before: i64 = sqlx::query_scalar("select count(*) from events")
        .fetch_one(&mut *scene.registry.sql().await)
        .await
        .unwrap();

    scene.promoter.block("team/app", &second, Some("prod")).await;
    assert_eq!(scene.seen("current").await, Ok(first.clone()), "a block counts for the next question");
    for blocked in ["1.1", second.as_ref()] {
        assert!(scene.seen(blocked).await.unwrap_err().contains("it corrupts data"), "{blocked}");
    }
    assert_eq!(scene.tags().await, json!(["1.0", "current"]));
    let head = scene.deployer.head("/v2/env/prod/team/app/manifests/1.1").send().await.unwrap();
    assert_eq!(head.status(), 404, "a HEAD is judged too");
    let after: i64 = sqlx::query_scalar("select count(*) from events")
        .fetch_one(&mut *scene.registry.sql().await)
        .await
        .unwrap();
    assert_eq!(after, before + 1, "the block is an event, and asking is none");
    scene.registry.check().await;
}

#[tokio::test]
async fn a_view_has_what_a_release_is_made_of_and_what_speaks_of_it() {
    let scene = scene().await;
    let (one, two) = (
        scene.builder.push_release("team/app", "one", "for amd64").await,
        scene.builder.push_release("team/app", "two", "for arm64").await,
    );
    let index =
        scene.builder.push_index("team/app", "1.0", &[(&one, "linux/amd64"), (&two, "linux/arm64")]).await;
    let other = scene.builder.push_release("team/app", "2.0", "not promoted").await;
    let body = scene.builder.get(&format!("/v2/team/app/manifests/{index}")).send().await.unwrap();
    let body = Document::bytes(crate::harness::oci::INDEX, body.bytes().await.unwrap().to_vec());
    let note = body.referrer("application/vnd.note");
    scene.builder.pushes("team/app", &note.digest, &note).await;
    scene.promote(&index).await;

    for shown in [&index, &one, &two, &note.digest.parse().unwrap()] {
        assert_eq!(scene.seen(shown.as_ref()).await, Ok(shown.clone()));
    }
    let by_sha512 = sha512(&body.body);
    assert_eq!(scene.seen(by_sha512.as_ref()).await, Ok(by_sha512.clone()), "by either digest of its bytes");
    let layer = Digest::sha256(b"for arm64");
    assert_eq!(scene.deployer.pull_blob("env/prod/team/app", &layer).await, b"for arm64");
    assert_eq!(scene.deployer.head_blob("env/prod/team/app", &layer).await, 200);
    let part =
        scene.deployer.get(&format!("/v2/env/prod/team/app/blobs/{layer}")).header("range", "bytes=4-");
    assert_eq!(part.send().await.unwrap().bytes().await.unwrap(), &b"for arm64"[4..]);
    assert_eq!(scene.deployer.head_blob("env/prod/team/app", &Digest::sha256(b"not promoted")).await, 404);

    let referrers = format!("/v2/env/prod/team/app/referrers/{index}");
    assert_eq!(scene.deployer.document(&referrers).await["manifests"][0]["digest"], json!(note.digest));
    let of_other = format!("/v2/env/prod/team/app/referrers/{other}");
    assert_eq!(scene.deployer.document(&of_other).await["manifests"], json!([]));

    // What could run is no note, whatever it refers to: it is not in the view, nor are its layers.
    let mut image: Value = scene.builder.document(&format!("/v2/team/app/manifests/{other}")).await;
    image["subject"] = body.descriptor();
    let image = Document::new(&image);
    scene.builder.pushes("team/app", &image.digest, &image).await;
    assert!(scene.seen(&image.digest).await.is_err());
    assert_eq!(scene.deployer.head_blob("env/prod/team/app", &Digest::sha256(b"not promoted")).await, 404);
    let list = Document::new(&json!({"schemaVersion": 2, "mediaType": crate::harness::oci::INDEX,
        "manifests": [image.descriptor()], "subject": body.descriptor()}));
    scene.builder.pushes("team/app", &list.digest, &list).await;
    for hidden in [&image, &list] {
        assert!(scene.seen(&hidden.digest).await.is_err());
    }
    // A tag at something that only refers to a release is no version that was promoted.
    scene.builder.pushes("team/app", "sneaks-in", &note).await;
    assert!(scene.seen("sneaks-in").await.is_err());
    scene.promoter.block("team/app", &two, None).await;
    assert_eq!(scene.seen(one.as_ref()).await, Ok(one.clone()), "its platform is not the blocked one");
    assert!(scene.seen(two.as_ref()).await.is_err());
    scene.registry.check().await;
}

#[tokio::test]
async fn nothing_is_pushed_to_a_view_or_deleted_from_it() {
    let scene = scene().await;
    let digest = scene.promoted("1.0").await;
    let admin = scene.registry.admin();
    let view = "/v2/env/prod/team/app";
    for request in [
        admin.put(&format!("{view}/manifests/1.1")).body("{}"),
        admin.delete(&format!("{view}/manifests/{digest}")),
        admin.post(&format!("{view}/blobs/uploads/")),
        admin.get(&format!("{view}/blobs/uploads/{}", uuid::Uuid::nil())),
        admin.delete(&format!("{view}/blobs/{digest}")),
    ] {
        let (status, error) = refusal(request.send().await.unwrap()).await;
        assert_eq!((status, error["code"].as_str()), (405, Some("UNSUPPORTED")));
    }
    scene.registry.check().await;
}

#[tokio::test]
async fn the_tags_of_a_view_come_in_pages() {
    let scene = scene().await;
    for version in ["a", "b", "d", "e"] {
        scene.promoted(version).await;
    }
    let mut seen: Vec<Value> = Vec::new();
    let mut path = "/v2/env/prod/team/app/tags/list?n=2".to_owned();
    loop {
        let answer = scene.deployer.get(&path).send().await.unwrap();
        let link = header(&answer, "link");
        let document = expect(answer, 200).await;
        assert_eq!(document["name"], "env/prod/team/app");
        seen.extend(document["tags"].as_array().unwrap().clone());
        let Some(next) = link.strip_prefix('<').and_then(|rest| rest.strip_suffix(">; rel=\"next\"")) else {
            break;
        };
        path = next.to_owned();
    }
    assert_eq!(json!(seen), json!(["a", "b", "current", "d", "e"]));
    assert_eq!(
        scene.deployer.document("/v2/env/prod/team/app/tags/list?last=current").await["tags"],
        json!(["d", "e"])
    );
    scene.registry.check().await;
}

#[tokio::test]
async fn a_view_is_opened_by_its_own_scope_and_only_where_the_caller_has_a_role() {
    let scene = scene().await;
    scene.registry.environment("staging", "").await;
    let digest = scene.promoted("1.0").await;
    let path = "/v2/env/prod/team/app/manifests/current";
    let anyone = scene.registry.anyone();
    let refused = anyone.get(path).send().await.unwrap();
    assert!(header(&refused, "www-authenticate").contains(r#"scope="repository:env/prod/team/app:pull""#));
    assert_eq!(refused.status(), 401);

    let scope = "repository:env/prod/team/app:pull";
    let token = scene.deployer.document(&format!("/auth/token?service=x&scope={scope}")).await;
    let bearer = Client::new(&scene.registry.url, Some(token["token"].as_str().unwrap().to_owned()));
    assert_eq!(bearer.digest_of("env/prod/team/app", "current").await, Some(digest.to_string()));
    for beyond in ["/v2/team/app/manifests/1.0", "/v2/env/staging/team/app/manifests/current"] {
        assert_eq!(bearer.get(beyond).send().await.unwrap().status(), 401, "{beyond}");
    }
    let only_staging = scene.registry.named("stage", Role::Deployer, "**", Some(&["staging"])).await;
    assert_eq!(only_staging.get(path).send().await.unwrap().status(), 401);
    let nothing_there = only_staging.get("/v2/env/staging/team/app/manifests/current").send().await.unwrap();
    assert_eq!(nothing_there.status(), 404);
    let outsider = scene.registry.client(Role::Deployer, "mine/**").await;
    assert_eq!(outsider.get(path).send().await.unwrap().status(), 401);
    scene.registry.check().await;
}
