//! `notify`: who is told of alerts where there is no Prometheus, by which way, and how often.
//!
//! Owns what is written and its defaults. What a message looks like and when it is sent is `notify`'s.

mod channel;
mod secret_text;

use std::collections::BTreeSet;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

pub use crate::config::notify::channel::{Channel, Email, HeartbeatMethod, MailTls, address};
use crate::config::notify::channel::{RawEmail, RawHeartbeat, RawSentry, RawUrl, RawWebhook, Say};
pub use crate::config::notify::secret_text::SecretText;
use crate::config::problems::{Place, Problem, Problems};
use crate::config::spanned::Spanned;
use crate::config::trust::{Authorities, Trust};
use crate::config::values::{HumanDuration, Texts};

/// What fires together is told together: as the sample for Alertmanager has it.
const GROUP_WAIT: Duration = Duration::from_secs(30);
/// As there.
const GROUP_INTERVAL: Duration = Duration::from_secs(300);
/// As there for what is critical.
const REMIND_EVERY: Duration = Duration::from_secs(4 * 3600);
/// One a minute: nobody reads more.
const RATE: u32 = 60;
/// A message a second is what Slack and Discord take for long.
const MAX_RATE: u32 = 3600;
/// The severities of the shipped rules; `none` is the Watchdog's.
const SEVERITIES: [&str; 4] = ["critical", "warning", "info", "none"];
/// A name is a label's value and part of a file's name.
const LONGEST_NAME: usize = 48;

/// One receiver: exactly one way to it, and what it is told when.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Receiver")]
pub(super) struct RawReceiver {
    /// The value of the label `receiver`; the way where it is not said.
    name: Option<String>,
    /// The addresses of all peers of an Alertmanager.
    alertmanager: Option<Texts>,
    slack: Option<RawUrl>,
    discord: Option<RawUrl>,
    webhook: Option<RawWebhook>,
    email: Option<RawEmail>,
    heartbeat: Option<RawHeartbeat>,
    sentry: Option<RawSentry>,
    /// PEM: the authorities that its certificate may come from, instead of those of the system.
    ca_file: Option<std::path::PathBuf>,
    /// Which alerts: `critical` and `warning`. Alertmanager gets all, Sentry what is critical.
    severity: Option<Texts>,
    /// How long a group waits for more of it before it is told first: 30s.
    group_wait: Option<HumanDuration>,
    /// How long at least between two messages on one group: 5m.
    group_interval: Option<HumanDuration>,
    /// How often what still fires is told again: 4h. `0s` is never.
    remind_every: Option<HumanDuration>,
    /// How many messages within an hour: 60. What is above waits.
    rate: Option<u32>,
}

/// A receiver.
#[derive(Clone, Debug)]
pub struct Receiver {
    /// Its name; the value of the label `receiver`.
    pub name: String,
    /// The way to it.
    pub channel: Channel,
    /// Whose certificates are good.
    pub trust: Trust,
    /// What it is told when.
    pub policy: Policy,
}

/// What a receiver is told when.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Policy {
    /// Which alerts, by their label `severity`; `None` is all.
    pub severities: Option<BTreeSet<String>>,
    /// How long a group waits for more of it.
    pub group_wait: Duration,
    /// How long at least between two messages on one group.
    pub group_interval: Duration,
    /// How often what still fires is told again; `None` is never.
    pub remind_every: Option<Duration>,
    /// How many messages within an hour.
    pub rate: u32,
    /// Each alert is a group of its own, and its end is not told: a receiver of events, not of states.
    pub is_event: bool,
}

/// Where the problems of one receiver go.
struct Voice<'a> {
    place: Option<Place>,
    path: String,
    problems: &'a mut Problems,
}

// === impl Voice ===

impl Voice<'_> {
    fn problem(&self, message: String) -> Problem {
        Problem { place: self.place.clone(), path: self.path.clone(), message }
    }
}

impl Say for Voice<'_> {
    fn error(&mut self, message: String) {
        let problem = self.problem(message);
        self.problems.error(problem);
    }

    fn warn(&mut self, message: String) {
        let problem = self.problem(message);
        self.problems.warn(problem);
    }
}

// === impl RawReceiver ===

impl RawReceiver {
    pub(super) fn validate_all(raw: Vec<Spanned<Self>>, problems: &mut Problems) -> Vec<Receiver> {
        let mut names = BTreeSet::new();
        let mut receivers = Vec::new();
        for (number, Spanned { place, value }) in raw.into_iter().enumerate() {
            let ways = value.ways();
            let name = value.name.clone().unwrap_or_else(|| ways.first().copied().unwrap_or("receiver").to_owned());
            let mut voice = Voice { place, path: format!("notify.{number}"), problems };
            if ways.len() != 1 {
                let known = "alertmanager, slack, discord, webhook, email, heartbeat, sentry";
                voice.error(format!("a receiver has exactly one of {known}; this has {}", ways.len()));
                continue;
            }
            let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
            if name.is_empty() || name.len() > LONGEST_NAME || !name.bytes().all(is_plain) {
                voice.error(format!("`name` has 1 to {LONGEST_NAME} of a-z, 0-9, - and _"));
            } else if !names.insert(name.clone()) {
                voice.error(format!("there are two receivers of the name `{name}`; give each a `name` of its own"));
            }
            receivers.extend(value.validate(name, &mut voice));
        }
        receivers
    }

    fn ways(&self) -> Vec<&'static str> {
        let given = [
            ("alertmanager", self.alertmanager.is_some()),
            ("slack", self.slack.is_some()),
            ("discord", self.discord.is_some()),
            ("webhook", self.webhook.is_some()),
            ("email", self.email.is_some()),
            ("heartbeat", self.heartbeat.is_some()),
            ("sentry", self.sentry.is_some()),
        ];
        given.into_iter().filter(|(_, given)| *given).map(|(way, _)| way).collect()
    }

    fn validate(mut self, name: String, voice: &mut Voice<'_>) -> Option<Receiver> {
        let trust = match self.ca_file.as_deref().map(Authorities::read) {
            None => Trust::System,
            Some(Ok(authorities)) => Trust::Only(authorities),
            Some(Err(message)) => {
                voice.error(message);
                Trust::System
            }
        };
        let policy = self.policy(voice);
        let channel = if let Some(urls) = self.alertmanager.take() {
            Some(channel::peers(urls.0, voice))
        } else if let Some(slack) = self.slack.take() {
            slack.validate(voice).map(Channel::Slack)
        } else if let Some(discord) = self.discord.take() {
            discord.validate(voice).map(Channel::Discord)
        } else if let Some(webhook) = self.webhook.take() {
            webhook.validate(voice)
        } else if let Some(email) = self.email.take() {
            email.validate(voice)
        } else if let Some(heartbeat) = self.heartbeat.take() {
            heartbeat.validate(voice)
        } else {
            self.sentry.take().and_then(|sentry| sentry.validate(voice))
        };
        Some(Receiver { name, channel: channel?, trust, policy })
    }

    fn policy(&self, voice: &mut Voice<'_>) -> Policy {
        let (to_peers, is_beat, is_event) = (self.alertmanager.is_some(), self.heartbeat.is_some(), self.sentry.is_some());
        let own = [
            ("severity", self.severity.is_some() && is_beat),
            ("group_wait", self.group_wait.is_some() && (to_peers || is_beat || is_event)),
            ("group_interval", self.group_interval.is_some() && (to_peers || is_beat)),
            ("remind_every", self.remind_every.is_some() && (to_peers || is_beat || is_event)),
            ("rate", self.rate.is_some() && (to_peers || is_beat)),
        ];
        for (key, _) in own.iter().filter(|(_, wrong)| *wrong) {
            voice.error(format!("`{key}` means nothing for this receiver"));
        }
        let rate = self.rate.unwrap_or(RATE);
        if !(1..=MAX_RATE).contains(&rate) {
            voice.error(format!("`rate` is a number of messages within an hour, from 1 to {MAX_RATE}"));
        }
        let remind_every = self.remind_every.map_or(REMIND_EVERY, |every| every.0);
        if !remind_every.is_zero() && remind_every < Duration::from_secs(60) {
            voice.error("`remind_every` is at least 1m, or 0s for never".to_owned());
        }
        let severities = match &self.severity {
            Some(texts) if texts.0.is_empty() => {
                voice.error("`severity` names at least one, such as [critical, warning]".to_owned());
                None
            }
            Some(texts) => {
                for other in texts.0.iter().filter(|text| !SEVERITIES.contains(&text.as_str())) {
                    voice.warn(format!("no shipped rule has the severity `{other}`; they have {}", SEVERITIES.join(", ")));
                }
                Some(texts.0.iter().cloned().collect())
            }
            None if to_peers => None,
            None if is_event => Some(BTreeSet::from(["critical".to_owned()])),
            None => Some(BTreeSet::from(["critical".to_owned(), "warning".to_owned()])),
        };
        Policy {
            severities,
            group_wait: if is_event { Duration::ZERO } else { self.group_wait.map_or(GROUP_WAIT, |wait| wait.0) },
            group_interval: self.group_interval.map_or(GROUP_INTERVAL, |interval| interval.0),
            remind_every: Some(remind_every).filter(|every| !every.is_zero() && !is_event),
            rate,
            is_event,
        }
    }
}
