//! Audit: the auditors' questions, fsck.
