//! Why a command ends without a yes, and the exit code that says so.

use super::output::{Output, as_json, at, text};
use crate::failure::Failure;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::process::ExitCode;

/// What helps whoever is not known.
const GIVE_A_TOKEN: &str =
    "give a token with PROOFMARK_TOKEN or --token-file, or store one with `proofmark login`";

/// What helps whoever showed a token that is not enough. The OCI door tells nobody more.
const ASK_WHO: &str = "`proofmark whoami` says whose the token is and what it may do";

/// The end of a command that is not a yes.
#[derive(Debug)]
pub enum Stop {
    /// The answer is no; a problem document says why. Exit code 1.
    Refused(Value),
    /// The command says something that nobody can answer. Exit code 2.
    Usage(String),
    /// The question could not be put: no connection, no valid token, a fault of the server. Exit code 3.
    Unanswered(String),
    /// The question was put, and asking again does not help: no right, no valid token, a summary past its
    /// validity. A code and the reason. Exit code 3.
    Error(&'static str, String),
}

impl Stop {
    /// A no that was found on this side, as a problem document of the same form.
    pub fn no(code: &str, detail: impl Into<String>) -> Self {
        Self::Refused(json!({ "code": code, "detail": detail.into() }))
    }

    /// Whether it is a no of this code.
    pub fn is(&self, code: &str) -> bool {
        match self {
            Self::Refused(problem) => at(problem, "/code") == code,
            Self::Error(found, _) => *found == code,
            Self::Usage(_) | Self::Unanswered(_) => false,
        }
    }

    /// What a problem document of this status means to the caller, who showed a token or none.
    pub fn from_problem(status: reqwest::StatusCode, problem: Value, showed_token: bool) -> Self {
        match status.as_u16() {
            400 | 411 | 413 | 415 => Self::Usage(in_words(&problem)),
            422 if at(&problem, "/code") == "invalid-request" => Self::Usage(in_words(&problem)),
            401 if showed_token && at(&problem, "/code") == "UNAUTHORIZED" => {
                Self::Error("unauthenticated", format!("{}\n  {ASK_WHO}", in_words(&problem)))
            }
            401 => Self::Error("unauthenticated", format!("{}\n  {GIVE_A_TOKEN}", in_words(&problem))),
            // A push over a quota is refused for what it is, not for who pushes.
            403 if at(&problem, "/code") != "DENIED" => {
                Self::Error("forbidden", format!("{}\n  {ASK_WHO}", in_words(&problem)))
            }
            408 | 429 | 500.. => Self::Unanswered(in_words(&problem)),
            _ => Self::Refused(problem),
        }
    }

    /// The same for whoever showed no token: that the public may not see a thing says nothing about
    /// it, and is no answer.
    pub fn for_nobody(self) -> Self {
        match self {
            Self::Refused(problem) if at(&problem, "/code") == "not-found" => {
                Self::Unanswered(format!("{}\n  no token was given: {GIVE_A_TOKEN}", in_words(&problem)))
            }
            other @ (Self::Refused(_) | Self::Usage(_) | Self::Unanswered(_) | Self::Error(..)) => other,
        }
    }

    /// Shows why, on standard error in words or on standard output as JSON, and gives the exit code.
    pub fn report(&self, output: Output) -> ExitCode {
        let (code, document) = match self {
            Self::Refused(problem) => (1, problem.clone()),
            Self::Usage(why) => (2, json!({ "code": "usage", "detail": why })),
            Self::Unanswered(why) => (3, json!({ "code": "could-not-ask", "detail": why })),
            Self::Error(code, why) => (3, json!({ "code": code, "detail": why })),
        };
        if output.is_json() {
            output.print(&as_json(&document));
        } else {
            let words = match self {
                Self::Refused(problem) => format!("no: {}", in_words(problem)),
                Self::Usage(why) | Self::Unanswered(why) | Self::Error(_, why) => format!("error: {why}"),
            };
            output.remark(&words);
        }
        ExitCode::from(code)
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Unanswered(failure.chain())
    }
}

impl From<crate::config::Unusable> for Stop {
    fn from(unusable: crate::config::Unusable) -> Self {
        Self::Usage(unusable.to_string())
    }
}

/// Members of a problem that are said in a sentence of their own, or that the caller named.
const SAID: [&str; 23] = [
    "type",
    "title",
    "status",
    "code",
    "detail",
    "gates",
    "request_id",
    "instance",
    "verdict",
    "at_risk",
    "would_not_be_promoted_today",
    "promoted_by_override",
    "warnings",
    "evaluated_at",
    "current",
    "repository",
    "digest",
    "decision_id",
    "reference",
    "line",
    "column",
    "ends",
    "summary",
];

/// A problem in words: its detail, every gate with its message and what would solve it, and the
/// request id.
fn in_words(problem: &Value) -> String {
    let mut words = format!("{} ({})", at(problem, "/detail"), at(problem, "/code"));
    let gates = problem.get("gates").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    words.push_str(&risks_in_words(problem));
    words.push_str(&gates_in_words(gates));
    for (name, value) in problem.as_object().into_iter().flatten() {
        // Where there are gates, they are the reasons.
        let said = SAID.contains(&name.as_str()) || (name == "reasons" && !gates.is_empty());
        if !said && ![Value::Null, Value::Bool(false), json!([])].contains(value) {
            let _ = write!(words, "\n  {}: {}", name.replace('_', " "), nested(value));
        }
    }
    if let Some(id) = problem.get("request_id").and_then(Value::as_str) {
        let _ = write!(words, "\n  request {id}");
    }
    words
}

/// A member of a problem: things with members of their own stand on lines of their own.
fn nested(value: &Value) -> String {
    match value.as_array() {
        Some(items) if items.iter().any(Value::is_object) || items.len() > 1 => {
            items.iter().fold(String::new(), |lines, item| lines + "\n    " + &with_reasons(item))
        }
        Some(_) | None => text(value),
    }
}

/// An item in words; its reasons stand below it, one a line.
fn with_reasons(item: &Value) -> String {
    let mut item = item.clone();
    let reasons = item.as_object_mut().and_then(|members| members.remove("reasons")).unwrap_or_default();
    let reasons = reasons.as_array().map_or(&[][..], Vec::as_slice);
    reasons.iter().fold(text(&item), |lines, reason| lines + "\n      " + &text(reason))
}

/// What goes on and is at risk, what would be refused today, and warnings, one a line.
pub fn risks_in_words(answer: &Value) -> String {
    let list = |name: &str| answer.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let mut words = String::new();
    let risks = list("at_risk");
    for risk in &risks {
        let end = match risk.get("ends_at").and_then(Value::as_str) {
            Some(end) => format!("ends at {end}"),
            None => "no end is set".to_owned(),
        };
        let _ = write!(words, "\n  at risk ({end}): {}: {}", at(risk, "/gate"), at(risk, "/message"));
    }
    for gate in list("would_not_be_promoted_today") {
        let _ = write!(
            words,
            "\n  would not be promoted today: {}: {}",
            at(&gate, "/gate"),
            at(&gate, "/message")
        );
    }
    for one in list("promoted_by_override") {
        let _ = write!(
            words,
            "\n  promoted by override {} of {}, not reviewed yet (due {}): {}",
            at(&one, "/id"),
            at(&one, "/created_by"),
            at(&one, "/review_due_at"),
            at(&one, "/reason")
        );
    }
    // A risk is a warning too, and is said above.
    let said = |warning: &str| risks.iter().any(|risk| warning.contains(&at(risk, "/message")));
    for warning in list("warnings") {
        if let Some(warning) = warning.as_str().filter(|warning| !said(warning)) {
            let _ = write!(words, "\n  warning: {warning}");
        }
    }
    words
}

/// The versions promoted later that an answer skips, with their reasons.
pub fn fallback_in_words(answer: &Value) -> String {
    let mut words = String::new();
    for skipped in answer.get("fallback_from").and_then(Value::as_array).into_iter().flatten() {
        let version = skipped.get("version").and_then(Value::as_str).unwrap_or("no version");
        let _ = write!(
            words,
            "\n  not the newest promotion: {version} ({}) is not good:",
            at(skipped, "/digest")
        );
        for reason in skipped.get("reasons").and_then(Value::as_array).into_iter().flatten() {
            let _ = write!(words, "\n    {}", text(reason));
        }
    }
    words
}

/// Gates, one a line, each with its outcome and message, and what would solve it below.
pub fn gates_in_words(gates: &[Value]) -> String {
    let mut words = String::new();
    for gate in gates {
        let overridden = gate.get("overridden").filter(|one| !one.is_null());
        let outcome = if overridden.is_some() { "over".to_owned() } else { at(gate, "/outcome") };
        let _ = write!(words, "\n  {outcome:5} {}: {}", at(gate, "/gate"), at(gate, "/message"));
        if let Some(one) = overridden {
            let (id, by) = (at(one, "/id"), at(one, "/created_by"));
            let _ = write!(words, "\n        passed by override {id} of {by}: {}", at(one, "/reason"));
        } else if outcome != "pass"
            && let Some(solution) = gate.get("solution").and_then(Value::as_str)
        {
            let _ = write!(words, "\n        to solve it: {solution}");
        }
        for one in gate.get("waived").and_then(Value::as_array).into_iter().flatten() {
            let (vulnerability, package, waiver) =
                (at(one, "/vulnerability"), at(one, "/package"), at(one, "/waiver"));
            let until = one.get("expires_at").and_then(Value::as_str);
            let until = until.map_or(String::new(), |until| format!(" until {until}"));
            let _ =
                write!(words, "\n        {vulnerability} in {package} is waived{until} (waiver {waiver})");
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_shows_every_gate_its_solution_and_the_request() {
        let problem = json!({
            "code": "promotion-denied", "detail": "two gates say no", "request_id": "0193",
            "gates": [
                {"gate": "scan", "outcome": "fail", "message": "never scanned", "solution": "record a scan"},
                {"gate": "signed_by", "outcome": "pass", "message": "signed by ci", "solution": "sign it"},
            ],
        });
        let words = in_words(&problem);
        for part in [
            "two gates say no",
            "never scanned",
            "to solve it: record a scan",
            "signed by ci",
            "request 0193",
        ] {
            assert!(words.contains(part), "{part} is not in {words}");
        }
        assert!(!words.contains("sign it"));
    }

    #[test]
    fn a_status_becomes_the_exit_code_that_scripts_count_on() {
        let stop =
            |status| Stop::from_problem(reqwest::StatusCode::from_u16(status).unwrap(), json!({}), true);
        for (status, no) in
            [(403, false), (404, true), (409, true), (422, true), (400, false), (401, false), (503, false)]
        {
            assert_eq!(matches!(stop(status), Stop::Refused(_)), no, "{status}");
        }
        let nobody = |code| Stop::Refused(json!({ "code": code })).for_nobody();
        assert!(matches!(nobody("not-found"), Stop::Unanswered(_)));
        assert!(matches!(nobody("no-known-good"), Stop::Refused(_)));
        assert!(matches!(stop(408), Stop::Unanswered(_)));
        assert!(matches!(stop(400), Stop::Usage(_)));
        assert!(matches!(stop(401), Stop::Error("unauthenticated", _)));
        assert!(matches!(stop(403), Stop::Error("forbidden", _)));
    }
}
