//! Pulling: end-1, end-2, end-3.

use super::{code, refused, send};
use crate::harness::oci::{Document, IMAGE, INDEX, descriptor};
use crate::harness::{Registry, header, noise, sha256, sha512};
use proofmark::access::Role;
use serde_json::json;

#[tokio::test]
async fn end_1_the_base_is_200_for_who_is_known_and_a_challenge_for_who_is_not() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Reader, "**").await;
    for path in ["/v2/", "/v2"] {
        let known = send(ci.get(path)).await;
        assert_eq!(known.status(), 200);
        assert_eq!(header(&known, "docker-distribution-api-version"), "registry/2.0");
        let unknown = send(registry.anyone().get(path)).await;
        assert!(header(&unknown, "www-authenticate").starts_with("Bearer realm=\""));
        assert_eq!(unknown.status(), 401);
    }
    assert_eq!(refused(registry.anyone().get("/v2/")).await, code(401, "UNAUTHORIZED"));
    assert_eq!(refused(ci.post("/v2/")).await, code(405, "UNSUPPORTED"));
    registry.check().await;
}

#[tokio::test]
async fn end_2_get_and_head_say_the_same_of_a_blob() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    for length in [0, 100, 200_000] {
        let bytes = noise(1, length);
        let digest = ci.push_blob("team/app", &bytes).await;
        let path = format!("/v2/team/app/blobs/{digest}");
        let (get, head) = (send(ci.get(&path)).await, send(ci.head(&path)).await);
        for answer in [&get, &head] {
            assert_eq!(answer.status(), 200);
            assert_eq!(header(answer, "content-length"), length.to_string());
            assert_eq!(header(answer, "docker-content-digest"), digest.to_string());
            assert_eq!(header(answer, "accept-ranges"), "bytes");
        }
        assert_eq!(get.bytes().await.unwrap(), bytes);
    }
    let absent = format!("/v2/team/app/blobs/{}", sha256(b"absent"));
    assert_eq!(refused(ci.get(&absent)).await, code(404, "BLOB_UNKNOWN"));
    let head = send(ci.head(&absent)).await;
    assert_eq!(head.status(), 404);
    assert_eq!(refused(ci.get("/v2/none/blobs/sha256:00")).await, code(400, "DIGEST_INVALID"));
    let elsewhere = format!("/v2/other/blobs/{}", sha256(&noise(1, 100)));
    assert_eq!(refused(ci.get(&elsewhere)).await, code(404, "BLOB_UNKNOWN"), "a blob is of its repository");
    registry.check().await;
}

#[tokio::test]
async fn end_2_no_encoding_is_laid_over_a_blob() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    let bytes = vec![b'a'; 300_000];
    let digest = ci.push_blob("app", &bytes).await;
    // As containerd asks.
    let request = ci.get(&format!("/v2/app/blobs/{digest}")).header("accept-encoding", "zstd,gzip");
    let answer = send(request).await;
    assert_eq!(header(&answer, "content-encoding"), "");
    assert_eq!(answer.bytes().await.unwrap(), bytes);
    registry.check().await;
}

#[tokio::test]
async fn end_3_a_manifest_is_found_by_tag_and_by_digest_with_the_type_it_was_pushed_with() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    ci.push_blob("app", b"{}").await;
    let config = descriptor("application/vnd.docker.container.image.v1+json", b"{}");
    let docker = "application/vnd.docker.distribution.manifest.v2+json";
    let of_docker =
        Document::new(&json!({"schemaVersion": 2, "mediaType": docker, "config": config, "layers": []}));
    let of_oci =
        Document::new(&json!({"schemaVersion": 2, "mediaType": IMAGE, "config": config, "layers": []}));
    // An OCI manifest may leave its media type to the header.
    let untyped = Document::bytes(
        IMAGE,
        json!({"schemaVersion": 2, "config": config, "layers": []}).to_string().into_bytes(),
    );
    for (tag, document) in [("docker", of_docker), ("oci", of_oci), ("untyped", untyped)] {
        ci.pushes("app", tag, &document).await;
        for reference in [tag, &document.digest] {
            let path = format!("/v2/app/manifests/{reference}");
            // skopeo sends each type in a line of its own; some clients send none, or others.
            let mut many = ci.get(&path);
            for accept in [INDEX, IMAGE, docker] {
                many = many.header("accept", accept);
            }
            for request in [many, ci.get(&path), ci.get(&path).header("accept", "application/x-other")] {
                let answer = send(request).await;
                assert_eq!(header(&answer, "content-type"), document.media_type);
                assert_eq!(header(&answer, "docker-content-digest"), document.digest);
                assert_eq!(header(&answer, "content-length"), document.body.len().to_string());
                assert_eq!(answer.bytes().await.unwrap(), document.body);
            }
            let head = send(ci.head(&path)).await;
            assert_eq!(header(&head, "content-type"), document.media_type);
            assert_eq!(header(&head, "content-length"), document.body.len().to_string());
        }
    }
    registry.check().await;
}

#[tokio::test]
async fn end_3_what_is_not_there_is_manifest_unknown_and_what_is_no_digest_is_invalid() {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    ci.pushes("app", "1.0", &Document::marked(1)).await;
    for path in [
        format!("app/manifests/{}", sha256(b"absent")),
        format!("app/manifests/{}", sha512(b"absent")),
        "app/manifests/2.0".to_owned(),
        "none/manifests/1.0".to_owned(),
    ] {
        assert_eq!(refused(ci.get(&format!("/v2/{path}"))).await, code(404, "MANIFEST_UNKNOWN"), "{path}");
        assert_eq!(send(ci.head(&format!("/v2/{path}"))).await.status(), 404);
    }
    for malformed in ["sha256:abc", "md5:d41d8cd98f00b204e9800998ecf8427e", "sha256:"] {
        let path = format!("/v2/app/manifests/{malformed}");
        assert_eq!(refused(ci.get(&path)).await, code(400, "DIGEST_INVALID"), "{malformed}");
    }
    assert_eq!(refused(ci.get("/v2/UPPER/manifests/1.0")).await, code(400, "NAME_INVALID"));
    registry.check().await;
}
