//! `bellwether export`: what belongs to this version, for other tools.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::cli::{Failure, SOFTWARE};
use crate::config;
use crate::profiles::Profile;

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The JSON Schema of configuration files, for editors.
    Schema,
    /// A profile as YAML: the begin of a configuration of your own.
    Profile {
        /// Its name.
        name: String,
    },
}

pub(super) fn export(arguments: &ExportArgs) -> Result<ExitCode, Failure> {
    match &arguments.what {
        What::Schema => {
            let schema = serde_json::to_string_pretty(&config::schema()).map_err(|error| Failure::new(SOFTWARE, error))?;
            println!("{schema}");
        }
        What::Profile { name } => {
            let profile = Profile::named(name).ok_or_else(|| {
                let names: Vec<&str> = Profile::all().map(Profile::name).collect();
                Failure::new(super::USAGE, format!("there is no profile `{name}`; there are {}", names.join(", ")))
            })?;
            print!("{}", profile.text());
        }
    }
    Ok(ExitCode::SUCCESS)
}
