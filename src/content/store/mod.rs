//! The SQL of content, one file beside each rule file it serves.

pub mod blobs;
pub mod check;
pub mod collection;
pub mod manifests;
pub mod pins;
pub mod referrers;
pub mod repositories;
pub mod tags;
pub mod uploads;
