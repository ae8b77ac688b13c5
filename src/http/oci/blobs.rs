//! `<name>/blobs/<digest>`.

use super::{Code, OciError, Visit};
use crate::access::{Delete, Grant, Pull};
use crate::content::{self, blobs};
use crate::failure::Failure;
use crate::http::outgoing;
use crate::http::range::{self, Wanted};
use crate::names::{Digest, RepositoryName};
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// `GET`, whole or a range (or a redirect to the object store, where that is configured), and `HEAD`, which
/// also protects the blob for the grace period: a client that is told that it need not push must find it
/// when it names it in a manifest.
pub async fn get(visit: Visit, repository: RepositoryName, digest: Digest) -> Result<Response, OciError> {
    let grant = visit.may::<Pull>(&repository)?;
    show(visit, &grant, digest).await
}

/// The blob of the grant's repository, as GET and HEAD answer it.
pub(super) async fn show(visit: Visit, grant: &Grant<Pull>, digest: Digest) -> Result<Response, OciError> {
    let mut connection = visit.app.db.pool().acquire().await.map_err(Failure::from)?;
    let Some(home) = content::repository(&mut connection, grant.repository()).await? else {
        return Err(unknown(&digest));
    };
    if visit.method == Method::HEAD {
        let grace = visit.app.config.blob_grace;
        let size = blobs::size(&mut connection, home.id, &digest).await?.ok_or_else(|| unknown(&digest))?;
        if !blobs::protect(&mut connection, home.id, &digest, grace).await? {
            return Err(unknown(&digest));
        }
        return Ok((StatusCode::OK, described(&digest, size), Body::empty()).into_response());
    }
    let blob = blobs::find(&mut connection, home.id, &digest).await?.ok_or_else(|| unknown(&digest))?;
    drop(connection);
    let etag = format!("\"{digest}\"");
    if range::matches(&visit.headers, &etag) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response());
    }
    let Ok(wanted) = range::wanted(&visit.headers, &etag, blob.size_bytes) else {
        return Err(unsatisfiable(blob.size_bytes));
    };
    // Object stores answer a request for several ranges with all bytes.
    if !matches!(wanted, Wanted::Ranges(_))
        && let Some(valid) = visit.app.config.blob_redirect
        && let Some(url) = visit.app.store.redirect(&blob.location, valid).await?
    {
        // The URL opens the bytes to everybody who has it, so only the client may keep it.
        let headers = [(header::LOCATION, url), (header::CACHE_CONTROL, "private, no-store".to_owned())];
        return Ok((StatusCode::TEMPORARY_REDIRECT, headers).into_response());
    }
    let slot = visit.app.downloads.try_take_one(visit.caller.principal().id).ok_or_else(|| {
        let message = "as many blobs as this service gives out at once are on their way; try again";
        OciError::new(StatusCode::TOO_MANY_REQUESTS, Code::TooManyRequests, message)
            .header(header::RETRY_AFTER, HeaderValue::from_static("1"))
    })?;
    let answer = outgoing::blob(&visit.app, &visit.caller, blob, wanted, slot).await?;
    Ok(([(CONTENT_DIGEST, digest.to_string())], answer).into_response())
}

/// `DELETE`: the repository lets go of the blob, unless one of its manifests needs it.
pub async fn delete(visit: Visit, repository: RepositoryName, digest: Digest) -> Result<Response, OciError> {
    let grant = visit.may::<Delete>(&repository)?;
    match blobs::delete(&visit.app.db, &grant, &digest).await {
        Ok(()) => Ok(StatusCode::ACCEPTED.into_response()),
        Err(blobs::BlobRefused::Unknown) => Err(unknown(&digest)),
        Err(blobs::BlobRefused::Used { manifests }) => Err(OciError::new(
            StatusCode::METHOD_NOT_ALLOWED,
            Code::Denied,
            "manifests of this repository need the blob; delete them first",
        )
        .detail(json!({"manifests": manifests}))),
        Err(blobs::BlobRefused::Failed(failure)) => Err(failure.into()),
    }
}

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// What a HEAD of a blob says. It has no body to take the length from.
fn described(digest: &Digest, length: u64) -> [(HeaderName, String); 5] {
    [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, length.to_string()),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
        (header::ETAG, format!("\"{digest}\"")),
        (CONTENT_DIGEST, digest.to_string()),
    ]
}

pub(super) fn unknown(digest: &Digest) -> OciError {
    OciError::new(StatusCode::NOT_FOUND, Code::BlobUnknown, "this repository has no such blob")
        .detail(json!({"digest": digest}))
}

fn unsatisfiable(size_bytes: u64) -> OciError {
    let error = OciError::new(
        StatusCode::RANGE_NOT_SATISFIABLE,
        Code::SizeInvalid,
        format!("the blob has {size_bytes} bytes; give bytes=first-last, bytes=first- or bytes=-count"),
    );
    match format!("bytes */{size_bytes}").try_into() {
        Ok(value) => error.header(header::CONTENT_RANGE, value),
        Err(_) => error,
    }
}
