//! Where it stood, and for how long.

use super::Finding;
use crate::policy::gate::{MinAge, PromotedIn};
use crate::policy::{Case, EvidenceKind, Outcome, in_words};

pub(in crate::policy) fn promoted_in(gate: &PromotedIn, case: &Case) -> Finding {
    let mut found = Finding::pass("");
    let mut passed = Vec::new();
    for environment in &gate.environments.0 {
        let blocked = case.blocks_in(environment).find(|block| block.environment.is_some());
        if let Some(block) = blocked {
            found = found
                .and_fail(format!("it is blocked in {environment}: {}", block.why))
                .saw(EvidenceKind::Block, &block.id);
            continue;
        }
        let stays = case.facts.stays.iter().filter(|stay| stay.environment == *environment);
        let Some(stay) = stays.max_by_key(|stay| stay.since) else {
            found = found.and_fail(format!("it was never promoted in {environment}"));
            continue;
        };
        let ready = stay.since + gate.soak.delta();
        if stay.rolled_back {
            let until = stay.until.map(|until| format!(" at {}", in_words(until))).unwrap_or_default();
            found = found.and_fail(format!("{environment} went back from it{until}"));
        } else if let Some(until) = stay.until.filter(|until| *until < ready) {
            found = found.and_fail(format!(
                "it stood in {environment} from {} to {} only, the soak time is {}",
                in_words(stay.since),
                in_words(until),
                gate.soak
            ));
        } else if case.at < ready {
            found = found.and_wait(
                ready,
                format!(
                    "it stands in {environment} since {} and soaks until {}",
                    in_words(stay.since),
                    in_words(ready)
                ),
            );
        } else {
            passed.push(format!("it stood in {environment} since {}", in_words(stay.since)));
        }
        found = found.saw(EvidenceKind::Promotion, environment);
    }
    if found.outcome == Outcome::Pass {
        found.messages = passed;
    }
    found
}

pub(in crate::policy) fn min_age(gate: &MinAge, case: &Case) -> Finding {
    let pushed = case.facts.subject.pushed_at;
    let ready = pushed + gate.age.delta();
    let message = format!("it was pushed at {} and is old enough from {}", in_words(pushed), in_words(ready));
    if case.at < ready { Finding::pass("").and_wait(ready, message) } else { Finding::pass(message) }
}
