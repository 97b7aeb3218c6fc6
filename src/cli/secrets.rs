//! `bellwether secrets`: which of the application's secrets are safe, and what makes the others so.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use comfy_table::Table;
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::{DATA, Failure, Global, SOFTWARE, UNAVAILABLE, USAGE};
use crate::config::Config;
use crate::config::environment::Environment;
use crate::services::secrets::audit::audit;
use crate::services::secrets::{Audit, Keyring, Migration, Outcome, SecretsError, Standing, Vault};

#[derive(Debug, Args)]
pub(super) struct SecretsArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Counts the secrets by what they are encrypted with, and names those that are not safe. Changes nothing; ends
    /// with 1 when there is something to do.
    Audit {
        /// Writes JSON.
        #[arg(long)]
        json: bool,
    },
    /// Encrypts in place what is stored in plaintext. The application must run with the same key.
    Encrypt(ChangeArgs),
    /// Encrypts with SECRET_ENCRYPTION_KEY what SECRET_PREVIOUS_ENCRYPTION_KEY encrypts. Start the application with the
    /// new key afterwards: it reads with one key, so runs that start in between find some secrets unreadable.
    Rotate(ChangeArgs),
}

#[derive(Debug, Args)]
struct ChangeArgs {
    /// Does not ask.
    #[arg(long)]
    yes: bool,
    /// Goes on although there are secrets that none of the keys opens; they stay as they are.
    #[arg(long)]
    skip_unreadable: bool,
    /// Writes JSON.
    #[arg(long)]
    json: bool,
}

/// What the commands work with.
struct Work {
    vault: Vault,
    keyring: Keyring,
    config: Config,
}

pub(super) fn secrets(global: &Global, arguments: &SecretsArgs, environment: &Environment) -> Result<ExitCode, Failure> {
    let work = Work::new(global.load(environment)?)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| Failure::new(SOFTWARE, error))?;
    let done = runtime.block_on(async {
        match &arguments.what {
            What::Audit { json } => work.audit(*json).await,
            What::Encrypt(change) => work.change(Migration::Encrypt, change).await,
            What::Rotate(change) => work.change(Migration::Rotate, change).await,
        }
    });
    // An operation that was given up must not hold up the exit.
    runtime.shutdown_background();
    done
}

// === impl Work ===

impl Work {
    fn new(config: Config) -> Result<Self, Failure> {
        let Some(store) = &config.stores.mongodb else {
            return Err(Failure::new(
                USAGE,
                "there is no `stores.mongodb`, where secrets would be; choose a profile or a configuration file",
            ));
        };
        let vault = Vault::new(store, &config.secrets.collection);
        let keyring = Keyring::new(config.secrets.key.as_ref(), &config.secrets.previous_keys);
        Ok(Self { vault, keyring, config })
    }

    async fn audit(&self, json: bool) -> Result<ExitCode, Failure> {
        let audit = self.look().await?;
        if json {
            println!("{}", serde_json::to_string_pretty(&audit).map_err(|error| Failure::new(SOFTWARE, error))?);
        } else {
            show(&audit);
        }
        Ok(if audit.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    async fn look(&self) -> Result<Audit, Failure> {
        let bar = progress_bar();
        let audit = audit(&self.vault, &self.keyring, &self.config.secrets.plaintext_in, |done, all| advance(&bar, done, all)).await?;
        bar.finish_and_clear();
        Ok(audit)
    }

    async fn change(&self, migration: Migration, arguments: &ChangeArgs) -> Result<ExitCode, Failure> {
        if !self.keyring.can_seal() {
            return Err(SecretsError::NoKey.into());
        }
        let before = self.look().await?;
        let unreadable = before.count(Standing::NoKeyFits);
        if unreadable > 0 && !arguments.skip_unreadable {
            show(&before);
            let message = format!(
                "{unreadable} secrets are encrypted with a key that is not among those given, so the application's key is probably another: nothing was changed. \
                 Give that key as SECRET_PREVIOUS_ENCRYPTION_KEY, or go on without these with --skip-unreadable"
            );
            return Err(Failure::new(DATA, message));
        }
        let to_change: u64 = before.standings.iter().filter(|counted| migration.takes(counted.standing)).map(|counted| counted.count).sum();
        if to_change > 0 && !arguments.yes && !confirmed(to_change)? {
            eprintln!("nothing was changed");
            return Ok(ExitCode::FAILURE);
        }
        let bar = progress_bar();
        let outcome = migration.run(&self.vault, &self.keyring, |done, all| advance(&bar, done, all)).await?;
        bar.finish_and_clear();
        tracing::info!(changed = outcome.changed, left = outcome.left, busy = outcome.busy, "secrets were encrypted");
        self.report(outcome, arguments.json)
    }

    fn report(&self, outcome: Outcome, json: bool) -> Result<ExitCode, Failure> {
        if json {
            println!("{}", serde_json::to_string_pretty(&outcome).map_err(|error| Failure::new(SOFTWARE, error))?);
        } else {
            println!("{} encrypted, {} left as they are", outcome.changed, outcome.left);
            if outcome.busy > 0 {
                println!("{} were written by the application at the same time; run this again", outcome.busy);
            }
        }
        Ok(if outcome.busy == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn show(audit: &Audit) {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(["secrets", "count", "what it means"]);
    for counted in &audit.standings {
        table.add_row([counted.standing.word(), &counted.count.to_string(), counted.standing.advice()]);
    }
    for field in &audit.elsewhere {
        let means = if field.count == 0 {
            "no key lies here"
        } else {
            "a text where no key should be; the application stores it there in plaintext"
        };
        table.add_row([&format!("{}.{}", field.collection, field.field), &field.count.to_string(), means]);
    }
    println!("{table}\n{} secrets", audit.total);
    for counted in audit.standings.iter().filter(|counted| !counted.names.is_empty()) {
        println!("{}:", counted.standing.word());
        counted.names.iter().for_each(|name| println!("  {name}"));
        let more = counted.count - counted.names.len() as u64;
        if more > 0 {
            println!("  and {more} more");
        }
    }
}

/// Asks whoever sits at the terminal; without one there is nobody to ask.
fn confirmed(count: u64) -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        let message = format!("{count} secrets would be encrypted; there is no terminal to ask on, so say --yes");
        return Err(Failure::new(USAGE, message));
    }
    eprint!("Encrypt {count} secrets with this key? The application must run with it. [y/N] ");
    // Where the question cannot be seen, the answer is no.
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(|error| Failure::new(SOFTWARE, error))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Drawn where somebody watches.
fn progress_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} secrets {per_sec} {eta}");
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn advance(bar: &ProgressBar, done: u64, all: u64) {
    bar.set_length(all);
    bar.set_position(done);
}

impl From<SecretsError> for Failure {
    fn from(error: SecretsError) -> Self {
        let code = match &error {
            SecretsError::NoKey | SecretsError::NoPreviousKey => USAGE,
            SecretsError::Store { .. } => UNAVAILABLE,
            SecretsError::Seal(_) => SOFTWARE,
        };
        Self::new(code, error)
    }
}
