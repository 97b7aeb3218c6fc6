//! `bellwether retention apply`: carries a plan out that somebody has looked at.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use tokio_util::sync::CancellationToken;

use crate::cli::retention::{archives, engine, is_any, only_plans, policies, store, tables};
use crate::cli::{DATA, Failure, SOFTWARE, UNAVAILABLE, USAGE};
use crate::clock::Now;
use crate::config::Config;
use crate::config::retention::{Mode, Policy};
use crate::retention::{Engine, Outcome, Plan, PlanId, Request, Stop, Tally};
use crate::runtime::shutdown::Signals;

/// A line of the log each so often, where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// A lease that a process left behind when it was killed expires by itself; this is waited for.
const LEASE_SPARE: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(super) struct ApplyArgs {
    /// The plan, as the last line of `retention plan` names it; without it a plan is made and asked for.
    #[arg(long, value_name = "ID")]
    plan: Option<PlanId>,
    /// Only this policy.
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,
    /// Does not wait until a new policy has been planned for its soak.
    #[arg(long)]
    now: bool,
    /// Does not ask.
    #[arg(long)]
    yes: bool,
    /// Writes JSON.
    #[arg(long)]
    json: bool,
}

/// Shows how a run goes on: a bar on a terminal, lines of the log elsewhere.
struct Progress {
    bar: Option<ProgressBar>,
    line: Mutex<Instant>,
    began: Instant,
}

/// Tables first, then documents: each where there is a policy of its kind.
pub(super) async fn apply_all(config: &Config, arguments: &ApplyArgs) -> Result<ExitCode, Failure> {
    let wanted = arguments.policy.as_deref();
    if arguments.plan.is_none() && tables::is_any(config, wanted) {
        let ask = |plan: &_| if arguments.yes { Ok(()) } else { archives::ask(&format!("{plan}\nGo on?")) };
        for outcome in tables::apply(config, wanted, ask).await? {
            if arguments.json {
                println!("{:#}", serde_json::json!(outcome));
                continue;
            }
            println!(
                "{}: {} rows archived, {} deleted, {} left as they had changed",
                outcome.run, outcome.archived, outcome.deleted, outcome.changed
            );
        }
        if !is_any(config, wanted) {
            return Ok(ExitCode::SUCCESS);
        }
    }
    apply(config, arguments).await
}

async fn apply(config: &Config, arguments: &ApplyArgs) -> Result<ExitCode, Failure> {
    let policies = chosen(config, arguments)?;
    if let Some(policy) = policies.iter().find(|policy| policy.mode == Mode::Plan) {
        return Err(only_plans(&policy.name));
    }
    let engine = engine(config)?;
    let stop = CancellationToken::new();
    let mut signals = Signals::listen().map_err(|error| Failure::new(SOFTWARE, error))?;
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
    tokio::pin!(work);
    let outcomes: Result<Vec<Outcome>, Failure> = tokio::select! {
        done = &mut work => done,
        _ = signals.next() => {
            // The batch that is under way is finished, and the lease given back.
            stop.cancel();
            tokio::select! {
                done = &mut work => done,
                _ = signals.next() => return Err(Failure::new(UNAVAILABLE, "a second signal: ended at once; nothing is lost, and the next run goes on")),
            }
        }
    };
    report(&outcomes?, arguments.json)
}

/// The policies that are meant: that of the plan, or those that are named.
fn chosen<'a>(config: &'a Config, arguments: &ApplyArgs) -> Result<Vec<&'a Policy>, Failure> {
    let mut policies = policies(config, arguments.policy.as_deref())?;
    if let Some(id) = &arguments.plan {
        let database = &store(config)?.database;
        policies.retain(|policy| id.belongs_to(policy, database));
        if policies.is_empty() {
            let message = "this plan is of no policy as they are now: one has changed since, or it is another's; make a new plan";
            return Err(Failure::new(DATA, message));
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
    let outcome = engine.run(policy, &request, || Now::read().wall, stop, &|plan, tally| progress.show(plan, tally)).await;
    progress.finish();
    outcome
}

fn report(outcomes: &[Outcome], json: bool) -> Result<ExitCode, Failure> {
    if json {
        println!("{}", serde_json::to_string_pretty(outcomes).map_err(|error| Failure::new(SOFTWARE, error))?);
    } else {
        outcomes.iter().for_each(|outcome| println!("{outcome}"));
    }
    let code = |outcome: &Outcome| match outcome.stop {
        stop if stop.is_success() && stop != Stop::Soak => None,
        Stop::Blocked | Stop::Soak | Stop::PlanOnly => Some(DATA),
        _ => Some(UNAVAILABLE),
    };
    Ok(outcomes.iter().find_map(code).map_or(ExitCode::SUCCESS, ExitCode::from))
}

// === impl Progress ===

impl Progress {
    fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = "{msg} {wide_bar} {pos}/{len} {per_sec}, {eta} left";
            let bar = ProgressBar::new(0);
            bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        Self { bar, line: Mutex::new(Instant::now()), began: Instant::now() }
    }

    fn show(&self, plan: &Plan, tally: &Tally) {
        if let Some(bar) = &self.bar {
            bar.set_message(plan.policy.clone());
            bar.set_length(plan.would_delete.max(tally.deleted));
            bar.set_position(tally.deleted);
            return;
        }
        let mut line = self.line.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if line.elapsed() >= LINE_EVERY {
            *line = Instant::now();
            #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
            let rate = tally.deleted as f64 / self.began.elapsed().as_secs_f64();
            tracing::info!(
                policy = plan.policy,
                deleted = tally.deleted,
                of = plan.would_delete,
                children = tally.children,
                per_second = rate.round(),
                "retention goes on"
            );
        }
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
