//! `<name>/manifests/<reference>`: pull, push and delete.

use super::{Code, OciError, Visit};
use crate::access::{Delete, Grant, Pull, Push};
use crate::content::{self, Found, ParsedManifest};
use crate::http::range;
use crate::intake::{self, PushManifest, Reading};
use crate::json;
use crate::names::{Algorithm, Digest, Reference, RepositoryName, Tag};
use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::collections::BTreeSet;

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");

/// Tags of one push at the most; the specification asks for ten.
const MAX_TAGS: usize = 100;

/// GET and HEAD.
pub async fn get(visit: Visit, repository: RepositoryName, reference: &str) -> Result<Response, OciError> {
    let grant = visit.may::<Pull>(&repository)?;
    show(visit, &grant, &existing_reference(reference)?).await
}

/// What the reference names in the grant's repository, as GET and HEAD answer it.
pub(super) async fn show(
    visit: Visit,
    grant: &Grant<Pull>,
    reference: &Reference,
) -> Result<Response, OciError> {
    let mut connection = visit.app.db.acquire().await?;
    let found = content::find(&mut connection, grant, reference).await?;
    drop(connection);
    let found = found.ok_or_else(|| unknown(reference))?;
    // Whoever asks by one digest of the bytes checks the answer by it, whichever they are stored under.
    let digest = match reference {
        Reference::Digest(asked) => asked,
        Reference::Tag(_) => &found.digest,
    };
    let headers = headers(&found, digest);
    if range::matches(&visit.headers, &etag(digest)) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, etag(digest))]).into_response());
    }
    if visit.method == Method::HEAD {
        return Ok((headers, Body::empty()).into_response());
    }
    let room = visit.room_for(found.size_bytes.unsigned_abs()).await?;
    let body = visit.app.manifest_bodies.body(&visit.app.db, &found).await?;
    let body = body.ok_or_else(|| unknown(reference))?;
    Ok((headers, room.hold(body)).into_response())
}

/// PUT, by tag or by digest; `?tag=` names further tags.
pub async fn put(
    mut visit: Visit,
    repository: RepositoryName,
    reference: &str,
) -> Result<Response, OciError> {
    let grant = visit.may::<Push>(&repository)?;
    let reference: Reference = reference.parse().map_err(|error| {
        let code = if reference.contains(':') { Code::DigestInvalid } else { Code::ManifestInvalid };
        OciError::new(StatusCode::BAD_REQUEST, code, format!("{error}"))
    })?;
    let tags = wanted_tags(&visit, &reference)?;
    let limits = visit.app.config.limits;
    let body = visit.read_body(&grant, limits.manifest_bytes).await?;
    let algorithm = match &reference {
        Reference::Digest(digest) => digest.algorithm(),
        Reference::Tag(_) => Algorithm::Sha256,
    };
    let content_type = visit.header(header::CONTENT_TYPE);
    // Only for this: what it carries waits for a turn of its own.
    let turn = visit.turn_to_read(body.len()).await?;
    let manifest = json::at_length(body.len(), || {
        ParsedManifest::parse(body, content_type, algorithm, limits.manifest_references)
    })?;
    drop(turn);
    if let Reference::Digest(said) = &reference
        && *said != manifest.digest
    {
        return Err(OciError::new(
            StatusCode::BAD_REQUEST,
            Code::DigestInvalid,
            format!("the bytes have the digest {}, not {said}", manifest.digest),
        ));
    }
    let push = PushManifest { manifest, tags };
    let app = &visit.app;
    let room = visit.room();
    let reading = Reading {
        store: &app.store,
        room: &room,
        document_bytes: limits.document_bytes,
        scans: app.scan_reading(),
    };
    intake::push_manifest(&app.db, reading, &grant, &push).await?;
    pushed(&repository, &push)
}

/// DELETE, of a tag or of a manifest with its tags.
pub async fn delete(visit: Visit, repository: RepositoryName, reference: &str) -> Result<Response, OciError> {
    let grant = visit.may::<Delete>(&repository)?;
    let reference = existing_reference(reference)?;
    content::delete(&visit.app.db, &grant, &reference).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}

/// A reference that should exist: a malformed tag names nothing, a malformed digest is an error.
pub(super) fn existing_reference(text: &str) -> Result<Reference, OciError> {
    text.parse().map_err(|error| {
        if text.contains(':') {
            OciError::new(StatusCode::BAD_REQUEST, Code::DigestInvalid, format!("{error}"))
        } else {
            OciError::new(StatusCode::NOT_FOUND, Code::ManifestUnknown, format!("{error}"))
        }
    })
}

fn wanted_tags(visit: &Visit, reference: &Reference) -> Result<BTreeSet<Tag>, OciError> {
    let invalid = |text: String| OciError::new(StatusCode::BAD_REQUEST, Code::ManifestInvalid, text);
    let mut tags = BTreeSet::new();
    if let Reference::Tag(tag) = reference {
        tags.insert(tag.clone());
    }
    for text in visit.query_all("tag") {
        tags.insert(text.parse().map_err(|error| invalid(format!("{text:?}: {error}")))?);
    }
    if tags.len() > MAX_TAGS {
        return Err(invalid(format!("one push takes at most {MAX_TAGS} tags")));
    }
    Ok(tags)
}

fn pushed(repository: &RepositoryName, push: &PushManifest) -> Result<Response, OciError> {
    let digest = &push.manifest.digest;
    let mut headers = HeaderMap::new();
    headers.insert(header::LOCATION, value(&format!("/v2/{repository}/manifests/{digest}"))?);
    headers.insert(CONTENT_DIGEST, value(digest.as_str())?);
    if let Some(subject) = &push.manifest.subject {
        headers.insert(OCI_SUBJECT, value(subject.as_str())?);
    }
    for tag in &push.tags {
        headers.append(OCI_TAG, value(tag.as_str())?);
    }
    Ok((StatusCode::CREATED, headers).into_response())
}

fn value(text: &str) -> Result<HeaderValue, OciError> {
    let failed = |error| crate::failure::Failure::new("writing a header", error);
    Ok(HeaderValue::try_from(text).map_err(failed)?)
}

fn headers(found: &Found, digest: &Digest) -> [(HeaderName, String); 4] {
    [
        (header::CONTENT_TYPE, found.media_type.to_string()),
        (header::CONTENT_LENGTH, found.size_bytes.to_string()),
        (CONTENT_DIGEST, digest.to_string()),
        (header::ETAG, etag(digest)),
    ]
}

fn etag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

fn unknown(reference: &Reference) -> OciError {
    OciError::new(
        StatusCode::NOT_FOUND,
        Code::ManifestUnknown,
        format!("the repository has no manifest {reference}"),
    )
}
