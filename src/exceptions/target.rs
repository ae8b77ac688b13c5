//! What a fact is about: a repository, an environment, or a repository in an environment.

use super::Refused;
use super::store::environments;
use crate::access::Principal;
use crate::content;
use crate::ledger::{Event, Kind};
use crate::names::{Digest, EnvironmentName, RepositoryName};
use crate::postgres::{Decisions, Generation, Scopes};
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;

/// A repository, an environment, both or neither, with their row ids.
#[derive(Debug)]
pub struct Target {
    repository: Option<(i64, RepositoryName)>,
    environment: Option<(i64, EnvironmentName)>,
}

impl Target {
    /// One repository in one environment, whose rows the caller has read.
    pub fn one(repository: (i64, RepositoryName), environment: (i64, EnvironmentName)) -> Self {
        Self { repository: Some(repository), environment: Some(environment) }
    }

    pub(super) async fn find(
        connection: &mut PgConnection,
        repository: Option<&RepositoryName>,
        environment: Option<&EnvironmentName>,
    ) -> Result<Self, Refused> {
        let repository = match repository {
            Some(name) => Some((repository_id(connection, name).await?, name.clone())),
            None => None,
        };
        let environment = match environment {
            Some(name) => Some((environment_id(connection, name).await?, name.clone())),
            None => None,
        };
        Ok(Self { repository, environment })
    }

    pub(super) fn repository_id(&self) -> Option<i64> {
        self.repository.as_ref().map(|(id, _)| *id)
    }

    pub(super) fn environment_id(&self) -> Option<i64> {
        self.environment.as_ref().map(|(id, _)| *id)
    }

    /// Every decision about it, alone.
    pub(super) fn decisions(&self) -> Scopes {
        Scopes::decisions(match (self.repository_id(), self.environment_id()) {
            (Some(repository), Some(environment)) => Decisions::Channel { repository, environment },
            (Some(repository), None) => Decisions::Repository(repository),
            (None, Some(environment)) => Decisions::Environment(environment),
            (None, None) => Decisions::All,
        })
    }

    /// What its answers depend on. What is about no repository and no environment of its own is a waiver.
    fn generation(&self) -> Generation {
        match (&self.repository, &self.environment) {
            (Some((_, repository)), Some((_, environment))) => Generation::channel(repository, environment),
            (Some((_, repository)), None) => Generation::repository(repository),
            (None, Some((_, environment))) => Generation::environment(environment),
            (None, None) => Generation::waivers(),
        }
    }

    /// An event about it, or about bytes there: answers about these bytes change, where there are any.
    pub(super) fn event<'a>(
        &'a self,
        kind: Kind,
        at: DateTime<Utc>,
        principal: &'a Principal,
        digest: Option<&'a Digest>,
        facts: Value,
    ) -> Event<'a> {
        Event {
            kind,
            at,
            principal,
            repository: self.repository.as_ref().map(|(id, name)| (*id, name)),
            environment: self.environment.as_ref().map(|(id, name)| (*id, name)),
            digest,
            facts,
            changes: vec![digest.map_or_else(|| self.generation(), Generation::bytes)],
        }
    }
}

async fn repository_id(connection: &mut PgConnection, name: &RepositoryName) -> Result<i64, Refused> {
    let found = content::repository(connection, name).await?;
    found.map(|repository| repository.id).ok_or_else(|| Refused::UnknownRepository(name.clone()))
}

async fn environment_id(connection: &mut PgConnection, name: &EnvironmentName) -> Result<i64, Refused> {
    let found = environments::find(connection, name).await?;
    found.ok_or_else(|| Refused::UnknownEnvironment(name.clone()))
}
