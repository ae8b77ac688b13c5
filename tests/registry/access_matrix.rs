//! Who may do what: every route with every role, inside and outside of what the role covers, against the table that
//! operators read, deploy/access.md.

mod requests;

use crate::harness::{Client, Registry, Signing};
use futures::stream::{self, StreamExt};
use proofmark::access::Role;
use proofmark::names::Digest;
use requests::Ask;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The table.
const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/access.md");

/// The routes that the OpenAPI document does not have.
const BESIDE: [&str; 25] = [
    "GET /v2/",
    "GET /v2/_catalog",
    "GET /v2/{name}/tags/list",
    "GET /v2/{name}/manifests/{reference}",
    "PUT /v2/{name}/manifests/{reference}",
    "DELETE /v2/{name}/manifests/{reference}",
    "GET /v2/{name}/blobs/{digest}",
    "DELETE /v2/{name}/blobs/{digest}",
    "POST /v2/{name}/blobs/uploads/",
    "GET /v2/{name}/blobs/uploads/{session}",
    "PATCH /v2/{name}/blobs/uploads/{session}",
    "PUT /v2/{name}/blobs/uploads/{session}",
    "DELETE /v2/{name}/blobs/uploads/{session}",
    "GET /v2/{name}/referrers/{digest}",
    "GET /v2/env/{environment}/{name}/tags/list",
    "GET /v2/env/{environment}/{name}/manifests/{reference}",
    "GET /v2/env/{environment}/{name}/blobs/{digest}",
    "GET /v2/env/{environment}/{name}/referrers/{digest}",
    "GET /auth/token",
    "GET /api/v1/openapi.json",
    "GET /.well-known/proofmark",
    "GET /.well-known/proofmark/{version}",
    "GET /livez",
    "GET /readyz",
    "GET /metrics",
];

/// Where something is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Target {
    /// What the names of its repositories begin with.
    prefix: &'static str,
    environment: &'static str,
}

const INSIDE: Target = Target { prefix: "team", environment: "prod" };
const OTHER_ENVIRONMENT: Target = Target { prefix: "team", environment: "staging" };
const OTHER_REPOSITORY: Target = Target { prefix: "other", environment: "prod" };

/// An artifact that nothing else of a test has, perhaps promoted.
struct Place {
    repository: String,
    environment: &'static str,
    digest: Digest,
}

/// A registry with what requests need.
struct World {
    registry: Registry,
    admin: Client,
    builder: Client,
    number: AtomicUsize,
}

impl World {
    async fn start() -> Self {
        let registry = Registry::start().await;
        for environment in ["prod", "staging"] {
            registry.environment(environment, "min_age: 0s").await;
        }
        let admin = registry.admin();
        admin.register_signer("ci", &Signing::new(1).pem(), &["**"]).await;
        let builder = registry.named("builder", Role::Pusher, "**", None).await;
        Self { registry, admin, builder, number: AtomicUsize::new(0) }
    }

    /// A number that no request had.
    fn next(&self) -> usize {
        self.number.fetch_add(1, Ordering::Relaxed)
    }

    /// A new artifact in a new repository.
    async fn pushed(&self, target: Target) -> Place {
        let number = self.next();
        let repository = format!("{}/app-{number}", target.prefix);
        let digest = self.builder.push_release(&repository, "1.0", &format!("content {number}")).await;
        Place { repository, environment: target.environment, digest }
    }

    /// The same, promoted.
    async fn promoted(&self, target: Target) -> Place {
        let place = self.pushed(target).await;
        let answer = self.admin.promote(&place.repository, &place.digest, place.environment).await;
        assert_eq!(answer.status(), 201, "{}", answer.text().await.unwrap());
        place
    }
}

/// The least that a role must cover for a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Enough {
    /// The repository in this environment.
    Environment,
    /// All repositories in this environment.
    WholeEnvironment,
    /// The repository in all environments.
    Repository,
    /// All repositories in all environments.
    Registry,
}

impl Enough {
    const ALL: [Self; 4] = [Self::Environment, Self::WholeEnvironment, Self::Repository, Self::Registry];

    fn word(cell: Option<Self>) -> &'static str {
        match cell {
            Some(Self::Environment) => "environment",
            Some(Self::WholeEnvironment) => "whole environment",
            Some(Self::Repository) => "repository",
            Some(Self::Registry) => "registry",
            None => "",
        }
    }

    fn covers(self) -> (&'static str, Option<&'static [&'static str]>) {
        match self {
            Self::Environment => ("team/*", Some(&["prod"])),
            Self::WholeEnvironment => ("**", Some(&["prod"])),
            Self::Repository => ("team/*", None),
            Self::Registry => ("**", None),
        }
    }
}

/// Everybody who asks, by role and by what it covers.
async fn callers(world: &World) -> BTreeMap<(Role, Enough), Client> {
    let mut callers = BTreeMap::new();
    for role in Role::ALL {
        for enough in Enough::ALL {
            let (repositories, environments) = enough.covers();
            let name = format!("{role}-{enough:?}");
            let client = world.registry.named(&name, role, repositories, environments).await;
            callers.insert((role, enough), client);
        }
    }
    callers
}

/// Requests that change nothing, kept: what they need is made once.
type Kept = BTreeMap<Target, Ask>;

/// What a caller gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Got {
    /// What it asks for.
    All,
    /// An answer that leaves it out.
    Nothing,
    /// A refusal with this status.
    Refused(u16),
}

/// Whether the caller gets what it asks for.
async fn works(world: &World, kept: &mut Kept, route: &str, target: Target, caller: &Client) -> bool {
    got(world, kept, route, target, caller).await == Got::All
}

/// What the caller gets. What is refused is refused as outside of its rights, and says nothing else.
async fn got(world: &World, kept: &mut Kept, route: &str, target: Target, caller: &Client) -> Got {
    let ask = match kept.get(&target) {
        Some(ask) => ask.clone(),
        None => requests::ask(world, route, target, caller).await,
    };
    // A session is its principal's.
    if route.starts_with("GET") && !route.ends_with("{session}") {
        kept.insert(target, ask.clone());
    }
    let answer = ask.send(caller).await;
    let status = answer.status().as_u16();
    let body = String::from_utf8_lossy(&answer.bytes().await.unwrap()).into_owned();
    match status {
        200..300 if ask.shows.as_ref().is_none_or(|shown| body.contains(shown)) => Got::All,
        200..300 => Got::Nothing,
        401 | 403 | 404 => Got::Refused(status),
        _ => panic!("{route} of {target:?}: {status} {body}"),
    }
}

/// A row of the table: who is allowed without a credential, and what each role must cover.
async fn row(world: &World, callers: &BTreeMap<(Role, Enough), Client>, route: &str) -> String {
    let mut kept = Kept::new();
    let open = works(world, &mut kept, route, INSIDE, &world.registry.anyone()).await;
    let mut cells = vec![format!("`{route}`"), if open { "yes" } else { "" }.to_owned()];
    for role in Role::ALL {
        let mut cell = None;
        for enough in Enough::ALL {
            if works(world, &mut kept, route, INSIDE, &callers[&(role, enough)]).await {
                cell = Some(enough);
                break;
            }
        }
        if let Some(enough) = cell {
            stays_inside(world, &mut kept, (role, enough), route, &callers[&(role, enough)]).await;
        }
        cells.push(Enough::word(cell).to_owned());
    }
    format!("| {} |", cells.join(" | "))
}

/// Fails where a role works outside of what it covers, or where a refusal tells more than the document says.
async fn stays_inside(
    world: &World,
    kept: &mut Kept,
    (role, enough): (Role, Enough),
    route: &str,
    caller: &Client,
) {
    let about = requests::about(route);
    if matches!(enough, Enough::Environment | Enough::WholeEnvironment) {
        assert_ne!(about, About::Repository, "{route}: {role} of an environment works in none");
    }
    let outside: &[Target] = match (about, enough) {
        (About::Registry, _) | (_, Enough::Registry) => &[],
        (_, Enough::WholeEnvironment) => &[OTHER_ENVIRONMENT],
        (About::Release, Enough::Environment) => &[OTHER_ENVIRONMENT, OTHER_REPOSITORY],
        (About::Repository | About::Release, _) => &[OTHER_REPOSITORY],
    };
    for target in outside {
        let refusals: &[u16] = match (route.contains(" /v2/"), *target == OTHER_REPOSITORY) {
            (true, _) => &[401],
            (false, true) => &[404],
            (false, false) => &[403, 404],
        };
        let got = got(world, kept, route, *target, caller).await;
        let is_refused = matches!(got, Got::Refused(status) if refusals.contains(&status));
        assert!(is_refused || got == Got::Nothing, "{route}: {role} in {target:?}: {got:?}");
    }
}

/// What a route is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum About {
    /// Nothing of any repository.
    Registry,
    /// A repository, whatever the environment.
    Repository,
    /// A repository in an environment.
    Release,
}

/// Every route that there is.
fn routes() -> Vec<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi/proofmark.json");
    let document: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let paths = document["paths"].as_object().unwrap();
    let documented = paths.iter().flat_map(|(path, methods)| {
        methods.as_object().unwrap().keys().map(move |method| format!("{} {path}", method.to_uppercase()))
    });
    documented.chain(BESIDE.map(str::to_owned)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_does_on_each_route_what_the_table_of_the_documentation_says_and_nothing_outside() {
    const BEGIN: &str = "| route | no credential |";
    let world = World::start().await;
    let callers = callers(&world).await;
    let routes = routes();
    let rows = stream::iter(&routes).map(|route| row(&world, &callers, route)).buffered(8);
    let (roles, line) = (Role::ALL.map(Role::as_str).join(" | "), "---|".repeat(2 + Role::ALL.len()));
    let mut table = vec![format!("{BEGIN} {roles} |"), format!("|{line}")];
    table.extend(rows.collect::<Vec<_>>().await);
    let table = table.join("\n") + "\n";
    let document = std::fs::read_to_string(DOCUMENT).unwrap();
    let begin = document.find(BEGIN).expect("the document has the table");
    let end = begin + document[begin..].find("\n\n").map_or(document.len() - begin, |end| end + 1);
    #[allow(clippy::disallowed_methods, reason = "a switch of the tests")]
    let is_written = std::env::var("PROOFMARK_SNAPSHOTS").is_ok_and(|word| word == "write");
    if is_written {
        let written = [&document[..begin], &table, &document[end..]].concat();
        std::fs::write(DOCUMENT, written).unwrap();
        return;
    }
    let (stated, found): (Vec<_>, Vec<_>) = (document[begin..end].lines().collect(), table.lines().collect());
    let differing: Vec<_> = found.iter().filter(|line| !stated.contains(line)).collect();
    assert!(differing.is_empty(), "deploy/access.md says otherwise; found: {differing:#?}");
    assert_eq!(stated.len(), found.len(), "deploy/access.md has rows of no route");
    world.registry.check().await;
}
