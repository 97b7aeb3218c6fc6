//! `retention`: the time to live that indexes enforce, and the policies that the sidecar plans.

mod tables;

use std::collections::BTreeSet;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::problems::{Problem, Problems};
use crate::config::retention::tables::RawTablePolicy;
pub use crate::config::retention::tables::{Reference, TableName, TablePolicy};
use crate::config::spanned::Spanned;
use crate::config::values::HumanDuration;

/// A policy that keeps less than a day is a mistake of units until proven otherwise.
const SHORTEST_KEEP: Duration = Duration::from_secs(86_400);

/// The section as it is written.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Retention")]
pub(super) struct RawRetention {
    #[serde(default)]
    mode: RawMode,
    #[serde(default)]
    ttl: Vec<Spanned<RawTtl>>,
    #[serde(default)]
    policies: Vec<Spanned<RawPolicy>>,
    /// Rows of Postgres.
    #[serde(default)]
    tables: Vec<Spanned<RawTablePolicy>>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum RawMode {
    #[default]
    Plan,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Ttl")]
struct RawTtl {
    collection: String,
    field: String,
    expire_after: HumanDuration,
    #[serde(default)]
    owner: Owner,
}

/// Who creates an index.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Owner {
    /// The application: the index is observed and never altered.
    #[default]
    Application,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Policy")]
struct RawPolicy {
    name: String,
    mongodb: RawTarget,
    /// Documents younger than this are kept.
    keep: HumanDuration,
    keep_last: Option<RawKeepLast>,
    #[serde(default)]
    children: Vec<RawChild>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Target")]
struct RawTarget {
    collection: String,
    /// The date field that says how old a document is.
    field: String,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "KeepLast")]
struct RawKeepLast {
    /// So many are kept, however old they are.
    count: u32,
    /// For each value of this field.
    per: String,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Child")]
struct RawChild {
    collection: String,
    /// The field that names the parent.
    field: String,
    /// How it names it.
    #[serde(default)]
    id: IdForm,
}

/// How a reference names the document that it refers to.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum IdForm {
    /// By the same value.
    #[default]
    Same,
    /// By the 24 hexadecimal digits of an ObjectId.
    ObjectidHex,
}

/// What is kept for how long.
#[derive(Clone, Debug, Default)]
pub struct Retention {
    /// The TTL indexes that should be there.
    pub ttl: Vec<Ttl>,
    /// The policies.
    pub policies: Vec<Policy>,
    /// The policies of tables.
    pub tables: Vec<TablePolicy>,
}

/// A TTL index that should be there.
#[derive(Clone, Debug, PartialEq)]
pub struct Ttl {
    /// The collection.
    pub collection: String,
    /// The date field of the index.
    pub field: String,
    /// The time to live that is declared.
    pub expire_after: Duration,
    /// Who creates the index.
    pub owner: Owner,
}

/// Which documents are to be kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// The collection.
    pub collection: String,
    /// The date field that says how old a document is.
    pub field: String,
    /// Younger documents are kept.
    pub keep: Duration,
    /// The newest of each group are kept, however old they are.
    pub keep_last: Option<KeepLast>,
    /// What refers to the documents and would go with them.
    pub children: Vec<Child>,
}

/// The newest of each group are kept.
#[derive(Clone, Debug, PartialEq)]
pub struct KeepLast {
    /// How many.
    pub count: u32,
    /// The field that makes the groups.
    pub per: String,
}

/// A collection whose documents refer to those of a policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Child {
    /// The collection.
    pub collection: String,
    /// The field that names the parent.
    pub field: String,
    /// How it names it.
    pub id: IdForm,
}

// === impl RawRetention ===

impl RawRetention {
    pub(super) fn validate(self, problems: &mut Problems) -> Retention {
        let RawMode::Plan = self.mode;
        let ttl = self.ttl.into_iter().map(|ttl| ttl.value).map(|ttl| Ttl {
            collection: ttl.collection,
            field: ttl.field,
            expire_after: ttl.expire_after.0,
            owner: ttl.owner,
        });
        let mut names = BTreeSet::new();
        let mut policies = Vec::new();
        for Spanned { place, value: policy } in self.policies {
            let mut complain = |message: String| {
                problems.error(Problem { place: place.clone(), path: format!("retention.policies.{}", policy.name), message });
            };
            if !names.insert(policy.name.clone()) {
                complain("there are two policies of this name".to_owned());
            }
            if policy.keep.0 < SHORTEST_KEEP {
                complain("`keep` is at least 1d".to_owned());
            }
            policies.push(policy.into_policy());
        }
        Retention { ttl: ttl.collect(), policies, tables: RawTablePolicy::validate_all(self.tables, problems) }
    }
}

// === impl RawPolicy ===

impl RawPolicy {
    fn into_policy(self) -> Policy {
        Policy {
            name: self.name,
            collection: self.mongodb.collection,
            field: self.mongodb.field,
            keep: self.keep.0,
            keep_last: self.keep_last.map(|last| KeepLast { count: last.count, per: last.per }),
            children: self
                .children
                .into_iter()
                .map(|child| Child { collection: child.collection, field: child.field, id: child.id })
                .collect(),
        }
    }
}
