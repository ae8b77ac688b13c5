//! What a fact is about: a repository, an environment, or a repository in an environment.

use super::Refused;
use super::lane::{Place, environment_id, repository_id};
use crate::access::Principal;
use crate::ledger::{Event, Kind};
use crate::names::{Digest, EnvironmentName, RepositoryName};
use crate::postgres::Scopes;
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;

/// A repository, an environment, or both, with their row ids.
pub(super) struct Target {
    repository: Option<(i64, RepositoryName)>,
    environment: Option<(i64, EnvironmentName)>,
}

impl From<Place> for Target {
    fn from(place: Place) -> Self {
        Self {
            repository: Some((place.repository_id, place.repository)),
            environment: Some((place.environment_id, place.environment)),
        }
    }
}

impl Target {
    pub async fn find(
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

    pub fn repository_id(&self) -> Option<i64> {
        self.repository.as_ref().map(|(id, _)| *id)
    }

    pub fn environment_id(&self) -> Option<i64> {
        self.environment.as_ref().map(|(id, _)| *id)
    }

    /// Every decision about it, alone.
    pub fn scopes(&self) -> Scopes {
        match (self.repository_id(), self.environment_id()) {
            (Some(repository), Some(environment)) => Scopes::lane(repository, environment),
            (Some(repository), None) => Scopes::repository(repository),
            (None, Some(environment)) => Scopes::environment(environment),
            (None, None) => Scopes::everything(),
        }
    }

    pub fn event<'a>(
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
        }
    }
}
