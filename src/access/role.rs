//! The roles, each a fixed set of actions, and the ranks by which stops are lifted.

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
    /// Reads, stops what must not run, revokes signers, retracts scan runs, and approves waivers as the second person.
    Security,
    /// Reads, asks for known-good versions and reports deployments.
    Deployer,
    /// Reads what environments' views show, known-good and verify, and nothing else: what runs containers.
    Runner,
    /// Reads everything, the audit trail included, and changes nothing.
    Auditor,
    /// Everything, deletion, override and administration included.
    Admin,
}

/// Not a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a role is one of reader, pusher, attester, scanner, approver, promoter, security, deployer, runner, auditor, admin"
)]
pub struct UnknownRole;

impl Role {
    /// Every role.
    pub const ALL: [Self; 11] = [
        Self::Reader,
        Self::Pusher,
        Self::Attester,
        Self::Scanner,
        Self::Approver,
        Self::Promoter,
        Self::Security,
        Self::Deployer,
        Self::Runner,
        Self::Auditor,
        Self::Admin,
    ];

    /// The actions that the role includes.
    pub fn actions(self) -> &'static [Action] {
        use Action as A;
        match self {
            Self::Reader => &[A::View, A::Pull],
            Self::Pusher => &[A::View, A::Pull, A::Push],
            Self::Attester => &[A::View, A::Pull, A::Attest, A::Sign],
            Self::Scanner => &[A::View, A::Pull, A::Scan],
            Self::Approver => &[A::View, A::Pull, A::Approve, A::Waive],
            Self::Promoter => &[A::View, A::Pull, A::Promote, A::Rollback, A::Block, A::Hold, A::Waive],
            Self::Security => &[A::View, A::Pull, A::Block, A::Hold, A::Revoke, A::Accept],
            Self::Deployer => &[A::View, A::Pull, A::Deploy],
            Self::Runner => &[A::View],
            Self::Auditor => &[A::View, A::Pull, A::Audit],
            Self::Admin => &Action::ALL,
        }
    }

    /// Whether the role includes the action.
    pub fn includes(self, action: Action) -> bool {
        self.actions().contains(&action)
    }

    /// The rank of what is placed with the role.
    pub fn rank(self) -> Rank {
        match self {
            Self::Admin => Rank::Admin,
            Self::Security => Rank::Security,
            Self::Reader
            | Self::Pusher
            | Self::Attester
            | Self::Scanner
            | Self::Approver
            | Self::Promoter
            | Self::Deployer
            | Self::Runner
            | Self::Auditor => Rank::Promoter,
        }
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
            Self::Security => "security",
            Self::Deployer => "deployer",
            Self::Runner => "runner",
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

/// The rank of a block or hold: that of the role with which it was placed. The same rank or a higher one lifts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rank {
    /// Promoters; a rollback's hold has this rank too.
    Promoter,
    /// The role `security`.
    Security,
    /// Administrators.
    Admin,
}

/// Not a rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a rank is one of promoter, security, admin")]
pub struct UnknownRank;

impl Rank {
    const ALL: [Self; 3] = [Self::Promoter, Self::Security, Self::Admin];

    /// The rank's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Promoter => "promoter",
            Self::Security => "security",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Rank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl AsRef<str> for Rank {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl FromStr for Rank {
    type Err = UnknownRank;
    fn from_str(text: &str) -> Result<Self, UnknownRank> {
        Self::ALL.into_iter().find(|rank| rank.as_str() == text).ok_or(UnknownRank)
    }
}
