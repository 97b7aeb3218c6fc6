//! Which lines no rule can match, told without decoding them. Only where every rule needs a text that stands in the line
//! as it is written in the rule, and only where the configuration allows lines that nobody has checked. Pure.
//!
//! A line is passed over when none of these texts is in it. Whether one is, is asked of a whole buffer at a time. What is
//! decided for a line depends on it and on the lines before it, never on how the stream was cut into buffers, and is
//! kept with the offset: a restart counts as no restart would have.

use aho_corasick::packed;
use serde::{Deserialize, Serialize};

/// How any character of ASCII begins where JSON writes it as an escape: such a line may hold a text in disguise.
const DISGUISE: &[u8] = b"\\u00";
/// More texts are not looked for: the search would cost more than it saves.
const MOST_TEXTS: usize = 48;
/// After so many lines it is asked whether the search is worth its cost.
const WINDOW: u32 = 1024;
/// It is not where more than one line in so many has to be decoded all the same.
const WORTH: u32 = 5;
/// So many lines are decoded without a search before it is tried again. Also after a line that was wrong had nearly been
/// passed over: where there is one, there are others.
const REST: u32 = 64 * 1024;
/// Of the lines that could be passed over, one in so many is decoded, to know how many of them are wrong.
const SAMPLE: u32 = 16;

/// What looks for texts.
#[derive(Clone, Debug)]
pub struct Sieve {
    searcher: packed::Searcher,
}

/// Where the next text stands in a buffer, as far as that is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursor {
    next: Option<usize>,
}

/// What was seen in a line before it is decoded.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Glance {
    /// Nobody has looked.
    #[default]
    None,
    /// It holds one of the texts.
    Hit,
    /// It holds none of them, and ends as an object does.
    Clear,
}

/// What becomes of a line of JSON.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Pass {
    /// It is decoded.
    Decode,
    /// It is decoded, to learn about those that are not.
    Sample,
    /// It is passed over.
    Skip,
}

/// What a stream remembers: how many of the last lines were worth the search.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Sifting {
    /// Lines of this window, and those that had to be decoded.
    looks: u32,
    hits: u32,
    /// So many lines are left until the search is tried again.
    rest: u32,
    /// Lines that could be passed over, since the last sample.
    clear: u32,
}

// === impl Sieve ===

impl Sieve {
    /// Looks for these texts, of which a rule needs one. `None` where that cannot be done, or not fast.
    #[must_use]
    pub fn new(texts: &[String]) -> Option<Self> {
        let mut texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        texts.sort_by_key(|text| text.len());
        let mut needed: Vec<&str> = Vec::new();
        for text in texts {
            // A text that holds another one is found by that.
            if !needed.iter().any(|other| text.contains(other)) {
                needed.push(text);
            }
        }
        if needed.len() > MOST_TEXTS {
            return None;
        }
        let mut builder = packed::Config::new().match_kind(packed::MatchKind::LeftmostFirst).builder();
        builder.add(DISGUISE).extend(needed);
        builder.build().map(|searcher| Self { searcher })
    }

    /// Looks at a line that begins at `at` of a buffer, or is in none. Lines come in the order of the buffer.
    #[inline]
    #[must_use]
    pub fn glance(&self, line: &[u8], buffer: &[u8], at: Option<usize>, cursor: &mut Cursor) -> Glance {
        // What is cut off, and what is no object, is looked at by those who know what it is.
        if line.trim_ascii_end().last() != Some(&b'}') {
            return Glance::None;
        }
        let is_hit = match at {
            Some(at) => {
                let next = match cursor.next {
                    Some(next) if next >= at => next,
                    _ => {
                        let span = aho_corasick::Span::from(at..buffer.len());
                        let found = self.searcher.find_in(buffer, span).map_or(buffer.len(), |found| found.start());
                        *cursor.next.insert(found)
                    }
                };
                next < at + line.len()
            }
            None => self.searcher.find(line).is_some(),
        };
        if is_hit { Glance::Hit } else { Glance::Clear }
    }
}

// === impl Sifting ===

impl Sifting {
    /// Whether the next line is to be looked at.
    #[inline]
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.rest == 0
    }

    /// What becomes of a line of JSON.
    #[inline]
    pub fn decide(&mut self, glance: Glance) -> Pass {
        if self.rest > 0 {
            self.rest -= 1;
            return Pass::Decode;
        }
        self.looks += 1;
        self.hits += u32::from(glance != Glance::Clear);
        if self.looks == WINDOW {
            if self.hits > WINDOW / WORTH {
                self.rest = REST;
            }
            (self.looks, self.hits) = (0, 0);
        }
        if glance != Glance::Clear {
            return Pass::Decode;
        }
        self.clear += 1;
        if self.clear < SAMPLE {
            return Pass::Skip;
        }
        self.clear = 0;
        Pass::Sample
    }

    /// A line that was a sample is wrong: all lines are decoded for a while.
    #[cold]
    pub fn distrust(&mut self) {
        self.rest = REST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sieve(texts: &[&str]) -> Sieve {
        Sieve::new(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn lines_are_told_apart_within_a_buffer_and_alone() {
        let sieve = sieve(&["call failed", "LLM call failed", "Query executed"]);
        let lines = [
            (r#"{"msg":"LLM call failed"}"#, Glance::Hit),
            (r#"{"msg":"LLM call"}"#, Glance::Clear),
            (r#"{"msg":"Query exec"#, Glance::None),
            (r#"{"msg":"uted"}"#, Glance::Clear),
            (r#"{"msg":"\u0051uery executed"}"#, Glance::Hit),
            (r#"{"msg":"\u2014"}"#, Glance::Clear),
            ("{\"msg\":\"x\"}\r", Glance::Clear),
            ("", Glance::None),
            (r#"{"msg":"Query executed"}"#, Glance::Hit),
        ];
        let buffer = lines.map(|(line, _)| line).join("\n");
        let (mut cursor, mut at) = (Cursor::default(), 0);
        for (line, expected) in lines {
            assert_eq!(sieve.glance(line.as_bytes(), buffer.as_bytes(), Some(at), &mut cursor), expected, "{line}");
            assert_eq!(sieve.glance(line.as_bytes(), b"", None, &mut Cursor::default()), expected, "{line}");
            at += line.len() + 1;
        }
    }

    #[test]
    fn a_search_that_is_not_worth_it_rests_and_is_tried_again() {
        let mut sifting = Sifting::default();
        let pass =
            |sifting: &mut Sifting, number: u32, hits: u32| sifting.decide(if number % 100 < hits { Glance::Hit } else { Glance::Clear });
        let skipped = (0..100 * WINDOW).filter(|number| pass(&mut sifting, *number, 15) == Pass::Skip).count();
        // 85 % are clear, and 15 of 16 of those are passed over.
        assert_eq!(skipped as u32, 100 * WINDOW * 85 / 100 * 15 / 16);
        (0..WINDOW).for_each(|number| assert_ne!(pass(&mut sifting, number % 25, 25), Pass::Skip));
        assert!(!sifting.is_on());
        (0..REST).for_each(|number| assert_eq!(pass(&mut sifting, number, 0), Pass::Decode));
        assert!(sifting.is_on());
        assert_eq!(pass(&mut sifting, 1, 0), Pass::Skip);
        sifting.distrust();
        assert!(!sifting.is_on());
    }
}
