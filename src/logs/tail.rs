//! One file that is followed: read, cut into lines, decoded, counted, a buffer at a time.
//!
//! Owns the descriptor. Which file stands at which path is `shard`'s business; what becomes of a content that was cut off
//! is told in `cut`.

mod cut;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use crate::clock;
use crate::logs::decoder::Decoder;
use crate::logs::file::{BEFORE, HEAD, Known, Look, Mark, Seen, before_of, head_of, last_of, read_at};
use crate::logs::interlude;
use crate::logs::lines::Lines;
use crate::logs::metrics::InputSeries;
use crate::logs::outcome::Tally;
use crate::logs::revision::Edition;
use crate::logs::state::{Done, Position, Shared};
use crate::series::families::Families;

/// What a thread reads files with, one at a time.
#[derive(Clone, Debug)]
pub struct Reader {
    /// Where everything is counted in the end.
    pub shared: Arc<Shared>,
    /// Decodes lines and runs the rules.
    pub decoder: Decoder,
    /// What has been counted and is not yet shared: that happens together with the offset, a buffer at a time.
    pub counted: Families,
    /// The buffer that all files are read into.
    pub buffer: Vec<u8>,
    /// Which rules it runs.
    pub edition: Edition,
}

/// Whether a file needs another turn.
#[derive(Debug)]
pub enum Turn {
    /// There is more to read.
    More,
    /// It was read to its end; whether there was anything.
    End(bool),
    /// It cannot be read.
    Failed(io::Error),
}

/// A file that is followed.
#[derive(Debug)]
pub struct Tail {
    file: File,
    lines: Lines,
    /// The bytes before the offset.
    before: Vec<u8>,
    /// When it was last written to, and whether that was news at the last look.
    modified: Option<(i64, i64)>,
    is_changing: bool,
    /// How long it was at the last look; that may have been after a truncation that is not known yet.
    size: u64,
    /// It was cut off before it was renamed: copies that are younger than its last known content are its successor's
    /// business, so that is the moment which stays in the position.
    has_unread_copies: bool,
    /// How far it is counted; what the shared state says of it.
    pub position: Position,
    /// The number of its input.
    pub input: usize,
    /// Since when it has been at none of the paths, or the last sign of life after that.
    pub leaving: Option<Instant>,
    /// Where it really is, when it was found through a link.
    pub target: Option<PathBuf>,
}

/// What a read found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// There may be more.
    More,
    /// That was all; whether there was anything.
    End(bool),
}

/// Where a file that is new begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Begin {
    /// With its first byte.
    Start,
    /// With the first line that ends from now on.
    End,
}

/// Opens a regular file; never waits, as it would for the other end of a pipe that took its place.
///
/// # Errors
/// When it cannot be opened, or is no file.
pub fn open(path: &Path) -> io::Result<(File, Seen)> {
    let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    interlude::pass();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok((file, Seen::of(&metadata)))
}

// === impl Reader ===

impl Reader {
    /// Takes rules over that have changed. Nothing that was counted by others waits in between.
    fn keep_current(&mut self) {
        if let Some(decoder) = self.shared.rules.newer_than(&mut self.edition) {
            self.decoder.take_rules_of(decoder);
            self.counted = self.shared.commit().families.delta();
        }
    }
}

// === impl Tail ===

impl Tail {
    /// Follows a file that has not been known.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn new(file: File, look: Look, input: (usize, &str), path: PathBuf, begin: Begin, max_line: usize) -> io::Result<Self> {
        let Look { seen, head } = look;
        let offset = match begin {
            Begin::Start => 0,
            Begin::End => line_begin(&file, seen.size, max_line)?,
        };
        let before = before_of(&file, offset, BEFORE)?;
        // It has been cut off since the look: all that is in it was written after that.
        let offset = if (before.len() as u64) < offset.min(BEFORE as u64) { 0 } else { offset };
        let before = if offset == 0 { Vec::new() } else { before };
        let known = Known { identity: seen.identity, offset, head, before: Mark::of(&before) };
        let position = Position::new(input.1, path, known, &seen);
        Ok(Self::of(file, seen.size, input.0, position, before))
    }

    /// Follows a file that was known before. Whether it goes on, or holds something else now; see [`Tail::truncated`]. Where
    /// next to nothing was known of it, [`Tail::was_cut_off_unseen`] knows more, and then [`Tail::learn`] is to be called.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn resume(file: File, look: Look, input: usize, mut position: Position) -> io::Result<(Self, bool)> {
        let Look { seen, head } = look;
        let (goes_on, before) = position.known.goes_on_in(&file, &seen)?;
        if goes_on {
            position.size = position.size.max(seen.size);
            if usize::from(position.known.head.length) >= BEFORE {
                position.known.head = head;
            }
        }
        Ok((Self::of(file, seen.size, input, position, before), goes_on))
    }

    /// It goes on: whatever is known of its length, there is something to recognise it by.
    pub fn learn(&mut self, look: &Look) {
        if look.head.length > self.position.known.head.length {
            self.position.known.head = look.head;
        }
    }

    fn of(file: File, size: u64, input: usize, position: Position, before: Vec<u8>) -> Self {
        let lines = Lines::at(position.skipping);
        Self {
            file,
            lines,
            before,
            modified: None,
            is_changing: true,
            size,
            has_unread_copies: false,
            position,
            input,
            leaving: None,
            target: None,
        }
    }

    /// Up to where it has been read; a line whose end has not come is read, but not counted.
    #[must_use]
    pub fn read_to(&self) -> u64 {
        self.position.known.offset + self.lines.rest().len() as u64
    }

    /// Whether another file has the same content, as far as that goes.
    #[must_use]
    pub fn has_prefix(&self, other: &File, size: u64) -> bool {
        let same = || -> io::Result<bool> {
            let head = self.position.known.head;
            // Once it is cut off, only what is remembered of it tells.
            if head_of(&self.file, usize::from(head.length))? != head {
                return Ok(head_of(other, usize::from(head.length))? == head);
            }
            let heads = (head_of(&self.file, HEAD.min(usize::try_from(size).unwrap_or(HEAD)))?, head_of(other, HEAD)?);
            Ok(heads.0 == heads.1 && before_of(&self.file, size, BEFORE)? == before_of(other, size, BEFORE)?)
        };
        size > 0 && size <= self.read_to() && same().unwrap_or(false)
    }

    /// Notes a look at the file. Whether it may have changed: a file that was truncated and has regrown can have the
    /// same length, and a change within the same tick of the kernel's clock the same time, so the look after a change
    /// is one too.
    pub fn note(&mut self, seen: &Seen) -> bool {
        self.note_shrinking(seen.size);
        let has_changed = self.modified != Some(seen.modified);
        let was_changing = std::mem::replace(&mut self.is_changing, has_changed);
        self.modified = Some(seen.modified);
        has_changed || was_changing || seen.size != self.read_to()
    }

    /// How many bytes of it are not counted.
    #[must_use]
    pub fn lag(&self) -> u64 {
        self.size.saturating_sub(self.position.known.offset)
    }

    /// Reads one buffer and counts its lines. A file that has been truncated begins anew.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn step(&mut self, reader: &mut Reader, series: &InputSeries) -> io::Result<Step> {
        reader.keep_current();
        let marker = self.marker();
        let from = self.read_to();
        // The bytes before are read again: a file that was truncated and has regrown is told by them, without a call
        // of its own. So are its first bytes, until enough of them are known.
        let known = if self.is_head_complete() { marker.len() } else { usize::try_from(from).unwrap_or(marker.len()) };
        let read = read_at(&self.file, &mut reader.buffer, from - known as u64)?;
        let is_same = reader.buffer[..read].get(known - marker.len()..known).is_some_and(|before| before == marker);
        if !is_same || (from == known as u64 && !self.begins_as(&reader.buffer[..read])) {
            self.truncated(reader, series);
            return Ok(Step::More);
        }
        if read > known && self.was_cut_off_unseen(reader, series) {
            return Ok(Step::More);
        }
        // Only now it is known that this was the time of the content that is followed.
        if !self.has_unread_copies {
            self.position.modified = self.modified.unwrap_or(self.position.modified);
        }
        if read == known {
            return Ok(Step::End(false));
        }
        let is_full = read == reader.buffer.len();
        if !self.is_head_complete() {
            self.position.known.head = Mark::of(&reader.buffer[..read.min(HEAD)]);
        }
        let chunk = &reader.buffer[known..read];
        let end = from + chunk.len() as u64;
        reader.counted.set_now(clock::Moment::read());
        let tally = reader.decoder.feed(chunk, &mut self.lines, &mut self.position.framing, &mut reader.counted);
        let (old, new) = (self.position.known.offset, end - self.lines.rest().len() as u64);
        if let Some(consumed) = new.checked_sub(from).and_then(|consumed| usize::try_from(consumed).ok()) {
            self.before = last_of(&marker, &chunk[..consumed]);
            self.position.known.before = Mark::of(&self.before);
        }
        self.position.known.offset = new;
        self.position.skipping = self.lines.skipping;
        self.size = self.size.max(end);
        self.position.size = self.position.size.max(self.size);
        let mut commit = reader.shared.commit();
        commit.families.absorb(&mut reader.counted);
        series.commit(&tally, new - old, &mut commit.families);
        commit.set(&self.position);
        drop(commit);
        reader.shared.changed();
        self.keep_sample(tally, &reader.shared, old);
        Ok(if is_full { Step::More } else { Step::End(true) })
    }

    /// Reads buffers until its end, for as long as `go_on` says so.
    pub fn turn(&mut self, reader: &mut Reader, series: &InputSeries, mut go_on: impl FnMut() -> bool) -> Turn {
        while go_on() {
            match self.step(reader, series) {
                Ok(Step::More) => {}
                Ok(Step::End(was_any)) => return Turn::End(was_any),
                Err(error) => return Turn::Failed(error),
            }
        }
        Turn::More
    }

    /// Counts a last line that has no end, when nobody will write to the file any more, and forgets the file.
    pub fn finish(mut self, reader: &mut Reader, series: &InputSeries) {
        let before = last_of(&self.before, self.lines.rest());
        self.flush(reader, series);
        self.position.known.before = Mark::of(&before);
        let dropped = self.position.framing.give_up();
        self.drop_parts(dropped, &reader.shared, series);
        let mut commit = reader.shared.commit();
        series.lost(self.position.size.saturating_sub(self.position.known.offset), &mut commit.families);
        commit.forget(self.position.known.identity.inode);
        commit.done(Done { path: self.position.path, known: self.position.known });
        drop(commit);
        reader.shared.save_now();
    }

    /// Whether the first bytes are known, as many as are needed. Until then it was read from its begin, and not far.
    fn is_head_complete(&self) -> bool {
        usize::from(self.position.known.head.length) >= HEAD || self.read_to() > HEAD as u64
    }

    /// Whether these are the first bytes of the content that is followed.
    fn begins_as(&self, bytes: &[u8]) -> bool {
        let head = self.position.known.head;
        bytes.get(..usize::from(head.length)).is_some_and(|bytes| Mark::of(bytes) == head)
    }

    /// The bytes before what is read next.
    fn marker(&self) -> Vec<u8> {
        last_of(&self.before, self.lines.rest())
    }

    /// Counts a line that has no end.
    fn flush(&mut self, reader: &mut Reader, series: &InputSeries) {
        let length = self.lines.rest().len() as u64;
        if length == 0 {
            return;
        }
        reader.counted.set_now(clock::Moment::read());
        let tally = reader.decoder.finish(&mut self.lines, &mut self.position.framing, &mut reader.counted);
        let mut commit = reader.shared.commit();
        commit.families.absorb(&mut reader.counted);
        series.commit(&tally, length, &mut commit.families);
        let offset = self.position.known.offset;
        self.position.known.offset += length;
        commit.set(&self.position);
        drop(commit);
        self.keep_sample(tally, &reader.shared, offset);
    }

    /// Gives up parts of lines whose last part does not come.
    pub fn expire(&mut self, shared: &Shared, series: &InputSeries, now: Instant) {
        if !self.position.framing.is_pending() {
            return;
        }
        let dropped = self.position.framing.expire(now);
        if dropped > 0 {
            self.drop_parts(dropped, shared, series);
        }
    }

    fn drop_parts(&self, dropped: u32, shared: &Shared, series: &InputSeries) {
        let mut tally = Tally::default();
        tally.dropped(dropped);
        let mut commit = shared.commit();
        series.commit(&tally, 0, &mut commit.families);
        commit.set(&self.position);
        drop(commit);
        shared.changed();
    }

    fn keep_sample(&self, tally: Tally, shared: &Shared, base: u64) {
        if let (Some(fatal), false) = (&shared.fatal, tally.fatal.is_empty()) {
            fatal.tell(tally.fatal, &self.position.input, &self.position.path.to_string_lossy(), base);
        }
        if let Some(found) = tally.found {
            shared.samples.keep(found, &self.position.input, self.position.path.display().to_string(), base);
        }
    }
}

/// The begin of the line that is being written at the end of a file, where it is not too long ago.
fn line_begin(file: &File, size: u64, max_line: usize) -> io::Result<u64> {
    let mut bytes = vec![0; 4096];
    let mut end = size;
    while end > 0 && size - end <= max_line as u64 {
        let length = usize::try_from(end).unwrap_or(usize::MAX).min(bytes.len());
        let read = read_at(file, &mut bytes[..length], end - length as u64)?;
        if let Some(position) = memchr::memrchr(b'\n', &bytes[..read]) {
            return Ok(end - length as u64 + position as u64 + 1);
        }
        end -= length as u64;
    }
    Ok(if end == 0 { 0 } else { size })
}
