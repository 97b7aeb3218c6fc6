//! What is to be done about claims and runs, once both have been read. A claim is one project's, and there is at most one
//! run of a project while it is held.
//!
//! A claim *starts* from the moment it is taken until the API has answered, and lapses by its lease where nobody can tell
//! the answer; then it *runs* until its run is over. A run that nobody has claimed is adopted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The longest id of a project. DecisionBox's have 24 characters.
const LONGEST_ID: usize = 128;

/// A claim as it was read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Seen {
    /// Whose it is.
    pub project: String,
    /// Its run, once that is known.
    pub run: Option<String>,
    /// It has lapsed by the server's clock. One that runs does not.
    pub is_lapsed: bool,
}

/// A run that is pending or running, as it was read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Run {
    /// Its id, in hexadecimal digits.
    pub id: String,
    /// Whose it is.
    pub project: String,
    /// How long ago it was last updated, by the server's clock.
    pub silence: Duration,
}

/// What is to be done.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// The run is over: its project is free.
    End {
        /// The project.
        project: String,
        /// The run that is over.
        run: String,
    },
    /// Nothing came of a start that nobody can tell the end of: its project is free.
    Lapse {
        /// The project.
        project: String,
    },
    /// A run without a claim: its project is taken.
    Adopt {
        /// The project.
        project: String,
        /// The run.
        run: String,
    },
    /// Nobody has heard of the run for too long.
    Stale {
        /// The run.
        run: String,
    },
}

/// What the API's answer to a start means for the claim.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// This run has begun.
    Started(String),
    /// Nothing has: the API did not want it, or never got it.
    Refused,
    /// The API broke: a run may be there or not.
    Failed,
    /// There was no answer: a run may still come.
    Unknown,
}

/// What the API's answer to a start means: its own body names the run (`{"data":{"run_id":…}}`).
#[must_use]
pub fn outcome(status: u16, body: &[u8]) -> Outcome {
    let run = || {
        let body: serde_json::Value = serde_json::from_slice(body).ok()?;
        let run = body.get("data")?.get("run_id")?.as_str()?;
        (!run.is_empty() && run.len() <= LONGEST_ID).then(|| run.to_owned())
    };
    match status {
        200..=299 => run().map_or(Outcome::Failed, Outcome::Started),
        400..=499 => Outcome::Refused,
        _ => Outcome::Failed,
    }
}

/// The name that a project is claimed by. The API reads the digits of an id in either case, and it is one project; `None` for
/// what is no id, which no project can have.
#[must_use]
pub fn claim_name(project: &str) -> Option<String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if project.is_empty() || project.len() > LONGEST_ID || !project.bytes().all(is_plain) {
        return None;
    }
    let is_object_id = project.len() == 24 && project.bytes().all(|byte| byte.is_ascii_hexdigit());
    Some(if is_object_id { project.to_ascii_lowercase() } else { project.to_owned() })
}

// === impl Outcome ===

impl Outcome {
    /// All labels.
    pub const LABELS: [&'static str; 4] = ["started", "refused", "failed", "unknown"];

    /// Its label.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Started(_) => "started",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }
}

/// Holds claims against the runs that are pending or running. The claims must have been read first: a run that began
/// between the two readings is then among the runs.
#[must_use]
pub fn reconcile(claims: &[Seen], runs: &[Run], stale_after: Duration) -> Vec<Step> {
    let active: BTreeSet<&str> = runs.iter().map(|run| run.id.as_str()).collect();
    let held: BTreeMap<&str, &Seen> = claims.iter().map(|claim| (claim.project.as_str(), claim)).collect();
    let mut steps = Vec::new();
    for claim in claims {
        if let Some(run) = claim.run.as_ref().filter(|run| !active.contains(run.as_str())) {
            steps.push(Step::End { project: claim.project.clone(), run: run.clone() });
        }
    }
    let mut adopted = BTreeSet::new();
    for run in runs {
        let Some(project) = claim_name(&run.project) else { continue };
        // One that still starts is its holder's to name; one whose run is over is free after this round.
        let is_free = held.get(project.as_str()).is_none_or(|claim| claim.run.is_none() && claim.is_lapsed);
        if is_free && adopted.insert(project.clone()) {
            steps.push(Step::Adopt { project, run: run.id.clone() });
        }
    }
    let lapsed = claims.iter().filter(|claim| claim.run.is_none() && claim.is_lapsed && !adopted.contains(&claim.project));
    steps.extend(lapsed.map(|claim| Step::Lapse { project: claim.project.clone() }));
    steps.extend(runs.iter().filter(|run| run.silence > stale_after).map(|run| Step::Stale { run: run.id.clone() }));
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    fn seen(project: &str, run: Option<&str>, is_lapsed: bool) -> Seen {
        Seen { project: project.to_owned(), run: run.map(str::to_owned), is_lapsed }
    }

    fn run(id: &str, project: &str, silence: u64) -> Run {
        Run { id: id.to_owned(), project: project.to_owned(), silence: Duration::from_secs(silence) }
    }

    fn steps(claims: &[Seen], runs: &[Run]) -> Vec<String> {
        let text = |step| match step {
            Step::End { project, run } => format!("end {project} {run}"),
            Step::Adopt { project, run } => format!("adopt {project} {run}"),
            Step::Lapse { project } => format!("lapse {project}"),
            Step::Stale { run } => format!("stale {run}"),
        };
        reconcile(claims, runs, LIMIT).into_iter().map(text).collect()
    }

    #[test]
    fn a_claim_lasts_as_long_as_its_run() {
        assert_eq!(steps(&[seen("p", Some("r1"), true)], &[run("r1", "p", 0)]), [""; 0]);
        assert_eq!(steps(&[seen("p", Some("r1"), true)], &[]), ["end p r1"]);
        assert_eq!(steps(&[seen("p", Some("r1"), true)], &[run("r2", "p", 0)]), ["end p r1"], "the other one in the next round");
    }

    #[test]
    fn a_run_that_nobody_has_claimed_is_adopted_and_one_that_is_being_started_is_not() {
        assert_eq!(steps(&[], &[run("r1", "p", 0), run("r2", "p", 0), run("r3", "q", 0)]), ["adopt p r1", "adopt q r3"]);
        assert_eq!(steps(&[seen("p", None, false)], &[run("r1", "p", 0)]), [""; 0]);
        assert_eq!(steps(&[seen("p", None, true)], &[run("r1", "p", 0)]), ["adopt p r1"]);
        assert_eq!(steps(&[seen("p", None, true)], &[]), ["lapse p"]);
    }

    #[test]
    fn a_run_of_which_nobody_has_heard_is_told() {
        assert_eq!(steps(&[seen("p", Some("r1"), true)], &[run("r1", "p", 61)]), ["stale r1"]);
        assert_eq!(steps(&[seen("p", Some("r1"), true)], &[run("r1", "p", 60)]), [""; 0]);
    }

    #[test]
    fn an_answer_names_its_run_or_leaves_it_open() {
        let started = br#"{"data":{"message":"Discovery agent started","run_id":"69d0","status":"started"}}"#;
        assert_eq!(outcome(202, started), Outcome::Started("69d0".to_owned()));
        assert_eq!(outcome(202, b"{}"), Outcome::Failed, "it may have begun: the database tells");
        assert_eq!(outcome(409, started), Outcome::Refused);
        assert_eq!((outcome(404, b""), outcome(500, b""), outcome(302, b"")), (Outcome::Refused, Outcome::Failed, Outcome::Failed));
    }

    #[test]
    fn an_id_is_one_name_however_it_is_written() {
        assert_eq!(claim_name("69D0F3A1C2B4E5F60718293A").as_deref(), Some("69d0f3a1c2b4e5f60718293a"));
        assert_eq!(claim_name("My-Project"), Some("My-Project".to_owned()));
        let name = "ABCDEF".repeat(4);
        assert_eq!(steps(&[seen("abcdefabcdefabcdefabcdef", None, false)], &[run("r", &name, 0)]), [""; 0]);
        for none in ["", "a b", "a%20b", "a$b", "a/b", &"x".repeat(129)] {
            assert_eq!(claim_name(none), None, "{none}");
        }
    }
}
