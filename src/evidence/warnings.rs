//! What the uploader of a report should know about it.

use super::{BoundBy, Class, Report, Severity};

impl Report {
    /// One sentence for each thing that makes the report count for less than it may seem to.
    pub fn warnings(&self, bound_by: Option<BoundBy>) -> Vec<String> {
        let scope = &self.scope;
        let mut warnings = Vec::new();
        let kinds: Vec<&str> = scope.kinds.iter().map(|kind| kind.plural()).collect();
        if kinds.is_empty() {
            warnings.push(
                "the report does not state what the scanner looked for, so it counts as no scan; if the scanner \
                 looked for vulnerabilities, send it with kinds=vulnerabilities"
                    .to_owned(),
            );
        } else if !scope.kinds.contains(&Class::Vulnerability) {
            warnings.push(format!(
                "the report counts as a scan for {} only, not for vulnerabilities",
                kinds.join(", ")
            ));
        }
        if !scope.kinds_by_uploader.is_empty() {
            let stated: Vec<&str> = scope.kinds_by_uploader.iter().map(|kind| kind.plural()).collect();
            warnings
                .push(format!("only the uploader states that the scanner looked for {}", stated.join(", ")));
        }
        if bound_by.is_none() {
            warnings.push(
                "the report names no digest of what was scanned; a policy decides by `unbound` whether it counts \
                 (default: deny for images, warn for files)"
                    .to_owned(),
            );
        }
        match &scope.filters {
            None => {
                warnings.push("the report does not state its filters and counts as one without".to_owned());
            }
            Some(filters) if !filters.is_empty() => {
                let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
                warnings.push(format!(
                    "the run was filtered ({}); it takes the place of runs with the same filters only",
                    filters.join(", ")
                ));
            }
            Some(_) => {}
        }
        if scope.end_of_life == Some(true) {
            let distribution = scope.distribution.as_deref().unwrap_or("the distribution");
            warnings
                .push(format!("{distribution} gets no more advisories: vulnerabilities in it are not found"));
        }
        if scope.database_valid == Some(false) {
            warnings.push("the scanner found its database not valid".to_owned());
        }
        warnings.extend(scope.errors.iter().map(|error| format!("the scanner reports: {error}")));
        let findings = self.findings.findings();
        let suppressed = findings.iter().filter(|finding| finding.suppressed.is_some()).count();
        if suppressed > 0 {
            let files: Vec<&str> = scope.ignore_files.iter().map(String::as_str).collect();
            let by = if files.is_empty() { String::new() } else { format!(" by {}", files.join(", ")) };
            warnings.push(format!("the scanner suppressed {suppressed} findings{by}"));
        }
        let open = findings.iter().filter(|finding| finding.suppressed.is_none());
        let unrated = open.filter(|finding| finding.severity == Severity::Unknown).count();
        if unrated > 0 {
            warnings.push(format!("{unrated} findings have no severity"));
        }
        warnings
    }
}
