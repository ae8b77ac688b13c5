//! References to images as their users have them: in pod specifications, on command lines, in the status
//! of a runtime.

use super::{
    Digest, EnvironmentName, InvalidDigest, InvalidEnvironmentName, InvalidReference, InvalidRepositoryName,
    Reference, RepositoryName,
};
use std::fmt;

/// What a reference names, seen from one registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageReference {
    /// A version or digest of a repository.
    Repository {
        /// The repository.
        repository: RepositoryName,
        /// The version or digest.
        reference: Reference,
    },
    /// A version or digest as an environment sees it: `env/<environment>/<repository>`.
    View {
        /// The environment.
        environment: EnvironmentName,
        /// The repository.
        repository: RepositoryName,
        /// The tag or digest; the tag `current` is the known-good version.
        reference: Reference,
    },
    /// A digest without a repository.
    Digest(Digest),
    /// Something in another registry.
    OtherHost(String),
}

/// Not a reference to an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidImageReference {
    /// A URL of something else.
    #[error(
        "{0}:// does not name an image; accepted are docker-pullable://, docker://, oci://, https:// and http://"
    )]
    Scheme(String),
    /// A repository alone.
    #[error("{0:?} names neither a version nor a digest: write repository:version or repository@sha256:...")]
    Unfinished(String),
    /// A view without an environment and a repository.
    #[error("the view of an environment is named env/<environment>/<repository>")]
    View,
    /// The environment's name.
    #[error(transparent)]
    Environment(#[from] InvalidEnvironmentName),
    /// The repository's name.
    #[error(transparent)]
    Repository(#[from] InvalidRepositoryName),
    /// The version or digest.
    #[error(transparent)]
    Reference(#[from] InvalidReference),
    /// The digest.
    #[error(transparent)]
    Digest(#[from] InvalidDigest),
}

/// What tools write before a reference. The kubelet writes `docker-pullable://` into a pod's status.
const SCHEMES: [&str; 5] = ["docker-pullable", "docker", "oci", "https", "http"];

/// The first component of the name of a view.
const VIEWS: &str = "env/";

impl ImageReference {
    /// Reads a reference: `[scheme://][host/]repository[:tag][@digest]`, with `env/<environment>/` before
    /// the repository for a view, or a digest alone. `ours` are the hosts under which clients reach this
    /// registry. As other tools read references, a first component with a dot or a colon is a host, and
    /// so is `localhost`. Where both a tag and a digest are given, the digest counts.
    pub fn parse(text: &str, ours: &[&str]) -> Result<Self, InvalidImageReference> {
        let path = without_scheme(text)?;
        let path = match path.split_once('/') {
            Some((host, rest)) if ours.iter().any(|ours| ours.eq_ignore_ascii_case(host)) => rest,
            Some((host, _)) if is_host(host) => return Ok(Self::OtherHost(host.to_owned())),
            None if is_digest(path) => return Ok(Self::Digest(path.parse()?)),
            Some(_) | None => path,
        };
        let (name, reference) = split_reference(path)?;
        let reference = reference.parse()?;
        let Some(view) = name.strip_prefix(VIEWS) else {
            return Ok(Self::Repository { repository: name.parse()?, reference });
        };
        let (environment, repository) = view.split_once('/').ok_or(InvalidImageReference::View)?;
        Ok(Self::View { environment: environment.parse()?, repository: repository.parse()?, reference })
    }
}

/// Without a host, as [`ImageReference::parse`] reads it again.
impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, reference) = match self {
            Self::Repository { repository, reference } => (repository.to_string(), reference),
            Self::View { environment, repository, reference } => {
                (format!("{VIEWS}{environment}/{repository}"), reference)
            }
            Self::Digest(digest) => return digest.fmt(f),
            Self::OtherHost(host) => return f.write_str(host),
        };
        match reference {
            Reference::Tag(tag) => write!(f, "{name}:{tag}"),
            Reference::Digest(digest) => write!(f, "{name}@{digest}"),
        }
    }
}

fn without_scheme(text: &str) -> Result<&str, InvalidImageReference> {
    match text.split_once("://") {
        None => Ok(text),
        Some((scheme, rest)) if SCHEMES.iter().any(|known| known.eq_ignore_ascii_case(scheme)) => Ok(rest),
        Some((scheme, _)) => Err(InvalidImageReference::Scheme(scheme.chars().take(40).collect())),
    }
}

fn is_host(component: &str) -> bool {
    component.contains(['.', ':']) || component.eq_ignore_ascii_case("localhost")
}

fn is_digest(text: &str) -> bool {
    text.starts_with("sha256:") || text.starts_with("sha512:")
}

/// The name, and what stands behind it.
fn split_reference(path: &str) -> Result<(&str, &str), InvalidImageReference> {
    let last_slash = path.rfind('/').map_or(0, |at| at + 1);
    if let Some((before, digest)) = path.split_once('@') {
        let name = before
            .get(last_slash..)
            .and_then(|last| last.split_once(':'))
            .map_or(before, |(last, _)| &before[..last_slash + last.len()]);
        return Ok((name, digest));
    }
    let unfinished = || InvalidImageReference::Unfinished(path.chars().take(300).collect());
    let (last, tag) = path[last_slash..].split_once(':').ok_or_else(unfinished)?;
    Ok((&path[..last_slash + last.len()], tag))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OURS: [&str; 2] = ["registry.example:8443", "mirror"];

    fn read(text: &str) -> Result<ImageReference, InvalidImageReference> {
        ImageReference::parse(text, &OURS)
    }

    fn shown(text: &str) -> String {
        read(text).unwrap().to_string()
    }

    fn digest() -> String {
        Digest::sha256(b"image").to_string()
    }

    #[test]
    fn a_reference_is_read_as_other_tools_write_it() {
        let digest = digest();
        assert_eq!(shown("team/app:1.2"), "team/app:1.2");
        assert_eq!(shown("app:1.2"), "app:1.2");
        assert_eq!(shown("registry.example:8443/team/app:1.2"), "team/app:1.2");
        assert_eq!(shown("Registry.Example:8443/app:1.2"), "app:1.2");
        assert_eq!(shown("mirror/app:1.2"), "app:1.2");
        assert_eq!(shown("registry.example:8443/acme.io/app:1"), "acme.io/app:1");
        assert_eq!(shown(&format!("app:1.2@{digest}")), format!("app@{digest}"));
        assert_eq!(shown(&format!("mirror/a/b/c:1@{digest}")), format!("a/b/c@{digest}"));
    }

    #[test]
    fn the_scheme_of_a_tool_is_no_part_of_a_name() {
        let digest = digest();
        for scheme in ["docker-pullable", "docker", "oci", "https", "http", "HTTPS"] {
            let text = format!("{scheme}://registry.example:8443/app@{digest}");
            assert_eq!(shown(&text), format!("app@{digest}"));
            assert_eq!(shown(&format!("{scheme}://{digest}")), digest);
        }
        let refused = read(&format!("containerd://{digest}")).unwrap_err().to_string();
        assert!(refused.starts_with("containerd:// does not name an image"), "{refused}");
    }

    #[test]
    fn another_host_is_another_registry() {
        for (text, host) in [
            ("docker.io/library/nginx:1", "docker.io"),
            ("other.example:5000/x:1", "other.example:5000"),
            ("localhost/x:1", "localhost"),
            ("registry.example/app:1", "registry.example"),
            ("https://[::1]:5000/app:1", "[::1]:5000"),
            ("docker://quay.io/whatever at all", "quay.io"),
        ] {
            assert_eq!(read(text), Ok(ImageReference::OtherHost(host.into())), "{text}");
        }
    }

    #[test]
    fn a_view_is_an_environment_with_a_repository() {
        let view = ImageReference::View {
            environment: "prod".parse().unwrap(),
            repository: "team/app".parse().unwrap(),
            reference: "current".parse().unwrap(),
        };
        assert_eq!(read("env/prod/team/app:current"), Ok(view.clone()));
        assert_eq!(read("oci://mirror/env/prod/team/app:current"), Ok(view));
        assert_eq!(read("env/prod:1"), Err(InvalidImageReference::View));
        assert!(matches!(read("env/Prod/app:1"), Err(InvalidImageReference::Environment(_))));
    }

    #[test]
    fn what_names_no_image_is_refused_with_the_reason() {
        for (bad, why) in [
            ("", "neither a version nor a digest"),
            ("team/app", "neither a version nor a digest"),
            ("mirror/", "neither a version nor a digest"),
            ("Team/app:1", "a repository name is"),
            ("app:", "a tag is"),
            ("app:-1", "a tag is"),
            ("app@sha256:12", "digest"),
            ("sha256:12", "digest"),
            ("a:b:c", "digest"),
        ] {
            let refused = read(bad).unwrap_err().to_string();
            assert!(refused.contains(why), "{bad}: {refused}");
        }
    }

    proptest! {
        #[test]
        fn no_text_ends_the_service_and_what_is_read_is_read_again(text in "(env/)?[a-z:/@.é]{0,20}(:[a-z]{1,3})?") {
            if let Ok(read) = ImageReference::parse(&text, &OURS)
                && !matches!(read, ImageReference::OtherHost(_))
            {
                // A repository whose name begins like a host is named behind one of ours.
                prop_assert_eq!(ImageReference::parse(&format!("mirror/{read}"), &OURS), Ok(read));
            }
        }
    }
}
