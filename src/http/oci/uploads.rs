//! `<name>/blobs/uploads/` and its sessions.

use super::{Code, OciError, Visit, parse_digest};
use crate::access::{Grant, Pull, Push};
use crate::content::blobs;
use crate::content::uploads::{Incoming, UploadRefused};
use crate::http::body::Broken;
use crate::names::{Algorithm, Digest, RepositoryName};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream::BoxStream;
use serde_json::json;
use uuid::Uuid;

type BodyStream = BoxStream<'static, Result<Bytes, Broken>>;

/// `POST`: a session, a whole blob (`?digest=`), or a blob of another repository (`?mount=`).
pub async fn start(mut visit: Visit, repository: RepositoryName) -> Result<Response, OciError> {
    let grant = visit.may::<Push>(&repository)?;
    if let Some(digest) = visit.query("mount") {
        let digest = parse_digest(digest)?;
        let grace = visit.app.config.blob_grace;
        if let Some(source) = source(&visit)
            && blobs::mount(&visit.app.db, &grant, &source, &digest, grace)
                .await
                .map_err(|why| refused(why, &repository, None))?
                .is_some()
        {
            return Ok(created(&repository, &digest));
        }
    } else if let Some(digest) = visit.query("digest") {
        let digest = parse_digest(digest)?;
        let incoming = incoming(&mut visit, &grant, None)?;
        let blob = visit.app.uploads.store(grant, incoming, digest).await;
        return Ok(created(&repository, blob.map_err(|why| refused(why, &repository, None))?.digest()));
    }
    let algorithm = visit.query("digest-algorithm").map(str::parse).transpose();
    let algorithm = algorithm.map_err(|_| {
        OciError::new(StatusCode::BAD_REQUEST, Code::Unsupported, "digest-algorithm is sha256 or sha512")
    })?;
    let session = visit.app.uploads.start(&grant, algorithm.unwrap_or(Algorithm::Sha256)).await;
    let session = session.map_err(|why| refused(why, &repository, None))?;
    Ok((StatusCode::ACCEPTED, place(&repository, session, 0)).into_response())
}

/// The right to read the repository that a mount names. Without it, or without a name, a session is
/// opened as if nobody had asked for a mount.
fn source(visit: &Visit) -> Option<Grant<Pull>> {
    let from: RepositoryName = visit.query("from")?.parse().ok()?;
    visit.caller.may(&from).ok()
}

/// `GET`: how far the session has come.
pub async fn status(visit: Visit, repository: RepositoryName, session: Uuid) -> Result<Response, OciError> {
    let grant = visit.may::<Push>(&repository)?;
    let offset = visit.app.uploads.offset(&grant, session).await;
    let offset = offset.map_err(|why| refused(why, &repository, Some(session)))?;
    Ok((StatusCode::NO_CONTENT, place(&repository, session, offset)).into_response())
}

/// `PATCH`: a chunk (`Content-Range: first-last`), or everything in one stream.
pub async fn append(
    mut visit: Visit,
    repository: RepositoryName,
    session: Uuid,
) -> Result<Response, OciError> {
    let grant = visit.may::<Push>(&repository)?;
    let range = content_range(&visit)?;
    let incoming = incoming(&mut visit, &grant, range)?;
    let offset = visit.app.uploads.append(grant, session, incoming).await;
    let offset = offset.map_err(|why| refused(why, &repository, Some(session)))?;
    Ok((StatusCode::ACCEPTED, place(&repository, session, offset)).into_response())
}

/// `PUT ?digest=`: the end of the session, with or without a last body.
pub async fn finish(
    mut visit: Visit,
    repository: RepositoryName,
    session: Uuid,
) -> Result<Response, OciError> {
    let grant = visit.may::<Push>(&repository)?;
    let Some(digest) = visit.query("digest") else {
        let message = "an upload is finished with ?digest=, the digest of the whole blob";
        return Err(OciError::new(StatusCode::BAD_REQUEST, Code::DigestInvalid, message));
    };
    let digest = parse_digest(digest)?;
    let range = content_range(&visit)?;
    let last = if visit.has_body() { Some(incoming(&mut visit, &grant, range)?) } else { None };
    let finished = visit.app.uploads.finish(grant, session, last, digest.clone()).await;
    finished.map_err(|why| refused(why, &repository, Some(session)))?;
    Ok(created(&repository, &digest))
}

/// `DELETE`: the session is forgotten.
pub async fn cancel(visit: Visit, repository: RepositoryName, session: Uuid) -> Result<Response, OciError> {
    let grant = visit.may::<Push>(&repository)?;
    let cancelled = visit.app.uploads.cancel(&grant, session).await;
    cancelled.map_err(|why| refused(why, &repository, Some(session)))?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The request's body with what it says of itself; the two lengths must agree.
fn incoming(
    visit: &mut Visit,
    grant: &Grant<Push>,
    range: Option<(u64, u64)>,
) -> Result<Incoming<BodyStream>, OciError> {
    let length = visit.header(header::CONTENT_LENGTH).and_then(|text| text.parse().ok());
    let ranged = range.map(|(first, last)| last - first + 1);
    if let (Some(length), Some(ranged)) = (length, ranged)
        && length != ranged
    {
        let message = format!("Content-Range holds {ranged} bytes and Content-Length says {length}");
        return Err(OciError::new(StatusCode::BAD_REQUEST, Code::SizeInvalid, message));
    }
    let body = visit.stream(grant);
    Ok(Incoming { start: range.map(|(first, _)| first), declared_bytes: length.or(ranged), body })
}

/// `Content-Range: first-last`, as the specification writes it, or with HTTP's `bytes ` and `/total`.
fn content_range(visit: &Visit) -> Result<Option<(u64, u64)>, OciError> {
    let Some(value) = visit.headers.get(header::CONTENT_RANGE) else { return Ok(None) };
    let parsed = value.to_str().ok().and_then(|text| {
        let text = text.strip_prefix("bytes ").unwrap_or(text);
        let text = text.split_once('/').map_or(text, |(range, _)| range);
        let (first, last) = text.split_once('-')?;
        let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok());
        let (first, last) = (digits(first)??, digits(last)??);
        (first <= last && last < u64::MAX).then_some((first, last))
    });
    parsed.map(Some).ok_or_else(|| {
        let message = "Content-Range is first-last, the offsets of the chunk's first and last byte";
        OciError::new(StatusCode::BAD_REQUEST, Code::BlobUploadInvalid, message)
    })
}

/// Where the session is found, and how far it has come.
fn place(repository: &RepositoryName, session: Uuid, offset_bytes: u64) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut set = |name: HeaderName, value: String| {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    };
    set(header::LOCATION, format!("/v2/{repository}/blobs/uploads/{session}"));
    // The specification has no way to say "nothing yet" but this.
    set(header::RANGE, format!("0-{}", offset_bytes.saturating_sub(1)));
    set(HeaderName::from_static("docker-upload-uuid"), session.to_string());
    headers
}

fn created(repository: &RepositoryName, digest: &Digest) -> Response {
    let location = format!("/v2/{repository}/blobs/{digest}");
    let headers = [
        (header::LOCATION, location),
        (HeaderName::from_static("docker-content-digest"), digest.to_string()),
    ];
    (StatusCode::CREATED, headers).into_response()
}

fn refused(why: UploadRefused, repository: &RepositoryName, session: Option<Uuid>) -> OciError {
    match why {
        UploadRefused::Unknown => OciError::new(
            StatusCode::NOT_FOUND,
            Code::BlobUploadUnknown,
            "there is no such upload session; it may be finished, cancelled or expired",
        ),
        UploadRefused::OutOfOrder { offset_bytes } => {
            let message = format!(
                "the next byte of this session is {offset_bytes}, and one request writes to it at a time"
            );
            let error = OciError::new(StatusCode::RANGE_NOT_SATISFIABLE, Code::BlobUploadInvalid, message)
                .detail(json!({"offset": offset_bytes}));
            let headers = session.map(|session| place(repository, session, offset_bytes));
            headers.into_iter().flatten().fold(error, |error, (name, value)| match name {
                Some(name) => error.header(name, value),
                None => error,
            })
        }
        UploadRefused::TooLarge { limit_bytes } => OciError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            Code::SizeInvalid,
            format!("a blob may have {limit_bytes} bytes at the most"),
        )
        .detail(json!({"limit_bytes": limit_bytes})),
        UploadRefused::CutTooSmall => OciError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            Code::SizeInvalid,
            "the object store takes no more pieces of an upload in chunks as small as these; begin again with \
             larger chunks, or send all of the blob in one",
        ),
        UploadRefused::WrongLength { declared_bytes } => OciError::new(
            StatusCode::BAD_REQUEST,
            Code::SizeInvalid,
            format!("the body does not have the {declared_bytes} bytes that it announced"),
        ),
        UploadRefused::Interrupted(why) => OciError::new(
            StatusCode::BAD_REQUEST,
            Code::BlobUploadInvalid,
            format!("the body broke off: {why}"),
        ),
        UploadRefused::WrongDigest { actual } => OciError::new(
            StatusCode::BAD_REQUEST,
            Code::DigestInvalid,
            format!("the bytes that came have the digest {actual}"),
        )
        .detail(json!({"actual": actual})),
        UploadRefused::Busy => later("as many uploads as this service takes are under way; try again"),
        UploadRefused::TooManySessions { limit } => {
            later(&format!("{limit} upload sessions of yours are open; finish or cancel some"))
        }
        UploadRefused::OverQuota(over) => over.into(),
        UploadRefused::Failed(failure) => failure.into(),
    }
}

fn later(message: &str) -> OciError {
    OciError::new(StatusCode::TOO_MANY_REQUESTS, Code::TooManyRequests, message)
        .header(header::RETRY_AFTER, HeaderValue::from_static("2"))
}
