//! `/api/v1/artifacts/{digest}/content`: an artifact's file.

use super::Problem;
use super::artifacts::WhichQuery;
use super::extract::{Path, Query};
use crate::access::{Grant, Pull};
use crate::app::App;
use crate::content::{self, Found, Manifest, blobs};
use crate::http::body::NotTaken;
use crate::http::range;
use crate::http::{Caller, outgoing};
use crate::names::{Digest, Reference};
use crate::storage::Taken;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this file with their documentation.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(download))
}

/// The file of an artifact that has one layer; ranges are answered.
#[utoipa::path(get, path = "/api/v1/artifacts/{digest}/content", tag = "content",
    params(("digest" = Digest, Path, description = "the manifest's digest"), WhichQuery),
    responses((status = 200, description = "the file", content_type = "application/octet-stream"),
              (status = 206, description = "a range of it, or several as multipart/byteranges"), (status = 304, description = "you have it"),
              (status = 404, description = "`not-found`"),
              (status = 409, description = "`not-one-file`: it has no layer or several; pull it with an OCI client"),
              (status = 416, description = "`range-not-satisfiable`"),
              (status = 429, description = "`too-many-downloads`")))]
async fn download(
    State(app): State<App>,
    caller: Caller,
    Path(digest): Path<Digest>,
    Query(which): Query<WhichQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let grant = caller.may(&which.repository)?;
    let (found, manifest, room) = manifest(&app, &caller, &grant, digest).await?;
    let layers = manifest.layers()?;
    drop((manifest, room));
    let [layer] = layers.as_slice() else {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "not-one-file",
            format!("the artifact has {} layers, not one; pull it with an OCI client", layers.len()),
        ));
    };
    let blob = blobs::find(&mut *app.db.acquire().await?, found.repository_id, &layer.digest).await?;
    let blob = blob.ok_or_else(Problem::not_found)?;
    let etag = format!("\"{}\"", layer.digest);
    if range::matches(&headers, &etag) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response());
    }
    let Ok(wanted) = range::wanted(&headers, &etag, blob.size_bytes) else {
        return Err(unsatisfiable(blob.size_bytes));
    };
    let slot = app.downloads.try_take_one(caller.principal().id).ok_or_else(|| {
        let why = "as many blobs as this service gives out at once are on their way; try again";
        Problem::new(StatusCode::TOO_MANY_REQUESTS, "too-many-downloads", why)
            .header(header::RETRY_AFTER, HeaderValue::from_static("1"))
    })?;
    let name = [(header::CONTENT_DISPOSITION, disposition(layer.title().unwrap_or("artifact")))];
    Ok((name, outgoing::blob(&app, &caller, blob, wanted, slot).await?).into_response())
}

/// A manifest with its bytes, and the caller's room that they take.
pub(super) async fn manifest(
    app: &App,
    caller: &Caller,
    grant: &Grant<Pull>,
    digest: Digest,
) -> Result<(Found, Manifest, Taken), Problem> {
    let found = content::find(&mut *app.db.acquire().await?, grant, &Reference::Digest(digest)).await?;
    let found = found.ok_or_else(Problem::not_found)?;
    let mut room = caller.answer_room(app).take();
    room.grow(found.size_bytes.unsigned_abs()).await.map_err(NotTaken::from)?;
    let manifest =
        content::manifest(&mut *app.db.acquire().await?, found.repository_id, &found.digest).await?;
    Ok((found, manifest.ok_or_else(Problem::not_found)?, room))
}

/// RFC 6266, the name percent-encoded whatever it holds.
fn disposition(filename: &str) -> String {
    let encoded: String = form_urlencoded::byte_serialize(filename.as_bytes()).collect();
    format!("attachment; filename*=UTF-8''{}", encoded.replace('+', "%20"))
}

fn unsatisfiable(size: u64) -> Problem {
    let problem = Problem::new(
        StatusCode::RANGE_NOT_SATISFIABLE,
        "range-not-satisfiable",
        format!("the file has {size} bytes"),
    );
    match HeaderValue::try_from(format!("bytes */{size}")) {
        Ok(value) => problem.header(header::CONTENT_RANGE, value),
        Err(_) => problem,
    }
}
