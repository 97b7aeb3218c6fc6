//! A plan as people read it.

use std::fmt;

use crate::retention::engine::Standing;
use crate::retention::guard::{Guard, Verdict};
use crate::retention::outcome::{Outcome, Tally};
use crate::retention::plan::{KeepReason, Plan};

// === impl KeepReason ===

impl fmt::Display for KeepReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Young => "younger than the cutoff",
            Self::AmongNewest => "among the newest of their group",
            Self::Held => "held",
            Self::Future => "dated in the future",
            Self::BeforeFloor => "dated before 2000: never set",
            Self::Missing => "the date is missing",
            Self::Null => "the date is null",
            Self::Text => "the date is a text",
            Self::Number => "the date is a number",
            Self::List => "the date is a list",
            Self::OtherType => "the date is of another type",
        })
    }
}

// === impl Guard ===

impl fmt::Display for Guard {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Fraction => "fraction",
            Self::Documents => "documents",
            Self::Remaining => "remaining",
            Self::Index => "index",
            Self::Clocks => "clocks",
            Self::Children => "children",
            Self::Folder => "folder",
            Self::Dates => "dates",
        })
    }
}

// === impl Plan ===

impl fmt::Display for Plan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "PLAN ONLY, nothing has been deleted: policy {} on {}.{}", self.policy, self.collection, self.field)?;
        writeln!(formatter, "  cutoff           {} ({} before the database's clock)", self.cutoff, self.keep)?;
        match &self.oldest {
            Some(oldest) => writeln!(formatter, "  oldest document  {oldest}")?,
            None => writeln!(formatter, "  oldest document  none")?,
        }
        writeln!(formatter, "  documents        {}, of which {} are older than the cutoff", self.total, self.expired)?;
        write!(formatter, "  would delete     {} ({:.1} %) in {} batches", self.would_delete, self.fraction * 100.0, self.batches)?;
        match self.estimated_bytes {
            Some(bytes) => writeln!(formatter, ", about {bytes} bytes")?,
            None => writeln!(formatter)?,
        }
        for child in &self.children {
            let documents = child.documents.map_or("an unknown number".to_owned(), |documents| documents.to_string());
            writeln!(formatter, "    with them      {documents} of {} by {}", child.collection, child.field)?;
            if self.would_delete > 0 && child.documents == Some(0) {
                let remedy = "if there should be: a text is never equal to an ObjectId; see `id: objectid_hex`";
                writeln!(formatter, "                   nothing refers to them by {}; {remedy}", child.field)?;
            }
        }
        writeln!(formatter, "  would keep")?;
        for kept in self.kept.iter().filter(|kept| kept.documents > 0) {
            writeln!(formatter, "    {:<32} {}", kept.reason, kept.documents)?;
        }
        writeln!(formatter, "  guards")?;
        for Verdict { guard, passes, finding } in &self.guards {
            writeln!(formatter, "    {:<5} {guard:<9} {finding}", if *passes { "ok" } else { "STOP" })?;
        }
        write!(formatter, "  policy {}\n  plan {}", self.policy_hash, self.plan_id)
    }
}

// === impl Outcome ===

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { archived, deleted, children, bytes, skipped } = &self.tally;
        writeln!(formatter, "policy {}: {} at {}", self.policy, self.stop.word(), self.ended)?;
        writeln!(formatter, "  why       {}", self.why)?;
        writeln!(formatter, "  run       {}", self.run)?;
        writeln!(formatter, "  archived  {archived} documents, {bytes} bytes with what referred to them")?;
        write!(formatter, "  deleted   {deleted} documents, and {children} that referred to them")?;
        for (reason, documents) in skipped {
            write!(formatter, "\n  kept      {documents}: {}", reason.word())?;
        }
        Ok(())
    }
}

// === impl Standing ===

impl fmt::Display for Standing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.last {
            Some(last) => write!(formatter, "{last}")?,
            None => write!(formatter, "policy {}: has never run", self.policy)?,
        }
        if !self.enforces {
            write!(formatter, "\n  only plans: `retention.mode` is not enforce")?;
        }
        if let Some(run) = &self.unfinished {
            write!(formatter, "\n  has begun the run {run}, which goes on, or was ended and is gone on with")?;
        }
        if let Some(time) = &self.first_seen {
            write!(formatter, "\n  as it is now since {time}")?;
        }
        Ok(())
    }
}
