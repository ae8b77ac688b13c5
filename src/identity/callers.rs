//! Credentials -> authority, cached.

use crate::access::{Authority, Principal};
use crate::app::App;
use crate::failure::Failure;
use crate::postgres::Db;
use std::sync::Arc;

/// A secret as it was shown; never printed.
#[derive(Clone)]
pub struct Credential(String);

impl Credential {
    /// Wraps what stood in the header.
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// The cache of callers.
pub struct Callers {}

impl Callers {
    /// A cache that starts empty.
    #[allow(clippy::unused_async)]
    pub async fn new(_db: &Db) -> Result<Self, Failure> {
        Ok(Self {})
    }

    /// What the public may do.
    #[allow(clippy::unused_async)]
    pub async fn anonymous(&self, _app: &App) -> Result<Arc<Authority>, Failure> {
        Ok(Arc::new(Authority::new(Principal { id: 1, name: "anonymous".into() }, vec![])))
    }

    /// The authority behind a credential and whether it is the anonymous public's; `None` when it does not hold.
    #[allow(clippy::unused_async)]
    pub async fn authenticate(
        &self,
        _app: &App,
        credential: &Credential,
    ) -> Result<Option<(Arc<Authority>, bool)>, Failure> {
        let _ = &credential.0;
        Ok(None)
    }
}
