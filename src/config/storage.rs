//! What opens object storage: the variables that its clients know. Read once, with the configuration.

use crate::config::environment::Environment;
use crate::secret::Secret;

/// The beginnings of the names that clients of S3, Google Cloud Storage and Azure know.
const PREFIXES: [&str; 3] = ["AWS_", "GOOGLE_", "AZURE_"];

/// What opens object storage.
#[derive(Clone, Debug, Default)]
pub struct StorageAccess(Vec<(String, Secret)>);

// === impl StorageAccess ===

impl StorageAccess {
    /// What an environment holds.
    #[must_use]
    pub fn of(environment: &Environment) -> Self {
        let known = environment.all().filter(|(name, value)| !value.is_empty() && PREFIXES.iter().any(|prefix| name.starts_with(prefix)));
        let mut variables: Vec<_> = known.map(|(name, value)| (name.to_owned(), Secret::new(value.to_owned()))).collect();
        variables.sort_by(|(one, _), (other, _)| one.cmp(other));
        Self(variables)
    }

    /// The variables, by name.
    pub fn variables(&self) -> impl Iterator<Item = (&str, &Secret)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }
}
