//! `<name>/manifests/<reference>`.

use super::{Code, OciError, Visit};
use crate::names::RepositoryName;
use axum::http::StatusCode;
use axum::response::Response;

macro_rules! stubs {
    ($($name:ident),*) => {$(
        #[allow(clippy::unused_async)]
        pub async fn $name(_visit: Visit, _repository: RepositoryName, _reference: &str) -> Result<Response, OciError> {
            Err(OciError::new(StatusCode::NOT_IMPLEMENTED, Code::Unsupported, "not built yet"))
        }
    )*};
}
stubs!(get, put, delete);
