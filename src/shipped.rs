//! What is shipped for Prometheus and Grafana: alert rules and the sources of dashboards, embedded, a set a system.
//!
//! Owns how a number of a rule is changed and how a dashboard is made of its source, so that a threshold stands in one
//! place. Knows nothing of where the result is written to, and asks no server anything.

pub mod compiled;
pub mod dashboards;
pub mod kubernetes;
mod panels;
pub mod rules;
pub mod settings;

use dashboards::Source;
use rules::RuleFile;
use settings::{Setting, SettingError};

/// The sample for Alertmanager: who is told of what, and which alert keeps others quiet.
pub const ALERTMANAGER: &str = include_str!("../alerts/alertmanager/alertmanager.yml");

/// The rule files and dashboards that belong together.
#[derive(Clone, Copy, Debug)]
pub struct Kit {
    /// The profile that they are for.
    profile: &'static str,
    rules: &'static [&'static str],
    dashboards: &'static [&'static str],
}

/// Why what is embedded cannot be used: a fault of this build, which tests find.
#[derive(Debug, thiserror::Error)]
pub enum KitError {
    /// A file that is not what it should be.
    #[error("an embedded file cannot be read")]
    Embedded(#[from] serde_saphyr::Error),
    /// A dashboard whose panel names an alert that is not there.
    #[error("the panel `{panel}` names the alert `{alert}`, which does not exist or has no threshold")]
    NoAlert {
        /// The title of the panel.
        panel: String,
        /// The name of the alert.
        alert: String,
    },
    /// A setting that does not fit.
    #[error(transparent)]
    Setting(#[from] SettingError),
}

// === impl Kit ===

impl Kit {
    const DECISIONBOX: Self = Self {
        profile: "decisionbox",
        rules: &[include_str!("../alerts/bellwether.rules.yml"), include_str!("../alerts/decisionbox.rules.yml")],
        dashboards: &[
            include_str!("../dashboards/source/decisionbox.yaml"),
            include_str!("../dashboards/source/decisionbox-runs.yaml"),
            include_str!("../dashboards/source/decisionbox-stores.yaml"),
            include_str!("../dashboards/source/bellwether.yaml"),
        ],
    };

    /// What watches the sidecar itself, whatever it watches.
    const NONE: Self = Self {
        profile: "none",
        rules: &[include_str!("../alerts/bellwether.rules.yml")],
        dashboards: &[include_str!("../dashboards/source/bellwether.yaml")],
    };

    /// What is shipped for a profile: for one without rules of its own, those of the sidecar itself.
    #[must_use]
    pub fn of(profile: &str) -> Self {
        if profile == Self::DECISIONBOX.profile { Self::DECISIONBOX } else { Self::NONE }
    }

    /// All rules as one file, with the settings applied.
    ///
    /// # Errors
    /// A setting that fits no rule, or more than one.
    pub fn rules(self, settings: &[Setting]) -> Result<RuleFile, KitError> {
        let mut all = RuleFile::default();
        for text in self.rules {
            all.groups.extend(serde_saphyr::from_str::<RuleFile>(text)?.groups);
        }
        settings.iter().try_for_each(|setting| setting.apply(&mut all))?;
        Ok(all)
    }

    /// The dashboards, as Grafana reads them. Thresholds are those of `rules`.
    ///
    /// # Errors
    /// A panel that names an alert which is not in `rules`.
    pub fn dashboards(self, rules: &RuleFile) -> Result<Vec<serde_json::Value>, KitError> {
        self.dashboards.iter().map(|text| serde_saphyr::from_str::<Source>(text)?.assemble(rules)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Kit;

    #[test]
    fn everything_that_is_embedded_can_be_used() {
        for profile in ["decisionbox", "none", "another"] {
            let kit = Kit::of(profile);
            let rules = kit.rules(&[]).unwrap();
            assert!(rules.rules().count() > 10);
            assert!(!kit.dashboards(&rules).unwrap().is_empty());
        }
    }
}
