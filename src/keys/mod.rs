//! Keys: the registry's own keys and identity (summary, log, token, webhook).

use crate::config::Config;
use crate::failure::Failure;
use crate::postgres::Db;

/// The private keys, matched against the registered public ones.
pub struct Keys {}

impl Keys {
    /// Reads the keys, or makes them beside a private Postgres.
    #[allow(clippy::unused_async)]
    pub async fn open(_db: &Db, _config: &Config) -> Result<Self, Failure> {
        Ok(Self {})
    }
}
