//! What an action is done on.

use crate::names::{EnvironmentName, Pattern, RepositoryName};
use std::fmt;
use std::str::FromStr;

/// Something that an action can be allowed on.
pub trait Scope: Clone + Send + Sync + 'static {
    /// Where it lies.
    fn place(&self) -> Place<'_>;

    /// The pattern of its repositories, where it is about all that match one. `place` then says only how far
    /// environments matter.
    fn pattern(&self) -> Option<&Pattern> {
        None
    }
}

/// Where a scope lies: `None` for the repository or environment means all of them.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The repository, or all.
    pub repository: Option<&'a RepositoryName>,
    /// How far environments matter.
    pub environment: InEnvironment<'a>,
}

/// How far environments matter to a scope.
#[derive(Clone, Copy, Debug)]
pub enum InEnvironment<'a> {
    /// Not at all: pushing and pulling happen in no environment. A right in some environments is none here.
    Regardless,
    /// In some environment, or regardless of any: lists show each caller the part of their environments.
    Any,
    /// In this one.
    One(&'a EnvironmentName),
    /// In all of them.
    All,
}

impl Scope for RepositoryName {
    fn place(&self) -> Place<'_> {
        Place { repository: Some(self), environment: InEnvironment::Regardless }
    }
}

/// One repository in one environment: where promotions happen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane {
    /// The repository.
    pub repository: RepositoryName,
    /// The environment.
    pub environment: EnvironmentName,
}

/// What the names of views begin with; no repository's name does.
const VIEWS: &str = "env/";

/// Not the name of a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the view of an environment is named env/<environment>/<repository>")]
pub struct InvalidView;

/// The name of the lane's view: `env/<environment>/<repository>`, what a client of OCI pulls from that
/// follows what is promoted there.
impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{VIEWS}{}/{}", self.environment, self.repository)
    }
}

impl FromStr for Lane {
    type Err = InvalidView;
    fn from_str(text: &str) -> Result<Self, InvalidView> {
        let (environment, repository) =
            text.strip_prefix(VIEWS).and_then(|rest| rest.split_once('/')).ok_or(InvalidView)?;
        Ok(Self {
            repository: repository.parse().map_err(|_| InvalidView)?,
            environment: environment.parse().map_err(|_| InvalidView)?,
        })
    }
}

impl Scope for Lane {
    fn place(&self) -> Place<'_> {
        Place { repository: Some(&self.repository), environment: InEnvironment::One(&self.environment) }
    }
}

/// One environment, for all repositories.
impl Scope for EnvironmentName {
    fn place(&self) -> Place<'_> {
        Place { repository: None, environment: InEnvironment::One(self) }
    }
}

/// The whole registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Everything;

impl Scope for Everything {
    fn place(&self) -> Place<'_> {
        Place { repository: None, environment: InEnvironment::All }
    }
}

/// One repository in every environment: what a block without an environment stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EveryLane(pub RepositoryName);

impl Scope for EveryLane {
    fn place(&self) -> Place<'_> {
        Place { repository: Some(&self.0), environment: InEnvironment::All }
    }
}

/// One repository, in whichever environments the caller has a right: what a list is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SomeLane(pub RepositoryName);

impl Scope for SomeLane {
    fn place(&self) -> Place<'_> {
        Place { repository: Some(&self.0), environment: InEnvironment::Any }
    }
}

/// All repositories that match a pattern, in one environment or in all: where a waiver counts. A right
/// covers it only if one grant's pattern covers the whole pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matching {
    /// The repositories.
    pub repositories: Pattern,
    /// The environment; all of them when there is none.
    pub environment: Option<EnvironmentName>,
}

impl Scope for Matching {
    fn place(&self) -> Place<'_> {
        let environment = self.environment.as_ref().map_or(InEnvironment::All, InEnvironment::One);
        Place { repository: None, environment }
    }

    fn pattern(&self) -> Option<&Pattern> {
        Some(&self.repositories)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_views_name_is_read_back_and_nothing_else_is_one() {
        for name in ["env/prod/app", "env/prod/team/app", "env/e.1/a/env/b"] {
            assert_eq!(name.parse::<Lane>().unwrap().to_string(), name);
        }
        for name in
            ["env", "env/", "env/prod", "env/prod/", "env//app", "app", "team/env/app", "env/prod/env/a"]
        {
            assert_eq!(name.parse::<Lane>(), Err(InvalidView), "{name}");
        }
    }
}
