//! A plan as people read it.

use std::fmt;

use crate::retention::guard::{Guard, Verdict};
use crate::retention::plan::{KeepReason, Plan};

// === impl KeepReason ===

impl fmt::Display for KeepReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Young => "younger than the cutoff",
            Self::AmongNewest => "among the newest of their group",
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
            Self::Index => "index",
            Self::Clocks => "clocks",
            Self::Children => "children",
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
        }
        writeln!(formatter, "  would keep")?;
        for kept in self.kept.iter().filter(|kept| kept.documents > 0) {
            writeln!(formatter, "    {:<32} {}", kept.reason, kept.documents)?;
        }
        writeln!(formatter, "  guards")?;
        for Verdict { guard, passes, finding } in &self.guards {
            writeln!(formatter, "    {:<5} {guard:<9} {finding}", if *passes { "ok" } else { "STOP" })?;
        }
        write!(formatter, "  plan {}\n  policy {}", self.plan_id, self.policy_hash)
    }
}
