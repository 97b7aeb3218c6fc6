//! The standard input: the same lines and rules, but no offset. What was read since the last snapshot is lost with a
//! crash, because a pipe cannot be read twice.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::logs::decoder::Decoder;
use crate::logs::framing::Framing;
use crate::logs::lines::Lines;
use crate::logs::metrics::InputSeries;
use crate::logs::outcome::Tally;
use crate::logs::state::Shared;
use crate::logs::watch::Bell;
use crate::series::families::Families;

/// How soon the stop is seen while nothing comes.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
/// As large as a pipe.
const BUFFER: usize = 64 * 1024;
/// So many buffers are read after the stop: what was written before it counts, an endless stream does not hold it up.
const LAST_BUFFERS: usize = 64;

/// What the standard input is read with.
#[derive(Clone, Debug)]
pub struct Stdin {
    /// Where it is counted.
    pub series: InputSeries,
    /// Its own decoder, which no other thread has.
    pub decoder: Decoder,
}

/// A stream that is read once, from its begin to its end.
#[derive(Debug, Default)]
pub struct Stream {
    lines: Lines,
    framing: Framing,
}

/// Reads the standard input until it ends or the process stops.
pub fn read_stdin(stdin: Stdin, shared: &Shared, bell: &Bell) {
    let input = io::stdin();
    let read = input.as_fd().try_clone_to_owned().map(File::from).and_then(|file| read_until_stop(file, stdin, shared, bell));
    match read {
        Ok(()) => tracing::info!("the standard input has ended"),
        Err(error) => tracing::error!(%error, "the standard input cannot be read any more"),
    }
}

/// Reads a pipe, a terminal or a file until it ends or the bell says stop.
///
/// # Errors
/// When it cannot be read.
pub fn read_until_stop(mut input: File, stdin: Stdin, shared: &Shared, bell: &Bell) -> io::Result<()> {
    let Stdin { series, mut decoder } = stdin;
    let mut stream = Stream::default();
    let mut buffer = vec![0; BUFFER];
    let mut left = LAST_BUFFERS;
    loop {
        let is_stopping = bell.is_stopping();
        let is_ready = match poll(&mut [PollFd::new(&input, PollFlags::IN)], Some(&PATIENCE)) {
            Ok(ready) => ready > 0,
            Err(rustix::io::Errno::INTR) => false,
            Err(error) => return Err(error.into()),
        };
        left -= usize::from(is_stopping && left > 0);
        if !is_ready && !is_stopping {
            continue;
        }
        let read = if is_ready && left > 0 { input.read(&mut buffer)? } else { 0 };
        let mut families = shared.families.lock();
        let tally = stream.take(&buffer[..read], &mut decoder, &mut families);
        series.commit(&tally, read as u64, &mut families);
        drop(families);
        shared.changed();
        if read == 0 {
            break;
        }
    }
    Ok(())
}

// === impl Stream ===

impl Stream {
    /// Counts the lines of the next bytes. None are the end: a last line that has no end counts.
    pub fn take(&mut self, bytes: &[u8], decoder: &mut Decoder, families: &mut Families) -> Tally {
        if !bytes.is_empty() {
            return decoder.feed(bytes, &mut self.lines, &mut self.framing, families);
        }
        let mut tally = decoder.finish(&mut self.lines, &mut self.framing, families);
        tally.dropped(self.framing.give_up());
        tally
    }
}
