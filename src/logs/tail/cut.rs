//! A file that holds something else than was read of it: its former content is in a copy, or lost.
//!
//! Whatever is found beside a file is true only while that holds what it held before the search, so each search begins and
//! ends with a look at it.

use std::io;

use crate::logs::aside::{MAX_LOOKS, Moment, Search};
use crate::logs::content::Content;
use crate::logs::file::{BEFORE, Look, Mark, Seen};
use crate::logs::lines::Lines;
use crate::logs::metrics::{InputSeries, Rotation};
use crate::logs::rest::{recover, take};
use crate::logs::tail::{Reader, Tail};

// === impl Tail ===

impl Tail {
    /// It holds something else now: what has not been read of the former content is in a copy, or lost.
    pub fn truncated(&mut self, reader: &mut Reader, series: &InputSeries) {
        let now = self.file.metadata().map_or(self.size, |metadata| metadata.len());
        self.note_shrinking(now);
        // A copy has the begun line, too.
        let begun = std::mem::take(&mut self.lines);
        let mut moment = Moment::of(&self.position);
        if let Some(copy) = recover(&mut self.position, false, reader, series) {
            moment = copy.moment();
            self.position.since = moment.born;
        } else {
            self.lines = begun;
            self.flush(reader, series);
        }
        let lost = self.position.size.saturating_sub(self.position.known.offset);
        // Of a file that was renamed since, the younger ones may be its successors: whoever follows those will see.
        let look = if self.is_in_place() {
            self.read_copies_after(moment, reader, series).0
        } else {
            self.has_unread_copies = true;
            Look::at(&self.file).ok()
        };
        let mut commit = reader.shared.commit();
        series.rotated(Rotation::Truncate, &mut commit.families);
        series.lost(lost, &mut commit.families);
        self.begin_anew(look);
        commit.set(&self.position);
        drop(commit);
        reader.shared.save_now();
        tracing::info!(path = %self.position.path.display(), lost_bytes = lost, "a log file was truncated; it is read from its begin");
    }

    /// Next to nothing in a file tells whether it was copied and cut off since the last look: then a copy does that has
    /// what is known of it, and more. Whether there was one; it has been read, and the file begins anew.
    pub fn was_cut_off_unseen(&mut self, reader: &mut Reader, series: &InputSeries) -> bool {
        let (known, moment) = (self.position.known, Moment::of(&self.position));
        match usize::from(known.head.length) {
            0..BEFORE if !self.is_in_place() => {
                // It may have been: then its successor finds the copies, which are younger than what is known of it.
                self.has_unread_copies = true;
                false
            }
            0 => {
                let (look, was_any) = self.read_copies_after(moment, reader, series);
                if was_any {
                    self.begin_anew(look);
                    reader.shared.commit().set(&self.position);
                    reader.shared.save_now();
                }
                was_any
            }
            1..BEFORE => {
                let search = Search::new(&self.position.path, &reader.shared.commit());
                let was_cut_off = search.unread(moment, &self.file).iter().any(|aside| aside.goes_on_after(&known));
                if was_cut_off {
                    self.truncated(reader, series);
                }
                was_cut_off
            }
            _ => false,
        }
    }

    /// It may have been copied and cut off more than once: what was in it in between is in younger copies. Returns what
    /// it held when there were no more, and whether there was any.
    fn read_copies_after(&mut self, moment: Moment, reader: &mut Reader, series: &InputSeries) -> (Option<Look>, bool) {
        let mut was_any = false;
        let mut look = Look::at(&self.file).ok();
        for _ in 0..MAX_LOOKS {
            let is_complete = self.read_copies(moment, &mut was_any, reader, series);
            if is_complete && look.is_none_or(|look| look.is_still_of(&self.file)) {
                break;
            }
            look = Look::at(&self.file).ok();
        }
        (look, was_any)
    }

    /// Whether all copies were still there when they were opened.
    fn read_copies(&mut self, moment: Moment, was_any: &mut bool, reader: &mut Reader, series: &InputSeries) -> bool {
        let path = self.position.path.clone();
        let search = Search::new(&path, &reader.shared.commit());
        // A copy that is older than the last look has nothing that was not seen.
        for younger in search.unread(moment, &self.file).iter().filter(|younger| younger.seen.modified >= moment.modified) {
            let content = match Content::open(&younger.path) {
                Ok(content) => content,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return false,
                Err(_) => continue,
            };
            *was_any = true;
            self.begin_anew(None);
            self.position.since = younger.moment().born.or(self.position.since);
            take(&mut self.position, younger, content, reader, series);
            series.rotated(Rotation::Truncate, &mut reader.shared.commit().families);
            self.begin_anew(None);
        }
        true
    }

    /// Whether it still stands where it was found.
    fn is_in_place(&self) -> bool {
        std::fs::metadata(&self.position.path).is_ok_and(|now| Seen::of(&now).identity.is(&self.position.known.identity))
    }

    /// A length that was seen and is no more was the old content's; any other one may be the new content's.
    pub(super) fn note_shrinking(&mut self, size: u64) {
        if self.size > size {
            self.position.size = self.position.size.max(self.size);
        }
        self.size = size;
    }

    /// It holds something else, from its first byte on; what that is at least, a look has told.
    pub(super) fn begin_anew(&mut self, look: Option<Look>) {
        self.lines = Lines::default();
        self.before = Vec::new();
        self.position.known.offset = 0;
        self.position.known.head = look.map_or(Mark::of(&[]), |look| look.head);
        self.position.known.before = Mark::of(&[]);
        self.position.skipping = false;
        self.position.size = look.map_or(0, |look| look.seen.size);
        self.size = self.position.size;
    }
}
