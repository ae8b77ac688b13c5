//! The table of what each fact does: to a promotion, to the version that runs, and to a version that an
//! answer falls back to or a rollback goes to. The evaluations read their effects from here, and so do the
//! property tests: nothing ends a promoted version but the rows that say so.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A fact, or a change of one, that may concern a version that was promoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Condition {
    /// A block on the version's own bytes.
    Block,
    /// A block on an image of the index.
    BlockOnChild,
    /// A hold.
    Hold,
    /// A freeze window.
    FreezeWindow,
    /// The gate `min_age`.
    MinAge,
    /// The gate `promoted_in`, its soak time and what becomes of the version in other environments.
    PromotedIn,
    /// The gate `budget`.
    Budget,
    /// The gate `requires`.
    Requires,
    /// The gate `expr`.
    Expr,
    /// An approval expired, was revoked, or its author lost the right or was disabled.
    ApprovalEnded,
    /// Recorded evidence of a signature, provenance or attestation gate was withdrawn (its signer is
    /// compromised, or revoked from before the statement), and the rest, with what came since, does not
    /// satisfy the gate.
    EvidenceWithdrawn,
    /// A signer expired, its scope was narrowed, or it left the policy.
    SignerNarrowed,
    /// A signer was revoked from now on.
    SignerRevokedFromNow,
    /// FAILED of a test that the decision counted, where the gate says `on_failed: end`.
    CountedTestFailed,
    /// FAILED of a test that the decision counted, where the gate says `on_failed: at_risk`.
    CountedTestFailedAtRisk,
    /// FAILED of another test, type or signer.
    OtherTestFailed,
    /// A denied finding whose severity has a grace.
    DeniedFinding,
    /// A denied finding for which no grace is stated.
    DeniedFindingWithoutGrace,
    /// A critical finding that no waiver covers, whether or not a policy denies it.
    KnownCritical,
    /// A waiver covers a denied finding.
    WaivedFinding,
    /// Findings without a severity, suppressed findings or an end-of-life distribution, which the policy
    /// denies.
    ScanIncomplete,
    /// The same, of which the policy only warns.
    ScanIncompleteWarned,
    /// The newest scan, or its database, is older than the policy allows, or the run was retracted.
    ScanOutdated,
    /// The policy in force demands more than the recorded one.
    StricterPolicy,
    /// The same, and the gate's `enforce_on_running_from` has come.
    EnforcedOnRunning,
    /// The policy in force demands less than the recorded one.
    LaxerPolicy,
    /// The policy was deleted, and none covers the release channel.
    PolicyDeleted,
    /// The environment or the repository is to be deleted.
    ScopeDeleted,
    /// The version's tag is to be deleted.
    TagDeleted,
    /// A manifest that carries evidence was deleted or lost.
    EvidenceManifestLost,
    /// An override that the promotion used expired, or was not reviewed in time.
    OverrideExpired,
    /// A rollback went away from the version.
    RolledBackFrom,
    /// A rollback went back over the version.
    SkippedByRollback,
    /// A newer version was promoted.
    Superseded,
    /// A denied finding without a stated grace, on a version that was superseded more than 72 hours ago.
    SupersededUnfixed,
    /// The version is older than the current one.
    Older,
    /// The verification summary is past its validity.
    SummaryExpired,
    /// The key that signs summaries was rotated or revoked.
    SummaryKeyChanged,
    /// The service was upgraded, or reads evidence by other rules.
    ServiceUpgraded,
}

/// What a fact does to a promotion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnPromotion {
    /// It denies, whatever the policies say.
    Denies,
    /// The policies in force decide.
    Evaluated,
    /// The answer warns.
    Warned,
    /// The act itself is refused while something depends on it.
    Refused,
    /// Nothing.
    Nothing,
}

/// What a fact does to a version that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnRunning {
    /// It ends the version at once.
    Ends,
    /// The version is at risk at once, and ends when the grace of the finding is over.
    EndsAfterGrace(Risk),
    /// The version is at risk.
    AtRisk(Risk),
    /// It is shown as `would_not_be_promoted_today`.
    Told,
    /// The answer warns.
    Warned,
    /// The act itself is refused while the version is current.
    Refused,
    /// Nothing.
    Nothing,
}

/// What a fact does to a version that an answer falls back to or a rollback goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnCandidate {
    /// It is no candidate, even by name.
    Denies,
    /// It is a candidate only where the rollback names it.
    OnlyNamed,
    /// It is a candidate within the grace of the finding, afterwards only where the rollback names it.
    OnlyNamedAfterGrace,
    /// It is a candidate, and the answer says so.
    Reported,
    /// Nothing.
    Nothing,
}

/// Why a promoted version is at risk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Risk {
    /// A finding that a policy denies.
    DeniedFinding,
    /// No scan is recent enough.
    ScanOutdated,
    /// A scan leaves open what the policy wants to know.
    ScanIncomplete,
    /// A test failed.
    FailedResult,
}

impl Risk {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DeniedFinding => "denied_finding",
            Self::ScanOutdated => "scan_outdated",
            Self::ScanIncomplete => "scan_incomplete",
            Self::FailedResult => "failed_result",
        }
    }
}

impl Condition {
    /// Every condition, one for each row of the table.
    pub const ALL: [Self; 39] = [
        Self::Block,
        Self::BlockOnChild,
        Self::Hold,
        Self::FreezeWindow,
        Self::MinAge,
        Self::PromotedIn,
        Self::Budget,
        Self::Requires,
        Self::Expr,
        Self::ApprovalEnded,
        Self::EvidenceWithdrawn,
        Self::SignerNarrowed,
        Self::SignerRevokedFromNow,
        Self::CountedTestFailed,
        Self::CountedTestFailedAtRisk,
        Self::OtherTestFailed,
        Self::DeniedFinding,
        Self::DeniedFindingWithoutGrace,
        Self::KnownCritical,
        Self::WaivedFinding,
        Self::ScanIncomplete,
        Self::ScanIncompleteWarned,
        Self::ScanOutdated,
        Self::StricterPolicy,
        Self::EnforcedOnRunning,
        Self::LaxerPolicy,
        Self::PolicyDeleted,
        Self::ScopeDeleted,
        Self::TagDeleted,
        Self::EvidenceManifestLost,
        Self::OverrideExpired,
        Self::RolledBackFrom,
        Self::SkippedByRollback,
        Self::Superseded,
        Self::SupersededUnfixed,
        Self::Older,
        Self::SummaryExpired,
        Self::SummaryKeyChanged,
        Self::ServiceUpgraded,
    ];

    /// The first column: may this version enter now?
    pub fn on_promotion(self) -> OnPromotion {
        match self {
            Self::Block | Self::BlockOnChild | Self::Hold | Self::PolicyDeleted => OnPromotion::Denies,
            Self::FreezeWindow
            | Self::MinAge
            | Self::PromotedIn
            | Self::Budget
            | Self::Requires
            | Self::Expr
            | Self::ApprovalEnded
            | Self::EvidenceWithdrawn
            | Self::SignerNarrowed
            | Self::SignerRevokedFromNow
            | Self::CountedTestFailed
            | Self::CountedTestFailedAtRisk
            | Self::OtherTestFailed
            | Self::DeniedFinding
            | Self::DeniedFindingWithoutGrace
            | Self::WaivedFinding
            | Self::ScanIncomplete
            | Self::ScanOutdated
            | Self::StricterPolicy
            | Self::EnforcedOnRunning
            | Self::LaxerPolicy
            | Self::OverrideExpired
            | Self::ServiceUpgraded => OnPromotion::Evaluated,
            Self::ScanIncompleteWarned | Self::Older => OnPromotion::Warned,
            Self::EvidenceManifestLost => OnPromotion::Refused,
            Self::KnownCritical
            | Self::ScopeDeleted
            | Self::TagDeleted
            | Self::RolledBackFrom
            | Self::SkippedByRollback
            | Self::Superseded
            | Self::SupersededUnfixed
            | Self::SummaryExpired
            | Self::SummaryKeyChanged => OnPromotion::Nothing,
        }
    }

    /// The second column: may the promoted version go on running?
    pub fn on_running(self) -> OnRunning {
        match self {
            Self::Block
            | Self::BlockOnChild
            | Self::EvidenceWithdrawn
            | Self::CountedTestFailed
            | Self::EnforcedOnRunning
            | Self::RolledBackFrom
            | Self::SupersededUnfixed => OnRunning::Ends,
            Self::DeniedFinding => OnRunning::EndsAfterGrace(Risk::DeniedFinding),
            Self::DeniedFindingWithoutGrace => OnRunning::AtRisk(Risk::DeniedFinding),
            Self::CountedTestFailedAtRisk | Self::OtherTestFailed => OnRunning::AtRisk(Risk::FailedResult),
            Self::ScanIncomplete => OnRunning::AtRisk(Risk::ScanIncomplete),
            Self::ScanOutdated => OnRunning::AtRisk(Risk::ScanOutdated),
            Self::SignerNarrowed | Self::StricterPolicy => OnRunning::Told,
            Self::ScanIncompleteWarned | Self::SummaryExpired => OnRunning::Warned,
            Self::ScopeDeleted | Self::TagDeleted => OnRunning::Refused,
            Self::Hold
            | Self::FreezeWindow
            | Self::MinAge
            | Self::PromotedIn
            | Self::Budget
            | Self::Requires
            | Self::Expr
            | Self::ApprovalEnded
            | Self::SignerRevokedFromNow
            | Self::KnownCritical
            | Self::WaivedFinding
            | Self::LaxerPolicy
            | Self::PolicyDeleted
            | Self::EvidenceManifestLost
            | Self::OverrideExpired
            | Self::SkippedByRollback
            | Self::Superseded
            | Self::Older
            | Self::SummaryKeyChanged
            | Self::ServiceUpgraded => OnRunning::Nothing,
        }
    }

    /// The third column: may an answer fall back to the version, or a rollback go to it?
    pub fn on_candidate(self) -> OnCandidate {
        match self {
            Self::Block
            | Self::BlockOnChild
            | Self::EvidenceWithdrawn
            | Self::CountedTestFailed
            | Self::EnforcedOnRunning
            | Self::RolledBackFrom => OnCandidate::Denies,
            Self::KnownCritical => OnCandidate::OnlyNamed,
            Self::DeniedFinding => OnCandidate::OnlyNamedAfterGrace,
            Self::CountedTestFailedAtRisk
            | Self::OtherTestFailed
            | Self::DeniedFindingWithoutGrace
            | Self::ScanIncomplete
            | Self::ScanIncompleteWarned
            | Self::WaivedFinding
            | Self::SignerNarrowed
            | Self::StricterPolicy
            | Self::PolicyDeleted
            | Self::OverrideExpired
            | Self::ServiceUpgraded => OnCandidate::Reported,
            Self::Hold
            | Self::FreezeWindow
            | Self::MinAge
            | Self::PromotedIn
            | Self::Budget
            | Self::Requires
            | Self::Expr
            | Self::ApprovalEnded
            | Self::SignerRevokedFromNow
            | Self::ScanOutdated
            | Self::LaxerPolicy
            | Self::ScopeDeleted
            | Self::TagDeleted
            | Self::EvidenceManifestLost
            | Self::SkippedByRollback
            | Self::Superseded
            | Self::SupersededUnfixed
            | Self::Older
            | Self::SummaryExpired
            | Self::SummaryKeyChanged => OnCandidate::Nothing,
        }
    }

    /// Whether it can end a promoted version, at once or after a grace.
    pub fn can_end(self) -> bool {
        matches!(self.on_running(), OnRunning::Ends | OnRunning::EndsAfterGrace(_))
    }
}
