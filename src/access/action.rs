//! What can be done, as values and as types.

/// An action that a role may include. `View` is reading what an environment's view shows, known-good and verify; `Pull`
/// is reading everything of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "each is the word itself")]
pub enum Action {
    View,
    Pull,
    Push,
    Delete,
    Attest,
    Sign,
    Scan,
    Approve,
    Waive,
    Promote,
    Override,
    Block,
    Hold,
    Rollback,
    Deploy,
    Audit,
    Revoke,
    Accept,
    Administer,
}

impl Action {
    /// Every action.
    pub const ALL: [Self; 19] = [
        Self::View,
        Self::Pull,
        Self::Push,
        Self::Delete,
        Self::Attest,
        Self::Sign,
        Self::Scan,
        Self::Approve,
        Self::Waive,
        Self::Promote,
        Self::Override,
        Self::Block,
        Self::Hold,
        Self::Rollback,
        Self::Deploy,
        Self::Audit,
        Self::Revoke,
        Self::Accept,
        Self::Administer,
    ];

    /// Whether it happens in an environment, rather than regardless of any.
    pub fn is_of_environments(self) -> bool {
        match self {
            Self::View
            | Self::Approve
            | Self::Waive
            | Self::Accept
            | Self::Promote
            | Self::Override
            | Self::Block
            | Self::Hold
            | Self::Rollback
            | Self::Deploy => true,
            Self::Pull
            | Self::Push
            | Self::Delete
            | Self::Attest
            | Self::Sign
            | Self::Scan
            | Self::Audit
            | Self::Revoke
            | Self::Administer => false,
        }
    }

    /// The action's name as it appears in errors and listings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Delete => "delete",
            Self::Attest => "attest",
            Self::Sign => "sign",
            Self::Scan => "scan",
            Self::Approve => "approve",
            Self::Waive => "waive",
            Self::Promote => "promote",
            Self::Override => "override",
            Self::Block => "block",
            Self::Hold => "hold",
            Self::Rollback => "rollback",
            Self::Deploy => "deploy",
            Self::Audit => "audit",
            Self::Revoke => "revoke",
            Self::Accept => "accept",
            Self::Administer => "administer",
        }
    }
}

/// An action as a type, so that a `Grant<Push>` cannot be spent on a delete.
pub trait Act: private::Sealed + Send + Sync + 'static {
    /// The action as a value.
    const ACTION: Action;
}

mod private {
    pub trait Sealed {}
}

macro_rules! acts {
    ($($name:ident),*) => {$(
        #[doc = concat!("The action `", stringify!($name), "` as a type.")]
        #[derive(Clone, Copy, Debug)]
        pub enum $name {}
        impl private::Sealed for $name {}
        impl Act for $name {
            const ACTION: Action = Action::$name;
        }
    )*};
}

acts!(
    View, Pull, Push, Delete, Attest, Sign, Scan, Approve, Waive, Promote, Override, Block, Hold, Rollback,
    Deploy, Audit, Revoke, Accept, Administer
);
