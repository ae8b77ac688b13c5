//! One binary; its modules are promises, and every test's name is a sentence.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a test fails by panicking"
)]

mod harness;

mod access_matrix;
mod attacking;
mod attesting;
mod attesting_again;
mod auditing;
mod bounding;
mod browsers;
mod clocks;
mod collecting;
mod commanding;
mod configuring;
mod crashing;
mod crashing_amid_collections;
mod damaged_bytes;
mod deleting;
mod enduring;
mod entering;
mod evidence_quotas;
mod exceptions;
mod filling;
mod generations;
mod growing;
mod hostile_lengths;
mod job_queue;
mod keeping_keys;
mod logs;
mod modelling;
mod oci;
mod old_verifiers;
mod openapi;
mod owning_postgres;
mod platforms;
mod promises;
mod promoting;
mod provenance;
mod pushing;
mod pushing_blobs;
mod racing;
mod readiness;
mod references;
mod refusing;
mod reloading;
mod repairing;
mod repeating;
mod replicating;
mod resolving;
mod results;
mod retaining;
mod retaining_evidence;
mod rights;
mod rolling_back;
mod rooms;
mod running;
mod runtime_role;
mod scan_scopes;
mod scanning;
mod security_events;
mod signers;
mod starving;
mod stopping;
mod storing;
mod tags_never_move;
mod telling;
mod tokens;
mod transferring;
mod trusting;
mod unsigned_statements;
mod viewing;
mod waiting;
mod wrapping;
