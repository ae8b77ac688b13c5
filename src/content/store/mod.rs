//! The SQL of content, one file beside each rule file it serves.

pub mod blobs;
pub mod check;
pub mod collection;
pub mod manifests;
pub mod pins;
pub mod quotas;
pub mod referrers;
pub mod repositories;
pub mod retention;
pub mod tags;
pub mod uploads;
