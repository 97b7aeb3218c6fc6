//! How gently a run goes: how long it rests, and whether the secondaries keep up. Pure.

use std::time::Duration;

use mongodb::bson::{Bson, Document};

use crate::config::retention::Throttle;

/// A rest is not longer, however long a batch took.
const LONGEST_REST: Duration = Duration::from_secs(30);

/// How far the secondaries are behind.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Lag {
    /// There are none.
    Alone,
    /// So far at most.
    Behind(Duration),
    /// Not known.
    Unknown,
}

/// How long to rest after a batch that took so long.
pub(super) fn rest(throttle: &Throttle, took: Duration) -> Duration {
    took.mul_f64(throttle.pause).min(LONGEST_REST)
}

/// Whether a server, by its answer to `hello`, has secondaries to wait for: `None` where that cannot be told.
pub(super) fn has_secondaries(hello: &Document) -> Option<bool> {
    if hello.get_str("msg").ok() == Some("isdbgrid") {
        return None;
    }
    if !hello.contains_key("setName") {
        return Some(false);
    }
    let members = |name| hello.get_array(name).map_or(0, Vec::len);
    Some(members("hosts") + members("passives") + members("arbiters") > 1)
}

/// Whether a server has transactions: a member of a set, or a router.
pub(super) fn has_transactions(hello: &Document) -> bool {
    hello.contains_key("setName") || hello.get_str("msg").ok() == Some("isdbgrid")
}

/// How far the member that is furthest behind is, by the answer to `replSetGetStatus`. One that is down counts by what it
/// last had.
pub(super) fn lag_of_members(status: &Document) -> Lag {
    let Ok(members) = status.get_array("members") else { return Lag::Unknown };
    let members = || members.iter().filter_map(Bson::as_document);
    let state = |member: &Document| member.get_i32("state").unwrap_or(-1);
    let applied = |member: &Document| member.get_datetime("optimeDate").ok().map(|time| time.timestamp_millis());
    let Some(primary) = members().find(|member| state(member) == 1).and_then(applied) else { return Lag::Unknown };
    let mut furthest = 0;
    for member in members().filter(|member| !matches!(state(member), 1 | 7)) {
        match applied(member) {
            Some(time) => furthest = furthest.max(primary.saturating_sub(time)),
            None => return Lag::Unknown,
        }
    }
    Lag::Behind(Duration::from_millis(u64::try_from(furthest).unwrap_or_default()))
}

/// How far the majority is behind, by the answer to `hello`, which needs no privilege.
pub(super) fn lag_of_majority(hello: &Document) -> Lag {
    let written = hello.get_document("lastWrite");
    let time = |name| written.clone().ok().and_then(|write| write.get_datetime(name).ok()).map(|time| time.timestamp_millis());
    match time("lastWriteDate").zip(time("majorityWriteDate")) {
        Some((last, majority)) => Lag::Behind(Duration::from_millis(u64::try_from(last.saturating_sub(majority)).unwrap_or_default())),
        None => Lag::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mongodb::bson::{DateTime, doc};

    fn member(state: i32, millis: i64) -> Document {
        doc! { "state": state, "optimeDate": DateTime::from_millis(millis) }
    }

    #[test]
    fn a_rest_is_in_proportion_and_not_endless() {
        let throttle = Throttle { pause: 2.0, ..Throttle::default() };
        assert_eq!(rest(&throttle, Duration::from_millis(10)), Duration::from_millis(20));
        assert_eq!(rest(&throttle, Duration::from_secs(3600)), LONGEST_REST);
        assert_eq!(rest(&Throttle { pause: 0.0, ..throttle }, Duration::from_secs(1)), Duration::ZERO);
    }

    #[test]
    fn the_member_that_is_furthest_behind_counts_and_a_dead_one_too() {
        let lag = |members: Vec<Document>| lag_of_members(&doc! { "members": members });
        assert_eq!(lag(vec![member(1, 9000), member(2, 8000), member(2, 8500)]), Lag::Behind(Duration::from_secs(1)));
        assert_eq!(lag(vec![member(1, 9000), member(8, 0)]), Lag::Behind(Duration::from_secs(9)));
        assert_eq!(lag(vec![member(1, 9000), doc! { "state": 7 }]), Lag::Behind(Duration::ZERO), "an arbiter has no data");
        assert_eq!(lag(vec![member(1, 9000), doc! { "state": 2 }]), Lag::Unknown);
        assert_eq!(lag(vec![member(2, 9000)]), Lag::Unknown, "no primary");
        assert_eq!(lag_of_members(&doc! {}), Lag::Unknown);
    }

    #[test]
    fn a_server_tells_whether_it_is_alone() {
        assert_eq!(has_secondaries(&doc! {}), Some(false));
        assert_eq!(has_secondaries(&doc! { "setName": "rs", "hosts": ["a"] }), Some(false));
        assert_eq!(has_secondaries(&doc! { "setName": "rs", "hosts": ["a", "b"] }), Some(true));
        assert_eq!(has_secondaries(&doc! { "setName": "rs", "hosts": ["a"], "arbiters": ["b"] }), Some(true));
        assert_eq!(has_secondaries(&doc! { "msg": "isdbgrid" }), None);
    }

    #[test]
    fn a_majority_that_is_behind_is_told_without_privileges() {
        let write = doc! { "lastWriteDate": DateTime::from_millis(5000), "majorityWriteDate": DateTime::from_millis(2000) };
        assert_eq!(lag_of_majority(&doc! { "lastWrite": write }), Lag::Behind(Duration::from_secs(3)));
        assert_eq!(lag_of_majority(&doc! {}), Lag::Unknown);
    }
}
