//! Plans, ends and standings as people read them.

use std::fmt;

use crate::retention::local::{LocalOutcome, LocalPlan, LocalStanding};
use crate::retention::outcome::Kind;

impl fmt::Display for LocalPlan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table(plan) => plan.fmt(formatter),
            Self::Files(plan) => plan.fmt(formatter),
        }
    }
}

impl fmt::Display for LocalOutcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tally = &self.tally;
        write!(formatter, "policy {}: {} at {}; ", self.policy, self.stop.word(), self.ended)?;
        match self.kind {
            Kind::Files => write!(formatter, "{} files deleted, {} bytes freed", tally.deleted, tally.bytes)?,
            _ => write!(formatter, "{} rows archived, {} deleted", tally.archived, tally.deleted)?,
        }
        for (reason, number) in &tally.skipped {
            write!(formatter, ", {number} left: {}", reason.word())?;
        }
        write!(formatter, "\n  why       {}", self.why)?;
        if !self.run.is_empty() {
            write!(formatter, "\n  run       {}", self.run)?;
        }
        Ok(())
    }
}

impl fmt::Display for LocalStanding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.last {
            Some(last) => last.fmt(formatter)?,
            None => write!(formatter, "policy {}: has never run", self.policy)?,
        }
        if !self.enforces {
            write!(formatter, "\n  only plans: `retention.mode` is not enforce")?;
        }
        if let Some(time) = &self.first_seen {
            write!(formatter, "\n  as it is now since {time}")?;
        }
        Ok(())
    }
}
