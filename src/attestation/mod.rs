//! Attestation: envelopes, bundles, statements, signers, verification summaries.
