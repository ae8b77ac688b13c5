//! Pushing and deleting manifests: end-7a, end-7b, end-9.

use super::{code, refused, send};
use crate::harness::oci::{Document, IMAGE, INDEX, descriptor, refusal};
use crate::harness::{Client, Registry, header, sha512};
use proofmark::access::Role;
use proofmark::names::Digest;
use reqwest::Response;
use serde_json::{Value, json};

async fn pusher() -> (Registry, Client) {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    (registry, ci)
}

fn tags_of(answer: &Response) -> Vec<&str> {
    answer.headers().get_all("oci-tag").iter().map(|tag| tag.to_str().unwrap()).collect()
}

#[tokio::test]
async fn end_7a_a_manifest_is_taken_under_a_tag_and_under_its_digest() {
    let (registry, ci) = pusher().await;
    let document = Document::bytes(INDEX, b"{\n \"schemaVersion\": 2, \"manifests\": [ ]\n}\n".to_vec());
    for reference in ["1.0", &document.digest] {
        let pushed = ci.push("app", reference, &document).await;
        assert_eq!(pushed.status(), 201);
        assert_eq!(header(&pushed, "docker-content-digest"), document.digest);
        assert_eq!(header(&pushed, "oci-subject"), "", "it has no subject");
        let got = send(ci.get(&header(&pushed, "location"))).await;
        assert_eq!(got.bytes().await.unwrap(), document.body, "to the last space");
    }
    registry.check().await;
}

#[tokio::test]
async fn end_7a_a_subject_is_acknowledged_of_images_and_indexes_by_digest_and_by_tag() {
    let (registry, ci) = pusher().await;
    ci.push_blob("app", b"{}").await;
    let subject = Document::marked("absent").descriptor();
    let with_subject = |mut document: Value| {
        document["subject"] = subject.clone();
        Document::new(&document)
    };
    let config = descriptor("application/vnd.example.config", b"{}");
    let image = with_subject(json!({"schemaVersion": 2, "mediaType": IMAGE, "config": config, "layers": []}));
    let index = with_subject(json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}));
    for (tag, document) in [("image", image), ("index", index)] {
        for reference in [tag, &document.digest] {
            let pushed = ci.push("app", reference, &document).await;
            assert_eq!(pushed.status(), 201, "the subject need not be there");
            assert_eq!(header(&pushed, "oci-subject"), subject["digest"].as_str().unwrap());
        }
    }
    registry.check().await;
}

#[tokio::test]
async fn end_7a_what_is_no_manifest_of_that_digest_is_refused() {
    let (registry, ci) = pusher().await;
    let document = Document::marked(1);
    let put = |reference: &str, body: &[u8]| {
        let request = ci.put(&format!("/v2/app/manifests/{reference}")).header("content-type", INDEX);
        request.body(body.to_vec())
    };
    assert_eq!(refused(put(&Document::marked(2).digest, &document.body)).await, code(400, "DIGEST_INVALID"));
    assert_eq!(refused(put("sha256:short", &document.body)).await, code(400, "DIGEST_INVALID"));
    assert_eq!(refused(put("1.0", b"{")).await, code(400, "MANIFEST_INVALID"));
    assert_eq!(refused(put("not%20a%20tag", &document.body)).await, code(400, "MANIFEST_INVALID"));
    let of_absent = Document::index(&[&Document::marked("absent")]);
    assert_eq!(refused(put("1.0", &of_absent.body)).await, code(404, "MANIFEST_BLOB_UNKNOWN"));
    let large = vec![b' '; (16 << 20) + 1];
    assert_eq!(refused(put("1.0", &large)).await, code(413, "SIZE_INVALID"));
    assert_eq!(refused(ci.get("/v2/app/manifests/1.0")).await.0, 404);
    registry.check().await;
}

#[tokio::test]
async fn end_7a_a_manifest_is_served_under_the_algorithm_it_was_pushed_by() {
    let (registry, ci) = pusher().await;
    let document = Document::marked("twice");
    let long = sha512(&document.body);
    ci.pushes("app", long.as_ref(), &document).await;
    let got = send(ci.get(&format!("/v2/app/manifests/{long}"))).await;
    assert_eq!(header(&got, "docker-content-digest"), long.to_string());
    ci.pushes("app", &document.digest, &document).await;
    for digest in [&document.digest, &long.to_string()] {
        assert_eq!(ci.digest_of("app", digest).await.as_ref(), Some(digest));
    }
    registry.check().await;
}

#[tokio::test]
async fn end_7b_one_push_gives_several_tags_and_the_answer_names_each() {
    let (registry, ci) = pusher().await;
    let document = Document::marked(1);
    let by_digest = ci.push("app", &format!("{}?tag=1.0&tag=1.0.0&tag=1", document.digest), &document).await;
    assert_eq!(by_digest.status(), 201);
    assert_eq!(tags_of(&by_digest), ["1", "1.0", "1.0.0"]);
    let by_tag = ci.push("app", "1.0?tag=stable", &document).await;
    assert_eq!(tags_of(&by_tag), ["1.0", "stable"]);
    for tag in ["1", "1.0", "1.0.0", "stable"] {
        assert_eq!(ci.digest_of("app", tag).await.as_deref(), Some(&*document.digest));
    }
    let plain = ci.push("app", &document.digest, &document).await;
    assert!(tags_of(&plain).is_empty());

    let at_least_ten: Vec<String> = (0..10).map(|n| format!("tag=t{n}")).collect();
    let many = ci.push("app", &format!("{}?{}", document.digest, at_least_ten.join("&")), &document).await;
    assert_eq!(tags_of(&many).len(), 10);
    let malformed = ci.push("app", &format!("{}?tag=good&tag=-bad", document.digest), &document).await;
    assert_eq!(refusal(malformed).await.0, 400);
    assert_eq!(ci.digest_of("app", "good").await, None, "all of them or none");
    registry.check().await;
}

#[tokio::test]
async fn end_7b_every_tag_of_a_push_is_write_once() {
    let (registry, ci) = pusher().await;
    let (one, two) = (Document::marked(1), Document::marked(2));
    ci.pushes("app", "1.0", &one).await;
    let taken = ci.push("app", &format!("{}?tag=0.9&tag=1.0&tag=2.0", two.digest), &two).await;
    let (status, error) = refusal(taken).await;
    assert_eq!((status, error["code"].as_str()), (409, Some("DENIED")));
    assert_eq!((&error["detail"]["tag"], &error["detail"]["current"]), (&json!("1.0"), &json!(one.digest)));
    for free in ["0.9", "2.0", &two.digest] {
        assert_eq!(ci.digest_of("app", free).await, None, "{free}");
    }
    assert_eq!(ci.digest_of("app", "1.0").await, Some(one.digest.clone()));
    let same = ci.push("app", &format!("{}?tag=1.0&tag=1.1", one.digest), &one).await;
    assert_eq!(tags_of(&same), ["1.0", "1.1"], "the same digest again succeeds");
    registry.check().await;
}

#[tokio::test]
async fn end_9_a_deleted_tag_is_gone_for_the_next_request_and_its_manifest_stays() {
    let (registry, ci) = pusher().await;
    let admin = registry.admin();
    let document = Document::marked(1);
    let floating = format!("sha256-{}", "f".repeat(64));
    ci.pushes("app", &format!("{}?tag=1.0&tag={floating}", document.digest), &document).await;
    assert_eq!(refused(ci.delete("/v2/app/manifests/1.0")).await, code(401, "UNAUTHORIZED"));
    for tag in ["1.0", floating.as_str()] {
        assert_eq!(admin.deletes("app", tag).await, 202);
        assert_eq!(ci.digest_of("app", tag).await, None);
        let path = format!("/v2/app/manifests/{tag}");
        assert_eq!(refused(admin.delete(&path)).await, code(404, "MANIFEST_UNKNOWN"));
    }
    assert_eq!(ci.document("/v2/app/tags/list").await["tags"], json!([]));
    assert_eq!(ci.digest_of("app", &document.digest).await, Some(document.digest.clone()));
    registry.check().await;
}

#[tokio::test]
async fn end_9_a_deleted_manifest_ends_its_tags_and_is_no_referrer_any_more() {
    let (registry, ci) = pusher().await;
    let admin = registry.admin();
    let (subject, kept) = (Document::marked("subject"), Document::marked("kept"));
    let note = subject.referrer("application/vnd.note");
    ci.pushes("app", "kept", &kept).await;
    ci.pushes("app", "note", &note).await;
    assert_eq!(admin.deletes("app", &note.digest).await, 202);
    for reference in ["note", &note.digest] {
        assert_eq!(ci.digest_of("app", reference).await, None);
    }
    assert_eq!(ci.document("/v2/app/tags/list").await["tags"], json!(["kept"]));
    let referrers = ci.document(&format!("/v2/app/referrers/{}", subject.digest)).await;
    assert_eq!(referrers["manifests"], json!([]));
    let absent = Digest::sha256(b"absent");
    let path = format!("/v2/app/manifests/{absent}");
    assert_eq!(refused(admin.delete(&path)).await, code(404, "MANIFEST_UNKNOWN"));
    ci.pushes("app", &note.digest, &note).await;
    assert_eq!(ci.digest_of("app", &note.digest).await, Some(note.digest.clone()), "it may come back");
    registry.check().await;
}
