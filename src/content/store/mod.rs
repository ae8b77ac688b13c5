//! The SQL of content, one file beside each rule file it serves.

pub mod repositories;
