//! What provenance says of where something was built from, read by the rules of its build type.
//!
//! Pure. Each build type defines where the source stands; another place, such as a dependency, is written by what is
//! built as well and is never taken for it. What a type does not define, or states in a form that can be read in two
//! ways, is not there.

mod readers;

use super::facts::{PROVENANCE_V0_2, PROVENANCE_V1};
use super::statement::Statement;
use crate::names::SourceUri;
use serde_json::Value;

/// The edition of these rules. Raised with every change that reads some statement otherwise: what an earlier edition
/// read is read again, and until then counts for no promotion.
pub const READER: i32 = 2;

/// Where something was built from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The build type.
    pub build_type: Option<String>,
    /// The repository.
    pub source: Option<SourceUri>,
    /// The branch or tag, such as `refs/heads/main`.
    pub reference: Option<String>,
    /// The commit, hexadecimal.
    pub commit: Option<String>,
}

/// Where a build type that an administrator declared names its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceLocation {
    /// At JSON pointers into `externalParameters`.
    Parameters(Pointers),
    /// The entry of `resolvedDependencies` with this name.
    Dependency(String),
}

/// JSON pointers into `externalParameters`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointers {
    /// The repository's address, perhaps with its ref (`git+https://host/path@ref`) where no pointer names it.
    pub source: String,
    /// The full ref, such as `refs/heads/main`.
    pub reference: Option<String>,
    /// Instead of the ref: the name of the branch, such as `main`.
    pub branch: Option<String>,
    /// The commit; without it, that of the dependency that is the source.
    pub commit: Option<String>,
}

/// The longest text that is kept of a statement.
const MAX_LEN: usize = 1024;

/// Reads the origin, if the statement is provenance. `declared` finds the declaration of a build type that is not
/// built in.
pub fn read<'a>(
    statement: &Statement,
    declared: impl Fn(&str) -> Option<&'a SourceLocation>,
) -> Option<Origin> {
    let predicate = &statement.predicate;
    let at = match statement.predicate_type.as_str() {
        PROVENANCE_V1 => "/buildDefinition/buildType",
        PROVENANCE_V0_2 => "/buildType",
        _ => return None,
    };
    let build_type = text(predicate.pointer(at)).filter(|text| text.len() <= MAX_LEN).map(str::to_owned);
    let named = build_type.as_deref().unwrap_or_default();
    let read = if statement.predicate_type == PROVENANCE_V1 {
        let definition = predicate.get("buildDefinition").unwrap_or(&Value::Null);
        readers::v1(named, definition, declared(named))
    } else {
        readers::v0_2(named, predicate)
    };
    Some(Origin { build_type, ..read.unwrap_or_default() })
}

/// The build type of a statement of provenance v1, which may be declared.
pub fn declarable(statement: &Statement) -> Option<&str> {
    let is_v1 = statement.predicate_type == PROVENANCE_V1;
    let definition = statement.predicate.get("buildDefinition").filter(|_| is_v1)?;
    let parameters = definition.get("externalParameters").unwrap_or(&Value::Null);
    text(definition.get("buildType")).filter(|named| readers::Known::of(named, parameters).is_none())
}

/// Whether the rules of the build type are built in, whatever its parameters are, so that nobody declares others.
pub fn is_built_in(build_type: &str) -> bool {
    readers::Known::of(build_type, &Value::Null).is_some()
}

/// The text, if it is one.
fn text(value: Option<&Value>) -> Option<&str> {
    value.and_then(Value::as_str)
}

#[cfg(test)]
mod tests;
