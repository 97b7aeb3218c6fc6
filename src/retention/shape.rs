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

    /// Documents that are older than the cutoff.
    pub(super) fn expired(&self) -> (Bound<i64>, Bound<i64>) {
        (Bound::Included(self.floor), Bound::Excluded(self.cutoff))
    }

    /// Documents that are kept for their age.
    pub(super) fn young(&self) -> (Bound<i64>, Bound<i64>) {
        (Bound::Included(self.cutoff.max(self.floor)), Bound::Included(self.now))
    }

    /// Documents whose date was set and is not in the future.
    pub(super) fn plausible(&self) -> (Bound<i64>, Bound<i64>) {
        (Bound::Included(self.floor), Bound::Included(self.now))
    }

    /// Documents that are dated in the future.
    pub(super) fn future(&self) -> (Bound<i64>, Bound<i64>) {
        (Bound::Excluded(self.now), Bound::Unbounded)
    }

    /// Documents whose date was never set.
    pub(super) fn before_floor(&self) -> (Bound<i64>, Bound<i64>) {
        (Bound::Unbounded, Bound::Excluded(self.floor))
    }
}

/// The date field of a policy.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field<'a> {
    path: &'a str,
    /// An index has proved that no document has a list there. Only counts may rely on it: they need no document then.
    has_no_list: bool,
}

// === impl Field ===

impl<'a> Field<'a> {
    /// A field of which nothing is known.
    pub(super) fn new(path: &'a str) -> Self {
        Self { path, has_no_list: false }
    }

    /// A field where an index may have proved that there is no list.
    pub(super) fn proved(path: &'a str, has_no_list: bool) -> Self {
        Self { path, has_no_list }
    }

    /// Documents whose field is one date within bounds.
    pub(super) fn dated(self, (from, to): (Bound<i64>, Bound<i64>)) -> Document {
        let mut range = Document::new();
        let (from, to) = (bound(from, "$gte", "$gt"), bound(to, "$lte", "$lt"));
        range.extend([from, to].into_iter().flatten().map(|(operator, time)| (operator.to_owned(), DateTime::from_millis(time).into())));
        if self.has_no_list {
            // A comparison with a date finds dates only, and can be answered by the index alone.
            return doc! { self.path: range };
        }
        let mut conditions = vec![doc! { self.path: { "$type": "date" } }];
        conditions.extend(self.outside_lists());
        conditions.push(doc! { self.path: range });
        doc! { "$and": conditions }
    }

    /// Documents whose field is of one of these types, and no list.
    pub(super) fn typed(self, types: &[&str]) -> Document {
        self.with_no_list(doc! { self.path: { "$type": types } })
    }

    /// Documents without the field.
    pub(super) fn missing(self) -> Document {
        self.with_no_list(doc! { self.path: { "$exists": false } })
    }

    /// Documents whose field, or something above it, is a list.
    pub(super) fn listed(self) -> Document {
        doc! { "$or": self.levels().map(|level| doc! { level: { "$type": "array" } }).collect::<Vec<_>>() }
    }

    fn with_no_list(self, condition: Document) -> Document {
        if self.has_no_list { condition } else { self.outside_lists_and(condition) }
    }

    /// Documents that fulfil a condition, and where neither the field nor anything above it is a list.
    pub(super) fn outside_lists_and(self, condition: Document) -> Document {
        let mut conditions = vec![condition];
        conditions.extend(self.outside_lists());
        doc! { "$and": conditions }
    }

    fn outside_lists(self) -> impl Iterator<Item = Document> {
        self.levels().map(|level| doc! { level: { "$not": { "$type": "array" } } })
    }

    /// The path, and each path above it: `a.b` is within a list where `a` is one.
    fn levels(self) -> impl Iterator<Item = &'a str> {
        self.path.match_indices('.').map(move |(end, _)| &self.path[..end]).chain([self.path])
    }
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
            Field::new("f").dated(window.expired()),
            doc! { "$and": [{ "f": { "$type": "date" } }, { "f": { "$not": { "$type": "array" } } }, { "f": { "$gte": floor, "$lt": cutoff } }] }
        );
        assert_eq!(Field::proved("f", true).dated(window.expired()), doc! { "f": { "$gte": floor, "$lt": cutoff } }, "for counts only");
        assert_eq!(
            Field::new("a.b").dated(window.expired()).get_array("$and").map(Vec::len).ok(),
            Some(4),
            "a date within a list of documents is not the date of the document"
        );
    }

    #[test]
    fn nothing_is_kept_so_long_that_the_arithmetic_breaks() {
        let policy = Policy::simple("p", "c", "f", std::time::Duration::MAX);
        let window = Window::of(&policy, 1_763_712_000_000);
        assert!(window.cutoff < window.floor);
    }
}
