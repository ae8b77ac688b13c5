//! `<name>/blobs/uploads/` and its sessions.

use super::{Code, OciError, Visit};
use crate::names::RepositoryName;
use axum::http::StatusCode;
use axum::response::Response;
use uuid::Uuid;

#[allow(clippy::unused_async)]
pub async fn start(_visit: Visit, _repository: RepositoryName) -> Result<Response, OciError> {
    Err(OciError::new(StatusCode::NOT_IMPLEMENTED, Code::Unsupported, "not built yet"))
}

macro_rules! stubs {
    ($($name:ident),*) => {$(
        #[allow(clippy::unused_async)]
        pub async fn $name(_visit: Visit, _repository: RepositoryName, _session: Uuid) -> Result<Response, OciError> {
            Err(OciError::new(StatusCode::NOT_IMPLEMENTED, Code::Unsupported, "not built yet"))
        }
    )*};
}
stubs!(status, append, finish, cancel);
