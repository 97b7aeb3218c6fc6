//! Where this process's configuration came from, so that it can be read again.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::config::environment::Environment;
use crate::config::problems::ConfigError;
use crate::config::{Config, Request, load};

/// The arguments and the environment of a configuration.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// The profile that was asked for.
    pub profile: Option<String>,
    /// The configuration file.
    pub file: Option<PathBuf>,
    /// Overrides `listen`.
    pub listen: Option<SocketAddr>,
    /// The variables. Those of a process never change; the files that `NAME_FILE` names do.
    pub environment: Environment,
}

// === impl Origin ===

impl Origin {
    /// Reads the configuration as it is now.
    ///
    /// # Errors
    /// Every problem that was found, with its place.
    pub fn load(&self) -> Result<Config, ConfigError> {
        let request = Request { profile: self.profile.as_deref(), file: self.file.as_deref(), listen: self.listen, ..Request::default() };
        load(&request, &self.environment)
    }

    /// The configuration file.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }
}
