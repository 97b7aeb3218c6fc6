//! Expressions: what they ask for must be exposed.

use promql_parser::label::{MatchOp, Matchers};
use promql_parser::parser::{self, BinaryExpr, Expr, LabelModifier, VectorMatchCardinality};
use regex::Regex;

use super::golden::Golden;
use super::{Labels, Problems, set};

/// Walks one expression and notes whatever the golden does not hold.
pub struct Walk<'a> {
    pub golden: &'a Golden,
    /// Dashboards narrow every query to the chosen job and instance; rules must not.
    pub wants_target: bool,
    pub problems: Problems,
}

/// The problems of an expression and the labels of its result.
pub fn examine(golden: &Golden, query: &str, wants_target: bool) -> (Problems, Labels) {
    match parser::parse(query) {
        Err(error) => (vec![format!("does not parse: {error}")], Labels::new()),
        Ok(expr) => {
            let mut walk = Walk { golden, wants_target, problems: Vec::new() };
            let labels = walk.labels_of(&expr, None);
            (walk.problems, labels)
        }
    }
}

impl Walk<'_> {
    pub fn labels_of(&mut self, expr: &Expr, function: Option<&str>) -> Labels {
        match expr {
            Expr::VectorSelector(it) => self.selector(it.name.as_deref(), &it.matchers, function),
            Expr::MatrixSelector(it) => self.selector(it.vs.name.as_deref(), &it.vs.matchers, function),
            Expr::Paren(it) => self.labels_of(&it.expr, function),
            Expr::Unary(it) => self.labels_of(&it.expr, None),
            Expr::Subquery(it) => self.labels_of(&it.expr, None),
            Expr::Binary(it) => self.binary(it),
            Expr::Aggregate(it) => {
                let inner = self.labels_of(&it.expr, None);
                match &it.modifier {
                    None if matches!(it.op.to_string().as_str(), "topk" | "bottomk") => inner,
                    None => Labels::new(),
                    Some(LabelModifier::Include(by)) => self.known(&by.labels, &inner, "by"),
                    Some(LabelModifier::Exclude(without)) => {
                        let gone = self.known(&without.labels, &inner, "without");
                        inner.difference(&gone).cloned().collect()
                    }
                }
            }
            Expr::Call(it) => {
                let mut labels = Labels::new();
                for argument in &it.args.args {
                    labels.extend(self.labels_of(argument, Some(it.func.name)));
                }
                match it.func.name {
                    "absent" | "absent_over_time" | "scalar" | "vector" => labels.clear(),
                    "histogram_quantile" if !labels.remove("le") => self.problems.push("histogram_quantile without le".into()),
                    _ => {}
                }
                labels
            }
            _ => Labels::new(),
        }
    }

    pub fn binary(&mut self, it: &BinaryExpr) -> Labels {
        let (left, right) = (self.labels_of(&it.lhs, None), self.labels_of(&it.rhs, None));
        let scalar = |side: &Expr| match side {
            Expr::NumberLiteral(_) => true,
            Expr::Call(call) => matches!(call.func.name, "time" | "scalar"),
            _ => false,
        };
        if scalar(&it.lhs) || scalar(&it.rhs) {
            return if scalar(&it.lhs) { right } else { left };
        }
        let op = it.op.to_string();
        if op == "or" {
            return left.union(&right).cloned().collect();
        }
        let one_to_one = it.modifier.as_ref().is_none_or(|it| matches!(it.card, VectorMatchCardinality::OneToOne));
        match it.modifier.as_ref().and_then(|it| it.matching.as_ref()) {
            Some(LabelModifier::Include(on)) => {
                self.known(&on.labels, &left, "on");
                let on = self.known(&on.labels, &right, "on");
                let arithmetic = !matches!(op.as_str(), "and" | "unless");
                if arithmetic && one_to_one { on } else { left }
            }
            Some(LabelModifier::Exclude(_)) => left,
            None => {
                // Vectors whose labels differ never match, and the query is empty for ever without an error.
                if left != right {
                    self.problems.push(format!("{left:?} {op} {right:?} never match"));
                }
                left
            }
        }
    }

    pub fn selector(&mut self, name: Option<&str>, matchers: &Matchers, function: Option<&str>) -> Labels {
        let Some((name, series)) = name.and_then(|name| Some((name, self.golden.0.get(name)?))) else {
            self.problems.push(format!("{} is not exposed", name.unwrap_or("a selector without a name")));
            return Labels::new();
        };
        if !series.sampled {
            self.problems.push(format!("{name} has no sample, so its labels are not known"));
        }
        if series.counter && !matches!(function, Some("rate" | "irate" | "increase" | "present_over_time")) {
            self.problems.push(format!("the counter {name} is used without a rate"));
        }
        let mut labels: Labels = series.labels.keys().cloned().collect();
        if series.target {
            labels.extend(set(["job", "instance"]));
        }
        for matcher in &matchers.matchers {
            self.known(std::slice::from_ref(&matcher.name), &labels, name);
            let Some(exposed) = series.labels.get(&matcher.name) else { continue };
            // A value that is not there from the start has no first increase, and its alert misses the first event.
            let wanted: Vec<&str> = match &matcher.op {
                _ if exposed.is_empty() => continue,
                MatchOp::Equal => vec![&matcher.value],
                MatchOp::Re(_) => matcher.value.split('|').collect(),
                MatchOp::NotEqual | MatchOp::NotRe(_) => continue,
            };
            // Codes are too many to be there from the start: one of those that are meant is.
            let is_exposed = |value: &str| {
                let pattern = Regex::new(&format!("^(?:{value})$")).unwrap();
                exposed.contains(value) || value.contains('.') && exposed.iter().any(|exposed| pattern.is_match(exposed))
            };
            for value in wanted.into_iter().filter(|value| !is_exposed(value)) {
                self.problems.push(format!("{name} has no {}=\"{value}\"", matcher.name));
            }
        }
        for target in ["job", "instance"] {
            if self.wants_target && series.target && !matchers.matchers.iter().any(|matcher| matcher.name == target) {
                self.problems.push(format!("{name} is asked for without a matcher on {target}"));
            }
        }
        labels
    }

    pub fn known(&mut self, asked: &[String], labels: &Labels, place: &str) -> Labels {
        for label in asked.iter().filter(|label| !labels.contains(*label)) {
            self.problems.push(format!("{place}: there is no label {label}"));
        }
        asked.iter().cloned().collect()
    }
}
