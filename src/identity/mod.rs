//! Identity: who calls. Tokens, grants of roles, and the short-lived tokens of docker's flow.
//!
//! Knows secrets only as hashes. Promises that a revoked token or grant is refused at once by this
//! replica and within a second by every other. Never decides what a caller may do: that is `access`.

mod callers;
mod docker;
mod grants;
mod principals;
pub mod repeats;
mod secret;
mod store;
mod tokens;
mod wrong;

pub use callers::{Caller, Callers};
pub use docker::{DockerToken, MAX_SCOPES, Made, Requested, TooManyScopes, issue};
pub use grants::{Given, GrantRow, give, grants, take_back};
pub use principals::{
    Allowed, Disabled, PrincipalRow, Uses, allowed_by, disable, enable, is_disabled, principals,
};
pub use secret::{NoSecret, Secret, chosen_secret, without_secrets};
pub use store::tokens::TokenRow;
pub use tokens::{
    ENDS_SOON, Expiry, Issued, NewToken, Refused, Rotator, announce_ends, create_first_token, create_token,
    ensure_admin_token, reload_admin_token, revoke_token, rotate_token, tokens,
};

use crate::access::Principal;

/// The service itself, as the ledger names it: acts that no caller asked for.
pub fn service() -> Principal {
    Principal { id: 2, name: "proofmark".to_owned() }
}
