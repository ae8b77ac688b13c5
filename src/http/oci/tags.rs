//! `<name>/tags/list` and `_catalog`.

use super::{Code, OciError, Visit};
use crate::names::RepositoryName;
use axum::http::StatusCode;
use axum::response::Response;

#[allow(clippy::unused_async)]
pub async fn list(_visit: Visit, _repository: RepositoryName) -> Result<Response, OciError> {
    Err(OciError::new(StatusCode::NOT_IMPLEMENTED, Code::Unsupported, "not built yet"))
}

#[allow(clippy::unused_async)]
pub async fn catalog(_visit: Visit) -> Result<Response, OciError> {
    Err(OciError::new(StatusCode::NOT_IMPLEMENTED, Code::Unsupported, "not built yet"))
}
