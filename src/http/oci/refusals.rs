//! What the rooms refuse, as the specification's errors. Exhaustive: a new refusal gets its words.

use super::{Code, OciError};
use crate::content::{DeleteRefused, InvalidManifest, OverQuota, PushRefused};
use crate::http::body::{Broken, NotTaken};
use axum::http::{HeaderValue, StatusCode, header};
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
            PushRefused::NestedTooDeep(_) | PushRefused::ListedAsBlob { .. } => {
                Self::new(StatusCode::BAD_REQUEST, Code::ManifestInvalid, message)
            }
            PushRefused::TagTaken { tag, current, hidden } => {
                Self::new(StatusCode::CONFLICT, Code::Denied, message)
                    .detail(json!({"tag": tag, "current": current, "deleted": hidden}))
            }
            PushRefused::OverQuota(over) => over.into(),
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

impl From<NotTaken> for OciError {
    fn from(refused: NotTaken) -> Self {
        let message = refused.to_string();
        match refused {
            NotTaken::TooLarge { limit_bytes } => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, Code::SizeInvalid, message)
                    .detail(json!({"limit_bytes": limit_bytes}))
            }
            NotTaken::Slow(_) | NotTaken::Broken(Broken::Silent(_)) => {
                Self::new(StatusCode::REQUEST_TIMEOUT, Code::SizeInvalid, message)
            }
            NotTaken::Broken(Broken::Cut(_)) => {
                Self::new(StatusCode::BAD_REQUEST, Code::SizeInvalid, message)
            }
            NotTaken::Broken(changed @ Broken::Changed) => {
                Self::new(StatusCode::UNAUTHORIZED, Code::Unauthorized, changed.to_string())
            }
            NotTaken::Broken(Broken::NotAsked(failure)) => failure.into(),
            NotTaken::NoRoom(_) => Self::new(StatusCode::SERVICE_UNAVAILABLE, Code::TooManyRequests, message)
                .header(header::RETRY_AFTER, HeaderValue::from_static("1")),
        }
    }
}

impl From<OverQuota> for OciError {
    fn from(over: OverQuota) -> Self {
        let detail = json!({"quota_bytes": over.quota_bytes, "used_bytes": over.used_bytes});
        // One code for both: of the specification's, DENIED fits.
        let status = if over.of_evidence { StatusCode::CONFLICT } else { StatusCode::FORBIDDEN };
        Self::new(status, Code::Denied, over.to_string()).detail(detail)
    }
}
