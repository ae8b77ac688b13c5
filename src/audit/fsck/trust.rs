//! Trust files, as a client follows them.

use super::Audit;
use crate::audit::store::trust::{self as rows, File};
use crate::failure::Failure;
use crate::keys::{Chain, KeyRole, TrustFile, TrustRefused};

impl Audit<'_> {
    /// Each trust file is signed by its own root and the one before it, is this registry's, and was taken over by an
    /// event that names its content. A key that was registered before there were trust files is in them.
    pub(super) async fn trust(&mut self) -> Result<(), Failure> {
        let mut snapshot = self.db.snapshot().await?;
        let (files, names) = (rows::files(&mut snapshot).await?, rows::names(&mut snapshot).await?);
        let registered = rows::registered(&mut snapshot).await?;
        drop(snapshot);
        self.looked(files.len() as u64 + registered.len() as u64, 0).await;
        let mut chain: Option<Chain> = None;
        for file in &files {
            match checked(file, names.as_deref(), chain.take()) {
                Ok(longer) => chain = Some(longer),
                Err(why) => {
                    self.violation(format!("the trust file of version {}: {why}", file.version));
                    return Ok(());
                }
            }
        }
        let newest = chain.as_ref().map(|chain| chain.newest().trust());
        for (key_id, role) in registered {
            let known = newest.is_some_and(|trust| {
                let of_role = KeyRole::ALL.into_iter().find(|one| one.as_str() == role);
                let keys = of_role.and_then(|role| trust.keys.get(&role));
                keys.into_iter().flatten().any(|key| key.key_id == key_id)
            });
            if newest.is_some() && !known {
                self.violation(format!("the {role} key {key_id} was registered and stands in no trust file"));
            }
        }
        Ok(())
    }
}

fn checked(file: &File, names: Option<&str>, chain: Option<Chain>) -> Result<Chain, String> {
    let words = |refused: TrustRefused| refused.to_string();
    let read = TrustFile::parse(&file.document).map_err(words)?;
    if i64::from(read.version()) != i64::from(file.version) {
        return Err(format!("its document is version {}", read.version()));
    }
    if names.is_some_and(|name| name != read.trust().verifier_id) {
        return Err(format!("it is for {}, another registry", read.trust().verifier_id));
    }
    let digest = read.digest();
    if !file.told.contains(&digest) {
        return Err(format!("its content {digest} was taken over by no event"));
    }
    match chain {
        None => Ok(Chain::begin(read)),
        Some(mut chain) => chain.extend(read).map(|_| chain).map_err(words),
    }
}
