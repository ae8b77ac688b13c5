//! An audit of the tables: what must hold whatever happened. For fsck and for every test's end. Each
//! rule reads one snapshot, so it may run beside pushes; what reads bytes comes in pages.

pub use super::store::check::{
    hidden as check_hidden, manifests_page, of_manifests as check_manifests,
    of_small_blobs as check_small_blobs, of_tags as check_tags, of_usage as check_usage,
};
