//! One policy: which documents may go, what goes with them, and what holds them.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::problems::{Complaints, Problems};
use crate::config::retention::Mode;
use crate::config::spanned::Spanned;
use crate::config::values::{HumanDuration, Texts};

/// A policy that keeps less than a day is a mistake of units until proven otherwise.
const SHORTEST_KEEP: Duration = Duration::from_secs(86_400);

/// So many documents may be held by their ids; more are held better by a field or a collection.
const MOST_HELD_IDS: usize = 10_000;

/// What our own collections begin with: nothing is ever deleted there.
const OURS: &str = "bellwether_";

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Policy")]
pub(super) struct RawPolicy {
    pub name: String,
    /// `plan` keeps this policy from deleting, whatever the section says.
    mode: Option<Mode>,
    mongodb: RawTarget,
    /// Documents younger than this are kept.
    keep: HumanDuration,
    keep_last: Option<RawKeepLast>,
    #[serde(default)]
    children: Vec<RawChild>,
    /// What keeps a document however old it is.
    #[serde(default)]
    holds: Vec<RawHold>,
    /// Where the archive of this policy goes: file://, s3://, gs:// or az://.
    archive: Option<String>,
    #[serde(default)]
    guards: RawGuards,
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

/// One kind of hold: a field of the document, a list of ids, or another collection that names the document.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Hold")]
struct RawHold {
    /// With `collection`, the field there that names the document; else a field of the document itself, which is held
    /// unless the field is missing, null or false.
    field: Option<String>,
    /// Ids of documents that are held. A text of 24 hexadecimal digits stands for the ObjectId, too.
    ids: Option<Texts>,
    /// A collection whose documents hold those that they name.
    collection: Option<String>,
    /// How they name it.
    #[serde(default)]
    id: IdForm,
}

/// What must hold before anything is deleted.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Guards")]
pub(super) struct RawGuards {
    /// The greatest part of the collection that a plan may delete, above 0 and up to 1: 0.2.
    max_fraction: Option<f64>,
    /// The most documents that a plan may delete: 1000000.
    max_documents: Option<u64>,
    /// So many documents stay in the collection in any case: 0.
    min_remaining: Option<u64>,
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

/// Which documents are to be kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// Whether it deletes.
    pub mode: Mode,
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
    /// What keeps a document however old it is.
    pub holds: Vec<Hold>,
    /// Where its archive goes; there is one wherever it deletes.
    pub archive: Option<String>,
    /// What must hold before anything is deleted.
    pub guards: Guards,
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

/// What keeps a document however old it is.
#[derive(Clone, Debug, PartialEq)]
pub enum Hold {
    /// A field of the document that is neither missing, nor null, nor false.
    Field(String),
    /// These documents.
    Ids(Vec<String>),
    /// Documents of another collection that name it.
    Collection(Child),
}

/// What must hold before anything is deleted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Guards {
    /// The greatest part of the collection that a plan may delete.
    pub max_fraction: f64,
    /// The most documents that a plan may delete.
    pub max_documents: u64,
    /// So many documents stay in any case.
    pub min_remaining: u64,
}

// === impl RawPolicy ===

impl RawPolicy {
    pub(super) fn validate(self, mode: Mode, archive: Option<&Spanned<String>>, guards: Guards, complaints: &mut Complaints<'_>) -> Policy {
        check_collection(&self.mongodb.collection, complaints);
        check_field(&self.mongodb.field, complaints);
        if self.keep.0 < SHORTEST_KEEP {
            complaints.say("`keep` is at least 1d: a shorter time is mostly a mistake of units");
        }
        let children: Vec<Child> = self.children.into_iter().map(|child| child.validate(complaints)).collect();
        if children.iter().any(|child| child.collection == self.mongodb.collection) {
            complaints.say("a collection cannot be its own child: its documents would go without being asked for their age".to_owned());
        }
        for (position, child) in children.iter().enumerate() {
            if children[..position].contains(child) {
                complaints.say(format!("the child {} by {} stands here twice", child.collection, child.field));
            }
        }
        let keep_last = self.keep_last.map(|last| KeepLast { count: last.count, per: last.per });
        if let Some(last) = &keep_last {
            check_field(&last.per, complaints);
            if last.count == 0 {
                complaints.say("`keep_last.count` is at least 1; leave `keep_last` out where nothing is kept for its rank".to_owned());
            }
        }
        let holds = self.holds.into_iter().filter_map(|hold| hold.validate(complaints)).collect();
        let policy_mode = if mode == Mode::Plan { Mode::Plan } else { self.mode.unwrap_or(mode) };
        let archive = self.archive.or_else(|| archive.map(|url| url.value.clone()));
        check_archive(archive.as_deref(), policy_mode, complaints);
        Policy {
            name: self.name,
            mode: policy_mode,
            collection: self.mongodb.collection,
            field: self.mongodb.field,
            keep: self.keep.0,
            keep_last,
            children,
            holds,
            archive,
            guards: self.guards.checked(guards, |message| complaints.say(message)),
        }
    }
}

/// What deletes archives first, and says where to.
pub(super) fn check_archive(archive: Option<&str>, mode: Mode, complaints: &mut Complaints<'_>) {
    match archive {
        None if mode == Mode::Enforce => complaints.say(
            "nothing is deleted before it is archived: give `archive`, such as file:///var/lib/bellwether/archive, or `mode: plan`"
                .to_owned(),
        ),
        Some(url) if !["file://", "s3://", "gs://", "az://"].iter().any(|scheme| url.starts_with(scheme)) => {
            complaints.say(format!("`archive` begins with file://, s3://, gs:// or az://, and {url:?} does not"));
        }
        _ => {}
    }
}

/// A collection is named exactly: no pattern, none of the server's own, none of ours.
pub(super) fn check_collection(name: &str, complaints: &mut Complaints<'_>) {
    if name.is_empty() || name.chars().any(|c| matches!(c, '*' | '?' | '[' | ']' | '{' | '}' | '$') || c.is_control() || c.is_whitespace())
    {
        complaints.say(format!("{name:?} is no collection: it is named exactly, with no patterns"));
    }
    if name.starts_with("system.") || name.starts_with(OURS) {
        complaints.say(format!("{name:?} belongs to the server or to the sidecar itself; nothing is deleted there"));
    }
}

/// A path of field names: no operators, no patterns.
pub(super) fn check_field(path: &str, complaints: &mut Complaints<'_>) {
    let is_name = |name: &str| !name.is_empty() && !name.starts_with('$') && !name.chars().any(|c| c == '*' || c.is_control());
    if !path.split('.').all(is_name) {
        complaints.say(format!("{path:?} is no field: write a name, or names with dots between them"));
    }
}

// === impl RawChild ===

impl RawChild {
    fn validate(self, complaints: &mut Complaints<'_>) -> Child {
        check_collection(&self.collection, complaints);
        check_field(&self.field, complaints);
        Child { collection: self.collection, field: self.field, id: self.id }
    }
}

// === impl RawHold ===

impl RawHold {
    fn validate(self, complaints: &mut Complaints<'_>) -> Option<Hold> {
        match (self.field, self.ids, self.collection) {
            (Some(field), None, Some(collection)) => {
                Some(Hold::Collection(RawChild { collection, field, id: self.id }.validate(complaints)))
            }
            (Some(field), None, None) => {
                check_field(&field, complaints);
                Some(Hold::Field(field))
            }
            (None, Some(Texts(ids)), None) => {
                if ids.len() > MOST_HELD_IDS {
                    complaints.say(format!("`ids` holds at most {MOST_HELD_IDS} documents; hold more by a field or a collection"));
                }
                Some(Hold::Ids(ids))
            }
            _ => {
                let message = "a hold is one of { field: … }, { ids: […] } and { collection: …, field: …, id: … }";
                complaints.say(message.to_owned());
                None
            }
        }
    }
}

// === impl RawGuards ===

impl RawGuards {
    pub(super) fn over(&self, without: Guards, path: &str, problems: &mut Problems) -> Guards {
        let mut complaints = Complaints::new(None, path.to_owned(), problems);
        self.checked(without, |message| complaints.say(message))
    }

    fn checked(&self, without: Guards, mut complain: impl FnMut(String)) -> Guards {
        let guards = Guards {
            max_fraction: self.max_fraction.unwrap_or(without.max_fraction),
            max_documents: self.max_documents.unwrap_or(without.max_documents),
            min_remaining: self.min_remaining.unwrap_or(without.min_remaining),
        };
        if !(guards.max_fraction > 0.0 && guards.max_fraction <= 1.0) {
            complain("`max_fraction` is a part of the collection, above 0 and up to 1, such as 0.2".to_owned());
        }
        if guards.max_documents == 0 {
            complain("`max_documents` is at least 1; write `mode: plan` where nothing is to be deleted".to_owned());
        }
        guards
    }
}

// === impl Guards ===

impl Default for Guards {
    fn default() -> Self {
        Self { max_fraction: 0.2, max_documents: 1_000_000, min_remaining: 0 }
    }
}

// === impl Policy ===

impl Policy {
    /// A policy that says no more than it must: which collection, by which date, and how long.
    #[must_use]
    pub fn simple(name: &str, collection: &str, field: &str, keep: Duration) -> Self {
        Self {
            name: name.to_owned(),
            mode: Mode::Plan,
            collection: collection.to_owned(),
            field: field.to_owned(),
            keep,
            keep_last: None,
            children: Vec::new(),
            holds: Vec::new(),
            archive: None,
            guards: Guards::default(),
        }
    }
}
