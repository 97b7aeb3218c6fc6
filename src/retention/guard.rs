//! What must hold before anything may be deleted. Pure.
//!
//! Fails closed: whatever is not known to be right does not pass.

use jiff::Timestamp;
use serde::Serialize;

use crate::config::retention::Policy;
use crate::retention::facts::{Facts, Scanned};

/// How far the clocks of the database and of the host may differ, in milliseconds.
const MAX_SKEW_MS: u64 = 60_000;

/// A collection without an index for it may be read as a whole for each batch up to this size: some milliseconds.
const MOST_SCANNED: u64 = 10_000;

/// Something that must hold before anything may be deleted.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Guard {
    /// Not too great a part of the collection would go.
    Fraction,
    /// Not too many documents would go.
    Documents,
    /// Enough documents would stay.
    Remaining,
    /// The documents are found by an index, and so is what refers to them or holds them.
    Index,
    /// The clocks of database and host agree.
    Clocks,
    /// What refers to the documents is known.
    Children,
    /// The folder is there and was looked into.
    Folder,
    /// The field holds dates.
    Dates,
}

// === impl Guard ===

impl Guard {
    /// The guards of documents.
    pub const DOCUMENTS: [Self; 7] =
        [Self::Fraction, Self::Documents, Self::Remaining, Self::Index, Self::Clocks, Self::Children, Self::Dates];
    /// The guards of tables.
    pub const TABLES: [Self; 4] = [Self::Fraction, Self::Index, Self::Clocks, Self::Children];
    /// The guards of files.
    pub const FILES: [Self; 5] = [Self::Fraction, Self::Documents, Self::Remaining, Self::Clocks, Self::Folder];
}

/// What a guard found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// The guard.
    pub guard: Guard,
    /// Whether it would let a deletion go on.
    pub passes: bool,
    /// What it saw.
    pub finding: String,
}

/// What each guard finds in the facts of a policy. `fraction` is the part of the collection that would go.
pub(super) fn verdicts(
    policy: &Policy,
    facts: &Facts,
    going: u64,
    fraction: f64,
    host_now: Timestamp,
    database_now: Timestamp,
) -> Vec<Verdict> {
    vec![
        fraction_guard(fraction, policy.guards.max_fraction),
        documents_guard(going, policy.guards.max_documents),
        remaining_guard(facts.total.saturating_sub(going), going, policy.guards.min_remaining),
        index_guard(policy, facts),
        clock_guard(host_now, database_now),
        children_guard(facts.children.is_some()),
        dates_guard(policy, facts),
    ]
}

fn fraction_guard(fraction: f64, most: f64) -> Verdict {
    let finding = format!("{:.1} % of the collection would be deleted; at most {:.0} % may be", fraction * 100.0, most * 100.0);
    Verdict { guard: Guard::Fraction, passes: fraction <= most, finding }
}

fn documents_guard(going: u64, most: u64) -> Verdict {
    let finding = format!("{going} documents would be deleted; at most {most} may be");
    Verdict { guard: Guard::Documents, passes: going <= most, finding }
}

fn remaining_guard(remaining: u64, going: u64, least: u64) -> Verdict {
    let finding = format!("{remaining} documents would remain; at least {least} must");
    Verdict { guard: Guard::Remaining, passes: remaining >= least || going == 0, finding }
}

fn index_guard(policy: &Policy, facts: &Facts) -> Verdict {
    let (passes, finding) = match (&facts.access.index, facts.access.scans) {
        (Some(index), false) => (true, format!("the documents are found by the index {index}")),
        (None, false) if facts.total == 0 => (true, format!("{} is empty or not there", policy.collection)),
        _ => (false, format!("the whole collection would be read: there is no index that begins with {}", policy.field)),
    };
    let too_large = facts.scanned.iter().any(|scanned| scanned.documents > MOST_SCANNED);
    let finding = facts.scanned.iter().fold(finding, |finding, Scanned { collection, field, documents }| {
        format!(
            "{finding}; {collection} has {documents} documents and no index that begins with {field}, and is read as a whole for each batch"
        )
    });
    Verdict { guard: Guard::Index, passes: passes && !too_large, finding }
}

fn clock_guard(host: Timestamp, database: Timestamp) -> Verdict {
    let skew = host.as_millisecond().abs_diff(database.as_millisecond());
    let finding =
        format!("the clocks of database and host differ by {}.{:03} s; at most {} s may be", skew / 1000, skew % 1000, MAX_SKEW_MS / 1000);
    Verdict { guard: Guard::Clocks, passes: skew <= MAX_SKEW_MS, finding }
}

fn children_guard(is_known: bool) -> Verdict {
    let finding = if is_known {
        "what refers to the documents is known"
    } else {
        "too many documents to count what refers to them within a minute; begin with a longer keep, and shorten it in steps"
    };
    Verdict { guard: Guard::Children, passes: is_known, finding: finding.to_owned() }
}

/// A field of the wrong type keeps everything for ever, and nobody is told: milliseconds as numbers, dates as texts.
fn dates_guard(policy: &Policy, facts: &Facts) -> Verdict {
    let dated = facts.expired + facts.young + facts.future + facts.before_floor;
    let odd = facts.text + facts.number + facts.list + facts.other;
    let passes = odd <= dated;
    let finding = match (passes, odd) {
        (true, 0) => format!("no {} is a text, a number or a list", policy.field),
        (true, _) => format!("{odd} documents stay for ever: their {} is no date", policy.field),
        (false, _) => format!(
            "{odd} documents, and most of all, would stay for ever: their {} is a text, a number or a list, and no date; name a date field",
            policy.field
        ),
    };
    Verdict { guard: Guard::Dates, passes, finding }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_field_that_mostly_holds_no_dates_is_an_alarm() {
        let policy = Policy::simple("p", "c", "ms", Duration::from_secs(86_400));
        let verdict = |facts: Facts| dates_guard(&policy, &facts);
        assert!(verdict(Facts::default()).passes);
        assert!(verdict(Facts { young: 5, text: 5, missing: 90, null: 90, ..Facts::default() }).passes);
        let odd = verdict(Facts { young: 5, number: 6, ..Facts::default() });
        assert!(!odd.passes && odd.finding.contains("6 documents, and most of all"), "{odd:?}");
    }
}
