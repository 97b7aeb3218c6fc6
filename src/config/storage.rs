//! What opens object storage: the variables that its clients know. Read once, with the configuration.

use std::str::FromStr;

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

    /// The options of a client that are set, by the beginning of their names. `NAME_FILE` goes before `NAME`.
    ///
    /// # Errors
    /// When a file that a variable names cannot be read.
    pub fn options<Key: FromStr>(&self, prefix: &str) -> Result<Vec<(Key, String)>, String> {
        let mut found = Vec::new();
        for (name, value) in self.variables().filter(|(name, _)| name.starts_with(prefix)) {
            if let Ok(key) = name.to_ascii_lowercase().parse() {
                found.push((key, value.expose().to_owned()));
            }
        }
        // Later ones win.
        for (name, path) in self.variables().filter(|(name, _)| name.starts_with(prefix)) {
            let known = name.strip_suffix("_FILE").and_then(|name| name.to_ascii_lowercase().parse().ok());
            if let Some(key) = known {
                let content = std::fs::read_to_string(path.expose())
                    .map_err(|error| format!("the file that {name} names cannot be read: {error}"))?;
                found.push((key, content.trim_end_matches(['\n', '\r']).to_owned()));
            }
        }
        Ok(found)
    }

    /// The variables, by name.
    fn variables(&self) -> impl Iterator<Item = (&str, &Secret)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }
}
