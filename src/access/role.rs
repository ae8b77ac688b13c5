//! The nine roles, each a fixed set of actions.

use super::Action;
use std::fmt;
use std::str::FromStr;

/// A named set of actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads artifacts, attestations and evidence.
    Reader,
    /// Reads and pushes.
    Pusher,
    /// Reads, records attestations and asks the registry to sign.
    Attester,
    /// Reads and records scan results and SBOMs.
    Scanner,
    /// Reads, approves and proposes waivers.
    Approver,
    /// Reads, promotes, rolls back, stops what must not run (block, hold), and proposes waivers.
    Promoter,
    /// Reads, asks for known-good versions and reports deployments.
    Deployer,
    /// Reads everything, the audit trail included, and changes nothing.
    Auditor,
    /// Everything, deletion, override and administration included.
    Admin,
}

/// Not a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a role is one of reader, pusher, attester, scanner, approver, promoter, deployer, auditor, admin")]
pub struct UnknownRole;

impl Role {
    /// Every role.
    pub const ALL: [Self; 9] = [
        Self::Reader,
        Self::Pusher,
        Self::Attester,
        Self::Scanner,
        Self::Approver,
        Self::Promoter,
        Self::Deployer,
        Self::Auditor,
        Self::Admin,
    ];

    /// The actions that the role includes.
    pub fn actions(self) -> &'static [Action] {
        use Action as A;
        match self {
            Self::Reader => &[A::Pull],
            Self::Pusher => &[A::Pull, A::Push],
            Self::Attester => &[A::Pull, A::Attest, A::Sign],
            Self::Scanner => &[A::Pull, A::Scan],
            Self::Approver => &[A::Pull, A::Approve, A::Waive],
            Self::Promoter => &[A::Pull, A::Promote, A::Rollback, A::Block, A::Hold, A::Waive],
            Self::Deployer => &[A::Pull, A::Deploy],
            Self::Auditor => &[A::Pull, A::Audit],
            Self::Admin => &Action::ALL,
        }
    }

    /// Whether the role includes the action.
    pub fn includes(self, action: Action) -> bool {
        self.actions().contains(&action)
    }

    /// The role's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Pusher => "pusher",
            Self::Attester => "attester",
            Self::Scanner => "scanner",
            Self::Approver => "approver",
            Self::Promoter => "promoter",
            Self::Deployer => "deployer",
            Self::Auditor => "auditor",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl AsRef<str> for Role {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl FromStr for Role {
    type Err = UnknownRole;
    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or(UnknownRole)
    }
}

impl TryFrom<String> for Role {
    type Error = UnknownRole;
    fn try_from(text: String) -> Result<Self, UnknownRole> {
        text.parse()
    }
}
