//! Policies of tables and files that run by themselves, and the answers to questions about them.
//!
//! Questions about other policies are handed on to whoever owns those; answers about all are joined.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::clock::Now;
use crate::config::retention::Mode;
use crate::retention::agenda::{Due, Turns};
use crate::retention::local::{Local, LocalOutcome, LocalPolicy, LocalRequest, Progress};
use crate::retention::outcome::{Stop, Tally};
use crate::retention::service::{Ask, Question, Questions, busy};
use crate::runtime::supervise::PartResult;

/// How often the agenda and the clocks are looked at.
const TICK: Duration = Duration::from_secs(1);
/// So many questions wait at most; more are refused.
const QUESTIONS: usize = 16;
/// A line of the log each so often while a run goes on.
const LINE_EVERY: Duration = Duration::from_secs(30);

/// The process is gone within 5 s of a signal.
const DRAIN: Duration = Duration::from_secs(3);

type Answer = Result<Value, String>;

/// Policies of tables and files that run by themselves.
#[derive(Debug)]
pub struct LocalService {
    local: Local,
    questions: mpsc::Receiver<Question>,
    /// Where questions about the policies of documents go, where there are any.
    documents: Option<Questions>,
    turns: Turns,
}

/// Work that goes on beside the loop.
enum Done {
    Answered,
    Ran(Stop),
}

type Jobs<'a> = FuturesUnordered<BoxFuture<'a, Done>>;

// === impl LocalService ===

impl LocalService {
    /// A service; nothing is connected or looked at yet.
    #[must_use]
    pub fn new(local: Local, documents: Option<Questions>) -> (Questions, Self) {
        let (sender, questions) = mpsc::channel(QUESTIONS);
        let names = local.policies().iter().map(LocalPolicy::name);
        let turns = Turns::new(local.schedule.clone(), names, Now::read().wall);
        (sender, Self { local, questions, documents, turns })
    }

    /// Starts what is due, one run at a time, and answers, until `stop`.
    ///
    /// # Errors
    /// None: what is away is waited for.
    pub async fn run(self, stop: CancellationToken) -> PartResult {
        let Self { local, mut questions, documents, mut turns } = self;
        let documents = documents.as_ref();
        let mut jobs: Jobs<'_> = FuturesUnordered::new();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(Question { ask, reply }) = questions.recv() => match ask {
                    Ask::Run { policy, plan, now } if named(&local, &policy).is_some() => {
                        let answer = match named(&local, &policy) {
                            Some(policy) if turns.begin() => {
                                let request = LocalRequest { confirmed: Some(plan), now };
                                jobs.push(Box::pin(carry_out(&local, policy, request, &stop)));
                                Ok(json!({ "started": policy.name() }))
                            }
                            _ => Err(busy()),
                        };
                        drop(reply.send(answer));
                    }
                    ask => jobs.push(Box::pin(answer(&local, documents, ask, reply))),
                },
                Some(done) = jobs.next(), if !jobs.is_empty() => if let Done::Ran(stop) = done {
                    turns.end(stop.may_pass(), Now::read().wall);
                },
                _ = ticks.tick() => {
                    local.watch_clock();
                    // Where there are documents, their pause is the one that is shown.
                    if documents.is_none() {
                        local.metrics().paused(local.paused().is_some());
                    }
                    if let Some(due) = turns.begin_due(Now::read().wall) {
                        jobs.push(Box::pin(start_due(&local, due, &stop)));
                    }
                    for (name, at) in turns.dues() {
                        if let Some(policy) = named(&local, name) {
                            local.metrics().due(name, policy.kind(), at);
                        }
                    }
                }
            }
        }
        // A run stops after its batch. What takes longer is left: its transaction ends with the connection.
        let drained = async { while jobs.next().await.is_some() {} };
        let _ = tokio::time::timeout(DRAIN, drained).await;
        Ok(())
    }
}

fn named<'a>(local: &'a Local, name: &str) -> Option<&'a LocalPolicy> {
    local.policies().iter().find(|policy| policy.name() == name)
}

async fn start_due(local: &Local, due: Due, stop: &CancellationToken) -> Done {
    let Some(policy) = named(local, &due.policy) else { return Done::Ran(Stop::PlanOnly) };
    if policy.mode() == Mode::Plan {
        match local.plan(policy).await {
            Ok(plan) => tracing::info!(
                policy = policy.name(),
                would_delete = plan.would_delete(),
                passes = plan.passes(),
                "planned, and nothing deleted"
            ),
            Err(error) => tracing::warn!(policy = policy.name(), %error, "the policy could not be planned"),
        }
        return Done::Ran(Stop::PlanOnly);
    }
    if !local.take_start(policy, due.start) {
        return Done::Ran(Stop::PlanOnly);
    }
    carry_out(local, policy, LocalRequest::default(), stop).await
}

async fn carry_out(local: &Local, policy: &LocalPolicy, request: LocalRequest, stop: &CancellationToken) -> Done {
    let outcome = local.run(policy, &request, stop, lines()).await;
    let LocalOutcome { policy, stop, why, tally, .. } = &outcome;
    let (deleted, archived) = (tally.deleted, tally.archived);
    match stop {
        Stop::PlanOnly => tracing::debug!(policy, "the policy only plans"),
        stop if stop.is_success() => tracing::info!(policy, stop = stop.word(), deleted, archived, why, "retention has run"),
        stop => tracing::error!(policy, stop = stop.word(), deleted, archived, why, "retention has stopped"),
    }
    Done::Ran(*stop)
}

fn lines() -> Arc<Progress> {
    let line = Mutex::new(Instant::now());
    Arc::new(move |policy: &str, of: u64, tally: &Tally| {
        let mut line = line.lock().unwrap_or_else(PoisonError::into_inner);
        if line.elapsed() >= LINE_EVERY {
            *line = Instant::now();
            tracing::info!(policy, deleted = tally.deleted, of, "retention goes on");
        }
    })
}

async fn answer(local: &Local, documents: Option<&Questions>, ask: Ask, reply: oneshot::Sender<Answer>) -> Done {
    let answer = match ask {
        Ask::Plan(Some(name)) => match named(local, &name) {
            Some(policy) => plans(local, [policy]).await,
            None => hand_on(documents, Ask::Plan(Some(name.clone()))).await.unwrap_or_else(|| Err(unknown(local, &name))),
        },
        Ask::Plan(None) => join(hand_on(documents, Ask::Plan(None)).await, plans(local, local.policies()).await),
        Ask::Status => status(local, hand_on(documents, Ask::Status).await),
        Ask::Run { policy, plan, now } => {
            let known = hand_on(documents, Ask::Run { policy: policy.clone(), plan, now }).await;
            known.unwrap_or_else(|| Err(unknown(local, &policy)))
        }
        // Here first: what lies in a file is written where the database is away.
        Ask::Pause(reason) => both(local.pause(Some(&reason)), hand_on(documents, Ask::Pause(reason.clone())).await, json!(reason)),
        Ask::Resume => both(local.pause(None), hand_on(documents, Ask::Resume).await, Value::Null),
    };
    // Whoever asked may have gone away.
    drop(reply.send(answer));
    Done::Answered
}

/// What those say who own the policies of documents; nothing where nobody does.
async fn hand_on(documents: Option<&Questions>, ask: Ask) -> Option<Answer> {
    let documents = documents?;
    let (reply, answer) = oneshot::channel();
    if documents.try_send(Question { ask, reply }).is_err() {
        return Some(Err("too many questions wait already, or the sidecar is shutting down".to_owned()));
    }
    Some(answer.await.unwrap_or_else(|_| Err("the sidecar is shutting down".to_owned())))
}

fn unknown(local: &Local, name: &str) -> String {
    let names: Vec<&str> = local.policies().iter().map(LocalPolicy::name).collect();
    format!("there is no retention policy {name:?}; there are: {}", names.join(", "))
}

async fn plans(local: &Local, policies: impl IntoIterator<Item = &LocalPolicy>) -> Answer {
    let mut plans = Vec::new();
    for policy in policies {
        plans.push(local.plan(policy).await.map_err(|error| error.to_string())?);
    }
    serde_json::to_value(plans).map_err(|error| error.to_string())
}

fn join(documents: Option<Answer>, ours: Answer) -> Answer {
    let mut all = match documents {
        Some(Ok(Value::Array(all))) => all,
        Some(Err(error)) => return Err(error),
        _ => Vec::new(),
    };
    if let Value::Array(ours) = ours? {
        all.extend(ours);
    }
    Ok(Value::Array(all))
}

fn status(local: &Local, documents: Option<Answer>) -> Answer {
    let ours: Vec<_> = local.policies().iter().map(|policy| local.standing(policy)).collect();
    let ours = serde_json::to_value(ours).map_err(|error| error.to_string())?;
    let (paused, policies) = match documents.transpose()? {
        Some(mut documents) => (documents["paused"].take(), Ok(documents["policies"].take())),
        None => (Value::Null, Ok(json!([]))),
    };
    let paused = if paused.is_null() { json!(local.paused()) } else { paused };
    Ok(json!({ "paused": paused, "policies": join(Some(policies), Ok(ours))? }))
}

fn both(ours: Result<(), crate::retention::local::LocalError>, documents: Option<Answer>, paused: Value) -> Answer {
    documents.transpose()?;
    ours.map(|()| json!({ "paused": paused })).map_err(|error| error.to_string())
}
