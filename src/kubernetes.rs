//! Advice on the probes of Kubernetes manifests: which of them are inverted or do harm, why, and what would be right.
//!
//! Reads manifests, rendered charts and the values of charts as text. Talks to no cluster. What is known of endpoints is a
//! table with sources (`endpoints`); the rules are those of the kubelet.

mod endpoints;
mod manifest;
mod rules;

use crate::config::problems::{ConfigError, Place, Problems};
use crate::config::tree::parse_all;
use crate::kubernetes::manifest::containers;

/// What is wrong with a probe.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Rule {
    /// The kubelet restarts the container for a failure elsewhere.
    LivenessDependsOnDownstream,
    /// The pod gets requests that it cannot answer.
    ReadinessCannotFail,
    /// The kubelet gives up before the endpoint can say what is wrong.
    TimeoutTooShort,
    /// A slow start is taken for a hang.
    LivenessWithoutStartup,
    /// Two questions with different consequences are asked of one endpoint.
    LivenessEqualsReadiness,
}

/// One thing that is wrong, with the remedy.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// Where the probe stands.
    pub place: Place,
    /// Which object and container it belongs to.
    pub container: String,
    /// What is wrong.
    pub rule: Rule,
    /// Why it does harm.
    pub why: String,
    /// What to write instead, as YAML.
    pub snippet: String,
}

/// Everything that is wrong with the probes of one file, in the order of its lines.
///
/// # Errors
/// When the text is not YAML, such as a chart that has not been rendered.
pub fn advise(source: &str, text: &str) -> Result<Vec<Finding>, ConfigError> {
    let mut problems = Problems::default();
    let documents = parse_all(source, text, &mut problems);
    problems.finish()?;
    let mut findings: Vec<Finding> = containers(source, &documents).iter().flat_map(rules::judge).collect();
    findings.sort_by_key(|finding| finding.place.line);
    Ok(findings)
}

// === impl Rule ===

impl Rule {
    /// Its name.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::LivenessDependsOnDownstream => "liveness-depends-on-downstream",
            Self::ReadinessCannotFail => "readiness-cannot-fail",
            Self::TimeoutTooShort => "timeout-too-short",
            Self::LivenessWithoutStartup => "liveness-without-startup",
            Self::LivenessEqualsReadiness => "liveness-equals-readiness",
        }
    }
}

#[cfg(test)]
mod tests;
