//! The standard error, where our own log and what a command writes there meet: a line of ours never stands within a line
//! of the command, and a frozen reader of the one does not hold up the other.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// So much of our own log waits for the end of the command's line. What comes beyond is dropped: it is a log.
const MAX_WAITING: usize = 64 * 1024;

/// The standard error, to be cloned for each who writes there.
#[derive(Clone, Debug, Default)]
pub struct SharedStderr(Arc<Mutex<Turn>>);

#[derive(Debug, Default)]
struct Turn {
    /// The command has begun a line and not ended it.
    is_within_line: bool,
    /// What we would like to say.
    waiting: Vec<u8>,
}

// === impl SharedStderr ===

impl SharedStderr {
    /// Passes on what the command wrote, with our own lines between its lines.
    ///
    /// # Errors
    /// When it cannot be written, as when its reader has gone away.
    pub fn pass(&self, bytes: &[u8]) -> io::Result<()> {
        let mut turn = self.lock();
        pass(&mut turn, bytes, &mut io::stderr())
    }

    fn lock(&self) -> MutexGuard<'_, Turn> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pass(turn: &mut Turn, bytes: &[u8], output: &mut impl Write) -> io::Result<()> {
    let ended = memchr::memrchr(b'\n', bytes).map_or(0, |end| end + 1);
    if turn.waiting.is_empty() || ended == 0 {
        output.write_all(bytes)?;
    } else {
        output.write_all(&bytes[..ended])?;
        output.write_all(&std::mem::take(&mut turn.waiting))?;
        output.write_all(&bytes[ended..])?;
    }
    if let Some(last) = bytes.last() {
        turn.is_within_line = *last != b'\n';
    }
    Ok(())
}

fn say(turn: &mut Turn, line: &[u8], output: &mut impl Write) -> io::Result<()> {
    if !turn.is_within_line {
        return output.write_all(line);
    }
    if turn.waiting.len() + line.len() <= MAX_WAITING {
        turn.waiting.extend_from_slice(line);
    }
    Ok(())
}

/// Whole lines of our own log.
impl Write for SharedStderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut turn = self.lock();
        say(&mut turn, line, &mut io::stderr())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_lines_stand_between_the_lines_of_the_command() {
        let (mut turn, mut output) = (Turn::default(), Vec::new());
        say(&mut turn, b"<ours 1>\n", &mut output).unwrap();
        pass(&mut turn, b"one\ntw", &mut output).unwrap();
        say(&mut turn, b"<ours 2>\n", &mut output).unwrap();
        pass(&mut turn, b"", &mut output).unwrap();
        pass(&mut turn, b"o ", &mut output).unwrap();
        pass(&mut turn, b"half\nthr", &mut output).unwrap();
        pass(&mut turn, b"ee\n", &mut output).unwrap();
        say(&mut turn, b"<ours 3>\n", &mut output).unwrap();
        assert_eq!(String::from_utf8(output).unwrap(), "<ours 1>\none\ntwo half\n<ours 2>\nthree\n<ours 3>\n");
    }

    #[test]
    fn what_waits_is_bounded() {
        let (mut turn, mut output) = (Turn::default(), Vec::new());
        pass(&mut turn, b"within", &mut output).unwrap();
        (0..10_000).for_each(|_| say(&mut turn, &[b'x'; 100], &mut output).unwrap());
        assert!(turn.waiting.len() <= MAX_WAITING && output == b"within");
    }
}
