//! What exceptions have in common: they are listed, a second person looks at some, and they end.

use super::connection::{Query, Registry};
use super::output::Output;
use super::stop::Stop;
use serde_json::json;

/// Why something ends; it is recorded.
#[derive(clap::Args, Debug)]
pub struct End {
    /// Its id
    id: i64,
    /// Why; it is recorded
    #[arg(long)]
    reason: String,
}

/// What a second person says.
#[derive(clap::Args, Debug)]
pub struct Second {
    /// Its id
    pub id: i64,
    /// Why; it is recorded
    #[arg(long, default_value = "")]
    reason: String,
}

/// Lists them, the newest first.
pub async fn list(
    registry: &Registry,
    output: Output,
    path: &str,
    query: Query<'_>,
    nothing: &str,
) -> Result<(), Stop> {
    let items = registry.list(path, query, usize::MAX).await?;
    let columns = [
        ("id", "/id"),
        ("repository", "/repository"),
        ("environment", "/environment"),
        ("digest", "/digest"),
        ("by", "/by"),
        ("at", "/at"),
        ("until", "/until"),
        ("reason", "/reason"),
        ("origin", "/origin"),
        ("rank", "/rank"),
        ("ended", "/ended_at"),
    ];
    // A hold has no digest.
    let columns: Vec<_> = columns
        .into_iter()
        .filter(|(_, pointer)| items.iter().any(|item| item.pointer(pointer).is_some()))
        .collect();
    output.list(&items, &columns, nothing);
    Ok(())
}

/// Ends one.
pub async fn end(registry: &Registry, output: Output, path: &str, end: End, said: &str) -> Result<(), Stop> {
    let ended =
        registry.post(&format!("{path}/{}/revocation", end.id), &json!({ "reason": end.reason })).await?;
    output.answer(&ended, || format!("{said} {}", end.id));
    Ok(())
}

/// Approves or reviews one, as the second person.
pub async fn second(
    registry: &Registry,
    output: Output,
    path: &str,
    second: Second,
    said: &str,
) -> Result<(), Stop> {
    let done = registry.post_once(path, &json!({ "reason": second.reason })).await?;
    output.answer(&done, || format!("{said} {}", second.id));
    Ok(())
}
