//! The part of PromQL that our rules are written in: as a tree.
//!
//! One list of rules serves Prometheus and us, so there is nothing to keep equal. What the rules do not use is refused:
//! subqueries, `@`, `group_left`, histograms.

mod lexer;
mod parser;
pub mod template;

use std::collections::BTreeMap;
use std::time::Duration;

use regex::Regex;

pub use parser::{ParseError, hold, parse};

/// The labels of a series, without its name.
pub type Labels = BTreeMap<String, String>;

/// A query, or a part of one.
#[derive(Clone, Debug)]
pub enum Expression {
    /// A number.
    Number(f64),
    /// The last value of each series that fits.
    Instant(Selector),
    /// The values of each series that fits, so far back.
    Range(Selector, Duration),
    /// A function.
    Call(Function, Vec<Expression>),
    /// What becomes one value for each group.
    Aggregate(Aggregation, Grouping, Box<Expression>),
    /// Two sides and what is done with them.
    Binary(Box<Binary>),
    /// `-x`.
    Negate(Box<Expression>),
}

/// Which series.
#[derive(Clone, Debug)]
pub struct Selector {
    /// The name of the metric.
    pub name: String,
    /// What their labels must be.
    pub matchers: Vec<Matcher>,
    /// So far back from now.
    pub offset: Duration,
}

/// What a label must be.
#[derive(Clone, Debug)]
pub struct Matcher {
    /// The label. One that a series lacks is the empty text.
    pub label: String,
    /// The test.
    pub test: Test,
}

/// A test of a text.
#[derive(Clone, Debug)]
pub enum Test {
    /// It is this.
    Equal(String),
    /// It is not this.
    NotEqual(String),
    /// All of it fits.
    Fits(Regex),
    /// It does not fit.
    FitsNot(Regex),
}

/// A function of PromQL, with its meaning there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(missing_docs, reason = "the names of PromQL")]
pub enum Function {
    Abs,
    Absent,
    AvgOverTime,
    Changes,
    Increase,
    LastOverTime,
    MaxOverTime,
    MinOverTime,
    PresentOverTime,
    Round,
    Scalar,
    Time,
    Vector,
}

/// How values become one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(missing_docs, reason = "the names of PromQL")]
pub enum Aggregation {
    Count,
    Max,
    Min,
    Sum,
}

/// By which labels values belong together.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Grouping {
    /// By these.
    By(Vec<String>),
    /// By all but these, and never by the name.
    Without(Vec<String>),
}

/// Two sides and what is done with them.
#[derive(Clone, Debug)]
pub struct Binary {
    /// What is done.
    pub operator: Operator,
    /// By which labels the sides find each other; all but the name without it.
    pub matching: Option<Matching>,
    /// The left side.
    pub left: Expression,
    /// The right side.
    pub right: Expression,
}

/// By which labels the sides of an operator find each other.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Matching {
    /// By these.
    On(Vec<String>),
    /// By all but these.
    Ignoring(Vec<String>),
}

/// An operator of PromQL, with its meaning there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(missing_docs, reason = "the names of PromQL")]
pub enum Operator {
    Or,
    And,
    Unless,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

// === impl Expression ===

impl Expression {
    /// Calls `visit` with each selector and how far back it looks in all; an instant one looks back by `lookback`.
    pub fn selectors(&self, lookback: Duration, visit: &mut impl FnMut(&Selector, Duration)) {
        match self {
            Self::Number(_) => {}
            Self::Instant(selector) => visit(selector, selector.offset + lookback),
            Self::Range(selector, window) => visit(selector, selector.offset + *window),
            Self::Call(_, arguments) => arguments.iter().for_each(|argument| argument.selectors(lookback, visit)),
            Self::Aggregate(_, _, inner) | Self::Negate(inner) => inner.selectors(lookback, visit),
            Self::Binary(binary) => {
                binary.left.selectors(lookback, visit);
                binary.right.selectors(lookback, visit);
            }
        }
    }
}

// === impl Matcher ===

impl Matcher {
    /// Whether a series with this value of the label passes.
    #[must_use]
    pub fn passes(&self, value: &str) -> bool {
        match &self.test {
            Test::Equal(text) => value == text,
            Test::NotEqual(text) => value != text,
            Test::Fits(regex) => regex.is_match(value),
            Test::FitsNot(regex) => !regex.is_match(value),
        }
    }
}

// === impl Operator ===

impl Operator {
    /// How strongly it binds; more is stronger.
    #[must_use]
    pub fn strength(self) -> u8 {
        match self {
            Self::Or => 1,
            Self::And | Self::Unless => 2,
            Self::Equal | Self::NotEqual | Self::Less | Self::LessOrEqual | Self::Greater | Self::GreaterOrEqual => 3,
            Self::Add | Self::Subtract => 4,
            Self::Multiply | Self::Divide | Self::Modulo => 5,
        }
    }

    /// Whether it takes and leaves whole elements.
    #[must_use]
    pub fn is_of_sets(self) -> bool {
        matches!(self, Self::Or | Self::And | Self::Unless)
    }
}
