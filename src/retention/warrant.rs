//! The permission to delete: a plan that was looked at, that passes every guard, and that still holds. Pure.
//!
//! Only this file can make one, and nothing is deleted without.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use crate::config::retention::{Mode, Policy};
use crate::retention::guard::{Guard, Verdict};
use crate::retention::plan::{Plan, policy_hash};

/// How much of itself a plan may be exceeded by, at most by [`MOST_GROWTH`] documents: the tenth part.
const GROWTH_PART: u64 = 10;
/// How many documents more than planned there may be.
const MOST_GROWTH: u64 = 1000;
/// A plan that is older was made for another state of things.
const OLDEST_PLAN_MS: i64 = 7 * 86_400_000;

/// What a plan is called: short enough to be copied, and with the numbers that a run is held to. It is a text of its
/// own, so that it needs to be stored nowhere: a plan writes nothing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PlanId {
    /// The database's clock when the plan was made, in milliseconds since 1970.
    pub made: i64,
    /// Documents that are older may go, in milliseconds since 1970.
    pub cutoff: i64,
    /// How many documents would go.
    pub documents: u64,
    /// How many of their children.
    pub children: u64,
    check: String,
}

/// The permission to delete what one plan says, and no more.
#[derive(Clone, Debug)]
pub struct Warrant {
    policy: Policy,
    plan: Plan,
}

/// Why nothing may be deleted.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Blocked {
    /// The policy only plans.
    #[error("the policy {0} only plans; deleting is an explicit choice: set `retention.mode: enforce`")]
    Mode(String),
    /// It says nowhere to archive to.
    #[error("the policy {0} has no `archive`; nothing is deleted before it is archived")]
    Archive(String),
    /// Guards stop it.
    #[error("{}", stops(.0))]
    Guards(Vec<Verdict>),
    /// There is more to delete than was planned.
    #[error("the plan was for {planned} {what}, and now there are {found}: look at a new plan first")]
    Grew {
        /// Documents or children.
        what: &'static str,
        /// How many were planned.
        planned: u64,
        /// How many there are.
        found: u64,
    },
    /// The plan is of something else.
    #[error("this plan was made of another policy, another state of its configuration, or another database: make a new one")]
    AnotherPlan,
    /// The plan is too old, or of the future.
    #[error("this plan is older than seven days, or of the future: make a new one")]
    Stale,
}

/// A text that is no plan's.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("this is no plan id; `bellwether retention plan` shows it in its last lines")]
pub struct NoPlanId;

// === impl PlanId ===

impl PlanId {
    pub(super) fn new(made: i64, cutoff: i64, documents: u64, children: u64, policy_hash: &str) -> Self {
        let check = Self::check(made, cutoff, documents, children, policy_hash);
        Self { made, cutoff, documents, children, check }
    }

    fn check(made: i64, cutoff: i64, documents: u64, children: u64, policy_hash: &str) -> String {
        let sum = Sha256::digest(format!("{made} {cutoff} {documents} {children} {policy_hash}"));
        sum.iter().take(8).fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
    }

    /// Whether it is a plan of this policy, as it is now, on this database.
    #[must_use]
    pub fn belongs_to(&self, policy: &Policy, database: &str) -> bool {
        self.is_of(&policy_hash(policy, database))
    }

    /// Whether a run may carry out what this plan says, with a plan that was made anew up to the same `cutoff`.
    /// `found` of `what` would go now. Times are in milliseconds since 1970.
    pub(super) fn permits(&self, policy_hash: &str, now: i64, cutoff: i64, what: &'static str, found: u64) -> Result<(), Blocked> {
        if !self.is_of(policy_hash) {
            return Err(Blocked::AnotherPlan);
        }
        if !(0..=OLDEST_PLAN_MS).contains(&now.saturating_sub(self.made)) || cutoff > self.cutoff {
            return Err(Blocked::Stale);
        }
        if found > self.documents + allowance(self.documents) {
            return Err(Blocked::Grew { what, planned: self.documents, found });
        }
        Ok(())
    }

    /// How much a plan of so many may be exceeded by.
    pub(super) fn allowance(planned: u64) -> u64 {
        allowance(planned)
    }

    pub(super) fn is_of(&self, policy_hash: &str) -> bool {
        self.check == Self::check(self.made, self.cutoff, self.documents, self.children, policy_hash)
    }
}

impl fmt::Display for PlanId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}-{}-{}-{}", self.check, self.made, self.cutoff, self.documents, self.children)
    }
}

impl FromStr for PlanId {
    type Err = NoPlanId;

    fn from_str(text: &str) -> Result<Self, NoPlanId> {
        let parts: Vec<&str> = text.split('-').collect();
        let [check, made, cutoff, documents, children] = parts[..] else { return Err(NoPlanId) };
        let time = |text: &str| text.parse().map_err(|_| NoPlanId);
        let count = |text: &str| text.parse().map_err(|_| NoPlanId);
        let id = Self {
            made: time(made)?,
            cutoff: time(cutoff)?,
            documents: count(documents)?,
            children: count(children)?,
            check: check.to_owned(),
        };
        if check.len() == 16 { Ok(id) } else { Err(NoPlanId) }
    }
}

// === impl Warrant ===

impl Warrant {
    /// The permission to carry `plan` out. `confirmed` is the plan that somebody has looked at, where somebody has;
    /// `plan` was then made anew with its cutoff.
    ///
    /// # Errors
    /// Why nothing may be deleted.
    pub fn of(policy: &Policy, plan: Plan, confirmed: Option<&PlanId>) -> Result<Self, Blocked> {
        if policy.mode != Mode::Enforce {
            return Err(Blocked::Mode(policy.name.clone()));
        }
        if policy.archive.is_none() {
            return Err(Blocked::Archive(policy.name.clone()));
        }
        if let Some(confirmed) = confirmed {
            check(&plan, confirmed)?;
        }
        let stopped: Vec<Verdict> = plan.guards.iter().filter(|verdict| !verdict.passes).cloned().collect();
        if stopped.is_empty() { Ok(Self { policy: policy.clone(), plan }) } else { Err(Blocked::Guards(stopped)) }
    }

    /// The policy.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// How many documents may be deleted at most.
    #[must_use]
    pub fn most(&self) -> u64 {
        self.plan.would_delete + allowance(self.plan.would_delete)
    }
}

fn check(plan: &Plan, confirmed: &PlanId) -> Result<(), Blocked> {
    let (now, cutoff) = (plan.database_now.as_millisecond(), plan.cutoff.as_millisecond());
    confirmed.permits(&plan.policy_hash, now, cutoff, "documents", plan.would_delete)?;
    let (planned, found) = (confirmed.children, plan.children_total());
    if found > planned + allowance(planned) { Err(Blocked::Grew { what: "children", planned, found }) } else { Ok(()) }
}

fn allowance(planned: u64) -> u64 {
    (planned / GROWTH_PART).min(MOST_GROWTH)
}

// === impl Blocked ===

impl Blocked {
    /// The guards that stop it.
    pub fn guards(&self) -> impl Iterator<Item = Guard> {
        let verdicts = if let Self::Guards(verdicts) = self { verdicts.as_slice() } else { &[] };
        verdicts.iter().map(|verdict| verdict.guard)
    }
}

fn stops(verdicts: &[Verdict]) -> String {
    let stops: Vec<String> = verdicts.iter().map(|verdict| format!("the guard {} stops it: {}", verdict.guard, verdict.finding)).collect();
    stops.join("; ")
}

/// A point in time as messages show it.
pub(super) fn time(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_id_is_read_as_it_is_written_and_belongs_to_one_policy() {
        let id = PlanId::new(5, -3, 7, 9, "policy");
        assert!(id.to_string().parse::<PlanId>().is_err(), "a cutoff before 1970 is none");
        let id = PlanId::new(5, 3, 7, 9, "policy");
        assert_eq!(id.to_string().parse(), Ok(id.clone()));
        assert!(id.is_of("policy") && !id.is_of("another"));
        let forged: PlanId = id.to_string().replace("-7-", "-70-").parse().unwrap();
        assert!(!forged.is_of("policy"));
        for text in ["", "x", "1-2-3-4-5", "0123456789abcdef-1-2-3"] {
            assert_eq!(text.parse::<PlanId>(), Err(NoPlanId), "{text}");
        }
    }

    #[test]
    fn a_plan_may_be_exceeded_by_a_tenth_and_never_by_more_than_a_thousand() {
        assert_eq!([0, 9, 10, 500, 10_000, 1_000_000].map(allowance), [0, 0, 1, 50, 1000, 1000]);
    }
}
