//! Platforms: an image is found by what it runs on, however that is written.

use crate::harness::{Client, Registry, expect};
use proofmark::access::Role;
use proofmark::names::Digest;
use reqwest::Response;
use serde_json::{Value, json};

const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

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
    registry.environment("edge", "").await;
    Scene { registry, builder, promoter, deployer }
}

impl Scene {
    /// Pushes an image with this config.
    async fn image(&self, reference: &str, config: &[u8]) -> Digest {
        let digest = self.builder.push_blob("team/app", config).await;
        let layer = self.builder.push_blob("team/app", reference.as_bytes()).await;
        let manifest = json!({"schemaVersion": 2, "mediaType": IMAGE,
            "config": {"mediaType": CONFIG, "digest": digest, "size": config.len()},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer,
                        "size": reference.len()}]});
        self.builder.push_manifest("team/app", reference, IMAGE, &manifest).await
    }

    /// Pushes an index of these images, each with what its descriptor says, and promotes it.
    async fn promoted_index(&self, version: &str, images: &[(&Digest, Value)]) -> Digest {
        let mut entries = Vec::new();
        for (digest, platform) in images {
            let path = format!("/v2/team/app/manifests/{digest}");
            let size = self.builder.get(&path).send().await.unwrap().bytes().await.unwrap().len();
            let mut entry = json!({"mediaType": IMAGE, "digest": digest, "size": size});
            if !platform.is_null() {
                entry["platform"] = platform.clone();
            }
            entries.push(entry);
        }
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
        let digest = self.builder.push_manifest("team/app", version, INDEX, &index).await;
        expect(self.promoter.promote("team/app", &digest, "edge").await, 201).await;
        digest
    }

    async fn asked(&self, platform: &str) -> Response {
        let path = format!("/api/v1/known-good?repository=team/app&environment=edge&platform={platform}");
        self.deployer.get(&path).send().await.unwrap()
    }

    async fn answer(&self, platform: &str) -> Value {
        expect(self.asked(platform).await, 200).await
    }

    /// The reasons for which there is no answer.
    async fn refusal(&self, platform: &str) -> String {
        let refused = expect(self.asked(platform).await, 404).await;
        refused["candidates"][0]["reasons"].to_string()
    }
}

#[tokio::test]
async fn every_spelling_of_a_platform_finds_the_image_that_runs_there() {
    let scene = scene().await;
    let power = scene.image("power", b"{}").await;
    let five = scene.image("five", b"{}").await;
    let six = scene.image("six", b"{}").await;
    let nine = scene.image("nine", b"{}").await;
    let two = scene.image("two", b"{}").await;
    scene
        .promoted_index(
            "1.0",
            &[
                (&power, json!({"os": "linux", "architecture": "ppc64le"})),
                (&five, json!({"os": "linux", "architecture": "arm", "variant": "5"})),
                (&six, json!({"os": "linux", "architecture": "armel"})),
                (&nine, json!({"os": "Linux", "architecture": "aarch64", "variant": "v9"})),
                (&two, json!({"os": "linux", "architecture": "x86_64", "variant": "v2"})),
            ],
        )
        .await;
    for (platform, digest) in [
        ("linux/PPC64LE", &power),
        ("linux/arm/v5", &five),
        ("linux/armel", &six),
        ("linux/arm/6", &six),
        ("linux/armhf", &six),
        ("linux/arm64/v9", &nine),
        ("linux/aarch64/v9.2", &nine),
        ("linux/amd64/v3", &two),
    ] {
        assert_eq!(scene.answer(platform).await["digest"], json!(digest), "{platform}");
    }
    for platform in ["linux/amd64", "linux/arm64", "windows/amd64", "linux/ppc64le/power9"] {
        let reasons = scene.refusal(platform).await;
        assert!(reasons.contains("the index has no image for"), "{platform}: {reasons}");
    }
    for bad in ["linux", "linux/amd64/v2/x", "linux/a%20b", "windows(10/amd64"] {
        let refused = expect(scene.asked(bad).await, 400).await;
        assert!(refused["detail"].as_str().unwrap().contains("is not a platform"), "{refused}");
    }
    scene.registry.check().await;
}

#[tokio::test]
async fn images_that_differ_in_the_version_of_windows_are_named_and_can_be_asked_for() {
    let scene = scene().await;
    let windows = |version: &str| json!({"os": "windows", "architecture": "amd64", "os.version": version});
    let (old, new) = (scene.image("old", b"{}").await, scene.image("new", b"{}").await);
    let listed = [(&new, windows("10.0.26100.2033")), (&old, windows("10.0.17763.6414"))];
    scene.promoted_index("1.0", &listed).await;
    let first = scene.answer("windows/amd64").await;
    assert_eq!(first["digest"], json!(new), "the first of the index");
    let warning = first["warnings"][0].as_str().unwrap();
    assert!(warning.contains("os.version 10.0.26100.2033, 10.0.17763.6414"), "{warning}");
    assert!(warning.ends_with("ask with windows(10.0.17763.6414)/amd64"), "{warning}");
    let asked = scene.answer("windows(10.0.17763)/amd64").await;
    assert_eq!((&asked["digest"], &asked["warnings"]), (&json!(old), &json!([])));
    assert!(scene.refusal("windows(10.0.20348)/amd64").await.contains("no image"));

    scene.promoter.block("team/app", &new, None).await;
    assert_eq!(scene.answer("windows/amd64").await["digest"], json!(old));
    assert!(scene.refusal("windows(10.0.26100)/amd64").await.contains("blocked"));
    scene.promoter.block("team/app", &old, None).await;
    assert!(scene.refusal("windows/amd64").await.contains("blocked"));
    scene.registry.check().await;
}

#[tokio::test]
async fn of_two_images_of_one_platform_the_first_of_the_index_is_the_answer() {
    let scene = scene().await;
    let linux = || json!({"os": "linux", "architecture": "riscv64"});
    let mut images = [scene.image("a", b"{}").await, scene.image("b", b"{}").await];
    images.sort();
    for (version, order) in [("1.0", [0, 1]), ("1.1", [1, 0])] {
        let listed = order.map(|at: usize| (&images[at], linux()));
        scene.promoted_index(version, &listed).await;
        assert_eq!(scene.answer("linux/riscv64").await["digest"], json!(images[order[0]]));
    }
    scene.registry.check().await;
}

#[tokio::test]
async fn a_lone_image_is_the_answer_only_where_it_runs() {
    let scene = scene().await;
    let config = br#"{"os":"linux","architecture":"aarch64","variant":"v8","rootfs":{"type":"layers"}}"#;
    let arm = scene.image("1.0", config).await;
    expect(scene.promoter.promote("team/app", &arm, "edge").await, 201).await;
    assert_eq!(scene.answer("linux/arm64").await["digest"], json!(arm));
    let reasons = scene.refusal("linux/amd64").await;
    assert!(reasons.contains("the image is for linux/arm64, not for linux/amd64"), "{reasons}");
    let row: (Option<String>, Option<String>) =
        sqlx::query_as("select config_digest, platform from manifests where digest = $1")
            .bind(arm.as_str())
            .fetch_one(&mut *scene.registry.sql().await)
            .await
            .unwrap();
    let config_digest = Digest::sha256(config).to_string();
    assert_eq!(row, (Some(config_digest), Some("linux/arm64".to_owned())));

    let silent = scene.image("1.1", b"\x00 not JSON").await;
    expect(scene.promoter.promote("team/app", &silent, "edge").await, 201).await;
    assert_eq!(scene.answer("linux/amd64").await["digest"], json!(silent), "nobody knows what it is for");
    scene.registry.check().await;
}

#[tokio::test]
async fn a_large_config_is_read_from_the_store_and_one_beyond_the_bound_is_not() {
    let scene = scene().await;
    let config = |bytes: usize| {
        let history = json!([{"created_by": "x".repeat(bytes)}]);
        json!({"os": "linux", "architecture": "s390x", "history": history}).to_string().into_bytes()
    };
    for (reference, bytes, known) in [("large", 300 << 10, true), ("huge", 4 << 20, false)] {
        let digest = scene.image(reference, &config(bytes)).await;
        let platform: Option<String> = sqlx::query_scalar("select platform from manifests where digest = $1")
            .bind(digest.as_str())
            .fetch_one(&mut *scene.registry.sql().await)
            .await
            .unwrap();
        assert_eq!(platform, known.then(|| "linux/s390x".to_owned()), "{reference}");
    }
    scene.registry.check().await;
}

#[tokio::test]
async fn an_image_that_the_index_lists_without_a_platform_is_found_by_its_config() {
    let scene = scene().await;
    let config = |architecture: &str| json!({"os": "linux", "architecture": architecture}).to_string();
    let mips = scene.image("mips", config("mips64le").as_bytes()).await;
    let loong = scene.image("loong", config("loong64").as_bytes()).await;
    let hidden = scene.image("hidden", br#"{"os":"unknown","architecture":"unknown"}"#).await;
    let listed = [
        (&mips, Value::Null),
        (&loong, json!({"os": "linux", "architecture": "riscv64"})),
        (&hidden, Value::Null),
    ];
    scene.promoted_index("1.0", &listed).await;
    assert_eq!(scene.answer("linux/mips64le").await["digest"], json!(mips));
    assert_eq!(scene.answer("linux/riscv64").await["digest"], json!(loong), "the index decides");
    assert!(scene.refusal("linux/loong64").await.contains("no image"));
    let verdict = scene.deployer.verdict("team/app", &hidden, "edge").await;
    assert_eq!(verdict["verdict"], "allow", "its own config does not make it a document: {verdict}");
    scene.registry.check().await;
}
