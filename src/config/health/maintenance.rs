//! `health.maintenance`: when failures are expected, by cron and time zone.

use std::collections::BTreeMap;
use std::str::FromStr as _;
use std::time::Duration;

use croner::Cron;
use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::problems::{Complaints, Place, Problems};
use crate::config::values::HumanDuration;

/// A longer window is a check that should not be there.
const LONGEST: Duration = Duration::from_secs(30 * 86_400);

/// A window as it is written.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Maintenance")]
pub(super) struct RawWindow {
    /// When it begins: minute, hour, day of the month, month, day of the week.
    cron: String,
    /// How long it lasts.
    duration: HumanDuration,
    /// The zone that the cron expression means, such as Europe/Berlin; UTC by default.
    timezone: Option<String>,
    /// The checks; all of them when there are none here.
    #[serde(default)]
    checks: Vec<String>,
}

/// A time in which failures of some checks are expected, again and again.
#[derive(Clone, Debug)]
pub struct Window {
    /// When it begins.
    pub cron: Cron,
    /// How long it lasts.
    pub duration: Duration,
    /// The zone that `cron` means.
    pub zone: TimeZone,
    /// The checks; none means all.
    pub checks: Vec<String>,
}

// === impl RawWindow ===

impl RawWindow {
    pub(super) fn validate(self, place: Option<Place>, known: &BTreeMap<String, Option<Place>>, problems: &mut Problems) -> Option<Window> {
        let mut complaints = Complaints::new(place, "health.maintenance".to_owned(), problems);
        let cron = Cron::from_str(&self.cron);
        if let Err(error) = &cron {
            complaints.say(format!("`{}` is not a cron expression such as `0 3 * * 0`: {error}", self.cron));
        }
        let name = self.timezone.as_deref().unwrap_or("UTC");
        // The database is the one that is bundled: images without /usr/share/zoneinfo know the same zones.
        let zone = TimeZone::get(name);
        if zone.is_err() {
            complaints.say(format!("there is no time zone `{name}`; write for example Europe/Berlin or UTC"));
        }
        if self.duration.0.is_zero() || self.duration.0 > LONGEST {
            complaints.say("a window lasts from 1s to 30d");
        }
        for check in self.checks.iter().filter(|check| !known.contains_key(*check)) {
            complaints.say(format!("there is no check `{check}`"));
        }
        if complaints.is_failed() {
            return None;
        }
        Some(Window { cron: cron.ok()?, duration: self.duration.0, zone: zone.ok()?, checks: self.checks })
    }
}
