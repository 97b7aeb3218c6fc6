//! Reads what a content has beyond that which was counted of it before it was put aside.
//!
//! The position goes on with it, a buffer at a time, so that a crash in between loses and doubles nothing.

use std::io;

use crate::logs::aside::{Aside, Moment, Search};
use crate::logs::content::Content;
use crate::logs::file::{HEAD, Known, Mark, last_of};
use crate::logs::interlude;
use crate::logs::lines::Lines;
use crate::logs::metrics::{InputSeries, Trouble};
use crate::logs::state::{Commit, Done, Position};
use crate::logs::tail::Reader;

/// Finds the content of a file that holds something else now, or is gone, and counts the rest of it. Returns the file
/// that has it; what it had is in the position.
pub fn recover(position: &mut Position, is_gone: bool, reader: &mut Reader, series: &InputSeries) -> Option<Aside> {
    let path = position.path.clone();
    let mut search = Search::new(&path, &reader.shared.commit());
    search.read.retain(|known| known.identity != position.known.identity);
    if is_gone {
        // A crash may have come while a compressed file was read: then that is the one that is looked for.
        search.known.remove(&position.known.identity.inode);
    }
    let (aside, content) = search.content_of(&position.known, Moment::of(position))?;

    tracing::info!(path = %path.display(), content = %aside.path.display(), offset = position.known.offset, "the content of a log file was found beside it and is read on");
    take(position, &aside, content, reader, series);
    Some(aside)
}

/// Counts a content to its end, and remembers the file that has it. The position stays, so that those that came after it
/// are looked for after a crash, too.
pub fn take(position: &mut Position, aside: &Aside, content: Content, reader: &mut Reader, series: &InputSeries) {
    if let Err(error) = read(position, (aside, content), reader, series) {
        tracing::warn!(path = %aside.path.display(), %error, "a file that was put aside cannot be read to its end");
        let mut commit = reader.shared.commit();
        series.troubled(Trouble::of(&error), &mut commit.families);
        end(position, aside, &mut commit);
    }
}

/// Notes that a content has been read as far as it can be. Whoever finds it again knows that.
fn end(position: &Position, aside: &Aside, commit: &mut Commit<'_>) {
    commit.done(Done { path: position.path.clone(), known: Known { identity: aside.seen.identity, ..position.known } });
    commit.set(position);
}

fn read(position: &mut Position, (aside, mut content): (&Aside, Content), reader: &mut Reader, series: &InputSeries) -> io::Result<()> {
    let (mut lines, mut head, mut before) = (Lines::at(position.skipping), Vec::new(), Vec::new());
    let grows = position.known.offset == 0;
    let mut read_to = position.known.offset;
    loop {
        let (marker, from) = (last_of(&before, lines.rest()), read_to);
        let read = content.read(&mut reader.buffer)?;
        let chunk = &reader.buffer[..read];
        if grows && head.len() < HEAD {
            head.extend_from_slice(&chunk[..read.min(HEAD - head.len())]);
            position.known.head = Mark::of(&head);
        }
        let framing = &mut position.framing;
        read_to += read as u64;
        // At the end: nobody will end its last line.
        let tally = match read {
            0 => reader.decoder.finish(&mut lines, framing, &mut reader.counted),
            _ => reader.decoder.feed(chunk, &mut lines, framing, &mut reader.counted),
        };
        let (old, new) = (position.known.offset, read_to - lines.rest().len() as u64);
        if let Some(consumed) = new.checked_sub(from).and_then(|consumed| usize::try_from(consumed).ok()) {
            before = last_of(&marker, &chunk[..consumed]);
            position.known.before = Mark::of(&before);
        }
        position.known.offset = new;
        position.skipping = lines.skipping;
        // At its end it is known how long it was; what was seen may have been the length of a younger content.
        position.size = if read == 0 { read_to } else { position.size.max(read_to) };
        let mut commit = reader.shared.commit();
        commit.families.absorb(&mut reader.counted);
        series.commit(&tally, new - old, &mut commit.families);
        match read {
            0 => end(position, aside, &mut commit),
            _ => commit.set(position),
        }
        drop(commit);
        reader.shared.changed();
        interlude::pass();
        if read == 0 {
            return Ok(());
        }
    }
}
