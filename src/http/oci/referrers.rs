//! `<name>/referrers/<digest>`.

use super::{OciError, Visit};
use crate::access::{Grant, Pull};
use crate::content::{self, OCI_INDEX, REFERRERS_BYTES, Referrer, Referrers};
use crate::failure::Failure;
use crate::http::body::NotTaken;
use crate::names::{Digest, RepositoryName};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::fmt::Display;

/// Descriptors of one page; short lists of small manifests are never paged.
const PAGE: i64 = 1000;

/// What refers to the digest, as an image index; empty also where there is no such repository.
pub async fn list(visit: Visit, repository: RepositoryName, digest: Digest) -> Result<Response, OciError> {
    let grant = visit.may::<Pull>(&repository)?;
    show(visit, &grant, &repository, Some(&digest)).await
}

/// What refers to the digest in the grant's repository, listed as `name`'s; nothing where there is no
/// digest to ask about.
pub(super) async fn show(
    visit: Visit,
    grant: &Grant<Pull>,
    name: &(impl Display + Sync),
    digest: Option<&Digest>,
) -> Result<Response, OciError> {
    let artifact_type = visit.query("artifactType");
    let last = visit.query("last").unwrap_or_default();
    let mut room = visit.room_for(REFERRERS_BYTES).await?;
    let mut connection = visit.app.db.pool().acquire().await.map_err(Failure::from)?;
    let Referrers { page, more } =
        match (content::repository(&mut connection, grant.repository()).await?, digest) {
            (Some(known), Some(digest)) => {
                content::referrers(&mut connection, known.id, digest, artifact_type, last, PAGE).await?
            }
            (None, _) | (_, None) => Referrers { page: Vec::new(), more: false },
        };
    drop(connection);
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(OCI_INDEX));
    if artifact_type.is_some() {
        const FILTERS: HeaderName = HeaderName::from_static("oci-filters-applied");
        headers.insert(FILTERS, HeaderValue::from_static("artifactType"));
    }
    if let (Some(last), Some(digest)) = (page.last().filter(|_| more), digest)
        && let Some(link) = next(name, digest, artifact_type, &last.digest)
    {
        headers.insert(header::LINK, link);
    }
    let manifests: Vec<Value> = page.into_iter().map(descriptor).collect();
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}).to_string();
    let bytes = index.len() as u64;
    room.shrink(bytes);
    room.grow(bytes.min(room.most_bytes())).await.map_err(NotTaken::from)?;
    Ok((headers, room.hold(index.into())).into_response())
}

fn descriptor(referrer: Referrer) -> Value {
    let mut descriptor = json!({
        "mediaType": referrer.media_type,
        "digest": referrer.digest,
        "size": referrer.size_bytes,
    });
    if let Some(artifact_type) = referrer.artifact_type {
        descriptor["artifactType"] = json!(artifact_type);
    }
    if let Some(annotations) = referrer.annotations {
        descriptor["annotations"] = annotations;
    }
    descriptor
}

/// The link to the next page; the filter goes with it.
fn next(
    name: &(impl Display + Sync),
    digest: &Digest,
    artifact_type: Option<&str>,
    last: &Digest,
) -> Option<HeaderValue> {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("last", last.as_str());
    if let Some(artifact_type) = artifact_type {
        query.append_pair("artifactType", artifact_type);
    }
    let query = query.finish();
    HeaderValue::try_from(format!("</v2/{name}/referrers/{digest}?{query}>; rel=\"next\"")).ok()
}
