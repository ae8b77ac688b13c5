//! Every write that can change an answer raises the generations that the answer depends on, and no other.

use crate::harness::oci::Document;
use crate::harness::{Client, Registry, Signing, expect, noise, sha256};
use proofmark::audit::{self, Repair};
use proofmark::identity;
use proofmark::jobs::Due;
use proofmark::ledger::Kind;
use proofmark::names::{Digest, EnvironmentName, RepositoryName, Tag};
use proofmark::postgres::Generation;
use proofmark::promotion;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// An event, with what other rows say of what it is about.
#[derive(sqlx::FromRow)]
struct Happened {
    kind: String,
    repository: Option<String>,
    environment: Option<String>,
    digest: Option<String>,
    facts: Value,
    /// What a recorded attestation is about.
    subjects: Vec<String>,
    /// What the manifest refers to.
    subject: Option<String>,
    /// Whose grant ended.
    of: Option<i64>,
    /// Whether a promotion was the first of its release channel.
    first: bool,
}

impl Happened {
    fn repository(&self) -> RepositoryName {
        self.repository.as_deref().unwrap().parse().unwrap()
    }

    fn environment(&self) -> EnvironmentName {
        self.environment.as_deref().unwrap().parse().unwrap()
    }

    fn bytes(&self) -> Generation {
        bytes(self.digest.as_deref().unwrap())
    }

    fn channel(&self) -> Generation {
        Generation::channel(&self.repository(), &self.environment())
    }

    /// The tags that it lists.
    fn tags(&self) -> impl Iterator<Item = Generation> {
        let tags = self.facts["tags"].as_array().unwrap().iter();
        tags.map(|tag| self.tag(tag))
    }

    fn tag(&self, tag: &Value) -> Generation {
        let tag: Tag = tag.as_str().unwrap().parse().unwrap();
        Generation::tag(&self.repository(), &tag)
    }

    /// What a hold stops.
    fn held(&self) -> Generation {
        match (&self.repository, &self.environment) {
            (Some(_), Some(_)) => self.channel(),
            (Some(_), None) => Generation::repository(&self.repository()),
            (None, _) => Generation::environment(&self.environment()),
        }
    }

    /// What a waiver is about.
    fn waived(&self) -> Generation {
        match (&self.digest, &self.environment) {
            (Some(digest), _) => bytes(digest),
            (None, Some(_)) => Generation::environment(&self.environment()),
            (None, None) => Generation::waivers(),
        }
    }

    /// What it must raise. A new kind of event needs a line here.
    fn must_raise(&self, kind: Kind) -> Vec<Generation> {
        match kind {
            Kind::IdentityWritten
            | Kind::TrustUpdated
            | Kind::BlobPushed
            | Kind::BlobsCollected
            | Kind::PromotionRefused
            | Kind::WaiverCreated
            | Kind::TokenEndAnnounced
            | Kind::TokenRotated => vec![],
            Kind::TokenRevoked => self.facts["of"].as_i64().map(Generation::rights).into_iter().collect(),
            Kind::PrincipalDisabled => vec![Generation::rights(self.facts["disabled"].as_i64().unwrap())],
            Kind::PrincipalEnabled => vec![Generation::rights(self.facts["enabled"].as_i64().unwrap())],
            Kind::RepositoryCreated | Kind::RepositoryChanged | Kind::BlobDeleted => {
                vec![Generation::repository(&self.repository())]
            }
            Kind::ManifestPushed | Kind::ManifestDeleted | Kind::ManifestExpired => {
                let subject = self.subject.iter().map(|subject| bytes(subject));
                self.tags().chain([self.bytes()]).chain(subject).collect()
            }
            Kind::TagDeleted | Kind::TagReserved => vec![self.tag(&self.facts["tag"]), self.bytes()],
            Kind::AttestationRecorded | Kind::AttestationRepeated => {
                self.subjects.iter().map(|subject| bytes(subject)).chain([self.bytes()]).collect()
            }
            Kind::SignerRegistered
            | Kind::SignerKeyAdded
            | Kind::SignerVerified
            | Kind::SignerRevoked
            | Kind::BuildTypeDeclared
            | Kind::BuildTypeEnded => {
                vec![Generation::signers()]
            }
            Kind::ScanRecorded
            | Kind::ScanRetracted
            | Kind::ApprovalGiven
            | Kind::ApprovalEnded
            | Kind::BlockPlaced
            | Kind::BlockEnded
            | Kind::OverrideCreated
            | Kind::OverrideReviewed
            | Kind::OverrideRevoked => vec![self.bytes()],
            Kind::WaiverApproved | Kind::WaiverRevoked => vec![self.waived()],
            Kind::EnvironmentChanged | Kind::PolicyChanged => {
                vec![Generation::environment(&self.environment())]
            }
            Kind::PromotionAllowed if self.first => {
                vec![self.channel(), Generation::environment(&self.environment())]
            }
            Kind::PromotionAllowed | Kind::RolledBack | Kind::SummaryRenewed => vec![self.channel()],
            Kind::HoldPlaced | Kind::HoldEnded => vec![self.held()],
            Kind::TokenCreated if self.facts["grants"] == json!([]) => vec![],
            Kind::TokenCreated => vec![Generation::rights(self.facts["for"].as_i64().unwrap())],
            Kind::GrantGiven => vec![Generation::rights(self.facts["to"].as_i64().unwrap())],
            Kind::GrantEnded => vec![Generation::rights(self.of.unwrap())],
            // Of the one repository that the test repairs.
            Kind::RegistryRepaired => vec![Generation::repository(&"app".parse().unwrap())],
        }
    }
}

fn bytes(digest: &str) -> Generation {
    Generation::bytes(&digest.parse().unwrap())
}

/// A registry whose generations and events are compared after every act.
struct Watched {
    registry: Registry,
    admin: Client,
    seen: BTreeMap<i64, i64>,
    events: i64,
    kinds: BTreeSet<&'static str>,
}

impl Watched {
    async fn start() -> Self {
        let mut registry = Registry::collecting().await;
        // Nothing but the test's own acts.
        registry.stop_jobs().await;
        let admin = registry.admin();
        let mut watched = Self { registry, admin, seen: BTreeMap::new(), events: 0, kinds: BTreeSet::new() };
        watched.compare("the registry starts").await;
        watched
    }

    async fn raised(&mut self) -> BTreeSet<i64> {
        let now: Vec<(i64, i64)> = sqlx::query_as("select key, value from generations")
            .fetch_all(&mut *self.registry.sql().await)
            .await
            .unwrap();
        let now: BTreeMap<i64, i64> = now.into_iter().collect();
        let raised = now.iter().filter(|(key, value)| self.seen.get(key) != Some(value));
        let raised = raised.map(|(key, _)| *key).collect();
        self.seen = now;
        raised
    }

    /// Compares what was raised since the last time with what the events since then must raise.
    async fn compare(&mut self, act: &str) {
        let raised = self.raised().await;
        let events: Vec<Happened> = sqlx::query_as(
            "select e.kind, l.leaf ->> 'repository' as repository, l.leaf ->> 'environment' as environment,
               e.digest, l.leaf -> 'facts' as facts,
               array(select s.digest from attestation_subjects s
                     where s.attestation_id = id_said(l.leaf -> 'facts', 'attestation')) as subjects,
               (select facts_said(p.leaf) ->> 'subject' from events p
                where p.kind = 'manifest.pushed' and p.digest = e.digest order by p.id limit 1) as subject,
               (select g.principal_id from grants g where g.id = id_said(l.leaf -> 'facts', 'grant')) as of,
               not exists (select from promotions p join promotions o on o.event_id = e.id
                           where p.repository_id = o.repository_id and p.environment_id = o.environment_id
                             and p.id < o.id) as first
             from (select * from events order by id offset $1) e
             cross join lateral (select convert_from(e.leaf, 'UTF8')::jsonb as leaf) l",
        )
        .bind(self.events)
        .fetch_all(&mut *self.registry.sql().await)
        .await
        .unwrap();
        self.events += i64::try_from(events.len()).unwrap();
        let mut expected = BTreeSet::new();
        for event in &events {
            let kind: Kind = event.kind.parse().unwrap();
            self.kinds.insert(kind.as_str());
            expected.extend(event.must_raise(kind).into_iter().map(Generation::key));
        }
        let kinds: Vec<&str> = events.iter().map(|event| event.kind.as_str()).collect();
        assert!(!events.is_empty(), "{act} is an event");
        assert_eq!(raised, expected, "{act}: {kinds:?}");
    }

    /// Does it and compares.
    async fn act<T>(&mut self, act: &str, done: impl Future<Output = T>) -> T {
        let done = done.await;
        self.compare(act).await;
        done
    }

    async fn post(&mut self, path: &str, body: Value, status: u16) -> Value {
        let admin = self.admin.clone();
        self.act(path, async { admin.post_document(path, &body, status).await }).await
    }

    /// Ends what was made by a POST.
    async fn end(&mut self, path: &str, made: &Value) {
        let path = format!("{path}/{}/revocation", made["id"]);
        self.post(&path, json!({"reason": "over"}), 200).await;
    }

    async fn delete(&mut self, path: &str, status: u16) {
        let admin = self.admin.clone();
        let answer = self.act(path, async { admin.delete(path).send().await.unwrap() }).await;
        assert_eq!(answer.status(), status, "{path}");
    }

    async fn release(&mut self, version: &str) -> Digest {
        let admin = self.admin.clone();
        self.act("a push with a version", async { admin.push_release("app", version, version).await }).await
    }

    async fn contents(&mut self) {
        let admin = self.admin.clone();
        let rules = json!({"name": "app", "tags": {"floating": ["latest", "sha256-*"]}});
        for (act, status) in [("a new repository", 201), ("new rules", 200)] {
            let put = async { admin.put_document("/api/v1/repositories", &rules, status).await };
            self.act(act, put).await;
        }
        let blob = self.act("a push of a blob", admin.push_blob("app", b"of nobody")).await;
        self.delete(&format!("/v2/app/blobs/{blob}"), 202).await;
        let image = Document::marked("image");
        self.act("a push by digest", admin.pushes("app", &image.digest, &image)).await;
        self.act("a version for it", admin.pushes("app", "v0", &image)).await;
        self.act("a tag that may move", admin.pushes("app", "latest", &image)).await;
        let moved = Document::marked("moved");
        self.act("a tag that moves", admin.pushes("app", "latest", &moved)).await;
        let note = image.referrer("application/vnd.example.note");
        self.act("a push of a referrer", admin.pushes("app", &note.digest, &note)).await;
        self.delete(&format!("/v2/app/manifests/{}", note.digest), 202).await;
        self.delete("/v2/app/manifests/v0", 202).await;
        self.act("a version that is shown again", admin.pushes("app", "v0", &image)).await;
        self.delete(&format!("/v2/app/manifests/{}", image.digest), 202).await;
        let reserved = json!({"repository": "app", "tags": {"v9": sha256(b"elsewhere")}});
        self.post("/api/v1/tags/reservations", reserved, 201).await;
        // Everything that no tag names goes, with what refers to it.
        let loose = Document::marked("loose");
        let about = loose.referrer("application/vnd.example.note");
        self.act("a push by digest", admin.pushes("app", &loose.digest, &loose)).await;
        self.act("a push of a referrer", admin.pushes("app", &about.digest, &about)).await;
        let rules = json!({"name": "app", "retention": {"enforce": true, "untagged_for": "0s", "rules": [{"tags": ["*"]}]}});
        let put = async { admin.put_document("/api/v1/repositories", &rules, 200).await };
        self.act("a retention", put).await;
        let app = self.registry.app.clone();
        self.act("retention", async { app.retain(Due::Now, &CancellationToken::new()).await.unwrap() }).await;
        assert_eq!(admin.digest_of("app", &loose.digest).await, None);
        let rules = json!({"name": "app", "retention": null});
        let put = async { admin.put_document("/api/v1/repositories", &rules, 200).await };
        self.act("no retention", put).await;
    }

    async fn evidence(&mut self, release: &Digest) {
        let admin = self.admin.clone();
        let signing = Signing::new(7);
        let statement = |subject: &Digest, number: u8| {
            signing.statement(subject, "https://example.com/t", &json!({ "number": number }))
        };
        let signer = async { admin.register_signer("ci", &signing.pem(), &["**"]).await };
        self.act("a signer", signer).await;
        self.act("an attestation", admin.attest("app", &statement(release, 1), 201)).await;
        let lines = [statement(release, 2), statement(&self.release("v0.1").await, 3)].join(&b'\n');
        self.act("two attestations", admin.attest("app", &lines, 201)).await;
        let (kind, carried) = ("application/vnd.dsse.envelope.v1+json", statement(release, 4));
        let pushed = admin.push_referrer("app", release, kind, &carried);
        self.act("an attestation that is pushed", pushed).await;
        let failed = signing.statement(release, crate::attesting::TEST_RESULT, &json!({"result": "FAILED"}));
        for act in ["a FAILED", "the FAILED again"] {
            self.act(act, admin.attest("app", &failed, 201)).await;
        }
        // What is said about a file counts for the artifact that is just that file, whichever comes first.
        let file = noise(1, 5000);
        let path = "/api/v1/artifacts?repository=app&filename=tool.tar&version=tool-1";
        let put = async { expect(admin.put(path).body(file.clone()).send().await.unwrap(), 201).await };
        let artifact = self.act("a file", put).await;
        self.act("an attestation of a file", admin.attest("app", &statement(&sha256(&file), 5), 201)).await;
        assert_ne!(artifact["digest"], json!(sha256(&file)));
        self.act("a scan", self.registry_scan(release)).await;
        let reason = json!({"reason": "of another image"});
        let scan = admin.document("/api/v1/scans?repository=app").await["items"][0]["id"].clone();
        self.post(&format!("/api/v1/scans/{scan}/revocation"), reason, 200).await;
        let declaration = json!({"build_type": "https://ci.example/build", "dependency": "source"});
        let declare = async { admin.put_document("/api/v1/build-types", &declaration, 200).await };
        let declared = self.act("a declared build type", declare).await;
        self.delete(&format!("/api/v1/build-types/{}", declared["id"]), 204).await;
        // What another key signed is pending, until the key is added.
        let next = Signing::new(8);
        let of_next = next.statement(release, "https://example.com/t", &json!({"number": 6}));
        let pushed = admin.push_referrer("app", release, kind, &of_next);
        self.act("a pending envelope", pushed).await;
        self.post("/api/v1/signers/ci/keys", json!({"public_key": next.pem()}), 201).await;
        let revoked = json!({"reason": "lost"});
        self.post("/api/v1/signers/ci/revocation", revoked, 201).await;
    }

    fn registry_scan(&self, release: &Digest) -> impl Future<Output = ()> + use<> {
        let (admin, release) = (self.admin.clone(), release.clone());
        async move {
            let at = proofmark::clock::now();
            let report = json!({"matches": [], "descriptor": {"name": "grype", "version": "1",
                "timestamp": at, "db": {"built": at}}});
            let path = format!("/api/v1/scans?repository=app&digest={release}&scanner=grype");
            admin.post_document(&path, &report, 201).await;
        }
    }

    async fn promotions(&mut self, releases: [&Digest; 2]) {
        let admin = self.admin.clone();
        let [first, second] = releases;
        let environment = json!({"name": "prod"});
        let put = async { admin.put_document("/api/v1/environments", &environment, 201).await };
        self.act("an environment", put).await;
        let refused = self.act("no policy allows it", admin.promote("app", first, "prod")).await;
        assert_eq!(refused.status(), 409);
        self.act("a policy", self.registry_policy()).await;
        for digest in [first, second] {
            let answer = self.act("a promotion", admin.promote("app", digest, "prod")).await;
            assert_eq!(answer.status(), 201);
        }
        let lane = "env/prod/app".parse().unwrap();
        let (app, by, month) =
            (self.registry.app.clone(), identity::service(), Duration::from_hours(24 * 30));
        let renewal = async { promotion::renew(&app.db, &app.keys, &by, &lane, month).await.unwrap() };
        assert_eq!(Box::pin(self.act("a renewed summary", renewal)).await, 1);
        let back = json!({"repository": "app", "environment": "prod", "reason": "errors"});
        self.post("/api/v1/rollbacks", back, 201).await;
        let channel = json!({"repository": "app", "environment": "prod", "digest": second, "reason": "why"});
        let approval = self.post("/api/v1/approvals", channel.clone(), 201).await;
        self.end("/api/v1/approvals", &approval).await;
        let block = self.post("/api/v1/blocks", channel, 201).await;
        self.end("/api/v1/blocks", &block).await;
        for place in [
            json!({"repository": "app", "environment": "prod", "reason": "why"}),
            json!({"repository": "app", "reason": "why"}),
            json!({"environment": "prod", "reason": "why"}),
        ] {
            let hold = self.post("/api/v1/holds", place, 201).await;
            self.end("/api/v1/holds", &hold).await;
        }
    }

    fn registry_policy(&self) -> impl Future<Output = ()> + use<> {
        let admin = self.admin.clone();
        async move {
            let text = "environment: prod\nrepositories: ['**']\ngates: []\n";
            let put = admin.put("/api/v1/policies").body(text).send().await.unwrap();
            assert!(put.status().is_success(), "{}", put.text().await.unwrap());
        }
    }

    async fn second_persons(&mut self, release: &Digest) {
        let grants = json!([{"role": "admin", "repositories": "**"}]);
        let token = self.post("/api/v1/tokens", json!({"principal": "bob", "grants": grants}), 201).await;
        let bob = Client::new(&self.registry.url, token["token"].as_str().map(str::to_owned));
        let expires_at = proofmark::clock::now() + chrono::TimeDelta::hours(1);
        for scope in [
            json!({"repositories": "**"}),
            json!({"repositories": "**", "environment": "prod"}),
            json!({"repository": "app", "digest": release}),
        ] {
            let mut waiver = json!({"vulnerabilities": ["CVE-1"], "status": "accepted_risk",
                "reason": "why", "expires_at": expires_at});
            for (name, value) in scope.as_object().unwrap() {
                waiver[name] = value.clone();
            }
            let waiver = self.post("/api/v1/waivers", waiver, 201).await;
            let path = format!("/api/v1/waivers/{}/approval", waiver["id"]);
            self.act(&path, bob.post_document(&path, &json!({}), 200)).await;
            self.end("/api/v1/waivers", &waiver).await;
        }
        let overriding = json!({"repository": "app", "digest": release, "environment": "prod",
            "gates": ["min_age"], "reason": "why", "expires_at": expires_at});
        let overriding = self.post("/api/v1/overrides", overriding, 201).await;
        let path = format!("/api/v1/overrides/{}/review", overriding["id"]);
        self.act(&path, bob.post_document(&path, &json!({}), 200)).await;
        self.end("/api/v1/overrides", &overriding).await;
    }

    async fn rights(&mut self) {
        let grant = json!({"principal": "ann", "role": "approver", "repositories": "**"});
        let given = self.post("/api/v1/grants", grant, 201).await;
        self.delete(&format!("/api/v1/grants/{}", given["id"]), 204).await;
        let grants = json!([{"role": "reader", "repositories": "**"}]);
        for grants in [grants, json!([])] {
            let token = json!({"principal": "ann", "grants": grants});
            let token = self.post("/api/v1/tokens", token, 201).await;
            let rotation = format!("/api/v1/tokens/{}/rotation", token["id"].as_str().unwrap());
            let token = self.post(&rotation, json!({}), 201).await;
            self.delete(&format!("/api/v1/tokens/{}", token["id"].as_str().unwrap()), 204).await;
        }
        let ending = json!({"principal": "ann", "expires_in_seconds": 3600});
        self.post("/api/v1/tokens", ending, 201).await;
        let db = self.registry.app.db.clone();
        self.act("a token that ends soon", identity::announce_ends(&db)).await.unwrap();
        let ann = self.admin.document("/api/v1/principals?name=ann").await["items"][0]["id"].clone();
        for act in ["revocation", "restoration"] {
            let path = format!("/api/v1/principals/{ann}/{act}");
            self.post(&path, json!({"reason": "on leave"}), 200).await;
        }
    }

    async fn upkeep(&mut self) {
        let app = self.registry.app.clone();
        let admin = self.admin.clone();
        self.act("a push of a blob", admin.push_blob("app", b"of nobody any more")).await;
        self.registry.time_passes().await;
        let stop = CancellationToken::new();
        self.act("a collection", async { app.collect(Due::Now, &stop).await.unwrap() }).await;
        self.registry.tamper("delete from tags_hidden where name = 'v9'").await;
        let repair = async {
            audit::repair(&app.db, &app.store, &Repair::HiddenTags, &identity::service()).await.unwrap()
        };
        assert!(self.act("a repair", repair).await);
    }

    /// Asks for whatever is answered about a release.
    async fn questions(&mut self, release: &Digest) {
        let verify = json!({"repository": "app", "environment": "prod", "digest": release});
        self.admin.post_document("/api/v1/verify", &verify, 200).await;
        for path in [
            "/api/v1/known-good?repository=app&environment=prod",
            "/api/v1/promotions?repository=app",
            "/api/v1/approvals?repository=app",
            "/api/v1/blocks?repository=app",
            "/api/v1/holds?repository=app",
            "/api/v1/scans?repository=app",
            "/api/v1/policies",
            "/api/v1/environments",
            "/api/v1/tags?repository=app",
            "/api/v1/repositories",
            "/api/v1/signers",
            "/api/v1/grants",
            "/v2/app/tags/list",
            "/v2/env/prod/app/manifests/current",
            &format!("/v2/app/manifests/{release}"),
            &format!("/v2/app/referrers/{release}"),
            &format!("/api/v1/attestations?repository=app&digest={release}"),
        ] {
            let answer = self.admin.get(path).send().await.unwrap();
            assert!(answer.status().is_success(), "{path}: {}", answer.text().await.unwrap());
        }
        assert_eq!(self.raised().await, BTreeSet::new(), "a question raises nothing");
    }
}

#[tokio::test]
async fn every_event_raises_the_generations_of_the_answers_that_it_can_change_and_no_other() {
    let mut watched = Watched::start().await;
    watched.contents().await;
    let first = watched.release("v1").await;
    let second = watched.release("v2").await;
    watched.evidence(&first).await;
    Box::pin(watched.promotions([&first, &second])).await;
    watched.second_persons(&first).await;
    watched.rights().await;
    watched.upkeep().await;
    watched.questions(&first).await;
    let missing: Vec<&str> =
        Kind::ALL.iter().map(|kind| kind.as_str()).filter(|kind| !watched.kinds.contains(kind)).collect();
    assert_eq!(missing, Vec::<&str>::new(), "every kind of event was tried");
    watched.registry.check().await;
}

#[tokio::test]
async fn a_refused_or_unfinished_write_raises_nothing() {
    let mut watched = Watched::start().await;
    let release = watched.release("v1").await;
    let other = Document::marked("other");
    assert_eq!(watched.admin.push("app", "v1", &other).await.status(), 409);
    assert_eq!(watched.raised().await, BTreeSet::new(), "a version that is taken");
    let mut tx = watched.registry.app.db.begin().await.unwrap();
    tx.raise([Generation::bytes(&release)]);
    drop(tx);
    assert_eq!(watched.raised().await, BTreeSet::new(), "a transaction that is rolled back");
    watched.registry.check().await;
}

#[tokio::test]
async fn a_request_with_an_idempotency_key_raises_once() {
    let mut watched = Watched::start().await;
    let release = watched.release("v1").await;
    let body = json!({"repository": "app", "digest": release, "reason": "why"});
    let block = async |client: &Client| {
        let request = client.post("/api/v1/blocks").header("idempotency-key", "once").json(&body);
        expect(request.send().await.unwrap(), 201).await
    };
    let admin = watched.admin.clone();
    let first = watched.act("a block", block(&admin)).await;
    assert_eq!(block(&admin).await["id"], first["id"]);
    assert_eq!(watched.raised().await, BTreeSet::new(), "the answer is repeated");
    watched.registry.check().await;
}

#[tokio::test]
async fn writers_that_raise_the_same_generations_in_any_order_do_not_deadlock() {
    let registry = Registry::start().await;
    let generations: Vec<Generation> = (0..8).map(|number| Generation::bytes(&sha256(&[number]))).collect();
    let writers = (0..8).map(|writer| {
        let (db, mut mine) = (registry.app.db.clone(), generations.clone());
        mine.rotate_left(writer);
        tokio::spawn(async move {
            for _ in 0..20 {
                let mut tx = db.begin().await.unwrap();
                for one in &mine {
                    tx.raise([*one]);
                }
                tx.commit().await.unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let values: Vec<i64> = sqlx::query_scalar("select value from generations where key = any($1)")
        .bind(generations.iter().map(|one| one.key()).collect::<Vec<_>>())
        .fetch_all(&mut *registry.sql().await)
        .await
        .unwrap();
    assert_eq!(values, [160; 8]);
    registry.check().await;
}
