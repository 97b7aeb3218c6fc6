//! Rules over the past: what is pending, what fires and what has ended.
//!
//! The states of an alert are those of Prometheus: it is pending for as long as its `for` asks, fires, and when its query
//! gives it no more it has ended, which is still told for a quarter of an hour. Pure: the time is an argument.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::notify::alert::Alert;
use crate::notify::evaluate::{EvaluationError, Moment, Value, evaluate};
use crate::notify::samples::{Samples, Saved};
use crate::promql::Labels;
use crate::shipped::compiled::{CompiledRule, RuleError};
use crate::shipped::rules::RuleFile;

/// So long after its end an alert is still told, for whoever could not be reached. The same as in Prometheus.
const ENDED_FOR: i64 = 15 * 60 * 1000;

/// Rules, the past that they look at, and what they have found.
#[derive(Debug)]
pub struct Evaluator {
    rules: Vec<Watched>,
    samples: Samples,
}

/// What is written to disk, so that a restart forgets nothing.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct State {
    samples: Saved,
    active: Vec<SavedAlert>,
}

#[derive(Debug, Deserialize, Serialize)]
struct SavedAlert {
    labels: Labels,
    annotations: BTreeMap<String, String>,
    /// For how long its query has given it, in milliseconds.
    held: i64,
    phase: Phase,
    /// How long ago it ended, in milliseconds.
    ended: i64,
}

#[derive(Debug)]
struct Watched {
    rule: CompiledRule,
    active: BTreeMap<Labels, Active>,
}

/// An alert of a rule; its labels are its key.
#[derive(Clone, Debug)]
struct Active {
    annotations: BTreeMap<String, String>,
    /// When its query began to give it, on the clock of the samples.
    since: i64,
    phase: Phase,
    /// When it ended, on the clock of the samples; counts in that phase alone.
    ended: i64,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
enum Phase {
    Pending,
    Firing(Timestamp),
    Ended(Timestamp, Timestamp),
}

// === impl Evaluator ===

impl Evaluator {
    /// An evaluator with an empty past.
    ///
    /// # Errors
    /// A rule that uses what we do not support.
    pub fn new(file: &RuleFile) -> Result<Self, RuleError> {
        let watched = |rule| Ok(Watched { rule: CompiledRule::new(rule)?, active: BTreeMap::new() });
        let rules = file.rules().map(watched).collect::<Result<Vec<_>, RuleError>>()?;
        let samples = Samples::of(rules.iter().map(|watched| &watched.rule.expression));
        Ok(Self { rules, samples })
    }

    /// The metrics that are asked for and that no rule records.
    pub fn scraped(&self) -> impl Iterator<Item = &str> {
        let recorded = |name: &str| self.rules.iter().any(|watched| !watched.rule.is_alert && watched.rule.name == name);
        self.samples.names().filter(move |name| !recorded(name))
    }

    /// The past, to be added to.
    pub fn samples_mut(&mut self) -> &mut Samples {
        &mut self.samples
    }

    /// The past.
    #[must_use]
    pub fn samples(&self) -> &Samples {
        &self.samples
    }

    /// Asks all rules in their order. How many had no answer; their alerts stay as they are.
    pub fn evaluate(&mut self, moment: Moment, wall: Timestamp) -> usize {
        let Self { rules, samples } = self;
        rules.iter_mut().map(|rule| usize::from(rule.evaluate(samples, moment, wall).is_err())).sum()
    }

    /// What fires, and what has ended within the last quarter of an hour.
    #[must_use]
    pub fn alerts(&self) -> Vec<Alert> {
        let all = self.rules.iter().flat_map(|watched| &watched.active);
        all.filter_map(|(labels, active)| {
            let (starts_at, ends_at) = match active.phase {
                Phase::Pending => return None,
                Phase::Firing(start) => (start, None),
                Phase::Ended(start, end) => (start, Some(end)),
            };
            Some(Alert { labels: labels.clone(), annotations: active.annotations.clone(), starts_at, ends_at })
        })
        .collect()
    }

    /// What must be known after a restart.
    #[must_use]
    pub fn save(&self, now: i64) -> State {
        let active = self.rules.iter().flat_map(|watched| &watched.active).map(|(labels, active)| SavedAlert {
            labels: labels.clone(),
            annotations: active.annotations.clone(),
            held: now - active.since,
            phase: active.phase,
            ended: now - active.ended,
        });
        State { active: active.collect(), samples: self.samples.save(now) }
    }

    /// Goes on where another process stopped so long before `now`. The time in between does not count for `for`: nobody
    /// looked.
    pub fn restore(&mut self, state: State, now: i64, away: Duration) {
        let away = i64::try_from(away.as_millis()).unwrap_or(i64::MAX);
        self.samples.restore(state.samples, now, away);
        for SavedAlert { labels, annotations, held, phase, ended } in state.active {
            let is_of = |rule: &CompiledRule| rule.is_alert && rule.labels.iter().all(|(name, value)| labels.get(name) == Some(value));
            if let Some(watched) = self.rules.iter_mut().find(|watched| is_of(&watched.rule)) {
                watched.active.insert(labels, Active { annotations, since: now - held, phase, ended: now - away - ended });
            }
        }
    }
}

// === impl Watched ===

impl Watched {
    fn evaluate(&mut self, samples: &mut Samples, moment: Moment, wall: Timestamp) -> Result<(), EvaluationError> {
        let Self { rule, active } = self;
        let Value::Vector(found) = evaluate(&rule.expression, samples, moment)? else { return Err(EvaluationError::Type) };
        let found = found.into_iter().map(|mut sample| {
            sample.labels.remove("__name__");
            let original = sample.labels.clone();
            sample.labels.extend(rule.labels.clone());
            sample.labels.retain(|_, value| !value.is_empty());
            (sample.labels, original, sample.value)
        });
        if rule.is_alert {
            let filled =
                |labels: &Labels, value| rule.annotations.iter().map(|(key, text)| (key.clone(), text.fill(labels, value))).collect();
            let given = found.map(|(labels, original, value)| (labels, filled(&original, value))).collect();
            look(active, given, i64::try_from(rule.hold.as_millis()).unwrap_or(i64::MAX), moment.at, wall);
        } else {
            samples.note(&rule.name, moment.at, found.map(|(labels, _, value)| (labels, value)).collect());
        }
        Ok(())
    }
}

/// Takes over what a query gives at a time.
fn look(active: &mut BTreeMap<Labels, Active>, given: Vec<(Labels, BTreeMap<String, String>)>, hold: i64, at: i64, wall: Timestamp) {
    active.retain(|labels, alert| match alert.phase {
        _ if given.iter().any(|(given, _)| given == labels) => true,
        Phase::Pending => false,
        Phase::Firing(start) => {
            (alert.phase, alert.ended) = (Phase::Ended(start, wall.max(start)), at);
            true
        }
        Phase::Ended(..) => at - alert.ended < ENDED_FOR,
    });
    for (labels, annotations) in given {
        let fresh = Active { annotations: BTreeMap::new(), since: at, phase: Phase::Pending, ended: at };
        let alert = active.entry(labels).or_insert_with(|| fresh.clone());
        if matches!(alert.phase, Phase::Ended(..)) {
            *alert = fresh;
        }
        alert.annotations = annotations;
        if alert.phase == Phase::Pending && at - alert.since >= hold {
            alert.phase = Phase::Firing(wall);
        }
    }
}

#[cfg(test)]
mod tests;
