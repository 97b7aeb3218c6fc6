//! Whole streams through the same decoder and rules, for `bellwether logs replay`.

use std::io::{self, Read};

use crate::config::logs::Logs;
use crate::logs::decoder::Decoder;
use crate::logs::engine::LogsError;
use crate::logs::metrics::InputSeries;
use crate::logs::stdin::Stream;
use crate::series::families::SharedFamilies;
use crate::series::rules::RuleSet;

const BUFFER: usize = 256 * 1024;

/// Counts a stream to its end, with the rules of a configuration, under the name of an input. `families` may be empty
/// or have the values of streams before it; wrap the reader to see how far it is. A last line without an end counts.
///
/// # Errors
/// When the rules contradict each other, or the stream cannot be read; what was read until then is counted.
pub fn replay(config: &Logs, mut reader: impl Read, input: &str, families: &SharedFamilies) -> Result<(), LogsError> {
    let mut families = families.lock();
    let rules = RuleSet::compile(&config.rules, &mut families).map_err(LogsError::Rules)?;
    let series = InputSeries::declare(input, &mut families).map_err(LogsError::Rules)?;
    let mut decoder = Decoder::new(rules, config.max_line);
    let mut stream = Stream::new(&mut decoder, config.max_line);
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = match reader.read(&mut buffer) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(cause) => return Err(LogsError::Read { input: input.to_owned(), cause }),
        };
        let tally = if read == 0 { stream.finish(&mut families) } else { stream.feed(&buffer[..read], &mut families) };
        series.commit(&tally, read as u64, &mut families);
        if read == 0 {
            return Ok(());
        }
    }
}
