//! The soak: how long a policy that is new or has changed is only planned.

use std::time::Duration;

use jiff::Timestamp;

/// Until when a policy is only planned, where that is not over.
pub(super) fn soaks_until(first_seen: Option<i64>, soak: Duration, now: Timestamp) -> Option<Timestamp> {
    if soak.is_zero() {
        // It was noted a moment after `now`, which is no reason to wait for the next start.
        return None;
    }
    let soak = i64::try_from(soak.as_millis()).unwrap_or(i64::MAX);
    // A policy of which nobody knows since when it is there is as new as can be.
    let until = first_seen.unwrap_or(now.as_millisecond()).saturating_add(soak);
    (now.as_millisecond() < until).then(|| Timestamp::from_millisecond(until).unwrap_or(Timestamp::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_policy_soaks_and_one_of_unknown_age_too() {
        let now = Timestamp::from_millisecond(1_000_000).unwrap();
        let soak = Duration::from_secs(100);
        assert_eq!(soaks_until(Some(900_001), soak, now).map(Timestamp::as_millisecond), Some(1_000_001));
        assert_eq!(soaks_until(Some(900_000), soak, now), None);
        assert!(soaks_until(None, soak, now).is_some());
        assert_eq!(soaks_until(None, Duration::ZERO, now), None);
    }
}
