//! Build types that administrators declare: where provenance of a type that is not built in names its source.

use super::provenance::{self, Pointers, SourceLocation};
use super::store::{build_types as store, origins};
use crate::access::{Administer, Everything, Grant};
use crate::failure::Failure;
use crate::ledger::{self, Event, Kind};
use crate::postgres::queue::{self, READ_PROVENANCE};
use crate::postgres::{Db, Decisions, Generation, Scopes, Tx, act, agreed_time, database_time, refusal};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use std::time::Duration;

/// A declaration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildType {
    /// Its row.
    pub id: i64,
    /// The URI that provenance names as its `buildType`.
    pub build_type: String,
    /// Where it names the source.
    pub location: SourceLocation,
    /// Who declared it.
    pub declared_by: String,
    /// When.
    pub declared_at: DateTime<Utc>,
    /// When it ended.
    pub ended: Option<Ended>,
}

/// The end of a declaration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Who.
    pub by: String,
    /// When.
    pub at: DateTime<Utc>,
}

/// Why nothing was declared or ended.
#[derive(Debug, thiserror::Error)]
pub enum BuildTypeRefused {
    /// The rules of this type are built in.
    #[error("{0} is built in: where it names its source cannot be declared")]
    BuiltIn(String),
    /// Not the name of a build type.
    #[error(
        "{0:?} is no build type: it is a URI of 1 to 1024 characters without spaces, as provenance names it in buildType"
    )]
    Name(String),
    /// Not a JSON pointer.
    #[error(
        "{0:?} is no JSON pointer into externalParameters: it begins with '/', such as /workflow/repository, and has at most 1024 characters"
    )]
    Pointer(String),
    /// Both locations, or none; or a ref and a branch.
    #[error(
        "say where the source stands: source (a JSON pointer, with ref or branch, and commit, beside it), or dependency (the name of an entry of resolvedDependencies), not both"
    )]
    Location,
    /// No such declaration is in force.
    #[error("there is no such declaration in force")]
    Unknown,
    /// A fault of ours.
    #[error(transparent)]
    Failed(#[from] Failure),
}

refusal!(BuildTypeRefused);

/// Characters of a name or pointer.
const MAX_LEN: usize = 1024;

/// The key of the job that reads every statement that is to be read.
const ALL: &str = "all";

fn check(build_type: &str, location: &SourceLocation) -> Result<(), BuildTypeRefused> {
    let plain = |text: &str| {
        (1..=MAX_LEN).contains(&text.len()) && !text.chars().any(|c| c.is_control() || c.is_whitespace())
    };
    if !plain(build_type) || !build_type.contains(':') {
        return Err(BuildTypeRefused::Name(build_type.chars().take(100).collect()));
    }
    if provenance::is_built_in(build_type) {
        return Err(BuildTypeRefused::BuiltIn(build_type.to_owned()));
    }
    match location {
        SourceLocation::Parameters(Pointers { reference: Some(_), branch: Some(_), .. }) => {
            Err(BuildTypeRefused::Location)
        }
        SourceLocation::Parameters(Pointers { source, reference, branch, commit }) => {
            let pointer = |text: &&String| text.starts_with('/') && text.len() <= MAX_LEN && is_pointer(text);
            let wrong = [Some(source), reference.as_ref(), branch.as_ref(), commit.as_ref()]
                .into_iter()
                .flatten()
                .find(|one| !pointer(one));
            wrong.map_or(Ok(()), |text| Err(BuildTypeRefused::Pointer(text.chars().take(100).collect())))
        }
        SourceLocation::Dependency(name) if name.is_empty() || name.len() > MAX_LEN => {
            Err(BuildTypeRefused::Location)
        }
        SourceLocation::Dependency(_) => Ok(()),
    }
}

/// RFC 6901: a tilde is followed by 0 or 1.
fn is_pointer(text: &str) -> bool {
    let escapes = text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    escapes && !text.chars().any(char::is_control)
}

/// Declares where a build type names its source; another declaration of it ends. The same again changes nothing.
/// Statements are read again by a job, and count for promotions from then on; what runs is not touched.
pub async fn declare(
    db: &Db,
    grant: &Grant<Administer, Everything>,
    build_type: &str,
    location: &SourceLocation,
) -> Result<BuildType, BuildTypeRefused> {
    check(build_type, location)?;
    act(|| async {
        let mut tx = db.begin().await?;
        Scopes::signers().lock(&mut tx).await?;
        let known = store::in_force(&mut tx, Some(build_type)).await?.pop();
        if let Some(same) = known.as_ref().filter(|known| known.location == *location) {
            return Ok(same.clone());
        }
        let at = agreed_time(&mut tx).await?;
        let by = (grant.principal().id, at);
        if let Some(known) = &known {
            store::end(&mut tx, known.id, by).await?;
        }
        let id = store::insert(&mut tx, build_type, location, by).await?;
        let facts = facts(id, build_type, location, known.map(|known| known.id));
        note(&mut tx, Kind::BuildTypeDeclared, at, grant, facts).await?;
        let declared =
            store::in_force(&mut tx, Some(build_type)).await?.pop().ok_or(BuildTypeRefused::Unknown)?;
        tx.commit().await.map_err(|error| Failure::new("declaring a build type", error))?;
        Ok(declared)
    })
    .await
}

/// Ends a declaration: the type names no source from then on.
pub async fn end(db: &Db, grant: &Grant<Administer, Everything>, id: i64) -> Result<(), BuildTypeRefused> {
    act(|| async {
        let mut tx = db.begin().await?;
        Scopes::decisions(Decisions::All).lock(&mut tx).await?;
        let build_type = store::open(&mut tx, id).await?.ok_or(BuildTypeRefused::Unknown)?;
        let at = database_time(&mut tx).await?;
        store::end(&mut tx, id, (grant.principal().id, at)).await?;
        let facts = json!({"declaration": id, "build_type": build_type});
        note(&mut tx, Kind::BuildTypeEnded, at, grant, facts).await?;
        tx.commit().await.map_err(|error| Failure::new("ending a declared build type", error))?;
        Ok(())
    })
    .await
}

/// A page of declarations behind this one, the oldest first, ended ones among them.
pub async fn build_types(db: &Db, after: i64, limit: i64) -> Result<Vec<BuildType>, Failure> {
    store::page(&mut *db.acquire().await?, after, limit, None).await
}

/// Has a job read what another reader read, if there is any of it.
pub async fn enqueue_reading(db: &Db) -> Result<(), Failure> {
    let mut connection = db.acquire().await?;
    if origins::any_older(&mut connection).await? {
        queue::enqueue_missing(&mut connection, READ_PROVENANCE, &[ALL.to_owned()], Duration::ZERO).await?;
    }
    Ok(())
}

fn facts(id: i64, build_type: &str, location: &SourceLocation, ended: Option<i64>) -> Value {
    let mut facts = match location {
        SourceLocation::Parameters(Pointers { source, reference, branch, commit }) => {
            json!({"source": source, "ref": reference, "branch": branch, "commit": commit})
        }
        SourceLocation::Dependency(name) => json!({"dependency": name}),
    };
    facts["declaration"] = json!(id);
    facts["build_type"] = json!(build_type);
    if let Some(ended) = ended {
        facts["ended"] = json!(ended);
    }
    facts
}

async fn note(
    tx: &mut Tx,
    kind: Kind,
    at: DateTime<Utc>,
    grant: &Grant<Administer, Everything>,
    facts: Value,
) -> Result<(), Failure> {
    queue::enqueue(tx, READ_PROVENANCE, ALL, &Value::Null, None).await?;
    let event = Event {
        kind,
        at,
        principal: grant.principal(),
        repository: None,
        environment: None,
        digest: None,
        facts,
        changes: vec![Generation::signers()],
    };
    ledger::append(tx, event).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_in_and_what_is_no_location_is_refused_with_what_is_accepted() {
        let location = SourceLocation::Dependency("source".into());
        let at = |source: &str| {
            let source = source.into();
            SourceLocation::Parameters(Pointers { source, reference: None, branch: None, commit: None })
        };
        let both = SourceLocation::Parameters(Pointers {
            source: "/a".into(),
            reference: Some("/b".into()),
            branch: Some("/c".into()),
            commit: None,
        });
        let own = "https://ci.example/build";
        // Its parameters do not always name a source.
        let delegator = "https://github.com/slsa-framework/slsa-github-generator/delegator-generic@v0";
        assert!(check(delegator, &location).is_ok());
        assert!(check(own, &location).is_ok() && check(own, &at("/a/0/b~1c")).is_ok());
        for (build_type, location, says) in [
            ("https://actions.github.io/buildtypes/workflow/v1", location.clone(), "built in"),
            (
                "https://gitlab.com/gitlab-org/gitlab-runner/-/blob/v1/PROVENANCE.md",
                location.clone(),
                "built in",
            ),
            ("", location.clone(), "URI"),
            ("a build", location.clone(), "URI"),
            (own, SourceLocation::Dependency(String::new()), "source"),
            (own, at("workflow/repository"), "begins with '/'"),
            (own, at("/a~2"), "JSON pointer"),
            (own, both, "ref or branch"),
        ] {
            let refused = check(build_type, &location).unwrap_err().to_string();
            assert!(refused.contains(says), "{build_type} {location:?}: {refused}");
        }
    }
}
