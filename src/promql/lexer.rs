//! A query as its smallest pieces.

use super::parser::ParseError;

/// A piece of a query.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// A name of a metric, label, function or operator.
    Word(String),
    /// A text in quotes.
    Text(String),
    /// A number.
    Number(f64),
    /// `[5m]` and the time of `offset 5m`, in milliseconds.
    Duration(u64),
    /// Anything else, one or two characters long.
    Sign(&'static str),
}

const SIGNS: [&str; 20] = ["=~", "!~", "!=", "==", "<=", ">=", "<", ">", "=", "+", "-", "*", "/", "%", "(", ")", "{", "}", ",", ":"];

/// The pieces of a query and where each begins, in bytes.
pub(super) fn tokens(query: &str) -> Result<Vec<(usize, Token)>, ParseError> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(first) = query[at..].chars().next() {
        let rest = &query[at..];
        let (length, token) = match first {
            _ if first.is_whitespace() => (first.len_utf8(), None),
            '#' => (rest.find('\n').unwrap_or(rest.len()), None),
            '"' | '\'' => text(rest, first)
                .map(|(length, text)| (length, Some(Token::Text(text))))
                .ok_or(ParseError::new(at, "a text without an end"))?,
            '[' => {
                let length = rest.find(']').ok_or(ParseError::new(at, "a range without an end"))? + 1;
                let window = duration(rest[1..length - 1].trim()).ok_or(ParseError::new(at, "no duration"))?;
                (length, Some(Token::Duration(window)))
            }
            '0'..='9' | '.' => {
                let length = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '.')).unwrap_or(rest.len());
                let token = rest[..length].parse().map(Token::Number).ok().or_else(|| duration(&rest[..length]).map(Token::Duration));
                (length, Some(token.ok_or(ParseError::new(at, "neither a number nor a duration"))?))
            }
            _ if first.is_ascii_alphabetic() || first == '_' => {
                let length = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':')).unwrap_or(rest.len());
                (length, Some(Token::Word(rest[..length].to_owned())))
            }
            _ => {
                let sign = SIGNS.into_iter().find(|sign| rest.starts_with(sign)).ok_or(ParseError::new(at, "an unknown sign"))?;
                (sign.len(), Some(Token::Sign(sign)))
            }
        };
        tokens.extend(token.map(|token| (at, token)));
        at += length;
    }
    Ok(tokens)
}

/// The text up to the closing quote, and how long it is with its quotes.
fn text(rest: &str, quote: char) -> Option<(usize, String)> {
    let mut text = String::new();
    let mut characters = rest.char_indices().skip(1);
    while let Some((at, character)) = characters.next() {
        match character {
            _ if character == quote => return Some((at + 1, text)),
            '\\' => text.push(match characters.next()?.1 {
                'n' => '\n',
                't' => '\t',
                other => other,
            }),
            other => text.push(other),
        }
    }
    None
}

/// `1h30m` in milliseconds.
pub(super) fn duration(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut sum = 0_u64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|digits| *digits > 0)?;
        let unit_end = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |length| digits + length);
        let factor = match &rest[digits..unit_end] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            _ => return None,
        };
        sum = sum.checked_add(rest[..digits].parse::<u64>().ok()?.checked_mul(factor)?)?;
        rest = &rest[unit_end..];
    }
    (!text.is_empty()).then_some(sum)
}
