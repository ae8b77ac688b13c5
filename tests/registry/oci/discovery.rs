//! Discovering: end-8a, end-8b, end-12a, end-12b.

use super::{code, refused, send};
use crate::harness::oci::{Document, IMAGE, INDEX, descriptor};
use crate::harness::{Client, Registry, expect, header, sha256, sha512};
use proofmark::access::Role;
use serde_json::{Value, json};

async fn pusher() -> (Registry, Client) {
    let registry = Registry::start().await;
    let ci = registry.client(Role::Pusher, "**").await;
    (registry, ci)
}

/// What a `Link` names as the next page.
fn next(answer: &reqwest::Response) -> Option<String> {
    let link = header(answer, "link");
    Some(link.strip_prefix('<')?.strip_suffix(">; rel=\"next\"")?.to_owned())
}

#[tokio::test]
async fn end_8a_tags_are_listed_in_the_order_of_their_bytes() {
    let (registry, ci) = pusher().await;
    for tag in ["b", "a", "B", "_", "1.10", "1.9", "a.b", "a-b"] {
        ci.pushes("app", tag, &Document::marked(tag)).await;
    }
    let listed = send(ci.get("/v2/app/tags/list")).await;
    assert_eq!(header(&listed, "content-type"), "application/json");
    assert!(next(&listed).is_none(), "a short list is whole");
    let tags = json!(["1.10", "1.9", "B", "_", "a", "a-b", "a.b", "b"]);
    assert_eq!(expect(listed, 200).await, json!({"name": "app", "tags": tags}));
    assert_eq!(refused(ci.get("/v2/none/tags/list")).await, code(404, "NAME_UNKNOWN"));
    registry.check().await;
}

#[tokio::test]
async fn end_8b_pages_are_linked_and_n_and_last_work_alone() {
    let (registry, ci) = pusher().await;
    let names: Vec<String> = (0..7).map(|n| format!("t{n}")).collect();
    let query: Vec<String> = names.iter().map(|name| format!("tag={name}")).collect();
    let document = Document::marked(1);
    ci.pushes("app", &format!("{}?{}", document.digest, query.join("&")), &document).await;
    for n in [1, 3, 7, 100] {
        let (mut seen, mut path): (Vec<Value>, _) = (Vec::new(), Some(format!("/v2/app/tags/list?n={n}")));
        while let Some(asked) = path {
            let answer = send(ci.get(&asked)).await;
            path = next(&answer);
            let page = expect(answer, 200).await["tags"].as_array().unwrap().clone();
            assert!(page.len() <= n && !page.is_empty());
            seen.extend(page);
        }
        assert_eq!(json!(seen), json!(names), "n={n}");
    }
    let alone = ci.document("/v2/app/tags/list?last=t4").await;
    assert_eq!(alone["tags"], json!(["t5", "t6"]));
    assert_eq!(ci.document("/v2/app/tags/list?last=t45").await["tags"], json!(["t5", "t6"]), "no tag itself");
    assert_eq!(ci.document("/v2/app/tags/list?n=2&last=t6").await["tags"], json!([]));
    let none = send(ci.get("/v2/app/tags/list?n=0")).await;
    assert!(next(&none).is_none());
    assert_eq!(expect(none, 200).await["tags"], json!([]));
    assert_eq!(refused(ci.get("/v2/app/tags/list?n=-1")).await.0, 400);
    registry.check().await;
}

#[tokio::test]
async fn end_12a_referrers_are_always_an_index() {
    let (registry, ci) = pusher().await;
    for digest in [sha256(b"absent").to_string(), sha512(b"absent").to_string()] {
        let listed = send(ci.get(&format!("/v2/none/referrers/{digest}"))).await;
        assert_eq!(header(&listed, "content-type"), INDEX);
        assert_eq!(header(&listed, "oci-filters-applied"), "", "nothing was filtered");
        let listed = expect(listed, 200).await;
        assert_eq!(listed, json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}));
    }
    assert_eq!(refused(ci.get("/v2/app/referrers/1.0")).await, code(400, "DIGEST_INVALID"));
    registry.check().await;
}

#[tokio::test]
async fn end_12a_a_descriptor_says_what_the_referrer_says_of_itself() {
    let (registry, ci) = pusher().await;
    ci.push_blob("app", b"{}").await;
    let subject = Document::marked("subject");
    let image = |artifact_type: Option<&str>, config: &str| {
        let mut image = json!({"schemaVersion": 2, "mediaType": IMAGE, "layers": [],
            "config": descriptor(config, b"{}"), "subject": subject.descriptor(),
            "annotations": {"org.example": config}});
        if let Some(artifact_type) = artifact_type {
            image["artifactType"] = json!(artifact_type);
        }
        Document::new(&image)
    };
    let typed = image(Some("application/vnd.typed"), "application/vnd.oci.empty.v1+json");
    let by_config = image(None, "application/vnd.config");
    let plain = Document::new(&json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [],
                                      "subject": subject.descriptor()}));
    for document in [&typed, &by_config, &plain] {
        ci.pushes("app", &document.digest, document).await;
    }
    let mut expected = [typed.descriptor(), by_config.descriptor(), plain.descriptor()];
    expected[0]["artifactType"] = json!("application/vnd.typed");
    expected[0]["annotations"] = json!({"org.example": "application/vnd.oci.empty.v1+json"});
    expected[1]["artifactType"] = json!("application/vnd.config");
    expected[1]["annotations"] = json!({"org.example": "application/vnd.config"});
    let listed = ci.document(&format!("/v2/app/referrers/{}", subject.digest)).await;
    let listed = listed["manifests"].as_array().unwrap().clone();
    assert_eq!(listed.len(), 3);
    for descriptor in expected {
        assert!(listed.contains(&descriptor), "{descriptor} is not in {listed:?}");
    }
    registry.check().await;
}

#[tokio::test]
async fn end_12b_a_filter_is_applied_and_said_to_be() {
    let (registry, ci) = pusher().await;
    let subject = Document::marked("subject");
    for kind in ["application/vnd.a", "application/vnd.b+json", "application/vnd.b+json;v=2"] {
        let referrer = subject.referrer(kind);
        ci.pushes("app", &referrer.digest, &referrer).await;
    }
    let path = format!("/v2/app/referrers/{}", subject.digest);
    assert_eq!(ci.document(&path).await["manifests"].as_array().unwrap().len(), 3);
    for (asked, found) in
        [("application/vnd.a", 1), ("application/vnd.b%2Bjson", 1), ("application/vnd.none", 0)]
    {
        let listed = send(ci.get(&format!("{path}?artifactType={asked}"))).await;
        assert_eq!(header(&listed, "oci-filters-applied"), "artifactType");
        assert_eq!(header(&listed, "content-type"), INDEX);
        let listed = expect(listed, 200).await;
        assert_eq!(listed["manifests"].as_array().unwrap().len(), found, "{asked}");
    }
    registry.check().await;
}

/// How many pages a list of referrers has, filtered by type, and how many descriptors.
async fn walked(ci: &Client, path: String) -> (usize, usize) {
    let (mut seen, mut pages, mut path) = (std::collections::BTreeSet::new(), 0, Some(path));
    while let Some(asked) = path {
        let answer = send(ci.get(&asked)).await;
        assert_eq!(header(&answer, "oci-filters-applied"), "artifactType");
        path = next(&answer);
        pages += 1;
        for descriptor in expect(answer, 200).await["manifests"].as_array().unwrap() {
            assert!(seen.insert(descriptor["digest"].as_str().unwrap().to_owned()), "none comes twice");
        }
    }
    (pages, seen.len())
}

#[tokio::test]
async fn end_12_large_annotations_come_in_pages_of_few() {
    let (registry, ci) = pusher().await;
    let subject = Document::marked("subject");
    for n in 0..5 {
        let note = Document::new(&json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [],
            "artifactType": "application/vnd.note", "subject": subject.descriptor(),
            "annotations": {"n": n.to_string().repeat(600_000)}}));
        ci.pushes("app", &note.digest, &note).await;
    }
    let path = format!("/v2/app/referrers/{}?artifactType=application/vnd.note", subject.digest);
    assert_eq!(walked(&ci, path).await, (3, 5));
    registry.check().await;
}

#[tokio::test]
async fn end_12_a_long_list_is_linked_and_the_filter_goes_with_it() {
    let (registry, ci) = pusher().await;
    let subject = Document::marked("subject");
    let notes: Vec<Document> = (0..1003)
        .map(|n| {
            Document::new(&json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [],
                "artifactType": "application/vnd.note", "subject": subject.descriptor(),
                "annotations": {"n": n.to_string()}}))
        })
        .collect();
    for batch in notes.chunks(16) {
        futures::future::join_all(batch.iter().map(|note| ci.pushes("app", &note.digest, note))).await;
    }
    let path = format!("/v2/app/referrers/{}?artifactType=application/vnd.note", subject.digest);
    assert_eq!(walked(&ci, path).await, (2, 1003));
    registry.check().await;
}
