//! Promotion: facts, promote, approve, block, hold, resolve, verify.
