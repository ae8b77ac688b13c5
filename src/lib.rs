//! Proofmark: the artifact registry that hands a deployer only what it can prove.
//!
//! The map, the order of the rooms and the promises are in ARCHITECTURE.md.

pub mod access;
pub mod app;
pub mod attestation;
pub mod audit;
pub mod cli;
pub mod clock;
pub mod config;
pub mod content;
pub mod cpu;
pub mod evidence;
pub mod exceptions;
pub mod failure;
pub mod http;
pub mod identity;
pub mod intake;
pub mod jobs;
pub mod json;
pub mod keys;
pub mod ledger;
pub mod names;
pub mod policy;
pub mod postgres;
pub mod promotion;
pub mod secret_files;
pub mod server;
pub mod shares;
pub mod storage;
pub mod telemetry;
pub mod trust;
