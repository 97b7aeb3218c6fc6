//! What makes a system that system: data, embedded in the binary, one file a system.
//!
//! Knows nothing of how it is read.

/// A system that Bellwether knows without a configuration file.
#[derive(Clone, Copy, Debug)]
pub struct Profile {
    name: &'static str,
    text: &'static str,
}

// === impl Profile ===

impl Profile {
    /// Nothing of any system: everything is in the configuration file.
    pub const NONE: Self = Self { name: "none", text: include_str!("profiles/none.yaml") };

    const DECISIONBOX: Self = Self { name: "decisionbox", text: include_str!("profiles/decisionbox.yaml") };

    /// All profiles, by name.
    pub fn all() -> impl Iterator<Item = Self> {
        [Self::DECISIONBOX, Self::NONE].into_iter()
    }

    /// The profile of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::all().find(|profile| profile.name == name)
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.name
    }

    /// Its configuration, as YAML.
    #[must_use]
    pub fn text(self) -> &'static str {
        self.text
    }
}
