//! Whole streams through the decoder and the rules, with an account of every line: what it is, where it stands, which
//! rules count it and why the others do not. For people; nothing here is fast.

use std::io::{self, Read};

use crate::config::logs::Logs;
use crate::logs::decoder::Decoder;
use crate::logs::engine::LogsError;
use crate::logs::fault::Fault;
use crate::logs::framing::Framing;
use crate::logs::lines::{Lines, Piece};
use crate::logs::outcome::Outcome;
use crate::logs::seen::{COMMON, Seen};
use crate::series::families::SharedFamilies;
use crate::series::rules::RuleSet;

const BUFFER: usize = 64 * 1024;

/// Accounts for lines, one after the other.
#[derive(Debug)]
pub struct Explainer {
    decoder: Decoder,
    families: SharedFamilies,
    max_line: usize,
}

/// The account of one line.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// From 1.
    pub number: u64,
    /// Where it begins, in bytes from the begin of the stream.
    pub offset: u64,
    /// The line; only its begin where it was too long.
    pub line: Vec<u8>,
    /// What became of it; `None` for a part of a line, whose outcome comes with the last part.
    pub outcome: Option<&'static str>,
    /// What is wrong with it.
    pub fault: Option<Fault>,
    /// What was found in it.
    pub seen: Seen,
}

// === impl Explainer ===

impl Explainer {
    /// Prepares the rules of a configuration.
    ///
    /// # Errors
    /// When they contradict each other.
    pub fn new(config: &Logs) -> Result<Self, LogsError> {
        let families = SharedFamilies::default();
        let mut rules = RuleSet::for_logs(&config.rules, &mut families.lock()).map_err(LogsError::Rules)?;
        COMMON.into_iter().for_each(|field| rules.want(field));
        let mut decoder = Decoder::new(rules, config.max_line);
        decoder.watch();
        Ok(Self { decoder, families, max_line: config.max_line })
    }

    /// Accounts for every line of a stream. A last line without an end is one.
    ///
    /// # Errors
    /// When the stream cannot be read, or `found` fails; the lines until then have been accounted for.
    pub fn stream(&mut self, mut reader: impl Read, mut found: impl FnMut(&Explanation) -> io::Result<()>) -> io::Result<()> {
        let (mut lines, mut framing, mut buffer) = (Lines::default(), Framing::default(), vec![0; BUFFER]);
        let (mut number, mut fed, max_line) = (0, 0, self.max_line);
        loop {
            let read = match reader.read(&mut buffer) {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let (begin, mut result) = (fed - lines.rest().len() as u64, Ok(()));
            let mut account = |line: &[u8], offset: u64, is_too_long: bool| {
                number += 1;
                let explanation = self.account(line, (number, offset), is_too_long, &mut framing);
                if result.is_ok() {
                    result = found(&explanation);
                }
            };
            if read == 0 {
                let rest = lines.finish();
                if !rest.is_empty() {
                    account(&rest, begin, false);
                }
                return result;
            }
            lines.feed(&buffer[..read], max_line, |piece, place| match piece {
                Piece::Line(line) => account(line, begin + place.at as u64, false),
                Piece::TooLong => account(b"", begin + place.at as u64, true),
            });
            result?;
            fed += read as u64;
        }
    }

    fn account(&mut self, line: &[u8], (number, offset): (u64, u64), is_too_long: bool, framing: &mut Framing) -> Explanation {
        let outcome = match is_too_long {
            true => Some(Outcome::TooLong),
            false => self.decoder.line(line, framing, &mut self.families.lock()),
        };
        let fault = match outcome {
            Some(Outcome::Malformed(fault)) => Some(fault),
            _ => None,
        };
        let outcome = outcome.map(|outcome| Outcome::NAMES[outcome.number()]);
        Explanation { number, offset, line: line.to_vec(), outcome, fault, seen: self.decoder.take_seen() }
    }
}
