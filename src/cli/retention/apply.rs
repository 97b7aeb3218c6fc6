//! `bellwether retention apply`: carries a plan out that somebody has looked at.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::cli::retention::{engine, is_any, local, only_plans, policies, store};
use crate::cli::{DATA, Failure, SOFTWARE, UNAVAILABLE, USAGE};
use crate::clock::Now;
use crate::config::Config;
use crate::config::retention::{Mode, Policy};
use crate::retention::{Engine, Outcome, PlanId, Request, Stop, Tally};
use crate::runtime::shutdown::Signals;

/// A line of the log each so often, where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// A lease that a process left behind when it was killed expires by itself; this is waited for.
const LEASE_SPARE: Duration = Duration::from_secs(5);

const ANOTHER_PLAN: &str = "this plan is of no policy as they are now: one has changed since, or it is another's; make a new plan";

#[derive(Debug, Args)]
pub(super) struct ApplyArgs {
    /// The plan, as the last line of `retention plan` names it; without it a plan is made and asked for.
    #[arg(long, value_name = "ID")]
    pub(super) plan: Option<PlanId>,
    /// Only this policy.
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,
    /// Does not wait until a new policy has been planned for its soak.
    #[arg(long)]
    pub(super) now: bool,
    /// Does not ask.
    #[arg(long)]
    pub(super) yes: bool,
    /// Writes JSON.
    #[arg(long)]
    json: bool,
}

/// Shows how a run goes on: a bar on a terminal, lines of the log elsewhere.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    line: Mutex<Instant>,
    began: Instant,
}

/// Tables and files first, then documents: each where there is a policy of its kind.
pub(super) async fn apply_all(config: &Config, arguments: &ApplyArgs) -> Result<ExitCode, Failure> {
    let local = local::local(config);
    let policies = local::chosen(&local, arguments.policy.as_deref(), arguments.plan.as_ref());
    if policies.is_empty() && arguments.plan.is_some() && config.retention.policies.is_empty() && !local.policies().is_empty() {
        return Err(Failure::new(DATA, ANOTHER_PLAN));
    }
    let needs_documents = policies.is_empty() || arguments.plan.is_none() && is_any(config, arguments.policy.as_deref());
    let stop = CancellationToken::new();
    let ended = until_signal(&stop, local::apply(&local, policies, arguments, &stop)).await?;
    let mut code = ExitCode::SUCCESS;
    if !ended.is_empty() {
        code = report(&ended, |outcome| outcome.stop, arguments.json)?;
    }
    if needs_documents && !stop.is_cancelled() {
        let documents = apply(config, arguments).await?;
        code = if code == ExitCode::SUCCESS { documents } else { code };
    }
    Ok(code)
}

/// Waits for work. A signal lets it end after its batch, a second one at once.
async fn until_signal<T>(stop: &CancellationToken, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let mut signals = Signals::listen().map_err(|error| Failure::new(SOFTWARE, error))?;
    tokio::pin!(work);
    tokio::select! {
        done = &mut work => done,
        _ = signals.next() => {
            stop.cancel();
            tokio::select! {
                done = &mut work => done,
                _ = signals.next() => Err(Failure::new(UNAVAILABLE, "a second signal: ended at once; nothing is lost, and the next run goes on")),
            }
        }
    }
}

async fn apply(config: &Config, arguments: &ApplyArgs) -> Result<ExitCode, Failure> {
    let policies = chosen(config, arguments)?;
    if let Some(policy) = policies.iter().find(|policy| policy.mode == Mode::Plan) {
        return Err(only_plans(&policy.name));
    }
    let engine = engine(config)?;
    let stop = CancellationToken::new();
    let work = async {
        let mut outcomes = Vec::new();
        for policy in policies {
            let confirmed = match &arguments.plan {
                Some(id) => id.clone(),
                None => match confirm(&engine, policy, arguments).await? {
                    Some(id) => id,
                    None => continue,
                },
            };
            outcomes.push(carry_out(&engine, policy, confirmed, arguments, &stop).await);
        }
        Ok(outcomes)
    };
    // The batch that is under way is finished, and the lease given back.
    let outcomes: Vec<Outcome> = until_signal(&stop, work).await?;
    report(&outcomes, |outcome| outcome.stop, arguments.json)
}

/// The policies that are meant: that of the plan, or those that are named.
fn chosen<'a>(config: &'a Config, arguments: &ApplyArgs) -> Result<Vec<&'a Policy>, Failure> {
    let mut policies = policies(config, arguments.policy.as_deref())?;
    if let Some(id) = &arguments.plan {
        let database = &store(config)?.database;
        policies.retain(|policy| id.belongs_to(policy, database));
        if policies.is_empty() {
            return Err(Failure::new(DATA, ANOTHER_PLAN));
        }
    }
    Ok(policies)
}

/// Makes a plan, shows it and asks. `None` where the answer is no.
async fn confirm(engine: &Engine, policy: &Policy, arguments: &ApplyArgs) -> Result<Option<PlanId>, Failure> {
    let plan = engine.plan(policy, Now::read().wall).await.map_err(|error| Failure::new(UNAVAILABLE, error))?;
    let id = plan.plan_id.parse().map_err(|error| Failure::new(SOFTWARE, error))?;
    if arguments.yes {
        return Ok(Some(id));
    }
    if !std::io::stdin().is_terminal() {
        let message = "nobody can be asked here: give the plan that was looked at with --plan, or --yes";
        return Err(Failure::new(USAGE, message));
    }
    eprintln!("{plan}");
    eprint!("Archive and delete these {} documents, and what refers to them? Type yes: ", plan.would_delete);
    let _ = std::io::stderr().flush();
    let answer = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map(|_| line)
    });
    let answer = answer.await.map_err(|error| Failure::new(SOFTWARE, error))?.map_err(|error| Failure::new(SOFTWARE, error))?;
    if answer.trim() == "yes" {
        return Ok(Some(id));
    }
    eprintln!("nothing was done");
    Ok(None)
}

async fn carry_out(engine: &Engine, policy: &Policy, confirmed: PlanId, arguments: &ApplyArgs, stop: &CancellationToken) -> Outcome {
    let patience = engine.settings().lease + LEASE_SPARE;
    let who = format!("bellwether retention apply, process {}", std::process::id());
    let request = Request { confirmed: Some(confirmed), now: arguments.now, who, patience };
    let progress = Progress::new();
    let outcome =
        engine.run(policy, &request, || Now::read().wall, stop, &|plan, tally| progress.show(&plan.policy, plan.would_delete, tally)).await;
    progress.finish();
    outcome
}

fn report<T: Serialize + std::fmt::Display>(outcomes: &[T], stop: impl Fn(&T) -> Stop, json: bool) -> Result<ExitCode, Failure> {
    if json {
        println!("{}", serde_json::to_string_pretty(outcomes).map_err(|error| Failure::new(SOFTWARE, error))?);
    } else {
        outcomes.iter().for_each(|outcome| println!("{outcome}"));
    }
    let code = |outcome: &T| match stop(outcome) {
        stop if stop.is_success() && stop != Stop::Soak => None,
        Stop::Blocked | Stop::Soak | Stop::PlanOnly => Some(DATA),
        _ => Some(UNAVAILABLE),
    };
    Ok(outcomes.iter().find_map(code).map_or(ExitCode::SUCCESS, ExitCode::from))
}

// === impl Progress ===

impl Progress {
    pub(super) fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = "{msg} {wide_bar} {pos}/{len} {per_sec}, {eta} left";
            let bar = ProgressBar::new(0);
            bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        Self { bar, line: Mutex::new(Instant::now()), began: Instant::now() }
    }

    pub(super) fn show(&self, policy: &str, of: u64, tally: &Tally) {
        if let Some(bar) = &self.bar {
            bar.set_message(policy.to_owned());
            bar.set_length(of.max(tally.deleted));
            bar.set_position(tally.deleted);
            return;
        }
        let mut line = self.line.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if line.elapsed() >= LINE_EVERY {
            *line = Instant::now();
            #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
            let rate = tally.deleted as f64 / self.began.elapsed().as_secs_f64();
            tracing::info!(policy, deleted = tally.deleted, of, children = tally.children, per_second = rate.round(), "retention goes on");
        }
    }

    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
