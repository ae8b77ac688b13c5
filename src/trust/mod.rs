//! Trust: the signers whose signatures can count, with their identities and revocations.
//!
//! Knows what a signer is believed for, its keys in their one form, since when each counts, and which are revoked.
//! Promises that a public key belongs to one signer however it is encoded, that what is registered is extended or
//! revoked and never changed, and that of several revocations the strictest counts.
//! Never reads an envelope.

mod key;
mod revocations;
mod scheme;
mod signers;
mod store;
mod takeover;

pub use key::{CanonicalKey, GivenAs, InvalidKey, KeyId};
pub use revocations::{Effect, NewRevocation, Revoked, revoke, would_revoke};
pub use scheme::{PublicKey, Scheme, UnknownScheme};
pub use signers::{
    Admitted, CertificateIdentity, GivenKey, Identity, NewKey, NewSigner, Registered, Signer, SignerRefused,
    SigningKey, Verifying, Wanted, activate, admit, admit_key, being_verified, event, has_key, is_registered,
    signer, signers, signing_keys, tell, verified_to, verify_up_to, verifying,
};
pub use takeover::take_over;
