//! What fsck reads: pages by key, never one long snapshot over bytes.

pub(super) mod bytes;
pub(super) mod facts;
pub(super) mod kept;
pub(super) mod log;
pub(super) mod promotions;
pub(super) mod repairs;
pub(super) mod security;
pub(super) mod trust;
