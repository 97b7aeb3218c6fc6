//! Pieces into a tree.

use std::time::Duration;

use regex::Regex;

use super::lexer::{Token, duration, tokens};
use super::{Aggregation, Binary, Expression, Function, Grouping, Matcher, Matching, Operator, Selector, Test};

/// Deeper than this no query is written, and the stack has an end.
const DEEPEST: usize = 64;

/// A query that cannot be understood.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("byte {at} of the query: {what}")]
pub struct ParseError {
    at: usize,
    what: &'static str,
}

/// Reads a query.
///
/// # Errors
/// When it is none, or uses what is not supported.
pub fn parse(query: &str) -> Result<Expression, ParseError> {
    let mut parser = Parser { tokens: tokens(query)?, position: 0, end: query.len(), depth: 0 };
    let expression = parser.expression(0)?;
    if parser.position < parser.tokens.len() {
        return Err(parser.error("nothing may follow here"));
    }
    Ok(expression)
}

/// Reads a duration such as `1h30m`, as `for` has it.
#[must_use]
pub fn hold(text: &str) -> Option<Duration> {
    duration(text).map(Duration::from_millis)
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    position: usize,
    end: usize,
    depth: usize,
}

// === impl ParseError ===

impl ParseError {
    pub(super) const fn new(at: usize, what: &'static str) -> Self {
        Self { at, what }
    }
}

// === impl Parser ===

impl Parser {
    fn error(&self, what: &'static str) -> ParseError {
        ParseError::new(self.tokens.get(self.position).map_or(self.end, |(at, _)| *at), what)
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.position).map(|(_, token)| token)
    }

    fn take_sign(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Sign(found)) if *found == sign);
        self.position += usize::from(found);
        found
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Word(found)) if found == word);
        self.position += usize::from(found);
        found
    }

    fn word(&mut self) -> Option<String> {
        let Some(Token::Word(word)) = self.peek().cloned() else { return None };
        self.position += 1;
        Some(word)
    }

    fn duration(&mut self) -> Option<Duration> {
        let Some(&Token::Duration(millis)) = self.peek() else { return None };
        self.position += 1;
        Some(Duration::from_millis(millis))
    }

    /// What binds more strongly than `weakest`.
    fn expression(&mut self, weakest: u8) -> Result<Expression, ParseError> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(self.error("too deeply nested"));
        }
        let mut left = self.operand()?;
        while let Some(operator) = self.operator().filter(|operator| operator.strength() > weakest) {
            self.position += 1;
            if self.take_word("bool") {
                return Err(self.error("`bool` is not supported"));
            }
            let matching = self.matching()?;
            let right = self.expression(operator.strength())?;
            left = Expression::Binary(Box::new(Binary { operator, matching, left, right }));
        }
        self.depth -= 1;
        Ok(left)
    }

    fn operator(&self) -> Option<Operator> {
        Some(match self.peek()? {
            Token::Word(word) => match word.as_str() {
                "or" => Operator::Or,
                "and" => Operator::And,
                "unless" => Operator::Unless,
                _ => return None,
            },
            Token::Sign(sign) => match *sign {
                "==" => Operator::Equal,
                "!=" => Operator::NotEqual,
                "<" => Operator::Less,
                "<=" => Operator::LessOrEqual,
                ">" => Operator::Greater,
                ">=" => Operator::GreaterOrEqual,
                "+" => Operator::Add,
                "-" => Operator::Subtract,
                "*" => Operator::Multiply,
                "/" => Operator::Divide,
                "%" => Operator::Modulo,
                _ => return None,
            },
            _ => return None,
        })
    }

    fn matching(&mut self) -> Result<Option<Matching>, ParseError> {
        let matching = if self.take_word("on") {
            Some(Matching::On(self.labels()?))
        } else if self.take_word("ignoring") {
            Some(Matching::Ignoring(self.labels()?))
        } else {
            None
        };
        match self.peek() {
            Some(Token::Word(word)) if word == "group_left" || word == "group_right" => Err(self.error("`group_left` is not supported")),
            _ => Ok(matching),
        }
    }

    /// `(a, b)`.
    fn labels(&mut self) -> Result<Vec<String>, ParseError> {
        let mut labels = Vec::new();
        if !self.take_sign("(") {
            return Err(self.error("labels in parentheses are missing"));
        }
        while !self.take_sign(")") {
            labels.push(self.word().ok_or_else(|| self.error("the name of a label is missing"))?);
            self.take_sign(",");
        }
        Ok(labels)
    }

    fn operand(&mut self) -> Result<Expression, ParseError> {
        if self.take_sign("-") {
            // A sign binds more strongly than any operator that there is here.
            return Ok(Expression::Negate(Box::new(self.expression(u8::MAX)?)));
        }
        if self.take_sign("(") {
            let inner = self.expression(0)?;
            return if self.take_sign(")") { Ok(inner) } else { Err(self.error("a closing parenthesis is missing")) };
        }
        if let Some(&Token::Number(number)) = self.peek() {
            self.position += 1;
            return Ok(Expression::Number(number));
        }
        let word = self.word().ok_or_else(|| self.error("a value is missing"))?;
        if let Some(aggregation) = aggregation(&word) {
            return self.aggregate(aggregation);
        }
        if matches!(self.peek(), Some(Token::Sign("("))) {
            let function = function(&word).ok_or_else(|| self.error("this function is not supported"))?;
            return Ok(Expression::Call(function, self.arguments()?));
        }
        self.selector(word)
    }

    fn arguments(&mut self) -> Result<Vec<Expression>, ParseError> {
        let mut arguments = Vec::new();
        self.take_sign("(");
        while !self.take_sign(")") {
            arguments.push(self.expression(0)?);
            if !self.take_sign(",") && !matches!(self.peek(), Some(Token::Sign(")"))) {
                return Err(self.error("a closing parenthesis is missing"));
            }
        }
        Ok(arguments)
    }

    fn aggregate(&mut self, aggregation: Aggregation) -> Result<Expression, ParseError> {
        let before = self.grouping()?;
        let mut arguments = self.arguments()?;
        let grouping = if before.is_some() { before } else { self.grouping()? };
        let (Some(inner), true) = (arguments.pop(), arguments.is_empty()) else {
            return Err(self.error("an aggregation takes one value"));
        };
        Ok(Expression::Aggregate(aggregation, grouping.unwrap_or(Grouping::By(Vec::new())), Box::new(inner)))
    }

    fn grouping(&mut self) -> Result<Option<Grouping>, ParseError> {
        if self.take_word("by") {
            return Ok(Some(Grouping::By(self.labels()?)));
        }
        if self.take_word("without") {
            return Ok(Some(Grouping::Without(self.labels()?)));
        }
        Ok(None)
    }

    fn selector(&mut self, name: String) -> Result<Expression, ParseError> {
        let mut selector = Selector { name, matchers: Vec::new(), offset: Duration::ZERO };
        if self.take_sign("{") {
            while !self.take_sign("}") {
                selector.matchers.push(self.matcher()?);
                self.take_sign(",");
            }
        }
        let window = self.duration();
        if self.take_word("offset") {
            selector.offset = self.duration().ok_or_else(|| self.error("the time of the offset is missing"))?;
        }
        Ok(match window {
            Some(window) => Expression::Range(selector, window),
            None => Expression::Instant(selector),
        })
    }

    fn matcher(&mut self) -> Result<Matcher, ParseError> {
        let label = self.word().ok_or_else(|| self.error("the name of a label is missing"))?;
        let sign = match self.peek() {
            Some(&Token::Sign(sign)) => sign,
            _ => return Err(self.error("a matcher has one of = != =~ !~")),
        };
        self.position += 1;
        let Some(Token::Text(text)) = self.peek().cloned() else { return Err(self.error("a text in quotes is missing")) };
        let regex = || Regex::new(&format!("^(?s:{text})$")).map_err(|_| self.error("this is no regular expression"));
        let test = match sign {
            "=" => Test::Equal(text),
            "!=" => Test::NotEqual(text),
            "=~" => Test::Fits(regex()?),
            "!~" => Test::FitsNot(regex()?),
            _ => return Err(self.error("a matcher has one of = != =~ !~")),
        };
        self.position += 1;
        Ok(Matcher { label, test })
    }
}

fn aggregation(word: &str) -> Option<Aggregation> {
    Some(match word {
        "count" => Aggregation::Count,
        "max" => Aggregation::Max,
        "min" => Aggregation::Min,
        "sum" => Aggregation::Sum,
        _ => return None,
    })
}

fn function(word: &str) -> Option<Function> {
    Some(match word {
        "abs" => Function::Abs,
        "absent" => Function::Absent,
        "avg_over_time" => Function::AvgOverTime,
        "changes" => Function::Changes,
        "increase" => Function::Increase,
        "last_over_time" => Function::LastOverTime,
        "max_over_time" => Function::MaxOverTime,
        "min_over_time" => Function::MinOverTime,
        "present_over_time" => Function::PresentOverTime,
        "round" => Function::Round,
        "scalar" => Function::Scalar,
        "time" => Function::Time,
        "vector" => Function::Vector,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tree with all its parentheses.
    fn shown(expression: &Expression) -> String {
        let selector = |selector: &Selector| {
            let offset = if selector.offset.is_zero() { String::new() } else { format!(" offset {}s", selector.offset.as_secs()) };
            (format!("{}{}", selector.name, "{}".repeat(usize::from(!selector.matchers.is_empty()))), offset)
        };
        match expression {
            Expression::Number(number) => number.to_string(),
            Expression::Instant(instant) => selector(instant).0 + &selector(instant).1,
            Expression::Range(range, window) => format!("{}[{}s]{}", selector(range).0, window.as_secs(), selector(range).1),
            Expression::Call(function, arguments) => {
                format!("{function:?}({})", arguments.iter().map(shown).collect::<Vec<_>>().join(", "))
            }
            Expression::Aggregate(aggregation, grouping, inner) => format!("{aggregation:?} {grouping:?} ({})", shown(inner)),
            Expression::Negate(inner) => format!("-({})", shown(inner)),
            Expression::Binary(binary) => {
                let matching = binary.matching.as_ref().map_or_else(String::new, |matching| format!(" {matching:?}"));
                format!("({} {:?}{matching} {})", shown(&binary.left), binary.operator, shown(&binary.right))
            }
        }
    }

    #[track_caller]
    fn check(query: &str, tree: &str) {
        let found = parse(query).map_or_else(|error| error.to_string(), |expression| shown(&expression));
        assert_eq!(found, tree, "{query}");
    }

    #[test]
    fn operators_bind_as_in_prometheus() {
        check("1 + 2 * 3 - 4", "((1 Add (2 Multiply 3)) Subtract 4)");
        check("a < b or c and d unless e", "((a Less b) Or ((c And d) Unless e))");
        check("a / (b >= 20) > 0.1", "((a Divide (b GreaterOrEqual 20)) Greater 0.1)");
        check("-a * 2 == b", "((-(a) Multiply 2) Equal b)");
        check("a and on (job, instance) b", "(a And On([\"job\", \"instance\"]) b)");
        check("a / ignoring (x) b", "(a Divide Ignoring([\"x\"]) b)");
    }

    #[test]
    fn selectors_functions_and_aggregations_are_read() {
        check("up{job=~\".*\", x!=\"\\\"}\"}", "up{}");
        check("round(increase(a:b_total{x=\"y\"}[1h30m]), 1)", "Round(Increase(a:b_total{}[5400s]), 1)");
        check("a[90m] offset 270m", "a[5400s] offset 16200s");
        check("sum without (x) (a) > 1", "(Sum Without([\"x\"]) (a) Greater 1)");
        check("max(a) by (x, y)", "Max By([\"x\", \"y\"]) (a)");
        check("count(a)", "Count By([]) (a)");
        check("1 - # a comment\n time()", "(1 Subtract Time())");
    }

    #[test]
    fn what_is_no_query_is_refused_with_its_place() {
        check("", "byte 0 of the query: a value is missing");
        check("a >", "byte 3 of the query: a value is missing");
        check("(a", "byte 2 of the query: a closing parenthesis is missing");
        check("a b", "byte 2 of the query: nothing may follow here");
        check("a{x=1}", "byte 4 of the query: a text in quotes is missing");
        check("a{x=~\"(\"}", "byte 5 of the query: this is no regular expression");
        check("a{x=\"", "byte 4 of the query: a text without an end");
        check("a[5]", "byte 1 of the query: no duration");
        check("a @ 1", "byte 2 of the query: an unknown sign");
        check("histogram_quantile(0.9, a)", "byte 18 of the query: this function is not supported");
        check("a > bool 1", "byte 9 of the query: `bool` is not supported");
        check("a * on (x) group_left b", "byte 11 of the query: `group_left` is not supported");
        check("ü", "byte 0 of the query: an unknown sign");
        assert!(parse(&"(".repeat(100_000)).is_err());
        assert!(parse(&"-".repeat(100_000)).is_err());
    }
}
