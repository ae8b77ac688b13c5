//! Paths below `/v2/`, read from the right: a repository's name may hold slashes, and any of the
//! specification's own words.

use super::{Code, OciError};
use crate::access::Lane;
use crate::names::{Digest, RepositoryName};
use axum::http::StatusCode;
use uuid::Uuid;

/// What a path below `/v2/` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OciPath {
    /// `/v2/`
    Base,
    /// `/v2/_catalog`
    Catalog,
    /// `<name>/tags/list`
    Tags(RepositoryName),
    /// `<name>/manifests/<reference>`; what a malformed reference means depends on the method.
    Manifest(RepositoryName, String),
    /// `<name>/referrers/<digest>`
    Referrers(RepositoryName, Digest),
    /// `<name>/blobs/<digest>`
    Blob(RepositoryName, Digest),
    /// `<name>/blobs/uploads/`
    Uploads(RepositoryName),
    /// `<name>/blobs/uploads/<session>`
    Upload(RepositoryName, Uuid),
    /// The same of `env/<environment>/<repository>`, which shows what is promoted there.
    View(Lane, Viewed),
}

/// What a path names in the view of an environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Viewed {
    /// `<view>/tags/list`
    Tags,
    /// `<view>/manifests/<reference>`
    Manifest(String),
    /// `<view>/referrers/<digest>`
    Referrers(Digest),
    /// `<view>/blobs/<digest>`
    Blob(Digest),
    /// `<view>/blobs/uploads/...`: nothing is taken there.
    Uploads,
}

impl OciPath {
    /// Parses what follows `/v2/`, already percent-decoded. One `env/<environment>/` prefix is taken off;
    /// the rest is parsed without any knowledge of views, so nothing here recurses on the input.
    pub fn parse(path: &str) -> Result<Self, OciError> {
        let segments: Vec<&str> = path.split('/').collect();
        match segments.as_slice() {
            ["env", environment, rest @ ..] if rest.len() > 2 => {
                Self::parse_in_repository(rest)?.seen_in(environment)
            }
            segments => Self::parse_in_repository(segments),
        }
    }

    /// Parses a path outside of views, from the right.
    fn parse_in_repository(segments: &[&str]) -> Result<Self, OciError> {
        match segments {
            [""] => Ok(Self::Base),
            ["_catalog"] => Ok(Self::Catalog),
            [name @ .., "tags", "list"] => Ok(Self::Tags(repository(name)?)),
            [name @ .., "blobs", "uploads"] | [name @ .., "blobs", "uploads", ""] => {
                Ok(Self::Uploads(repository(name)?))
            }
            [name @ .., "blobs", "uploads", session] => {
                Ok(Self::Upload(repository(name)?, session.parse().map_err(|_| unknown_session())?))
            }
            [name @ .., "blobs", digest] => Ok(Self::Blob(repository(name)?, parse_digest(digest)?)),
            [name @ .., "manifests", reference] => {
                Ok(Self::Manifest(repository(name)?, (*reference).to_owned()))
            }
            [name @ .., "referrers", digest] => Ok(Self::Referrers(repository(name)?, parse_digest(digest)?)),
            _ => Err(none()),
        }
    }

    /// What the path of a repository names in its view.
    fn seen_in(self, environment: &str) -> Result<Self, OciError> {
        let (repository, viewed) = match self {
            Self::Tags(repository) => (repository, Viewed::Tags),
            Self::Manifest(repository, reference) => (repository, Viewed::Manifest(reference)),
            Self::Referrers(repository, digest) => (repository, Viewed::Referrers(digest)),
            Self::Blob(repository, digest) => (repository, Viewed::Blob(digest)),
            Self::Uploads(repository) | Self::Upload(repository, _) => (repository, Viewed::Uploads),
            Self::Base | Self::Catalog | Self::View(..) => return Err(none()),
        };
        let environment = environment.parse().map_err(|error| {
            OciError::new(
                StatusCode::BAD_REQUEST,
                Code::NameInvalid,
                format!("env/<environment>/...: {error}"),
            )
        })?;
        Ok(Self::View(Lane { repository, environment }, viewed))
    }
}

fn none() -> OciError {
    OciError::new(
        StatusCode::NOT_FOUND,
        Code::NameUnknown,
        "the path is none of the distribution specification's",
    )
}

fn repository(segments: &[&str]) -> Result<RepositoryName, OciError> {
    segments
        .join("/")
        .parse()
        .map_err(|error| OciError::new(StatusCode::BAD_REQUEST, Code::NameInvalid, format!("{error}")))
}

/// A digest that stands in a request; malformed is 400.
pub fn parse_digest(text: &str) -> Result<Digest, OciError> {
    text.parse()
        .map_err(|error| OciError::new(StatusCode::BAD_REQUEST, Code::DigestInvalid, format!("{error}")))
}

fn unknown_session() -> OciError {
    OciError::new(StatusCode::NOT_FOUND, Code::BlobUploadUnknown, "there is no such upload session")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> RepositoryName {
        text.parse().unwrap()
    }

    #[test]
    fn names_may_hold_the_specifications_own_words() {
        let digest = Digest::sha256(b"x");
        let parse = |path: &str| OciPath::parse(path).unwrap();
        assert_eq!(parse("tags/list/tags/list"), OciPath::Tags(name("tags/list")));
        assert_eq!(parse("a/manifests/tags/list"), OciPath::Tags(name("a/manifests")));
        assert_eq!(
            parse("a/blobs/uploads/manifests/v1"),
            OciPath::Manifest(name("a/blobs/uploads"), "v1".into())
        );
        assert_eq!(parse("a/blobs/uploads/"), OciPath::Uploads(name("a")));
        assert_eq!(parse("a/blobs/uploads"), OciPath::Uploads(name("a")));
        let blob = format!("a/blobs/uploads/blobs/{digest}");
        assert_eq!(parse(&blob), OciPath::Blob(name("a/blobs/uploads"), digest));
        let session = Uuid::nil();
        assert_eq!(parse(&format!("a/b/blobs/uploads/{session}")), OciPath::Upload(name("a/b"), session));
        assert_eq!(parse(""), OciPath::Base);
        assert_eq!(parse("_catalog"), OciPath::Catalog);
    }

    #[test]
    fn what_begins_with_env_is_a_view() {
        let lane: Lane = "env/prod/team/app".parse().unwrap();
        let digest = Digest::sha256(b"x");
        let parse = |path: &str| OciPath::parse(path).unwrap();
        for (path, viewed) in [
            ("tags/list".to_owned(), Viewed::Tags),
            ("manifests/current".to_owned(), Viewed::Manifest("current".into())),
            (format!("blobs/{digest}"), Viewed::Blob(digest.clone())),
            (format!("referrers/{digest}"), Viewed::Referrers(digest.clone())),
            ("blobs/uploads/".to_owned(), Viewed::Uploads),
            (format!("blobs/uploads/{}", Uuid::nil()), Viewed::Uploads),
        ] {
            assert_eq!(parse(&format!("{lane}/{path}")), OciPath::View(lane.clone(), viewed), "{path}");
        }
        for bad in
            ["env/manifests/a", "env/prod/tags/list", "env/A/app/tags/list", "env/prod/env/a/b/tags/list"]
        {
            assert!(OciPath::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_path_cannot_leave_its_repository() {
        for bad in [
            "../manifests/a",
            "a/../manifests/a",
            "a//manifests/a",
            "/manifests/a",
            "manifests/a",
            "a",
            "a/b/c",
        ] {
            assert!(OciPath::parse(bad).is_err(), "{bad}");
        }
    }

    const WORDS: [&str; 11] =
        ["env", "a", "b", "tags", "list", "blobs", "uploads", "manifests", "referrers", "_catalog", ""];

    /// Longer than every request line that the service takes.
    const LONG_BYTES: usize = 80 << 10;

    #[test]
    fn a_path_as_long_as_the_header_limit_is_parsed_without_recursion() {
        let words = ["env/a/", "env/", "a/", "blobs/uploads/", "manifests/", "tags/list/", "referrers/", "/"];
        let ends = ["b/manifests/x", "b/tags/list", "b/blobs/uploads/", "tags/list", "", "env"];
        for (word, end) in words.iter().flat_map(|word| ends.iter().map(move |end| (word, end))) {
            let path = format!("{}{end}", word.repeat(LONG_BYTES / word.len()));
            // A thread with a small stack would overflow at the first recursion for each segment.
            let parsed = std::thread::Builder::new()
                .stack_size(256 << 10)
                .spawn(move || OciPath::parse(&path).is_ok())
                .unwrap()
                .join()
                .unwrap();
            assert!(!parsed, "{word} {end}");
        }
    }

    proptest! {
        #[test]
        fn long_paths_of_known_words_never_panic(picks in prop::collection::vec(0..WORDS.len(), 0..4000)) {
            let path = picks.iter().map(|pick| WORDS[*pick]).collect::<Vec<_>>().join("/");
            let _ = OciPath::parse(&path);
        }

        #[test]
        fn any_name_is_read_back(parts in prop::collection::vec("tags|list|blobs|uploads|manifests|referrers|[a-z0-9]{1,3}", 1..6)) {
            let name: RepositoryName = parts.join("/").parse().unwrap();
            let digest = Digest::sha256(b"x");
            prop_assert_eq!(OciPath::parse(&format!("{name}/manifests/v1")).unwrap(), OciPath::Manifest(name.clone(), "v1".into()));
            prop_assert_eq!(OciPath::parse(&format!("{name}/blobs/{digest}")).unwrap(), OciPath::Blob(name.clone(), digest));
            prop_assert_eq!(OciPath::parse(&format!("{name}/tags/list")).unwrap(), OciPath::Tags(name));
        }
    }
}
