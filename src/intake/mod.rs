//! Intake: what comes in as one act; opens the one transaction.
