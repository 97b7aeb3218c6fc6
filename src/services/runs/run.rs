//! A run and its agent as states: what may follow what, and what a run has come to when its agent has ended. Pure.

use serde::{Deserialize, Serialize};

/// The application's words for a run.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Status {
    /// It is written down, and no agent has taken it up.
    Pending,
    /// Its agent works.
    Running,
    /// Its agent has saved a result.
    Completed,
    /// Its agent ended without one.
    Failed,
    /// Somebody did not want it any more.
    Cancelled,
}

/// Where the agent of a run is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Phase {
    /// It is being started.
    Starting,
    /// It runs.
    Live,
    /// It has been told to end.
    Stopping,
    /// It has ended, and its run is still to be written down.
    Ended,
}

/// What happens to an agent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Event {
    /// It runs.
    Started,
    /// Somebody wants it to end.
    StopAsked,
    /// It is no more.
    Exited,
}

/// How an agent ended.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By a signal.
    Signal(i32),
    /// It never ran, for this reason.
    NotStarted(String),
    /// Nobody was there to see it.
    Unknown,
}

/// Who made an agent end before its time.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stopped {
    /// It was cancelled.
    Asked,
    /// It ran for too long.
    Time,
    /// It wrote too much.
    Output,
    /// It used too much memory.
    Memory,
}

/// The end of an agent.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Ending {
    /// How.
    pub exit: Exit,
    /// Whether somebody made it end.
    pub stopped: Option<Stopped>,
}

/// What a run has come to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Verdict {
    /// Its last status.
    pub status: Status,
    /// Why it failed.
    pub error: Option<String>,
    /// The exit code of its agent.
    pub exit_code: Option<i32>,
    /// The signal that ended its agent.
    pub signal: Option<i32>,
}

// === impl Status ===

impl Status {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Pending, Self::Running, Self::Completed, Self::Failed, Self::Cancelled];
    /// Those of a run that is not over.
    pub const ACTIVE: [Self; 2] = [Self::Pending, Self::Running];

    /// The word, as the application writes it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The status of this word.
    #[must_use]
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.word() == word)
    }

    /// Whether the run is not over.
    #[must_use]
    pub fn is_active(self) -> bool {
        Self::ACTIVE.contains(&self)
    }
}

// === impl Phase ===

impl Phase {
    /// What follows; `None` where this cannot happen any more.
    #[must_use]
    pub fn after(self, event: Event) -> Option<Self> {
        match (self, event) {
            (Self::Ended, _) | (Self::Live, Event::Started) => None,
            (_, Event::Exited) => Some(Self::Ended),
            (Self::Starting, Event::Started) => Some(Self::Live),
            // One that is cancelled while it is started is told to end as soon as it can be told anything.
            (Self::Stopping, Event::Started) | (_, Event::StopAsked) => Some(Self::Stopping),
        }
    }
}

// === impl Ending ===

impl Ending {
    /// Nobody knows how it ended.
    #[must_use]
    pub fn unknown() -> Self {
        Self { exit: Exit::Unknown, stopped: None }
    }

    /// What its run has come to, given what its document says, whether it was cancelled, and the last error that the agent
    /// wrote. `None` where the document tells it already: the agent itself writes the end of a run that it completes.
    #[must_use]
    pub fn verdict(&self, document: Option<Status>, cancelled: bool, last_error: Option<&str>) -> Option<Verdict> {
        let (exit_code, signal) = match self.exit {
            Exit::Code(code) => (Some(code), None),
            Exit::Signal(signal) => (None, Some(signal)),
            Exit::NotStarted(_) | Exit::Unknown => (None, None),
        };
        // An agent that is told to end may write `running` or even `completed` once more: who cancelled was told otherwise.
        if cancelled {
            return Some(Verdict { status: Status::Cancelled, error: None, exit_code, signal });
        }
        if document.is_some_and(|status| !status.is_active()) {
            return None;
        }
        if self.exit == Exit::Code(0) && self.stopped.is_none() {
            return Some(Verdict { status: Status::Completed, error: None, exit_code, signal });
        }
        Some(Verdict { status: Status::Failed, error: Some(self.error(last_error)), exit_code, signal })
    }

    /// Why it failed: the last error that it wrote, and how it ended in the words of the application's own runner.
    fn error(&self, last_error: Option<&str>) -> String {
        let how = match &self.exit {
            Exit::Code(code) => format!("exit status {code}"),
            Exit::Signal(signal) => format!("signal: {}", signal_word(*signal)),
            Exit::NotStarted(why) => return format!("failed to start: {why}"),
            Exit::Unknown => "the agent is gone and its exit status is not known".to_owned(),
        };
        let why = match (self.stopped, &self.exit) {
            (Some(Stopped::Time), _) => Some("time limit: the agent ran for too long and was stopped"),
            (Some(Stopped::Output), _) | (None, Exit::Signal(SIGXFSZ)) => Some("output limit: the agent wrote too much and was stopped"),
            (Some(Stopped::Memory), _) => Some("memory limit: the agent used too much and was killed"),
            (Some(Stopped::Asked), _) => Some("the agent was told to end"),
            (None, _) => None,
        };
        match why.or(last_error) {
            Some(why) => format!("{why} ({how})"),
            None => how,
        }
    }
}

const SIGXFSZ: i32 = 25;

/// As Go writes it, by which the application's failures are told apart.
fn signal_word(signal: i32) -> String {
    match signal {
        1 => "hangup".to_owned(),
        2 => "interrupt".to_owned(),
        6 => "aborted".to_owned(),
        9 => "killed".to_owned(),
        11 => "segmentation fault".to_owned(),
        13 => "broken pipe".to_owned(),
        15 => "terminated".to_owned(),
        SIGXFSZ => "file size limit exceeded".to_owned(),
        other => format!("signal {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_goes_forward_only() {
        use Event::{Exited, Started, StopAsked};
        use Phase::{Ended, Live, Starting, Stopping};
        for (phase, event, expected) in [
            (Starting, Started, Some(Live)),
            (Starting, StopAsked, Some(Stopping)),
            (Starting, Exited, Some(Ended)),
            (Live, Started, None),
            (Live, StopAsked, Some(Stopping)),
            (Live, Exited, Some(Ended)),
            (Stopping, Started, Some(Stopping)),
            (Stopping, StopAsked, Some(Stopping)),
            (Stopping, Exited, Some(Ended)),
            (Ended, Started, None),
            (Ended, StopAsked, None),
            (Ended, Exited, None),
        ] {
            assert_eq!(phase.after(event), expected, "{phase:?} {event:?}");
        }
    }

    #[track_caller]
    fn check(exit: Exit, stopped: Option<Stopped>, document: &str, cancelled: bool, expected: Option<(Status, &str)>) {
        let verdict = Ending { exit, stopped }.verdict(Status::named(document), cancelled, Some("claude: overloaded"));
        let found = verdict.as_ref().map(|verdict| (verdict.status, verdict.error.as_deref().unwrap_or_default()));
        assert_eq!(found, expected);
    }

    #[test]
    fn a_run_comes_to_what_its_agent_came_to() {
        use Exit::{Code, NotStarted, Signal, Unknown};
        let failed = |text| Some((Status::Failed, text));
        check(Code(0), None, "completed", false, None);
        check(Code(0), None, "running", false, Some((Status::Completed, "")));
        check(Code(1), None, "running", false, failed("claude: overloaded (exit status 1)"));
        check(Code(1), None, "completed", false, None);
        check(Code(1), None, "failed", false, None);
        check(Signal(9), None, "pending", false, failed("claude: overloaded (signal: killed)"));
        check(
            Signal(15),
            Some(Stopped::Time),
            "running",
            false,
            failed("time limit: the agent ran for too long and was stopped (signal: terminated)"),
        );
        check(
            Signal(25),
            None,
            "running",
            false,
            failed("output limit: the agent wrote too much and was stopped (signal: file size limit exceeded)"),
        );
        check(
            Code(0),
            Some(Stopped::Output),
            "running",
            false,
            failed("output limit: the agent wrote too much and was stopped (exit status 0)"),
        );
        check(
            Signal(9),
            Some(Stopped::Memory),
            "running",
            false,
            failed("memory limit: the agent used too much and was killed (signal: killed)"),
        );
        check(NotStarted("no such file".to_owned()), None, "pending", false, failed("failed to start: no such file"));
        check(Unknown, None, "running", false, failed("claude: overloaded (the agent is gone and its exit status is not known)"));
        check(Unknown, None, "completed", false, None);
        for document in ["running", "completed", "cancelled"] {
            check(Signal(15), Some(Stopped::Asked), document, true, Some((Status::Cancelled, "")));
        }
    }
}
