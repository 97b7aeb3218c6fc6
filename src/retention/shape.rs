//! Which documents a policy is about, as a filter. Pure.
//!
//! A wrong shape here deletes the wrong documents: `$not: {$gte: …}` and `$expr` also find what is missing, null or a
//! text, and a plain `$lt` also finds lists that hold one old date. So the field must be a date and no list, nothing
//! above it may be a list, and the date lies between a floor and the cutoff.

use std::ops::Bound;

use mongodb::bson::{DateTime, Document, doc};

use crate::config::retention::Policy;

/// 2000-01-01: what is older was never set. Go writes the year 0001 for a time that is not there.
pub(super) const FLOOR: i64 = 946_684_800_000;

/// Points in time that divide the documents, in milliseconds by the database's clock.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Window {
    /// What is older was never set.
    pub floor: i64,
    /// What is older is not kept for its age; what is exactly as old is.
    pub cutoff: i64,
    /// What is younger is in the future.
    pub now: i64,
}

// === impl Window ===

impl Window {
    /// The window of a policy at a time.
    #[must_use]
    pub fn of(policy: &Policy, now: i64) -> Self {
        let keep = i64::try_from(policy.keep.as_millis()).unwrap_or(i64::MAX);
        Self { floor: FLOOR, cutoff: now.saturating_sub(keep), now }
    }

    /// Documents that are older than the cutoff, and have a date that was set.
    pub(super) fn expired(&self, field: &str) -> Document {
        dated(field, Bound::Included(self.floor), Bound::Excluded(self.cutoff))
    }

    /// Documents that are kept for their age.
    pub(super) fn young(&self, field: &str) -> Document {
        dated(field, Bound::Included(self.cutoff.max(self.floor)), Bound::Included(self.now))
    }

    /// Documents whose date was set and is not in the future.
    pub(super) fn plausible(&self, field: &str) -> Document {
        dated(field, Bound::Included(self.floor), Bound::Included(self.now))
    }
}

/// Documents whose field is one date within bounds.
pub(super) fn dated(field: &str, from: Bound<i64>, to: Bound<i64>) -> Document {
    let mut range = Document::new();
    let (from, to) = (bound(from, "$gte", "$gt"), bound(to, "$lte", "$lt"));
    range.extend([from, to].into_iter().flatten().map(|(operator, time)| (operator.to_owned(), DateTime::from_millis(time).into())));
    let mut conditions = vec![doc! { field: { "$type": "date" } }];
    conditions.extend(no_list(field));
    conditions.push(doc! { field: range });
    doc! { "$and": conditions }
}

/// Documents whose field is of one of these types, and no list.
pub(super) fn typed(field: &str, types: &[&str]) -> Document {
    let mut conditions = vec![doc! { field: { "$type": types } }];
    conditions.extend(no_list(field));
    doc! { "$and": conditions }
}

/// Documents whose field, or something above it, is a list.
pub(super) fn listed(field: &str) -> Document {
    doc! { "$or": levels(field).map(|level| doc! { level: { "$type": "array" } }).collect::<Vec<_>>() }
}

/// Documents without the field.
pub(super) fn missing(field: &str) -> Document {
    let mut conditions = vec![doc! { field: { "$exists": false } }];
    conditions.extend(no_list(field));
    doc! { "$and": conditions }
}

fn no_list(field: &str) -> impl Iterator<Item = Document> {
    levels(field).map(|level| doc! { level: { "$not": { "$type": "array" } } })
}

/// The path, and each path above it: `a.b` is within a list where `a` is one.
fn levels(field: &str) -> impl Iterator<Item = &str> {
    field.match_indices('.').map(|(end, _)| &field[..end]).chain([field])
}

fn bound(bound: Bound<i64>, included: &'static str, excluded: &'static str) -> Option<(&'static str, i64)> {
    match bound {
        Bound::Included(time) => Some((included, time)),
        Bound::Excluded(time) => Some((excluded, time)),
        Bound::Unbounded => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_is_a_date_no_list_and_a_range() {
        let window = Window { floor: FLOOR, cutoff: FLOOR + 1000, now: FLOOR + 2000 };
        let (floor, cutoff) = (DateTime::from_millis(FLOOR), DateTime::from_millis(FLOOR + 1000));
        assert_eq!(
            window.expired("f"),
            doc! { "$and": [{ "f": { "$type": "date" } }, { "f": { "$not": { "$type": "array" } } }, { "f": { "$gte": floor, "$lt": cutoff } }] }
        );
        assert_eq!(
            window.expired("a.b").get_array("$and").map(Vec::len).ok(),
            Some(4),
            "a date within a list of documents is not the date of the document"
        );
    }

    #[test]
    fn nothing_is_kept_so_long_that_the_arithmetic_breaks() {
        let policy = Policy {
            name: "p".to_owned(),
            collection: "c".to_owned(),
            field: "f".to_owned(),
            keep: std::time::Duration::MAX,
            keep_last: None,
            children: Vec::new(),
        };
        let window = Window::of(&policy, 1_763_712_000_000);
        assert!(window.cutoff < window.floor);
    }
}
