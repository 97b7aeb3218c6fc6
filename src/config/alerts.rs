//! `alerts`: which rules we evaluate ourselves, where somebody is to be told without a Prometheus.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::problems::{Complaints, Problems};
use crate::config::spanned::Spanned;
use crate::config::values::HumanDuration;
use crate::shipped::Kit;
use crate::shipped::compiled::CompiledRule;
use crate::shipped::rules::RuleFile;

/// Prometheus' default is a minute; the shortest `for` of the shipped rules is one, too.
const EVERY: Duration = Duration::from_secs(30);
/// More often says nothing more and costs; less often, a query finds the last value no more.
const EVERY_WITHIN: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(120);

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Alerts")]
pub(super) struct RawAlerts {
    /// How often they are evaluated: 30s.
    every: Option<Spanned<HumanDuration>>,
    /// Files of rules for Prometheus, instead of those that are shipped.
    rules: Option<Vec<Spanned<PathBuf>>>,
    /// Changed numbers, as `bellwether export alerts --set` takes them: `DecisionBoxRunTooLong.warning.threshold=45m`.
    #[serde(default)]
    set: Vec<Spanned<String>>,
}

/// Which rules we evaluate ourselves.
#[derive(Clone, Debug)]
pub struct Alerts {
    /// How often.
    pub every: Duration,
    /// The rules; each can be evaluated.
    pub rules: RuleFile,
}

// === impl RawAlerts ===

impl RawAlerts {
    pub(super) fn validate(self, profile: &str, problems: &mut Problems) -> Alerts {
        let every = self.every.map_or(EVERY, |every| {
            let mut complaints = Complaints::new(every.place, "alerts.every".to_owned(), problems);
            if !EVERY_WITHIN.contains(&every.value.0) {
                complaints.say("rules are evaluated every 1s to 120s");
            }
            every.value.0
        });
        let mut rules = match self.rules {
            None => shipped(profile, problems),
            Some(files) => {
                let groups = files.into_iter().filter_map(|file| read(file, problems)).flat_map(|file| file.groups);
                RuleFile { groups: groups.collect() }
            }
        };
        for Spanned { place, value } in self.set {
            let mut complaints = Complaints::new(place, "alerts.set".to_owned(), problems);
            if let Err(error) = value.parse::<crate::shipped::settings::Setting>().and_then(|setting| setting.apply(&mut rules)) {
                complaints.say(error.to_string());
            }
        }
        Alerts { every, rules }
    }
}

fn shipped(profile: &str, problems: &mut Problems) -> RuleFile {
    Kit::of(profile).rules(&[]).unwrap_or_else(|error| {
        Complaints::new(None, "alerts".to_owned(), problems).say(error.to_string());
        RuleFile::default()
    })
}

/// The rules of a file, where each of them can be evaluated.
fn read(file: Spanned<PathBuf>, problems: &mut Problems) -> Option<RuleFile> {
    let path = file.value.display().to_string();
    let mut complaints = Complaints::new(file.place, "alerts.rules".to_owned(), problems);
    let text = std::fs::read_to_string(&file.value).map_err(|error| complaints.say(format!("cannot read {path}: {error}"))).ok()?;
    let rules: RuleFile = serde_saphyr::from_str(&text).map_err(|error| complaints.say(format!("{path}: {error}"))).ok()?;
    for error in rules.rules().filter_map(|rule| CompiledRule::new(rule).err()) {
        complaints.say(format!("{path}: {error}"));
    }
    (!complaints.is_failed()).then_some(rules)
}
