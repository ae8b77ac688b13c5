//! Repository names: OCI distribution specification, "Pulling manifests", `<name>`.

use super::text_name;

/// A repository's name: components of `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`, separated by slashes.
///
/// The first component `env` is reserved for the environment views.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepositoryName(String);

/// Not a repository's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRepositoryName {
    /// A component breaks the grammar.
    #[error(
        "a repository name is lower-case letters and digits, with single '.', '_', '__' or dashes between \
         them, in components separated by '/'"
    )]
    Grammar,
    /// Longer than any client takes.
    #[error("a repository name has at most 255 characters")]
    Long,
    /// `env` or `env/...`.
    #[error("repository names that begin with env/ are reserved for the environment views")]
    Reserved,
}

/// Characters of a repository's name at the most; clients fail above it.
const MAX_LEN: usize = 255;

impl RepositoryName {
    fn check(text: &str) -> Result<(), InvalidRepositoryName> {
        if text.len() > MAX_LEN {
            return Err(InvalidRepositoryName::Long);
        }
        if !text.split('/').all(is_component) {
            return Err(InvalidRepositoryName::Grammar);
        }
        if text == "env" || text.starts_with("env/") {
            return Err(InvalidRepositoryName::Reserved);
        }
        Ok(())
    }
}

/// Whether the text is one component of a repository's name.
pub(super) fn is_component(text: &str) -> bool {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    if !alphanumeric(first) || !alphanumeric(last) {
        return false;
    }
    bytes.split(alphanumeric).all(|separator| {
        matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|b| *b == b'-')
    })
}

text_name!(RepositoryName, InvalidRepositoryName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_of_the_specification_holds() {
        for good in ["a", "a/b", "a-b", "a--b", "a__b", "a.b/c_d", "library/env", "0/1/2/3/4/5"] {
            assert!(good.parse::<RepositoryName>().is_ok(), "{good}");
        }
        for bad in [
            "", "/", "a/", "/a", "a//b", "A", "a..b", "a___b", "a.-b", "-a", "a-", "a b", "../a", "a/../b",
            "é",
        ] {
            assert_eq!(bad.parse::<RepositoryName>(), Err(InvalidRepositoryName::Grammar), "{bad}");
        }
        assert_eq!("env/prod/a".parse::<RepositoryName>(), Err(InvalidRepositoryName::Reserved));
        assert_eq!("a".repeat(256).parse::<RepositoryName>(), Err(InvalidRepositoryName::Long));
    }
}
