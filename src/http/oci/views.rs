//! `env/<environment>/<repository>`: a repository as an environment sees it, for clients that speak only
//! OCI and follow promotion. Read only; every question is judged now.

use super::{Code, OciError, OciPath, Viewed, Visit, blobs, manifests, referrers, tags};
use crate::access::{Grant, Lane, View};
use crate::app::App;
use crate::names::Reference;
use crate::promotion::{self, NotShown, ViewTags, Views};
use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// Names of one page at the most: each of them is judged.
const PAGE: usize = 100;

/// GET and HEAD of everything that a view has.
pub async fn get(visit: Visit, lane: Lane, viewed: Viewed) -> Result<Response, OciError> {
    let grant = visit.may_on::<View, Lane>(&lane)?;
    match viewed {
        Viewed::Tags => list(visit, &grant).await,
        Viewed::Manifest(reference) => {
            let reference = manifests::existing_reference(&reference)?;
            let digest = promotion::view(views(&visit.app), &grant, &reference).await?;
            manifests::show(visit, &grant.of_repository(), &Reference::Digest(digest)).await
        }
        Viewed::Blob(digest) => {
            if !promotion::view_has_blob(views(&visit.app), &grant, &digest).await? {
                return Err(blobs::unknown(&digest));
            }
            blobs::show(visit, &grant.of_repository(), digest).await
        }
        Viewed::Referrers(digest) => {
            let shown = promotion::view(views(&visit.app), &grant, &Reference::Digest(digest)).await;
            let subject = match shown {
                Ok(digest) => Some(digest),
                // The specification wants a list, if an empty one, whatever it is asked about.
                Err(
                    NotShown::NoView { .. }
                    | NotShown::NeverPromoted { .. }
                    | NotShown::NotADocument { .. }
                    | NotShown::NotGood { .. },
                ) => None,
                Err(NotShown::Failed(failure)) => return Err(failure.into()),
            };
            referrers::show(visit, &grant.of_repository(), &lane, subject.as_ref()).await
        }
        Viewed::Uploads => Err(super::not_allowed(&OciPath::View(lane, viewed), &visit.method)),
    }
}

fn views(app: &App) -> Views<'_> {
    Views {
        db: &app.db,
        store: &app.store,
        texts: &app.texts,
        document_bytes: app.config.limits.document_bytes,
    }
}

/// `current` and the versions that are good there now.
async fn list(visit: Visit, grant: &Grant<View, Lane>) -> Result<Response, OciError> {
    let lane = grant.scope();
    let (n, last) = tags::asked_page(&visit)?;
    let n = n.min(PAGE);
    let ViewTags { tags, read_to } = promotion::view_tags(views(&visit.app), grant, last, n).await?;
    let body = Json(json!({"name": lane.to_string(), "tags": tags}));
    match read_to {
        Some(last) => {
            let link = format!("</v2/{lane}/tags/list?n={n}&last={last}>; rel=\"next\"");
            Ok(([(header::LINK, link)], body).into_response())
        }
        None => Ok(body.into_response()),
    }
}

impl From<NotShown> for OciError {
    fn from(why: NotShown) -> Self {
        let message = why.to_string();
        match why {
            NotShown::NoView { .. } => Self::new(StatusCode::NOT_FOUND, Code::NameUnknown, message),
            NotShown::NeverPromoted { .. } | NotShown::NotADocument { .. } => {
                Self::new(StatusCode::NOT_FOUND, Code::ManifestUnknown, message)
            }
            NotShown::NotGood { reasons, .. } => {
                Self::new(StatusCode::NOT_FOUND, Code::ManifestUnknown, message)
                    .detail(json!({"reasons": reasons}))
            }
            NotShown::Failed(failure) => failure.into(),
        }
    }
}
