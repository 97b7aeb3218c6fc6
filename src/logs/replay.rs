//! Whole streams through the same decoder and rules, for `bellwether logs replay`.

use std::io::{self, Read};

use crate::config::logs::Logs;
use crate::logs::decoder::Decoder;
use crate::logs::engine::LogsError;
use crate::logs::metrics::InputSeries;
use crate::logs::stream::Stream;
use crate::series::families::SharedFamilies;
use crate::series::rules::RuleSet;

const BUFFER: usize = 256 * 1024;

/// Counts streams, one after the other.
#[derive(Debug)]
pub struct Replay {
    decoder: Decoder,
    families: SharedFamilies,
    buffer: Vec<u8>,
}

/// Counts a stream to its end, with the rules of a configuration, under the name of an input. `families` may be empty
/// or have the values of streams before it; wrap the reader to see how far it is. A last line without an end counts.
///
/// # Errors
/// When the rules contradict each other, or the stream cannot be read; what was read until then is counted.
pub fn replay(config: &Logs, reader: impl Read, input: &str, families: &SharedFamilies) -> Result<(), LogsError> {
    Replay::new(config, families)?.stream(reader, input)
}

// === impl Replay ===

impl Replay {
    /// Prepares the rules of a configuration. `families` may be empty or have the values of streams before.
    ///
    /// # Errors
    /// When the rules contradict each other.
    pub fn new(config: &Logs, families: &SharedFamilies) -> Result<Self, LogsError> {
        let rules = RuleSet::for_logs(&config.rules, &mut families.lock()).map_err(LogsError::Rules)?;
        Ok(Self { decoder: Decoder::new(rules, config.max_line), families: families.clone(), buffer: vec![0; BUFFER] })
    }

    /// Counts a stream to its end under the name of an input. A last line without an end counts.
    ///
    /// # Errors
    /// When the stream cannot be read; what was read until then is counted.
    pub fn stream(&mut self, mut reader: impl Read, input: &str) -> Result<(), LogsError> {
        let mut families = self.families.lock();
        let series = InputSeries::declare(input, &mut families).map_err(LogsError::Rules)?;
        let mut stream = Stream::default();
        loop {
            let read = match reader.read(&mut self.buffer) {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(cause) => return Err(LogsError::Read { input: input.to_owned(), cause }),
            };
            let (tally, _) = stream.take(&self.buffer[..read], &mut self.decoder, &mut families);
            series.commit(&tally, read as u64, &mut families);
            if read == 0 {
                return Ok(());
            }
        }
    }
}
