//! Who lives and dies together: a manifest, what refers to it, and the parts that nothing else needs.

use crate::content::referrers::subject_of_tag;
use crate::content::store::retention as store;
use crate::content::{Holder, holders, tags};
use crate::failure::Failure;
use crate::names::{Digest, Tag};
use sqlx::PgConnection;
use std::collections::{BTreeMap, BTreeSet};

/// Manifests of one family at the most; a larger one is kept.
const LARGEST: usize = 10_000;

/// A manifest with all that goes with it.
pub(super) struct Family {
    /// Every member with the tags that name it, in the order of the digests.
    pub members: BTreeMap<Digest, Vec<Tag>>,
    /// What holds any of them.
    pub holders: Vec<Holder>,
}

/// The family of the manifest: its referrers and theirs, found by subject and by cosign's tags, and the
/// children that no other index lists and no tag names. A referrer with a name of its own stays: it is
/// somebody's version too. So does evidence that outlives the version: a FAILED, and a statement about another
/// manifest that stays.
pub(super) async fn family(
    connection: &mut PgConnection,
    repository_id: i64,
    digest: &Digest,
) -> Result<Family, Failure> {
    let mut kept = BTreeSet::new();
    let members = loop {
        let members = members(connection, repository_id, digest, &kept).await?;
        let others: Vec<Digest> = members.keys().cloned().collect();
        let more = store::kept_evidence(connection, repository_id, &others).await?;
        let more: Vec<Digest> = more.into_iter().filter(|member| member != digest).collect();
        if more.is_empty() {
            break members;
        }
        kept.extend(more);
    };
    let mut held = Vec::new();
    if members.len() > LARGEST {
        held.push(Holder::Reference(format!("a family of more than {LARGEST} manifests is kept")));
        return Ok(Family { members, holders: held });
    }
    let inside = |holder: &Holder| matches!(holder, Holder::Index(index) if members.contains_key(index));
    for digest in members.keys() {
        for holder in holders(connection, repository_id, digest).await? {
            if !inside(&holder) && !held.contains(&holder) {
                held.push(holder);
            }
        }
    }
    Ok(Family { members, holders: held })
}

/// Every member with the tags that name it, without those that are kept and what hangs on them.
async fn members(
    connection: &mut PgConnection,
    repository_id: i64,
    digest: &Digest,
    kept: &BTreeSet<Digest>,
) -> Result<BTreeMap<Digest, Vec<Tag>>, Failure> {
    let mut members = BTreeMap::from([(digest.clone(), names(connection, repository_id, digest).await?)]);
    let mut new = vec![digest.clone()];
    while !new.is_empty() && members.len() <= LARGEST {
        let known: Vec<Digest> = members.keys().cloned().collect();
        let mut found = store::referring(connection, repository_id, &new, &signature_tags(&new)).await?;
        found.extend(store::only_children(connection, repository_id, &known).await?);
        new = Vec::new();
        for digest in found.into_iter().collect::<BTreeSet<_>>() {
            if members.contains_key(&digest) || kept.contains(&digest) {
                continue;
            }
            let names = names(connection, repository_id, &digest).await?;
            if names.iter().all(|tag| subject_of_tag(tag).is_some()) {
                members.insert(digest.clone(), names);
                new.push(digest);
            }
        }
    }
    Ok(members)
}

async fn names(
    connection: &mut PgConnection,
    repository_id: i64,
    digest: &Digest,
) -> Result<Vec<Tag>, Failure> {
    let names = tags::tags_of(connection, repository_id, digest).await?;
    Ok(names.into_iter().map(|name| name.tag).collect())
}

/// The tags under which clients look for what belongs to these.
fn signature_tags(digests: &[Digest]) -> Vec<String> {
    let of = |digest: &Digest| {
        let name = digest.as_str().replace(':', "-");
        ["", ".sig", ".att", ".sbom"].map(|end| format!("{name}{end}"))
    };
    digests.iter().flat_map(of).collect()
}
