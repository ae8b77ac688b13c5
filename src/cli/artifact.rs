//! How an artifact is named on the command line: `repository:version` or `repository@digest`.

use super::connection::Registry;
use super::stop::Stop;
use crate::names::{Digest, Reference, RepositoryName};
use reqwest::header::ACCEPT;
use reqwest::{Method, Url};
use std::convert::Infallible;
use std::fmt::Display;
use std::str::FromStr;

/// An artifact as it was typed, perhaps behind the registry's host, as deployers write references.
#[derive(Clone, Debug)]
pub struct Named(String);

impl FromStr for Named {
    type Err = Infallible;
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

/// A repository, and a version or digest in it where one was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// The repository.
    pub repository: RepositoryName,
    /// The version or digest.
    pub reference: Option<Reference>,
}

/// A manifest, fetched and checked against the digest it was asked by.
#[derive(Debug)]
pub struct Fetched {
    /// The SHA-256 or SHA-512 it is stored under.
    pub digest: Digest,
    /// Its bytes.
    pub body: Vec<u8>,
}

impl Named {
    /// The repository and reference, without the host where it is this registry's.
    pub fn parse(&self, server: &Url) -> Result<Artifact, Stop> {
        let behind_host =
            |text| str::strip_prefix(text, &host(server)).and_then(|rest| rest.strip_prefix('/'));
        let text = behind_host(&self.0).unwrap_or(&self.0);
        let wrong = |why: String| {
            Stop::Usage(format!(
                "'{}' names no artifact ({why}); write payments/api:1.4.2 or payments/api@sha256:...",
                self.0
            ))
        };
        let (repository, reference) = match text.split_once('@') {
            // repository:version@digest is how some tools pin; the digest is what counts.
            Some((before, digest)) => (before.split_once(':').map_or(before, |(name, _)| name), Some(digest)),
            None => text.split_once(':').map_or((text, None), |(name, version)| (name, Some(version))),
        };
        Ok(Artifact {
            repository: repository
                .parse()
                .map_err(|error: crate::names::InvalidRepositoryName| wrong(error.to_string()))?,
            reference: reference
                .map(|text| {
                    text.parse().map_err(|error: crate::names::InvalidReference| wrong(error.to_string()))
                })
                .transpose()?,
        })
    }

    /// A repository without a version or digest: what is asked for is found in it.
    pub fn whole(&self, server: &Url) -> Result<RepositoryName, Stop> {
        let artifact = self.parse(server)?;
        match artifact.reference {
            None => Ok(artifact.repository),
            Some(_) => Err(Stop::Usage(format!(
                "'{}' names one artifact; name the repository alone: {}",
                self.0, artifact.repository
            ))),
        }
    }

    /// The repository and a version or digest, which must be there.
    pub fn exact(&self, server: &Url) -> Result<(RepositoryName, Reference), Stop> {
        let artifact = self.parse(server)?;
        match artifact.reference {
            Some(reference) => Ok((artifact.repository, reference)),
            None => Err(Stop::Usage(format!(
                "'{}' names a repository; add a version or digest: {0}:1.4.2 or {0}@sha256:...",
                self.0
            ))),
        }
    }
}

/// What stands before a repository in a reference to this server.
pub fn host(server: &Url) -> String {
    match (server.host_str(), server.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (Some(host), None) => host.to_owned(),
        (None, _) => String::new(),
    }
}

/// Accepts every kind of manifest that is stored here.
const MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, */*;q=0.1";

/// Fetches a manifest and checks that its bytes have the digest it was asked by, or that the
/// server named.
pub async fn fetch(
    registry: &Registry,
    repository: &impl Display,
    reference: &Reference,
) -> Result<Fetched, Stop> {
    let path = format!("/v2/{repository}/manifests/{reference}");
    let response = registry.send(registry.request(Method::GET, &path).header(ACCEPT, MANIFESTS)).await?;
    let named =
        response.headers().get("docker-content-digest").and_then(|value| value.to_str().ok()?.parse().ok());
    let expected: Option<Digest> = match reference {
        Reference::Digest(digest) => Some(digest.clone()),
        Reference::Tag(_) => named,
    };
    let body = response.bytes().await.map_err(|error| registry.unanswered(&error))?.to_vec();
    let expected = expected.unwrap_or_else(|| Digest::sha256(&body));
    if Digest::of(expected.algorithm(), &body) != expected {
        return Err(Stop::no(
            "digest-mismatch",
            format!("the manifest that {} sent is not {expected}", registry.base()),
        ));
    }
    Ok(Fetched { digest: expected, body })
}

/// The digest of an artifact: as it was given, or asked for by its version.
pub async fn digest(
    registry: &Registry,
    repository: &RepositoryName,
    reference: &Reference,
) -> Result<Digest, Stop> {
    match reference {
        Reference::Digest(digest) => Ok(digest.clone()),
        Reference::Tag(_) => Ok(fetch(registry, repository, reference).await?.digest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<(String, Option<String>)> {
        let server = Url::parse("http://127.0.0.1:8470").unwrap();
        let artifact = text.parse::<Named>().unwrap().parse(&server).ok()?;
        Some((artifact.repository.to_string(), artifact.reference.map(|r| r.to_string())))
    }

    #[test]
    fn an_artifact_is_a_repository_with_a_version_or_digest() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let is = |name: &str, reference: Option<&str>| Some((name.to_owned(), reference.map(str::to_owned)));
        assert_eq!(parsed("payments/api"), is("payments/api", None));
        assert_eq!(parsed("payments/api:1.4.2"), is("payments/api", Some("1.4.2")));
        assert_eq!(parsed(&format!("payments/api@{digest}")), is("payments/api", Some(&digest)));
        assert_eq!(
            parsed(&format!("127.0.0.1:8470/payments/api:1@{digest}")),
            is("payments/api", Some(&digest))
        );
        for bad in ["", "Payments", "a:b:c", "a@sha256:12", "other:5000/payments/api:1"] {
            assert_eq!(parsed(bad), None, "{bad}");
        }
    }
}
