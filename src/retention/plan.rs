//! What a policy would do and why: facts in, a plan out. Pure.
//!
//! Whether it may be carried out is for the guards to say.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use crate::config::retention::{Child, Guards, Hold, IdForm, Policy};
use crate::retention::RetentionError;
use crate::retention::facts::Facts;
use crate::retention::guard::{Verdict, verdicts};
use crate::retention::shape::{FLOOR, Window};
use crate::retention::warrant::PlanId;

/// How many documents a batch deletes. Measured: 500 take 9 ms, 5000 take 72.
const BATCH: u64 = 500;

/// What a policy would do. Nothing has been done.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// The policy's name.
    pub policy: String,
    /// A hash of what the policy says.
    pub policy_hash: String,
    /// What the plan is called: `retention apply --plan` takes it.
    pub plan_id: String,
    /// A hash of the whole plan.
    pub plan_hash: String,
    /// The database.
    pub database: String,
    /// The collection.
    pub collection: String,
    /// The date field.
    pub field: String,
    /// How long documents are kept, as it is written.
    pub keep: String,
    /// The database's clock when the plan was made.
    #[serde(serialize_with = "as_text")]
    pub database_now: Timestamp,
    /// Documents that are older may go; one that is exactly as old stays.
    #[serde(serialize_with = "as_text")]
    pub cutoff: Timestamp,
    /// All documents of the collection.
    pub total: u64,
    /// Documents that are older than the cutoff.
    pub expired: u64,
    /// Documents that would be deleted.
    pub would_delete: u64,
    /// The part of the collection that would be deleted, from 0 to 1.
    pub fraction: f64,
    /// The oldest date that was set.
    #[serde(serialize_with = "as_optional_text")]
    pub oldest: Option<Timestamp>,
    /// The index by which the documents would be found.
    pub index: Option<String>,
    /// What would be kept, for each reason.
    pub kept: Vec<Kept>,
    /// What refers to the documents and would go with them.
    pub children: Vec<ChildPlan>,
    /// About how many bytes would be deleted, where the user may know.
    pub estimated_bytes: Option<u64>,
    /// How many batches that would be.
    pub batches: u64,
    /// What must hold before anything may be deleted.
    pub guards: Vec<Verdict>,
}

/// How many documents would be kept for one reason.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Kept {
    /// Why.
    pub reason: KeepReason,
    /// How many.
    pub documents: u64,
}

/// Why documents would be kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KeepReason {
    /// Younger than the cutoff, or exactly as old.
    Young,
    /// Among the newest of their group.
    AmongNewest,
    /// Held by a field, by its id, or by another collection.
    Held,
    /// Dated in the future.
    Future,
    /// Dated before 2000: a date that was never set.
    BeforeFloor,
    /// The date field is missing.
    Missing,
    /// The date field is null.
    Null,
    /// The date field is a text.
    Text,
    /// The date field is a number.
    Number,
    /// The date field is a list, or within one.
    List,
    /// The date field is of another type.
    OtherType,
}

/// What would go from one child collection.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChildPlan {
    /// The collection.
    pub collection: String,
    /// The field that names the parent.
    pub field: String,
    /// How many documents; `None` where there are too many parents to count.
    pub documents: Option<u64>,
}

// === impl Plan ===

impl Plan {
    /// Decides.
    ///
    /// # Errors
    /// When the database's clock is at no time that there is.
    pub fn of(policy: &Policy, facts: &Facts, host_now: Timestamp) -> Result<Self, RetentionError> {
        let window = facts.window;
        let time = |millis: i64| Timestamp::from_millisecond(millis);
        let database_now = time(window.now).map_err(|_| RetentionError::Clock(window.now))?;
        let would_delete = facts.expired.saturating_sub(facts.among_newest).saturating_sub(facts.held);
        let counted = |position: usize| facts.children.as_ref().and_then(|counts| counts.get(position).copied());
        let children = policy.children.iter().enumerate().map(|(position, child)| ChildPlan {
            collection: child.collection.clone(),
            field: child.field.clone(),
            documents: counted(position),
        });
        let fraction = fraction(would_delete, facts.total);
        let mut plan = Self {
            policy: policy.name.clone(),
            policy_hash: policy_hash(policy, &facts.database),
            plan_id: String::new(),
            plan_hash: String::new(),
            database: facts.database.clone(),
            collection: policy.collection.clone(),
            field: policy.field.clone(),
            keep: written(policy.keep),
            database_now,
            // Beyond all time there is nothing to delete.
            cutoff: time(window.cutoff).unwrap_or(Timestamp::MIN),
            total: facts.total,
            expired: facts.expired,
            would_delete,
            fraction,
            oldest: facts.oldest.and_then(|oldest| time(oldest).ok()),
            index: facts.access.index.clone(),
            kept: kept(facts),
            children: children.collect(),
            estimated_bytes: facts.mean_bytes.map(|mean| bytes(mean, would_delete)),
            batches: would_delete.div_ceil(BATCH),
            guards: Vec::new(),
        };
        plan.guards = verdicts(policy, facts, would_delete, fraction, host_now, database_now);
        plan.plan_id = PlanId::new(window.now, window.cutoff, would_delete, plan.children_total(), &plan.policy_hash).to_string();
        plan.plan_hash = plan.hash();
        Ok(plan)
    }

    /// The points in time that it was made for.
    pub(super) fn window(&self) -> Window {
        Window { floor: FLOOR, cutoff: self.cutoff.as_millisecond(), now: self.database_now.as_millisecond() }
    }

    /// About how many bytes a document has, where the user may know.
    pub(super) fn mean_bytes(&self) -> Option<u64> {
        self.estimated_bytes.zip(self.would_delete.into()).and_then(|(bytes, documents): (u64, u64)| bytes.checked_div(documents))
    }

    /// Whether every guard would let a deletion go on.
    #[must_use]
    pub fn passes(&self) -> bool {
        self.guards.iter().all(|verdict| verdict.passes)
    }

    /// How many documents would be kept for a reason.
    #[must_use]
    pub fn kept(&self, reason: KeepReason) -> u64 {
        self.kept.iter().find(|kept| kept.reason == reason).map_or(0, |kept| kept.documents)
    }

    /// How many children would go with the documents, as far as they were counted.
    #[must_use]
    pub fn children_total(&self) -> u64 {
        self.children.iter().filter_map(|child| child.documents).sum()
    }

    fn hash(&self) -> String {
        sha256(&serde_json::to_vec(self).unwrap_or_default())
    }
}

fn kept(facts: &Facts) -> Vec<Kept> {
    [
        (KeepReason::Young, facts.young),
        (KeepReason::AmongNewest, facts.among_newest),
        (KeepReason::Held, facts.held),
        (KeepReason::Future, facts.future),
        (KeepReason::BeforeFloor, facts.before_floor),
        (KeepReason::Missing, facts.missing),
        (KeepReason::Null, facts.null),
        (KeepReason::Text, facts.text),
        (KeepReason::Number, facts.number),
        (KeepReason::List, facts.list),
        (KeepReason::OtherType, facts.other),
    ]
    .map(|(reason, documents)| Kept { reason, documents })
    .into()
}

/// A duration in the greatest unit that is always as long and divides it: days, hours or seconds.
fn written(keep: Duration) -> String {
    match keep.as_secs() {
        seconds if seconds % 86_400 == 0 => format!("{}d", seconds / 86_400),
        seconds if seconds % 3600 == 0 => format!("{}h", seconds / 3600),
        seconds => format!("{seconds}s"),
    }
}

#[expect(clippy::cast_precision_loss, reason = "numbers of documents are far below 2^53")]
fn fraction(part: u64, total: u64) -> f64 {
    // Documents of which there seem to be more than there are all in all: everything.
    if total == 0 { f64::from(u8::from(part > 0)) } else { part as f64 / total as f64 }
}

#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate, never negative")]
fn bytes(mean: f64, documents: u64) -> u64 {
    (mean * documents as f64).round() as u64
}

/// The same for the same policy, whatever version of this program reads it.
pub(super) fn policy_hash(policy: &Policy, database: &str) -> String {
    let form = |id: IdForm| match id {
        IdForm::Same => "same",
        IdForm::ObjectidHex => "objectid_hex",
    };
    let edge = |child: &Child| serde_json::json!({ "collection": child.collection, "field": child.field, "id": form(child.id) });
    let children: Vec<_> = policy.children.iter().map(edge).collect();
    let hold = |hold: &Hold| match hold {
        Hold::Field(field) => serde_json::json!({ "field": field }),
        Hold::Ids(ids) => serde_json::json!({ "ids": ids }),
        Hold::Collection(by) => edge(by),
    };
    let Guards { max_fraction, max_documents, min_remaining } = policy.guards;
    let said = serde_json::json!({
        "name": policy.name,
        "collection": policy.collection,
        "field": policy.field,
        "keep_ms": u64::try_from(policy.keep.as_millis()).unwrap_or(u64::MAX),
        "keep_last": policy.keep_last.as_ref().map(|last| serde_json::json!({ "count": last.count, "per": last.per })),
        "children": children,
        "holds": policy.holds.iter().map(hold).collect::<Vec<_>>(),
        "guards": serde_json::json!([max_fraction, max_documents, min_remaining]),
        "database": database,
    });
    sha256(said.to_string().as_bytes())
}

fn sha256(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a text cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

pub(super) fn as_text<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

fn as_optional_text<S: Serializer>(time: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => serializer.collect_str(time),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::retention::KeepLast;
    use crate::retention::facts::{Access, Scanned};
    use crate::retention::guard::Guard;

    const NOW: i64 = 1_763_712_000_000;

    fn policy() -> Policy {
        Policy {
            keep_last: Some(KeepLast { count: 10, per: "project_id".to_owned() }),
            children: vec![Child { collection: "feedback".to_owned(), field: "discovery_id".to_owned(), id: IdForm::ObjectidHex }],
            ..Policy::simple("discoveries", "discoveries", "created_at", Duration::from_secs(90 * 86_400))
        }
    }

    fn facts() -> Facts {
        Facts {
            window: Window::of(&policy(), NOW),
            total: 1000,
            expired: 250,
            among_newest: 50,
            young: 740,
            missing: 10,
            access: Access { index: Some("created_at_-1".to_owned()), scans: false, proves_no_list: true },
            children: Some(vec![7]),
            mean_bytes: Some(1000.5),
            ..Facts::default()
        }
    }

    fn plan(facts: &Facts) -> Plan {
        Plan::of(&policy(), facts, Timestamp::from_millisecond(NOW).unwrap()).unwrap()
    }

    #[track_caller]
    fn check_stopped_by(facts: &Facts, guards: &[Guard]) {
        let plan = plan(facts);
        let stopped: Vec<Guard> = plan.guards.iter().filter(|verdict| !verdict.passes).map(|verdict| verdict.guard).collect();
        assert_eq!((stopped.as_slice(), plan.passes()), (guards, guards.is_empty()));
    }

    #[test]
    fn a_plan_is_arithmetic_on_facts() {
        let plan = plan(&facts());
        assert_eq!((plan.would_delete, plan.fraction, plan.batches, plan.estimated_bytes), (200, 0.2, 1, Some(200_100)));
        assert_eq!((plan.kept(KeepReason::Young), plan.kept(KeepReason::AmongNewest), plan.kept(KeepReason::Text)), (740, 50, 0));
        assert_eq!((plan.cutoff.to_string().as_str(), plan.keep.as_str()), ("2025-08-23T08:00:00Z", "90d"));
        assert_eq!(plan.children[0].documents, Some(7));
    }

    #[test]
    fn each_guard_stops_by_itself() {
        check_stopped_by(&facts(), &[]);
        check_stopped_by(&Facts { expired: 251, ..facts() }, &[Guard::Fraction]);
        check_stopped_by(&Facts { access: Access { scans: true, ..facts().access }, ..facts() }, &[Guard::Index]);
        check_stopped_by(&Facts { access: Access::default(), ..facts() }, &[Guard::Index]);
        let scanned = |documents| vec![Scanned { collection: "feedback".to_owned(), field: "discovery_id".to_owned(), documents }];
        check_stopped_by(&Facts { scanned: scanned(10_001), ..facts() }, &[Guard::Index]);
        check_stopped_by(&Facts { scanned: scanned(10_000), ..facts() }, &[]);
        check_stopped_by(&Facts { children: None, ..facts() }, &[Guard::Children]);
        check_stopped_by(&Facts { total: 0, expired: 1, among_newest: 0, ..facts() }, &[Guard::Fraction]);
        let policy = Policy { guards: Guards { max_fraction: 1.0, max_documents: 199, min_remaining: 801 }, ..policy() };
        let plan = Plan::of(&policy, &facts(), Timestamp::from_millisecond(NOW).unwrap()).unwrap();
        let stopped: Vec<Guard> = plan.guards.iter().filter(|verdict| !verdict.passes).map(|verdict| verdict.guard).collect();
        assert_eq!(stopped, [Guard::Documents, Guard::Remaining]);
        check_stopped_by(&Facts { total: 0, expired: 0, access: Access::default(), ..facts() }, &[]);
    }

    #[test]
    fn clocks_may_differ_by_a_minute() {
        for (skew, passes) in [(60_000, true), (-60_000, true), (60_001, false), (-60_001, false)] {
            let plan = Plan::of(&policy(), &facts(), Timestamp::from_millisecond(NOW + skew).unwrap()).unwrap();
            assert_eq!(plan.passes(), passes, "{skew}");
        }
        let facts = Facts { window: Window::of(&policy(), i64::MAX), ..facts() };
        assert!(matches!(Plan::of(&policy(), &facts, Timestamp::UNIX_EPOCH), Err(RetentionError::Clock(i64::MAX))));
    }

    #[test]
    fn hashes_change_with_what_they_stand_for_and_with_nothing_else() {
        let (first, again) = (plan(&facts()), plan(&facts()));
        assert_eq!(first, again);
        let grown = plan(&Facts { expired: 251, ..facts() });
        assert_ne!(first.plan_id, grown.plan_id);
        assert_eq!(first.policy_hash, grown.policy_hash);
        let mut shorter = policy();
        shorter.keep = Duration::from_secs(86_400);
        assert_ne!(policy_hash(&shorter, ""), first.policy_hash);
        assert_eq!(first.plan_hash.len(), 64);
        assert_eq!(first.plan_id.parse::<PlanId>().map(|id| (id.documents, id.children)), Ok((200, 7)));
    }

    #[test]
    fn a_plan_says_that_nothing_has_been_done_and_why() {
        let text = plan(&Facts { access: Access { scans: true, ..Access::default() }, ..facts() }).to_string();
        for line in [
            "PLAN ONLY, nothing has been deleted: policy discoveries on discoveries.created_at",
            "would delete     200 (20.0 %) in 1 batches, about 200100 bytes",
            "with them      7 of feedback by discovery_id",
            "among the newest of their group  50",
            "STOP  index     the whole collection would be read",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
