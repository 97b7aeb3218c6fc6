//! Reads all streams of a thread: whoever has something is read, one buffer at a time, so that none holds up another.

use std::fs::File;
use std::io::{self, Read as _};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::logs::decoder::Decoder;
use crate::logs::metrics::{ConnectionEvent, InputSeries};
use crate::logs::outcome::Tally;
use crate::logs::revision::Edition;
use crate::logs::state::Shared;
use crate::logs::stream::Stream;
use crate::logs::stream::door::{Door, Visit};
use crate::logs::stream::tee::Tee;

/// How soon the stop is seen while nothing comes.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
/// As large as a pipe.
const BUFFER: usize = 64 * 1024;
/// So many buffers of a stream are read after the stop: what was written before it counts, an endless stream does not
/// hold it up.
const LAST_BUFFERS: usize = 64;
/// How often unfinished lines are looked at.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// A stream, and where it is counted.
#[derive(Debug)]
pub struct Source {
    /// The name of its input.
    pub input: String,
    /// What the input counts.
    pub series: InputSeries,
    /// Who writes it.
    pub name: String,
    /// What is read.
    pub file: File,
    /// Where it is passed on to.
    pub tee: Option<Tee>,
}

/// An input that others connect to.
#[derive(Debug)]
pub struct Entrance {
    /// The name of the input.
    pub input: String,
    /// What the input counts.
    pub series: InputSeries,
    /// Where connections come in.
    pub door: Door,
}

/// All streams of a thread.
#[derive(Debug)]
pub struct Pump {
    decoder: Decoder,
    open: Vec<Open>,
    entrances: Vec<Entrance>,
    buffer: Vec<u8>,
    edition: Edition,
}

/// A stream that is being read.
#[derive(Debug)]
struct Open {
    source: Source,
    stream: Stream,
    /// The number of the door that it came through.
    entrance: Option<usize>,
    /// When something was last read from it.
    heard: Instant,
}

// === impl Pump ===

impl Pump {
    /// Prepares to read these streams, and those that come through these doors.
    #[must_use]
    pub fn new(decoder: Decoder, sources: Vec<Source>, entrances: Vec<Entrance>) -> Self {
        let now = Instant::now();
        let open = sources.into_iter().map(|source| Open { source, stream: Stream::default(), entrance: None, heard: now }).collect();
        Self { decoder, open, entrances, buffer: vec![0; BUFFER], edition: 0 }
    }

    /// Whether there is nothing to read, now and later.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty() && self.entrances.is_empty()
    }

    /// Reads until the stop, or until all streams have ended and none can come.
    pub fn run(mut self, shared: &Shared, is_stopping: &dyn Fn() -> bool) {
        let mut tidied = Instant::now();
        while !self.is_empty() && !is_stopping() {
            let (doors, mut streams) = self.wait();
            let now = Instant::now();
            streams.reverse();
            for number in streams {
                if !self.read(number, now, shared, is_stopping) {
                    self.close(number, shared);
                }
            }
            for number in doors {
                self.let_in(number, now, shared);
            }
            if now.saturating_duration_since(tidied) >= HOUSEKEEPING {
                tidied = now;
                self.tidy(now, shared);
            }
        }
        // What was written before the stop is counted before it.
        self.entrances.clear();
        while let Some(number) = self.open.len().checked_sub(1) {
            let mut left = LAST_BUFFERS;
            while left > 0 && is_ready(&self.open[number].source.file) && self.read(number, Instant::now(), shared, is_stopping) {
                left -= 1;
            }
            self.close(number, shared);
        }
    }

    /// Waits until there is something: the numbers of the doors, and of the streams.
    fn wait(&self) -> (Vec<usize>, Vec<usize>) {
        let now = Instant::now();
        let is_closed = |entrance: &Entrance| entrance.door.closed_until.is_some_and(|until| now < until);
        let doors: Vec<usize> = (0..self.entrances.len()).filter(|number| !is_closed(&self.entrances[*number])).collect();
        let mut fds: Vec<PollFd<'_>> = doors.iter().map(|number| PollFd::new(&self.entrances[*number].door, PollFlags::IN)).collect();
        fds.extend(self.open.iter().map(|open| PollFd::new(&open.source.file, PollFlags::IN)));
        // A signal may end the wait early; then nothing is ready, and it begins anew.
        let _ = poll(&mut fds, Some(&PATIENCE));
        let ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        let (at_doors, at_streams) = fds.split_at(doors.len());
        let knocking = doors.iter().zip(at_doors).filter(|(_, fd)| ready(fd)).map(|(number, _)| *number).collect();
        let speaking = at_streams.iter().enumerate().filter(|(_, fd)| ready(fd)).map(|(number, _)| number).collect();
        (knocking, speaking)
    }

    /// Reads a buffer of a stream that has something. Whether there may be more.
    fn read(&mut self, number: usize, now: Instant, shared: &Shared, is_stopping: &dyn Fn() -> bool) -> bool {
        let Open { source, heard, .. } = &mut self.open[number];
        let read = match source.file.read(&mut self.buffer) {
            Ok(0) => return false,
            Ok(read) => read,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => return true,
            Err(error) => {
                tracing::debug!(input = source.input, peer = source.name, %error, "a log stream has broken off");
                return false;
            }
        };
        *heard = now;
        let buffer = std::mem::take(&mut self.buffer);
        self.count(number, &buffer[..read], shared);
        if let Some(tee) = &mut self.open[number].source.tee {
            tee.pass(&buffer[..read], is_stopping);
        }
        self.buffer = buffer;
        true
    }

    /// Counts the lines of some bytes of a stream; none are its end.
    fn count(&mut self, number: usize, bytes: &[u8], shared: &Shared) {
        if let Some(decoder) = shared.rules.newer_than(&mut self.edition) {
            self.decoder.take_rules_of(decoder);
        }
        let Open { source, stream, .. } = &mut self.open[number];
        let mut families = shared.families.lock();
        let (tally, base) = stream.take(bytes, &mut self.decoder, &mut families);
        source.series.commit(&tally, bytes.len() as u64, &mut families);
        drop(families);
        if let (Some(fatal), false) = (&shared.fatal, tally.fatal.is_empty()) {
            fatal.tell(tally.fatal, &source.input, &source.name, base);
        }
        if let Some(found) = tally.found {
            shared.samples.keep(found, &source.input, source.name.clone(), base);
        }
        shared.changed();
    }

    /// A stream has ended: its last line counts, also without an end.
    fn close(&mut self, number: usize, shared: &Shared) {
        self.count(number, &[], shared);
        let open = self.open.swap_remove(number);
        match open.entrance {
            Some(entrance) => self.tell(entrance, None, shared),
            None => tracing::debug!(input = open.source.input, "a log stream has ended"),
        }
    }

    fn let_in(&mut self, number: usize, now: Instant, shared: &Shared) {
        // A bounded number in a row, so that the streams get their turn.
        for _ in 0..16 {
            let event = match self.entrances[number].door.accept(now) {
                Visit::Nobody => return,
                Visit::Failed => ConnectionEvent::Failed,
                Visit::Connection(file, name) => {
                    if self.has_room(number, now, shared) {
                        let Entrance { input, series, .. } = &self.entrances[number];
                        let source = Source { input: input.clone(), series: series.clone(), name, file, tee: None };
                        self.open.push(Open { source, stream: Stream::default(), entrance: Some(number), heard: now });
                        ConnectionEvent::Accepted
                    } else {
                        ConnectionEvent::Refused
                    }
                }
            };
            self.tell(number, Some(event), shared);
            if event == ConnectionEvent::Failed {
                return;
            }
        }
    }

    /// Whether there is room for one more connection. One that has long been silent makes room.
    fn has_room(&mut self, entrance: usize, now: Instant, shared: &Shared) -> bool {
        let Door { max_connections, idle_timeout, .. } = self.entrances[entrance].door;
        let here = || self.open.iter().enumerate().filter(|(_, open)| open.entrance == Some(entrance));
        if here().count() < max_connections {
            return true;
        }
        let silent = here().min_by_key(|(_, open)| open.heard);
        match silent.filter(|(_, open)| now.saturating_duration_since(open.heard) >= idle_timeout) {
            Some((number, _)) => {
                self.close(number, shared);
                self.tell(entrance, Some(ConnectionEvent::Idle), shared);
                true
            }
            None => false,
        }
    }

    /// Counts what happened at a door, and says how many are connected.
    fn tell(&self, entrance: usize, event: Option<ConnectionEvent>, shared: &Shared) {
        let count = self.open.iter().filter(|open| open.entrance == Some(entrance)).count();
        if let Some(entrance) = self.entrances.get(entrance) {
            entrance.door.series.commit(event, count as u64, &mut shared.families.lock());
            shared.changed();
        }
    }

    /// Gives up parts of lines whose last part does not come.
    fn tidy(&mut self, now: Instant, shared: &Shared) {
        for Open { source, stream, .. } in &mut self.open {
            let dropped = stream.expire(now);
            if dropped > 0 {
                let mut tally = Tally::default();
                tally.dropped(dropped);
                source.series.commit(&tally, 0, &mut shared.families.lock());
                shared.changed();
            }
        }
        self.decoder.set_held(self.open.iter().map(|open| open.stream.held()).sum());
    }
}

/// Whether a read does not wait.
fn is_ready(file: &File) -> bool {
    poll(&mut [PollFd::new(file, PollFlags::IN)], Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
}
