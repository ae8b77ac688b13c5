//! `<name>/tags/list` and `_catalog`.

use super::{Code, OciError, Visit};
use crate::access::{Action, Pull};
use crate::content;
use crate::failure::Failure;
use crate::names::RepositoryName;
use crate::storage::Taken;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::fmt::Display;

/// Names of one page where the client does not say.
const PAGE: usize = 10_000;

/// Bytes of a tag at the most in a list, and of a repository's name.
const TAG_BYTES: u64 = 131;
const NAME_BYTES: u64 = 258;

#[derive(Serialize)]
struct Tags<'a> {
    name: &'a RepositoryName,
    tags: Vec<&'a str>,
}

#[derive(Serialize)]
struct Catalog {
    repositories: Vec<String>,
}

/// The tags of a repository, sorted.
pub async fn list(visit: Visit, repository: RepositoryName) -> Result<Response, OciError> {
    let _grant = visit.may::<Pull>(&repository)?;
    let (n, last) = asked_page(&visit)?;
    let room = visit.room_for(n as u64 * TAG_BYTES).await?;
    let mut connection = visit.app.db.pool().acquire().await.map_err(Failure::from)?;
    let limit = i64::try_from(n + 1).unwrap_or(i64::MAX);
    let tags = content::list_tags(&mut connection, &repository, last, limit).await?.ok_or_else(|| {
        OciError::new(
            StatusCode::NOT_FOUND,
            Code::NameUnknown,
            format!("there is no repository {repository}"),
        )
    })?;
    drop(connection);
    let path = format!("/v2/{repository}/tags/list");
    page(&path, n, tags.lines().collect(), room, |tags| Tags { name: &repository, tags })
}

/// The repositories that the caller may pull from, sorted.
pub async fn catalog(visit: Visit) -> Result<Response, OciError> {
    let (n, last) = asked_page(&visit)?;
    let patterns = visit.caller.authority().patterns(Action::Pull);
    if visit.caller.is_anonymous() && patterns.is_empty() {
        return Err(super::challenge(&visit.app, "log in to list repositories", Some("registry:catalog:*")));
    }
    let room = visit.room_for(n as u64 * NAME_BYTES).await?;
    let mut connection = visit.app.db.pool().acquire().await.map_err(Failure::from)?;
    let visible = |name: &RepositoryName| visit.caller.authority().lists(name);
    let rows = content::visible_repositories(&mut connection, &patterns, visible, last, n + 1).await?;
    drop(connection);
    let names = rows.into_iter().map(|row| row.name.to_string()).collect();
    page("/v2/_catalog", n, names, room, |repositories| Catalog { repositories })
}

/// `n` and `last`; each works without the other.
pub(super) fn asked_page(visit: &Visit) -> Result<(usize, &str), OciError> {
    let n = match visit.query("n") {
        None => PAGE,
        Some(text) => text.parse::<usize>().map(|n| n.min(PAGE)).map_err(|_| {
            OciError::new(StatusCode::BAD_REQUEST, Code::Unsupported, "n is a number of names, such as 100")
        })?,
    };
    Ok((n, visit.query("last").unwrap_or_default()))
}

/// One page of names that were read one beyond it, in the room that was taken for it before; a link to the
/// next when there is one.
fn page<N: Display, D: Serialize>(
    path: &str,
    n: usize,
    mut names: Vec<N>,
    mut room: Taken,
    document: impl FnOnce(Vec<N>) -> D,
) -> Result<Response, OciError> {
    let more = names.len() > n;
    names.truncate(n);
    let link = names.last().filter(|_| more).map(|last| format!("<{path}?n={n}&last={last}>; rel=\"next\""));
    let body = serde_json::to_vec(&document(names)).map_err(|error| Failure::new("writing a list", error))?;
    room.shrink(body.len() as u64);
    let answer = ([(header::CONTENT_TYPE, "application/json")], room.hold(body.into()));
    Ok(match link {
        Some(link) => ([(header::LINK, link)], answer).into_response(),
        None => answer.into_response(),
    })
}
