//! The trust files of a registry, version after version.

use super::signed::{TrustFile, TrustRefused};
use std::sync::Arc;

/// Trust files of which each follows the one before it. Never empty.
#[derive(Clone, Debug)]
pub struct Chain(Vec<Arc<TrustFile>>);

impl Chain {
    /// A chain of one.
    pub fn begin(first: TrustFile) -> Self {
        Self(vec![Arc::new(first)])
    }

    /// Reads a chain from documents in the order of their versions; none from none.
    pub fn read<'a>(documents: impl IntoIterator<Item = &'a [u8]>) -> Result<Option<Self>, TrustRefused> {
        let mut chain: Option<Self> = None;
        for document in documents {
            let file = TrustFile::parse(document)?;
            match &mut chain {
                None => chain = Some(Self::begin(file)),
                Some(chain) => {
                    chain.extend(file)?;
                }
            }
        }
        Ok(chain)
    }

    /// Adds a file that follows the newest; `false` for one that the chain has.
    pub fn extend(&mut self, file: TrustFile) -> Result<bool, TrustRefused> {
        let compared = self.get(file.version()).unwrap_or_else(|| self.newest());
        let is_new = compared.is_followed_by(&file)?;
        if is_new {
            self.0.push(Arc::new(file));
        }
        Ok(is_new)
    }

    /// The oldest that is known.
    pub fn oldest(&self) -> &Arc<TrustFile> {
        &self.0[0]
    }

    /// The newest, which is in force.
    pub fn newest(&self) -> &Arc<TrustFile> {
        &self.0[self.0.len() - 1]
    }

    /// The file of a version.
    pub fn get(&self, version: u32) -> Option<&Arc<TrustFile>> {
        let place = version.checked_sub(self.0[0].version())?;
        self.0.get(usize::try_from(place).ok()?)
    }
}
