//! What a query says of the past: the meaning that Prometheus gives to it.

mod functions;

use std::collections::BTreeMap;

use crate::notify::samples::{LOOKBACK, Samples};
use crate::promql::{Aggregation, Binary, Expression, Grouping, Labels, Matching, Operator, Selector};

/// The label that holds the name of a series while something may still ask for it.
const NAME: &str = "__name__";

/// What a query comes to.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A number.
    Scalar(f64),
    /// A number for each set of labels.
    Vector(Vec<Sample>),
}

/// A number and its labels; with the label `__name__` where it is a series as it was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The labels.
    pub labels: Labels,
    /// The number.
    pub value: f64,
}

/// When a query is asked.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// On the clock of the samples, in milliseconds.
    pub at: i64,
    /// What `time()` says: seconds since the epoch.
    pub seconds: f64,
}

/// Why a query has no value.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum EvaluationError {
    /// Two of one side fit one of the other.
    #[error("several series of one side have the same labels for the other")]
    Ambiguous,
    /// A number stands where series must be, or the other way round.
    #[error("a number stands where series are asked for, or the other way round")]
    Type,
}

/// Asks a query.
///
/// # Errors
/// When its parts do not fit together.
pub fn evaluate(expression: &Expression, samples: &Samples, moment: Moment) -> Result<Value, EvaluationError> {
    Ok(match expression {
        Expression::Number(number) => Value::Scalar(*number),
        Expression::Instant(selector) => Value::Vector(instant(selector, samples, moment)),
        Expression::Range(..) => return Err(EvaluationError::Type),
        Expression::Call(function, arguments) => functions::call(*function, arguments, samples, moment)?,
        Expression::Aggregate(aggregation, grouping, inner) => {
            Value::Vector(aggregate(*aggregation, grouping, vector(evaluate(inner, samples, moment)?)?))
        }
        Expression::Negate(inner) => evaluate(inner, samples, moment)?.map(|value| -value),
        Expression::Binary(binary) => {
            let left = evaluate(&binary.left, samples, moment)?;
            let right = evaluate(&binary.right, samples, moment)?;
            combine(binary, left, right)?
        }
    })
}

fn vector(value: Value) -> Result<Vec<Sample>, EvaluationError> {
    match value {
        Value::Vector(samples) => Ok(samples),
        Value::Scalar(_) => Err(EvaluationError::Type),
    }
}

fn millis(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn named(labels: &Labels, name: &str) -> Labels {
    let mut labels = labels.clone();
    labels.insert(NAME.to_owned(), name.to_owned());
    labels
}

fn instant(selector: &Selector, samples: &Samples, moment: Moment) -> Vec<Sample> {
    let at = moment.at - millis(selector.offset);
    let found = samples.select(selector).filter_map(|(labels, series)| Some((labels, series.at(at, millis(LOOKBACK))?)));
    found.map(|(labels, value)| Sample { labels: named(labels, &selector.name), value }).collect()
}

fn aggregate(aggregation: Aggregation, grouping: &Grouping, samples: Vec<Sample>) -> Vec<Sample> {
    let mut groups: BTreeMap<Labels, f64> = BTreeMap::new();
    for Sample { mut labels, value } in samples {
        match grouping {
            Grouping::By(by) => labels.retain(|name, _| by.contains(name)),
            Grouping::Without(without) => labels.retain(|name, _| name != NAME && !without.contains(name)),
        }
        let first = if aggregation == Aggregation::Count { 1.0 } else { value };
        groups
            .entry(labels)
            .and_modify(|so_far| {
                *so_far = match aggregation {
                    Aggregation::Count => *so_far + 1.0,
                    Aggregation::Sum => *so_far + value,
                    Aggregation::Max => so_far.max(value),
                    Aggregation::Min => so_far.min(value),
                }
            })
            .or_insert(first);
    }
    groups.into_iter().map(|(labels, value)| Sample { labels, value }).collect()
}

fn combine(binary: &Binary, left: Value, right: Value) -> Result<Value, EvaluationError> {
    let operator = binary.operator;
    Ok(match (left, right) {
        (Value::Scalar(left), Value::Scalar(right)) => Value::Scalar(number(operator, left, right).ok_or(EvaluationError::Type)?),
        (Value::Vector(left), Value::Scalar(right)) => with_number(operator, left, |value| (value, right))?,
        (Value::Scalar(left), Value::Vector(right)) => with_number(operator, right, |value| (left, value))?,
        (Value::Vector(left), Value::Vector(right)) if operator.is_of_sets() => {
            Value::Vector(sets(operator, binary.matching.as_ref(), left, right))
        }
        (Value::Vector(left), Value::Vector(right)) => Value::Vector(pairs(operator, binary.matching.as_ref(), left, right)?),
    })
}

/// What an operator makes of two numbers; `None` for one that does not calculate.
fn number(operator: Operator, left: f64, right: f64) -> Option<f64> {
    Some(match operator {
        Operator::Add => left + right,
        Operator::Subtract => left - right,
        Operator::Multiply => left * right,
        Operator::Divide => left / right,
        Operator::Modulo => left % right,
        _ => return None,
    })
}

/// Whether a comparison holds; `None` for an operator that does not compare.
#[expect(clippy::float_cmp, reason = "what `==` means in PromQL")]
fn holds(operator: Operator, left: f64, right: f64) -> Option<bool> {
    Some(match operator {
        Operator::Equal => left == right,
        Operator::NotEqual => left != right,
        Operator::Less => left < right,
        Operator::LessOrEqual => left <= right,
        Operator::Greater => left > right,
        Operator::GreaterOrEqual => left >= right,
        _ => return None,
    })
}

/// Each element with a number; a comparison leaves those for which it holds, as they are.
fn with_number(operator: Operator, samples: Vec<Sample>, sides: impl Fn(f64) -> (f64, f64)) -> Result<Value, EvaluationError> {
    let mut found = Vec::with_capacity(samples.len());
    for mut sample in samples {
        let (left, right) = sides(sample.value);
        if let Some(value) = number(operator, left, right) {
            sample.labels.remove(NAME);
            found.push(Sample { value, ..sample });
        } else if holds(operator, left, right).ok_or(EvaluationError::Type)? {
            found.push(sample);
        }
    }
    Ok(Value::Vector(found))
}

/// The labels by which an element finds the other side.
fn key(labels: &Labels, matching: Option<&Matching>) -> Labels {
    let mut key = labels.clone();
    key.retain(|name, _| match matching {
        None => name != NAME,
        Some(Matching::On(on)) => on.contains(name),
        Some(Matching::Ignoring(ignored)) => name != NAME && !ignored.contains(name),
    });
    key
}

fn sets(operator: Operator, matching: Option<&Matching>, mut left: Vec<Sample>, right: Vec<Sample>) -> Vec<Sample> {
    let keys = |samples: &[Sample]| samples.iter().map(|sample| key(&sample.labels, matching)).collect::<std::collections::BTreeSet<_>>();
    if operator == Operator::Or {
        let there = keys(&left);
        left.extend(right.into_iter().filter(|sample| !there.contains(&key(&sample.labels, matching))));
        return left;
    }
    let there = keys(&right);
    left.retain(|sample| there.contains(&key(&sample.labels, matching)) == (operator == Operator::And));
    left
}

fn pairs(operator: Operator, matching: Option<&Matching>, left: Vec<Sample>, right: Vec<Sample>) -> Result<Vec<Sample>, EvaluationError> {
    let mut partners = BTreeMap::new();
    for sample in right {
        if partners.insert(key(&sample.labels, matching), (sample.value, false)).is_some() {
            return Err(EvaluationError::Ambiguous);
        }
    }
    let mut found = Vec::with_capacity(left.len());
    for sample in left {
        let key = key(&sample.labels, matching);
        let Some((right, is_taken)) = partners.get_mut(&key) else { continue };
        if std::mem::replace(is_taken, true) {
            return Err(EvaluationError::Ambiguous);
        }
        if let Some(value) = number(operator, sample.value, *right) {
            found.push(Sample { labels: key, value });
        } else if holds(operator, sample.value, *right).ok_or(EvaluationError::Type)? {
            let labels = if matching.is_some() { key } else { sample.labels };
            found.push(Sample { labels, value: sample.value });
        }
    }
    Ok(found)
}

// === impl Value ===

impl Value {
    fn map(self, change: impl Fn(f64) -> f64) -> Self {
        match self {
            Self::Scalar(value) => Self::Scalar(change(value)),
            Self::Vector(mut samples) => {
                for sample in &mut samples {
                    sample.labels.remove(NAME);
                    sample.value = change(sample.value);
                }
                Self::Vector(samples)
            }
        }
    }
}

#[cfg(test)]
mod tests;
