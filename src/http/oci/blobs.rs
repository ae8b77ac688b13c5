//! `<name>/blobs/<digest>`.

use super::{Code, OciError, Visit};
use crate::names::{Digest, RepositoryName};
use axum::http::StatusCode;
use axum::response::Response;

#[allow(clippy::unused_async)]
pub async fn get(_visit: Visit, _repository: RepositoryName, _digest: Digest) -> Result<Response, OciError> {
    Err(OciError::new(StatusCode::NOT_IMPLEMENTED, Code::Unsupported, "not built yet"))
}

#[allow(clippy::unused_async)]
pub async fn delete(
    _visit: Visit,
    _repository: RepositoryName,
    _digest: Digest,
) -> Result<Response, OciError> {
    Err(OciError::new(StatusCode::NOT_IMPLEMENTED, Code::Unsupported, "not built yet"))
}
