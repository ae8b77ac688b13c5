//! `/api/v1/audit`: what happened, for auditors.

use super::Problem;
use super::extract::Query;
use crate::access::{Action, Everything, SomeLane};
use crate::app::App;
use crate::audit::{self, Auditor, Question, SecurityEventKind};
use crate::clock::Moment;
use crate::failure::Failure;
use crate::http::{Caller, note_audit};
use crate::ledger::{Kind, Logged};
use crate::names::{Digest, RepositoryName};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderName, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this file with their documentation.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(events))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct EventsQuery {
    /// Only what happened to this repository, but for environments that the auditor has no right in. Without
    /// it the whole log is read, which needs the auditor's right on everything.
    repository: Option<RepositoryName>,
    /// Only about this manifest or blob.
    digest: Option<Digest>,
    /// Only of this kind, such as `manifest.pushed`.
    kind: Option<String>,
    /// Only by this principal.
    principal: Option<String>,
    /// Only at or after this time.
    since: Option<Moment>,
    /// Only before this time.
    until: Option<Moment>,
    /// From this index of the log on: the `next` of an earlier page, or its `size` to follow.
    cursor: Option<String>,
    /// Events at the most [default: 100 in a JSON page, which has at most 1000; all of them as lines].
    limit: Option<i64>,
    /// `json` (a page), `ndjson` or `csv` (lines, streamed) [default: json].
    #[serde(default)]
    format: Format,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Json,
    Ndjson,
    Csv,
}

/// An event with its place in the log.
#[derive(Debug, Serialize, ToSchema)]
struct Entry<'a> {
    /// Its index: gapless from 0, in the order of commits.
    index: i64,
    event_id: i64,
    /// Who made it happen.
    principal: &'a str,
    /// The event, byte for byte what the log commits to: `{version, kind, at, principal, repository,
    /// environment, digest, facts, nonce}` as canonical JSON.
    #[schema(value_type = Object)]
    event: &'a RawValue,
}

#[derive(Debug, Serialize, ToSchema)]
struct EventsPage<'a> {
    items: Vec<Entry<'a>>,
    /// Where to go on; null at the end of the log. A page can be empty and still have a next one.
    next: Option<String>,
    /// How many entries the log had.
    size: i64,
}

/// How many entries the log had when an export began; what it holds of them, it holds all.
const LOG_SIZE: HeaderName = HeaderName::from_static("x-log-size");

/// What happened, in the log's order, without gaps.
#[utoipa::path(get, path = "/api/v1/audit/events", tag = "audit", params(EventsQuery), responses(
    (status = 200, description = "a page, or with `format` the whole log as lines (header `x-log-size`)",
        content((EventsPage = "application/json"), (Entry = "application/x-ndjson"), (String = "text/csv"))),
    (status = 400, description = "`invalid-request`"), (status = 403), (status = 404)))]
async fn events(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<EventsQuery>,
) -> Result<Response, Problem> {
    let auditor = match &query.repository {
        Some(repository) => Auditor::Repository(
            caller.may(&SomeLane(repository.clone()))?,
            caller.authority().environments(Action::Audit, repository),
        ),
        None => Auditor::Everything(caller.may(&Everything)?),
    };
    let (format, limit) = (query.format, query.limit);
    if limit.is_some_and(|limit| limit < 1) {
        return Err(Problem::invalid("a limit is a number of events from 1 on"));
    }
    let read = match format {
        Format::Json => SecurityEventKind::AuditRead,
        Format::Ndjson | Format::Csv => SecurityEventKind::AuditExported,
    };
    note_audit(read, query.repository.as_ref());
    let question = query.question()?;
    match format {
        Format::Json => page(&audit::page(&app.db, &auditor, question, limit.unwrap_or(100)).await?),
        Format::Ndjson => export(&app, &auditor, question, limit, "application/x-ndjson", ndjson).await,
        Format::Csv => export(&app, &auditor, question, limit, "text/csv; charset=utf-8", csv).await,
    }
}

impl EventsQuery {
    fn question(self) -> Result<Question, Problem> {
        let kind = self.kind.map(|kind| kind.parse::<Kind>()).transpose();
        let from_index = self.cursor.as_deref().map_or(Ok(0), str::parse);
        Ok(Question {
            from_index: from_index
                .map_err(|_| Problem::invalid("a cursor is an index of the log, such as 0"))?,
            digest: self.digest,
            kind: kind.map_err(|unknown| Problem::invalid(unknown.to_string()))?,
            principal: self.principal,
            since: self.since.map(Into::into),
            until: self.until.map(Into::into),
        })
    }
}

fn page(page: &audit::Page) -> Result<Response, Problem> {
    let items = page.events.iter().map(entry).collect::<Result<_, _>>()?;
    let next = page.next_index.map(|index| index.to_string());
    Ok(Json(EventsPage { items, next, size: page.size }).into_response())
}

/// Streams the log. A failure in the middle breaks the connection off, so that what arrived cannot
/// be taken for the whole.
async fn export(
    app: &App,
    auditor: &Auditor,
    question: Question,
    limit: Option<i64>,
    media_type: &'static str,
    render: fn(&[Logged], first: bool) -> Result<Vec<u8>, Failure>,
) -> Result<Response, Problem> {
    let (size, pages) = audit::export(&app.db, auditor, question, limit).await?;
    let mut first = true;
    let body = pages.and_then(move |events| {
        let rendered = render(&events, std::mem::take(&mut first)).map(Bytes::from);
        std::future::ready(rendered)
    });
    let body = body.inspect_err(|failure| {
        tracing::error!(error = failure.chain(), "an export of the log broke off");
    });
    let headers = [(header::CONTENT_TYPE, media_type.to_owned()), (LOG_SIZE, size.to_string())];
    Ok((headers, Body::from_stream(body)).into_response())
}

fn entry(logged: &Logged) -> Result<Entry<'_>, Failure> {
    let event = serde_json::from_slice(&logged.leaf)
        .map_err(|error| Failure::new("reading an event that is not JSON", error))?;
    Ok(Entry { index: logged.index, event_id: logged.event_id, principal: &logged.principal, event })
}

fn ndjson(events: &[Logged], _first: bool) -> Result<Vec<u8>, Failure> {
    let mut lines = Vec::new();
    for logged in events {
        serde_json::to_writer(&mut lines, &entry(logged)?)
            .map_err(|error| Failure::new("writing an event", error))?;
        lines.push(b'\n');
    }
    Ok(lines)
}

/// The columns of CSV; `facts` is JSON.
const COLUMNS: [&str; 9] =
    ["index", "event_id", "at", "kind", "principal", "repository", "environment", "digest", "facts"];

fn csv(events: &[Logged], first: bool) -> Result<Vec<u8>, Failure> {
    let failed =
        |error: Box<dyn std::error::Error + Send + Sync>| Failure::new("writing an event as CSV", error);
    let mut lines = csv::Writer::from_writer(Vec::new());
    if first {
        lines.write_record(COLUMNS).map_err(|error| failed(error.into()))?;
    }
    for logged in events {
        let event: Value = serde_json::from_slice(&logged.leaf).map_err(|error| failed(error.into()))?;
        let text = |name: &str| event.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let record = [
            logged.index.to_string(),
            logged.event_id.to_string(),
            text("at"),
            text("kind"),
            harmless(&logged.principal),
            text("repository"),
            text("environment"),
            text("digest"),
            event.get("facts").map(Value::to_string).unwrap_or_default(),
        ];
        lines.write_record(&record).map_err(|error| failed(error.into()))?;
    }
    lines.into_inner().map_err(|error| failed(error.to_string().into()))
}

/// A cell that a spreadsheet would run as a formula is made text. Only names that people choose can
/// begin so; the others have grammars.
fn harmless(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(principal: &str) -> Logged {
        let leaf = br#"{"at":"2026-11-23T10:00:00.000000Z","digest":null,"environment":null,"facts":{"why":"a \"b\", c"},"kind":"token.created","repository":"a/b"}"#;
        Logged { index: 7, event_id: 9, principal: principal.into(), leaf: leaf.to_vec() }
    }

    #[test]
    fn a_line_of_json_holds_the_event_byte_for_byte() {
        let event = logged("ci");
        let line = String::from_utf8(ndjson(std::slice::from_ref(&event), true).unwrap()).unwrap();
        assert!(line.starts_with(r#"{"index":7,"event_id":9,"principal":"ci","event":{"at""#), "{line}");
        assert!(line.contains(std::str::from_utf8(&event.leaf).unwrap()));
        assert!(line.ends_with("}\n"));
    }

    #[test]
    fn csv_has_its_header_once_and_no_cell_is_a_formula() {
        let text = |first| String::from_utf8(csv(&[logged("=1+1")], first).unwrap()).unwrap();
        assert!(text(true).starts_with("index,event_id,at,kind"));
        let line = text(false);
        let expected =
            r#"7,9,2026-11-23T10:00:00.000000Z,token.created,'=1+1,a/b,,,"{""why"":""a \""b\"", c""}""#;
        assert_eq!(line.trim_end(), expected);
    }
}
