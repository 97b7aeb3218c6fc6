//! `retention.ttl`: the TTL indexes that should be there, and whose they are.

use std::collections::BTreeSet;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::problems::{Complaints, Problems};
use crate::config::retention::policy::{check_collection, check_field};
use crate::config::spanned::Spanned;
use crate::config::tree::{self, Content, Node};
use crate::config::values::HumanDuration;
use crate::profiles::Profile;

/// A time to live of less than a day is a mistake of units until proven otherwise.
const SHORTEST_TTL: Duration = Duration::from_secs(86_400);

/// The server takes at most so many seconds.
const LONGEST_TTL: Duration = Duration::from_secs(i32::MAX as u64);

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Ttl")]
pub(super) struct RawTtl {
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
    /// The sidecar: it is made where it is missing, and its seconds are put right, when `mode` is `enforce`.
    Sidecar,
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

/// Collection and field of each TTL index that a profile says the application declares.
fn declared_by_application(profile: &str) -> BTreeSet<(String, String)> {
    // What is wrong with a profile is told where it is read as a whole.
    let profile = Profile::named(profile).and_then(|profile| tree::parse("profile", profile.text(), &mut Problems::default()));
    let Some(Content::List(items)) = profile.as_ref().and_then(|profile| profile.get("retention")?.get("ttl")).map(|ttl| &ttl.content)
    else {
        return BTreeSet::new();
    };
    let text = |item: &Node, key| item.get(key).and_then(Node::as_text).map(str::to_owned);
    let is_theirs = |item: &&Node| text(item, "owner").is_none_or(|owner| owner == "application");
    items.iter().filter(is_theirs).filter_map(|item| text(item, "collection").zip(text(item, "field"))).collect()
}

// === impl RawTtl ===

impl RawTtl {
    /// All of them; what the application declares by itself, as its profile says, is never the sidecar's.
    pub(super) fn validate_all(written: Vec<Spanned<Self>>, profile: &str, problems: &mut Problems) -> Vec<Ttl> {
        let declared = declared_by_application(profile);
        let mut keys = BTreeSet::new();
        let validate = |Spanned { place, value }: Spanned<Self>| {
            let mut complaints = Complaints::new(place, format!("retention.ttl.{}.{}", value.collection, value.field), problems);
            let key = (value.collection.clone(), value.field.clone());
            if value.owner == Owner::Sidecar && declared.contains(&key) {
                complaints.say(
                    "the application declares this index itself, and would not start again with other seconds; leave `owner: sidecar` out"
                        .to_owned(),
                );
            }
            if !keys.insert(key) {
                complaints.say("this field of this collection stands here twice".to_owned());
            }
            value.validate(&mut complaints)
        };
        written.into_iter().map(validate).collect()
    }

    fn validate(self, complaints: &mut Complaints<'_>) -> Ttl {
        check_collection(&self.collection, complaints);
        check_field(&self.field, complaints);
        let after = self.expire_after.0;
        if after.is_zero() {
            complaints.say("`expire_after` is above 0: with 0 the server deletes everything that is not in the future".to_owned());
        }
        if self.owner == Owner::Sidecar {
            if after < SHORTEST_TTL {
                complaints.say("`expire_after` is at least 1d where the sidecar enforces it".to_owned());
            }
            if self.field == "_id" || self.field.contains('.') && self.field.split('.').any(|part| part.parse::<u32>().is_ok()) {
                complaints.say("`field` is a date field of the document".to_owned());
            }
        }
        if after > LONGEST_TTL {
            complaints.say("`expire_after` is at most 24855d, which is what the server takes".to_owned());
        }
        if after.subsec_nanos() != 0 {
            complaints.say("`expire_after` is in whole seconds".to_owned());
        }
        Ttl { collection: self.collection, field: self.field, expire_after: after, owner: self.owner }
    }
}
