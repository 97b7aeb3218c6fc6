//! What is said at once: the news of one group of alerts. Knows nothing of how a receiver wants it written.

use std::collections::BTreeMap;

use crate::notify::alert::Alert;

/// The labels that all alerts of a group share.
pub type GroupLabels = BTreeMap<String, String>;

/// One message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Message {
    /// What its alerts share.
    pub group: GroupLabels,
    /// What the receiver has not been told: alerts that fire, and ends.
    pub news: Vec<Alert>,
    /// What it has been told and what goes on.
    pub still: Vec<Alert>,
}

/// What a message is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Something fires that did not.
    Firing,
    /// Nothing new: a reminder.
    Reminder,
    /// Something ended, and nothing began.
    Resolved,
}

// === impl Message ===

impl Message {
    /// What it is about.
    #[must_use]
    pub fn kind(&self) -> Kind {
        if self.news.is_empty() {
            Kind::Reminder
        } else if self.news.iter().any(Alert::is_firing) {
            Kind::Firing
        } else {
            Kind::Resolved
        }
    }

    /// What it is about in detail: the news, or all that a reminder reminds of.
    #[must_use]
    pub fn subjects(&self) -> &[Alert] {
        if self.news.is_empty() { &self.still } else { &self.news }
    }

    /// Everything in it, the news first.
    pub fn all(&self) -> impl Iterator<Item = &Alert> {
        self.news.iter().chain(&self.still)
    }

    /// How many alerts of the group fire.
    #[must_use]
    pub fn firing(&self) -> usize {
        self.all().filter(|alert| alert.is_firing()).count()
    }

    /// The name of the rule.
    #[must_use]
    pub fn alert_name(&self) -> &str {
        self.all().next().map_or("", Alert::name)
    }

    /// The worst severity of what it is about.
    #[must_use]
    pub fn severity(&self) -> &str {
        let severities = || self.subjects().iter().filter_map(|alert| alert.labels.get("severity"));
        ["critical", "warning"]
            .into_iter()
            .find(|severity| severities().any(|found| found == severity))
            .or_else(|| severities().next().map(String::as_str))
            .unwrap_or("none")
    }

    /// The first value of an annotation, which is the same for all alerts of a rule.
    #[must_use]
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.all().find_map(|alert| alert.annotations.get(name)).map(String::as_str).filter(|text| !text.is_empty())
    }
}
