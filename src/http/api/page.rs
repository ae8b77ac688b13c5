//! Lists in pages: a cursor is where the page before ended.

use super::Problem;
use serde::{Deserialize, Serialize};
use std::str::FromStr;
use utoipa::{IntoParams, ToSchema};

/// What a list is asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageOf {
    /// `next` of the page before.
    pub cursor: Option<String>,
    /// Maximum number of items [default: 100, at most 1000].
    pub limit: Option<i64>,
}

/// A page.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// The cursor of the next page; none on the last.
    pub next: Option<String>,
}

impl PageOf {
    /// Where the page goes on, and its length.
    pub fn bounds<C: FromStr>(&self) -> Result<(Option<C>, i64), Problem> {
        let before = self.cursor.as_deref().map(str::parse).transpose();
        let before = before.map_err(|_| Problem::invalid("cursor is the `next` of the page before"))?;
        Ok((before, self.limit.unwrap_or(100).clamp(1, 1000)))
    }
}

impl<T> Page<T> {
    /// A page of at most `limit` items, which are as many as were found.
    pub fn of<C: ToString>(items: Vec<T>, limit: i64, id: impl Fn(&T) -> C) -> Self {
        let full = i64::try_from(items.len()).is_ok_and(|len| len >= limit);
        let next = items.last().filter(|_| full).map(|last| id(last).to_string());
        Self { items, next }
    }
}
