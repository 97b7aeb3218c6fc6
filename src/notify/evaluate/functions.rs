//! The functions of PromQL that our rules use.

use super::{EvaluationError, Moment, Sample, Value, evaluate, millis, named, vector};
use crate::notify::samples::Samples;
use crate::promql::{Expression, Function, Labels, Test};

pub(super) fn call(function: Function, arguments: &[Expression], samples: &Samples, moment: Moment) -> Result<Value, EvaluationError> {
    let asked = |position: usize| {
        let argument = arguments.get(position).ok_or(EvaluationError::Type)?;
        evaluate(argument, samples, moment)
    };
    Ok(match function {
        Function::Time => Value::Scalar(moment.seconds),
        Function::Vector => match asked(0)? {
            Value::Scalar(value) => Value::Vector(vec![Sample { labels: Labels::new(), value }]),
            Value::Vector(_) => return Err(EvaluationError::Type),
        },
        Function::Scalar => match vector(asked(0)?)?.as_slice() {
            [only] => Value::Scalar(only.value),
            _ => Value::Scalar(f64::NAN),
        },
        Function::Abs => asked(0)?.map(f64::abs),
        Function::Round => match arguments.get(1) {
            None => asked(0)?.map(|value| (value + 0.5).floor()),
            Some(_) => {
                let Value::Scalar(step) = asked(1)? else { return Err(EvaluationError::Type) };
                asked(0)?.map(|value| (value / step + 0.5).floor() * step)
            }
        },
        Function::Absent => absent(arguments.first(), vector(asked(0)?)?),
        Function::AvgOverTime
        | Function::Changes
        | Function::Increase
        | Function::LastOverTime
        | Function::MaxOverTime
        | Function::MinOverTime
        | Function::PresentOverTime => over_time(function, arguments, samples, moment)?,
    })
}

/// One element where there is none, with the labels that the question names.
fn absent(question: Option<&Expression>, found: Vec<Sample>) -> Value {
    if !found.is_empty() {
        return Value::Vector(Vec::new());
    }
    let mut labels = Labels::new();
    if let Some(Expression::Instant(selector)) = question {
        for matcher in &selector.matchers {
            if let Test::Equal(text) = &matcher.test {
                labels.insert(matcher.label.clone(), text.clone());
            }
        }
    }
    Value::Vector(vec![Sample { labels, value: 1.0 }])
}

fn over_time(function: Function, arguments: &[Expression], samples: &Samples, moment: Moment) -> Result<Value, EvaluationError> {
    let [Expression::Range(selector, window)] = arguments else { return Err(EvaluationError::Type) };
    let to = moment.at - millis(selector.offset);
    let from = to - millis(*window);
    let mut found = Vec::new();
    for (labels, series) in samples.select(selector) {
        let points: Vec<(i64, f64)> = series.within(from, to).collect();
        let (Some(&(_, first)), Some(&(_, last))) = (points.first(), points.last()) else { continue };
        let values = points.iter().map(|(_, value)| *value);
        let value = match function {
            #[expect(clippy::cast_precision_loss, reason = "a window has fewer points than 2^52")]
            Function::AvgOverTime => Some(values.sum::<f64>() / points.len() as f64),
            #[expect(clippy::float_cmp, reason = "what a change means in PromQL")]
            Function::Changes => Some(points.windows(2).map(|pair| f64::from(u8::from(pair[0].1 != pair[1].1))).sum()),
            Function::MaxOverTime => Some(values.fold(first, f64::max)),
            Function::MinOverTime => Some(values.fold(first, f64::min)),
            Function::PresentOverTime => Some(1.0),
            Function::Increase => increase(&points, from, to),
            _ => Some(last),
        };
        // Only the last value is still that of the series itself.
        let labels = if function == Function::LastOverTime { named(labels, &selector.name) } else { labels.clone() };
        found.extend(value.map(|value| Sample { labels, value }));
    }
    Ok(Value::Vector(found))
}

/// By how much a counter grew within a window: what was seen, over restarts, and as much more as the ends of the window that
/// were not seen make likely. The arithmetic of Prometheus (promql/functions.go, extrapolatedRate).
#[expect(clippy::cast_precision_loss, reason = "milliseconds of a window")]
fn increase(points: &[(i64, f64)], from: i64, to: i64) -> Option<f64> {
    let [(start, first), .., (end, last)] = points else { return None };
    let resets: f64 = points.windows(2).filter(|pair| pair[1].1 < pair[0].1).map(|pair| pair[0].1).sum();
    let grown = last - first + resets;
    let sampled = (end - start) as f64;
    let between = sampled / (points.len() - 1) as f64;
    let mut before = (start - from) as f64;
    // A counter does not begin below zero.
    if grown > 0.0 && *first >= 0.0 {
        before = before.min(sampled * (first / grown));
    }
    let after = (to - end) as f64;
    let reach = |missing: f64| if missing < between * 1.1 { missing } else { between / 2.0 };
    Some(grown * (sampled + reach(before) + reach(after)) / sampled)
}
