//! A blob on its way: believed only when its bytes have its digest.

use super::connection::Registry;
use super::hashing::READ_BYTES;
use super::stop::Stop;
use crate::names::{Digest, Hasher, RepositoryName};
use futures::StreamExt;
use indicatif::ProgressBar;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE};
use reqwest::{Body, Method, StatusCode};
use std::fmt::Display;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio_util::io::ReaderStream;

/// Streams a blob of the repository, or of a view, hashing what passes; no more than its size is taken.
pub async fn stream(
    registry: &Registry,
    repository: &impl Display,
    (digest, size): (&Digest, u64),
    bar: &ProgressBar,
    to: &mut (impl AsyncWrite + Unpin),
) -> Result<(), Stop> {
    let path = format!("/v2/{repository}/blobs/{digest}");
    let mut response = registry.send(registry.request(Method::GET, &path)).await?;
    let failed = |error: std::io::Error| Stop::Unanswered(format!("cannot write the file: {error}"));
    let mut hasher = Hasher::new(digest.algorithm());
    let mut left = size;
    while let Some(chunk) = response.chunk().await.map_err(|error| registry.unanswered(&error))? {
        left = left.checked_sub(chunk.len() as u64).ok_or_else(|| {
            let detail = format!("{} sent more than the {size} bytes of {digest}", registry.base());
            Stop::no("digest-mismatch", detail)
        })?;
        hasher.update(&chunk);
        to.write_all(&chunk).await.map_err(failed)?;
        bar.inc(chunk.len() as u64);
    }
    to.flush().await.map_err(failed)?;
    let got = hasher.finish();
    if got == *digest {
        return Ok(());
    }
    Err(Stop::no(
        "digest-mismatch",
        format!("the bytes that {} sent are {got}, not {digest}", registry.base()),
    ))
}

/// Whether the repository has the blob; asking protects it there for the grace period.
pub async fn is_there(
    registry: &Registry,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<bool, Stop> {
    registry.has(&format!("/v2/{repository}/blobs/{digest}")).await
}

/// Makes another repository's blob part of this one; false where the server would rather have the bytes.
pub async fn mount(
    registry: &Registry,
    repository: &RepositoryName,
    from: &RepositoryName,
    digest: &Digest,
) -> Result<bool, Stop> {
    let path = format!("/v2/{repository}/blobs/uploads/?mount={digest}&from={from}");
    let answer = registry.send(registry.request(Method::POST, &path)).await?;
    if answer.status() == StatusCode::CREATED {
        return Ok(true);
    }
    // A session was opened instead, which nobody will use.
    let location = answer.headers().get("location").and_then(|value| value.to_str().ok());
    if let Some(path) = location.filter(|location| location.starts_with('/')) {
        registry.send(registry.request(Method::DELETE, path)).await?;
    }
    Ok(false)
}

/// Pushes a file as a blob, in one request; the server refuses other bytes.
pub async fn push(
    registry: &Registry,
    repository: &RepositoryName,
    digest: &Digest,
    file: std::fs::File,
    bar: &ProgressBar,
) -> Result<(), Stop> {
    let length =
        file.metadata().map_err(|error| Stop::Usage(format!("cannot read {digest}: {error}")))?.len();
    let bar = bar.clone();
    let stream = ReaderStream::with_capacity(tokio::fs::File::from_std(file), READ_BYTES);
    let counted = stream.inspect(move |chunk| {
        if let Ok(bytes) = chunk {
            bar.inc(bytes.len() as u64);
        }
    });
    let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
    let request = registry.request(Method::POST, &path).header(CONTENT_TYPE, "application/octet-stream");
    registry.send(request.header(CONTENT_LENGTH, length).body(Body::wrap_stream(counted))).await?;
    Ok(())
}
