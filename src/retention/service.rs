//! Retention that runs by itself: one process leads, starts what is due, and answers questions.
//!
//! Where the section only plans, nothing is written to the database: no lease, no start, no note.

use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::clock::Now;
use crate::config::retention::{Mode, Policy};
use crate::retention::agenda::{Due, Turns};
use crate::retention::engine::{Engine, Request};
use crate::retention::outcome::{Kind, Outcome, Stop};
use crate::retention::ttl_owner::TtlOwner;
use crate::retention::warrant::PlanId;
use crate::runtime::supervise::PartResult;
use crate::store::lease::{Attempt, Lease, LeaseMetrics, Seen};

/// The lease of whoever schedules.
const LEADER: &str = "leader";

/// How often the agenda is looked at.
const TICK: Duration = Duration::from_secs(1);

/// So many questions wait at most; more are refused.
const QUESTIONS: usize = 16;

/// A line of the log each so often while a run goes on.
const LINE_EVERY: Duration = Duration::from_secs(30);

/// What somebody wants to know, or to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    /// Plans, of one policy or of all.
    Plan(Option<String>),
    /// How each policy stands.
    Status,
    /// A run of a policy.
    Run {
        /// The policy.
        policy: String,
        /// The plan that was looked at.
        plan: PlanId,
        /// Without waiting for the soak.
        now: bool,
    },
    /// A pause for every process, for a reason.
    Pause(String),
    /// The end of the pause.
    Resume,
}

/// A question, and where the answer goes: JSON, or why there is none.
#[derive(Debug)]
pub struct Question {
    /// What is asked.
    pub ask: Ask,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Result<Value, String>>,
}

/// Where questions go.
pub type Questions = mpsc::Sender<Question>;

/// Retention that runs by itself.
#[derive(Debug)]
pub struct Service {
    engine: Engine,
    lease_metrics: LeaseMetrics,
    questions: mpsc::Receiver<Question>,
    turns: Turns,
    ttl: TtlOwner,
    leadership: Leadership,
}

/// Whether this process leads.
#[derive(Debug, Default)]
struct Leadership {
    lease: Option<Lease>,
    seen: Option<Seen>,
    next_attempt: Option<Instant>,
    /// A failure that has been said.
    is_troubled: bool,
}

/// Work that goes on beside the loop.
enum Done {
    Answered,
    Ran(Box<Outcome>),
    /// The start could not be taken.
    Failed,
    Enforced(Box<TtlOwner>),
}

type Jobs<'a> = FuturesUnordered<BoxFuture<'a, Done>>;

// === impl Service ===

impl Service {
    /// A service for an engine; nothing is connected yet.
    #[must_use]
    pub fn new(engine: Engine, lease_metrics: LeaseMetrics, ttl: TtlOwner) -> (Questions, Self) {
        let (sender, questions) = mpsc::channel(QUESTIONS);
        let names = engine.settings().policies.iter().map(|policy| policy.name.as_str());
        let turns = Turns::new(engine.settings().schedule.clone(), names, Now::read().wall);
        (sender, Self { engine, lease_metrics, questions, turns, ttl, leadership: Leadership::default() })
    }

    /// Leads where it can, starts what is due, and answers, until `stop`.
    ///
    /// # Errors
    /// None: a database that is away is waited for.
    pub async fn run(self, stop: CancellationToken) -> PartResult {
        let Self { engine, lease_metrics, mut questions, mut turns, ttl, mut leadership } = self;
        let enforces = engine.settings().mode == Mode::Enforce;
        let mut ttl = Some(Box::new(ttl));
        let mut jobs: Jobs<'_> = FuturesUnordered::new();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(Question { ask, reply }) = questions.recv() => match ask {
                    Ask::Run { policy, plan, now } => {
                        let started = named(&engine, &policy).and_then(|policy| turns.begin().then_some(policy).ok_or_else(busy));
                        let answer = started.map(|policy| {
                            let request = Request { confirmed: Some(plan), now, who: who(), patience: Duration::ZERO };
                            jobs.push(Box::pin(run(&engine, policy, request, &stop)));
                            json!({ "started": policy.name })
                        });
                        drop(reply.send(answer));
                    }
                    ask => jobs.push(Box::pin(answer(&engine, ask, reply))),
                },
                Some(done) = jobs.next(), if !jobs.is_empty() => match done {
                    Done::Answered => {}
                    Done::Ran(outcome) => {
                        tell(&outcome);
                        turns.end(outcome.stop.may_pass(), Now::read().wall);
                    }
                    Done::Failed => turns.end(true, Now::read().wall),
                    Done::Enforced(owner) => ttl = Some(owner),
                },
                _ = ticks.tick() => {
                    if enforces {
                        tokio::select! {
                            () = stop.cancelled() => break,
                            () = leadership.look(&engine) => {}
                        }
                        lease_metrics.note(leadership.lease.as_ref());
                    }
                    let leads = leadership.leads();
                    if leads && let Some(mut owner) = ttl.take() {
                        let engine = &engine;
                        jobs.push(Box::pin(async move {
                            owner.enforce_when_due(engine.settings()).await;
                            Done::Enforced(owner)
                        }));
                    }
                    if (leads || !enforces) && let Some(due) = turns.begin_due(Now::read().wall) {
                        jobs.push(Box::pin(start_due(&engine, due, &stop)));
                    }
                    turns.dues().for_each(|(policy, at)| engine.metrics().due(policy, Kind::Documents, at));
                }
            }
        }
        // A run stops after its batch; what it has begun to archive is archived.
        while let Some(done) = jobs.next().await {
            if let Done::Ran(outcome) = done {
                tell(&outcome);
            }
        }
        drop(jobs);
        if let Some(lease) = leadership.lease.take() {
            lease.release().await;
        }
        Ok(())
    }
}

fn tell(outcome: &Outcome) {
    let Outcome { policy, run, stop, why, tally, .. } = outcome;
    let (deleted, archived, children) = (tally.deleted, tally.archived, tally.children);
    match stop {
        Stop::PlanOnly => tracing::debug!(policy, "the policy only plans"),
        stop if stop.is_success() => {
            tracing::info!(policy, run, stop = stop.word(), deleted, archived, children, why, "retention has run");
        }
        stop => tracing::error!(policy, run, stop = stop.word(), deleted, archived, children, why, "retention has stopped"),
    }
}

/// A run that is due by the schedule, where no other process has it.
async fn start_due(engine: &Engine, due: Due, stop: &CancellationToken) -> Done {
    let wall = || Now::read().wall;
    let Ok(policy) = named(engine, &due.policy) else { return Done::Failed };
    if policy.mode == Mode::Plan {
        match engine.plan(policy, wall()).await {
            Ok(plan) => tracing::info!(
                policy = policy.name,
                would_delete = plan.would_delete,
                passes = plan.passes(),
                "planned, and nothing deleted"
            ),
            Err(error) => tracing::warn!(policy = policy.name, %error, "the policy could not be planned"),
        }
        return Done::Ran(Box::new(Outcome::plan_only(&policy.name, wall())));
    }
    match engine.take_start(policy, due.start).await {
        Ok(true) => run(engine, policy, Request { who: who(), ..Request::default() }, stop).await,
        Ok(false) => Done::Ran(Box::new(Outcome::plan_only(&policy.name, wall()))),
        Err(error) => {
            tracing::error!(policy = policy.name, %error, "a start of the schedule could not be taken");
            Done::Failed
        }
    }
}

/// Why a run by hand is refused.
pub(super) fn busy() -> String {
    "a run goes on in this process; wait for its end, see /retention/status".to_owned()
}

async fn run(engine: &Engine, policy: &Policy, request: Request, stop: &CancellationToken) -> Done {
    let line = std::sync::Mutex::new(Instant::now());
    let progress = move |plan: &crate::retention::Plan, tally: &crate::retention::Tally| {
        let mut line = line.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if line.elapsed() >= LINE_EVERY {
            *line = Instant::now();
            tracing::info!(
                policy = plan.policy,
                deleted = tally.deleted,
                of = plan.would_delete,
                children = tally.children,
                "retention goes on"
            );
        }
    };
    Done::Ran(Box::new(engine.run(policy, &request, || Now::read().wall, stop, &progress).await))
}

fn who() -> String {
    format!("bellwether run, process {}", std::process::id())
}

fn named<'a>(engine: &'a Engine, name: &str) -> Result<&'a Policy, String> {
    let policies = &engine.settings().policies;
    policies.iter().find(|policy| policy.name == name).ok_or_else(|| {
        let names: Vec<&str> = policies.iter().map(|policy| policy.name.as_str()).collect();
        format!("there is no retention policy {name:?}; there are: {}", names.join(", "))
    })
}

async fn answer(engine: &Engine, ask: Ask, reply: oneshot::Sender<Result<Value, String>>) -> Done {
    let answer = match ask {
        Ask::Plan(policy) => plans(engine, policy.as_deref()).await,
        Ask::Status => status(engine).await,
        Ask::Pause(reason) => engine.pause(Some(&reason)).await.map(|()| json!({ "paused": reason })).map_err(|error| error.to_string()),
        Ask::Resume => engine.pause(None).await.map(|()| json!({ "paused": null })).map_err(|error| error.to_string()),
        Ask::Run { .. } => Err("a run is started by the loop".to_owned()),
    };
    // Whoever asked may have gone away.
    drop(reply.send(answer));
    Done::Answered
}

async fn plans(engine: &Engine, wanted: Option<&str>) -> Result<Value, String> {
    let policies = match wanted {
        Some(name) => vec![named(engine, name)?],
        None => engine.settings().policies.iter().collect(),
    };
    let mut plans = Vec::new();
    for policy in policies {
        plans.push(engine.plan(policy, Now::read().wall).await.map_err(|error| error.to_string())?);
    }
    serde_json::to_value(plans).map_err(|error| error.to_string())
}

async fn status(engine: &Engine) -> Result<Value, String> {
    let paused = engine.paused().await.map_err(|error| error.to_string())?;
    let mut standings = Vec::new();
    for policy in &engine.settings().policies {
        standings.push(engine.standing(policy).await.map_err(|error| error.to_string())?);
    }
    Ok(json!({ "paused": paused, "policies": standings }))
}

// === impl Leadership ===

impl Leadership {
    fn leads(&self) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.live().is_ok())
    }

    /// Takes the lead where it is free, and lets go of what was lost.
    async fn look(&mut self, engine: &Engine) {
        if self.leads() {
            return;
        }
        if self.lease.take().is_some() {
            engine.metrics().stood_down(engine.settings().policies.iter().map(|policy| policy.name.as_str()));
            tracing::warn!("this process leads no more; another may schedule retention now");
        }
        let now = Instant::now();
        if self.next_attempt.is_some_and(|next| now < next) {
            return;
        }
        self.next_attempt = Some(now + engine.leases().ttl().mul_f64(0.25 + 0.1 * fastrand::f64()));
        match engine.leases().take(LEADER, &who(), self.seen.as_ref()).await {
            Ok(Attempt::Taken(lease)) => {
                tracing::info!(epoch = lease.epoch(), "this process leads: it schedules retention");
                (self.lease, self.seen, self.is_troubled) = (Some(lease), None, false);
            }
            Ok(Attempt::Refused(seen)) => (self.seen, self.is_troubled) = (Some(seen), false),
            Err(error) if self.is_troubled => tracing::debug!(%error, "the lead cannot be taken"),
            Err(error) => {
                self.is_troubled = true;
                tracing::warn!(%error, "the lead cannot be taken, and nothing is deleted; the user needs `find`, `insert` and `update` on bellwether_leases");
            }
        }
    }
}
