//! What the readers of provenance read, kept beside the statements: when one is recorded, and again when the reader or
//! a declaration changes.

use super::build_types::BuildType;
use super::provenance::{self, Origin};
use super::received::Received;
use super::statement::Statement;
use super::store::{build_types, origins as store};
use crate::failure::Failure;
use crate::names::Digest;
use crate::postgres::{Db, Generation, Scopes, database_time};
use sqlx::PgConnection;

/// The origin that a statement names, and by which declaration it was read.
pub(super) struct Reading {
    pub origin: Origin,
    /// Whether the build type may be declared.
    pub declarable: bool,
    pub declaration: Option<i64>,
}

impl Reading {
    /// Reads a statement by the declarations, if it is provenance.
    pub fn of(statement: &Statement, declared: &[BuildType]) -> Option<Self> {
        let find = |named: &str| declared.iter().find(|one| one.build_type == named);
        let origin = provenance::read(statement, |named| find(named).map(|one| &one.location))?;
        let named = provenance::declarable(statement);
        let declaration = named.and_then(find).map(|one| one.id);
        Some(Self { origin, declarable: named.is_some(), declaration })
    }
}

/// Records the origin of a new statement. No declaration begins meanwhile; one that ends leaves a
/// reading that does not count.
pub(super) async fn record(
    connection: &mut PgConnection,
    id: i64,
    statement: &Statement,
) -> Result<(), Failure> {
    let declared = match provenance::declarable(statement) {
        Some(named) => build_types::in_force(connection, Some(named)).await?,
        None => Vec::new(),
    };
    match Reading::of(statement, &declared) {
        Some(reading) => store::write(connection, id, &reading).await,
        None => Ok(()),
    }
}

/// Statements that are read in one transaction, and bytes of their envelopes.
const PAGE: i64 = 100;
const PAGE_BYTES: i64 = 4 << 20;

/// Reads every statement again whose newest reading does not count any more; how many.
pub async fn read_anew(db: &Db) -> Result<u64, Failure> {
    let (mut last, mut read) = (0, 0);
    loop {
        let mut tx = db.begin().await?;
        let page = store::unread(&mut tx, last, PAGE, PAGE_BYTES).await?;
        let Some(end) = page.last() else { return Ok(read) };
        last = end.id;
        let declared = build_types::in_force(&mut tx, None).await?;
        let mut readings = Vec::with_capacity(page.len());
        for one in page {
            let envelope = Received::parse_again(&one.media_type, one.beside.as_deref(), &one.body);
            let statement = envelope.and_then(|envelope| Statement::read(&envelope.payload).ok());
            let Some(reading) = statement.and_then(|statement| Reading::of(&statement, &declared)) else {
                tracing::warn!(
                    attestation = one.id,
                    "a statement of provenance cannot be read again; fsck says why"
                );
                continue;
            };
            readings.push((one.id, one.subjects, reading));
        }
        // No decision is made meanwhile: what one counted is what was read at its time.
        Scopes::signers().lock(&mut tx).await?;
        let at = database_time(&mut tx).await?;
        for (id, subjects, reading) in readings {
            store::supersede(&mut tx, id, &reading, at).await?;
            store::write(&mut tx, id, &reading).await?;
            let subjects = subjects.iter().filter_map(|text| text.parse::<Digest>().ok());
            tx.raise(subjects.map(|digest| Generation::bytes(&digest)));
            read += 1;
        }
        tx.commit().await.map_err(|error| Failure::new("reading provenance again", error))?;
    }
}
