//! `/api/v1/security-events`: refused credentials, refused access, and who read the audit trail.

use super::Problem;
use super::extract::{Json, Query};
use super::page::Page;
use crate::access::Everything;
use crate::app::App;
use crate::audit::{self, SecurityEventKind, SecurityEventRow, SecurityQuestion};
use crate::clock::Moment;
use crate::http::{Caller, note_audit};
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this file with their documentation.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(security_events))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct SecurityEventsQuery {
    /// Only of this kind: `authentication.failed`, `access.refused`, `audit.read`, `audit.exported`.
    kind: Option<String>,
    /// Only by this principal.
    principal: Option<String>,
    /// Only those of which the last happened at or after this time.
    since: Option<Moment>,
    /// Only those of which the first happened before this time.
    until: Option<Moment>,
    /// `next` of the page before.
    cursor: Option<i64>,
    /// Maximum number of items [default: 100, at most 1000].
    limit: Option<i64>,
}

/// Security events, the newest first. They are written once a minute, counted together for each principal or address.
#[utoipa::path(get, path = "/api/v1/security-events", tag = "audit", params(SecurityEventsQuery),
    responses((status = 200, body = Page<SecurityEventRow>), (status = 400, description = "`invalid-request`"),
        (status = 403), (status = 404)))]
async fn security_events(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<SecurityEventsQuery>,
) -> Result<Json<Page<SecurityEventRow>>, Problem> {
    let grant = caller.may(&Everything)?;
    let kind = query.kind.as_deref().map(str::parse::<SecurityEventKind>).transpose();
    let question = SecurityQuestion {
        kind: kind.map_err(|unknown| Problem::invalid(unknown.to_string()))?,
        principal: query.principal,
        since: query.since.map(Into::into),
        until: query.until.map(Into::into),
        before: query.cursor,
    };
    let limit = query.limit.unwrap_or(100).clamp(1, 1000);
    note_audit(SecurityEventKind::AuditRead, None);
    let items = audit::security_events(&app.db, &grant, &question, limit).await?;
    Ok(Json(Page::of(items, limit, |row| row.id)))
}
