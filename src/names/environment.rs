//! Environments: the places of the promotion path.

use super::{repository::is_component, text_name};

/// An environment's name, one component of an OCI repository name, such as `staging`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EnvironmentName(String);

/// Not an environment's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "an environment name is at most 63 lower-case letters and digits, with single '.', '_' or '-' between them"
)]
pub struct InvalidEnvironmentName;

impl EnvironmentName {
    fn check(text: &str) -> Result<(), InvalidEnvironmentName> {
        if text.len() <= 63 && is_component(text) { Ok(()) } else { Err(InvalidEnvironmentName) }
    }
}

text_name!(EnvironmentName, InvalidEnvironmentName);
