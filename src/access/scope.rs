//! What an action is done on.

use crate::names::{EnvironmentName, RepositoryName};

/// Something that an action can be allowed on.
pub trait Scope: Clone + Send + Sync + 'static {
    /// Where it lies.
    fn place(&self) -> Place<'_>;
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
    /// Not at all: pushing and pulling happen in no environment.
    Regardless,
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
