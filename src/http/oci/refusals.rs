//! What the rooms refuse, as the specification's errors. Exhaustive: a new refusal gets its words.

use super::{Code, OciError};
use crate::content::{DeleteRefused, InvalidManifest, PushRefused};
use axum::http::StatusCode;
use serde_json::json;

impl From<InvalidManifest> for OciError {
    fn from(invalid: InvalidManifest) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Code::ManifestInvalid, invalid.to_string())
    }
}

impl From<PushRefused> for OciError {
    fn from(refused: PushRefused) -> Self {
        let message = refused.to_string();
        match refused {
            PushRefused::BlobsUnknown(digests) | PushRefused::ChildrenUnknown(digests) => {
                Self::new(StatusCode::NOT_FOUND, Code::ManifestBlobUnknown, message)
                    .detail(json!({"digests": digests}))
            }
            PushRefused::SizeDiffers { digest, declared_bytes, actual_bytes } => {
                Self::new(StatusCode::BAD_REQUEST, Code::SizeInvalid, message).detail(
                    json!({"digest": digest, "declared_bytes": declared_bytes, "actual_bytes": actual_bytes}),
                )
            }
            PushRefused::NestedTooDeep(_) => {
                Self::new(StatusCode::BAD_REQUEST, Code::ManifestInvalid, message)
            }
            PushRefused::TagTaken { tag, current, hidden } => {
                Self::new(StatusCode::CONFLICT, Code::Denied, message)
                    .detail(json!({"tag": tag, "current": current, "deleted": hidden}))
            }
            PushRefused::Failed(failure) => failure.into(),
        }
    }
}

impl From<DeleteRefused> for OciError {
    fn from(refused: DeleteRefused) -> Self {
        let message = refused.to_string();
        match refused {
            DeleteRefused::Unknown => Self::new(StatusCode::NOT_FOUND, Code::ManifestUnknown, message),
            DeleteRefused::Held(holders) => Self::new(StatusCode::METHOD_NOT_ALLOWED, Code::Denied, message)
                .detail(json!({"held_by": holders})),
            DeleteRefused::Failed(failure) => failure.into(),
        }
    }
}
