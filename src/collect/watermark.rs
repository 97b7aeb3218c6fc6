//! How far a collection has been read. Pure.
//!
//! Documents carry the clock of whoever wrote them, several may carry the same millisecond, and a slow writer's come
//! late. So a point in time is not enough: the place is a window of time that is read again each round, with what has
//! been read in it. A document counts once if it becomes visible while the window still covers its time.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// How late a document may become visible, against the newest one, and still be counted.
pub(super) const OVERLAP_MS: i64 = 120_000;

/// How many documents are remembered, all of which each look reads again. In a window of two minutes that is 166
/// documents a second; where there are more, the window becomes shorter.
pub(super) const MAX_SEEN: usize = 20_000;

/// How far a collection has been read.
///
/// What is older than `floor` is settled: it is never read again. What is not, and has been read, is in `seen`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Watermark {
    floor: i64,
    /// Milliseconds, and a hash of the `_id`: 16 bytes a document, whatever its `_id` is.
    seen: BTreeSet<(i64, u64)>,
    /// Until what is there at the very first start has been noted: when that start was.
    history_until: Option<i64>,
}

/// What became of a document.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Admission {
    /// It counts.
    New,
    /// It was there before the very first start: noted, and not counted.
    History,
    /// It has been read before, or it is older than the window or dated in the future.
    No,
}

// === impl Watermark ===

impl Watermark {
    /// The very first start: what is there is history. `now` is the database's clock.
    pub(super) fn begin(now: i64) -> Self {
        Self { floor: now.saturating_sub(OVERLAP_MS), seen: BTreeSet::new(), history_until: Some(now) }
    }

    /// From when on documents have to be read.
    pub(super) fn from(&self) -> i64 {
        self.floor
    }

    /// Up to when documents are to be read. Never beyond the database's clock: a document that is dated in the future
    /// waits until then, so that one dated 9999 does not hide all that come before.
    pub(super) fn until(&self, now: i64) -> i64 {
        self.history_until.map_or(now, |start| start.min(now))
    }

    /// How many of the documents from a point in time on have been read.
    pub(super) fn seen_from(&self, time: i64) -> usize {
        self.seen.range((time, 0)..).count()
    }

    /// Whether a document has not been read yet and is within the window.
    pub(super) fn is_unread(&self, time: i64, id: u64, now: i64) -> bool {
        time >= self.floor && time <= self.until(now) && !self.seen.contains(&(time, id))
    }

    /// Whether what is there at the very first start is still being noted.
    pub(super) fn is_noting_history(&self) -> bool {
        self.history_until.is_some()
    }

    /// Takes a document in.
    pub(super) fn admit(&mut self, time: i64, id: u64, now: i64) -> Admission {
        if !self.is_unread(time, id, now) {
            return Admission::No;
        }
        self.seen.insert((time, id));
        if self.history_until.is_some() { Admission::History } else { Admission::New }
    }

    /// Ends a look that has read everything up to its end.
    pub(super) fn complete(&mut self) {
        self.history_until = None;
    }

    /// Moves the window along. Returns whether it had to become shorter, so that late documents may be missed.
    ///
    /// It moves with the newest document and not with the clock: a clock that jumps ahead and back moves nothing, and
    /// after a quiet hour a document may be an hour late.
    pub(super) fn settle(&mut self) -> bool {
        let Some((newest, _)) = self.seen.last() else { return false };
        self.floor = self.floor.max(newest.saturating_sub(OVERLAP_MS));
        let crowded = self.seen.len().saturating_sub(MAX_SEEN);
        // Documents of one millisecond stay together: the next look may begin in the middle of them.
        let cut = if crowded > 0 { self.seen.iter().nth(crowded).map(|(time, _)| *time) } else { None };
        let shortened = cut.is_some_and(|cut| cut > self.floor);
        self.floor = self.floor.max(cut.unwrap_or(i64::MIN));
        if self.seen.first().is_some_and(|(time, _)| *time < self.floor) {
            self.seen = self.seen.split_off(&(self.floor, 0));
        }
        shortened
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: i64 = 1_763_712_000_000;

    fn ready() -> Watermark {
        let mut watermark = Watermark::begin(NOW);
        watermark.complete();
        watermark
    }

    #[test]
    fn what_is_there_at_the_first_start_is_history_and_what_comes_late_is_not() {
        let mut watermark = Watermark::begin(NOW);
        assert_eq!(watermark.admit(NOW - 60_000, 1, NOW + 5), Admission::History);
        assert_eq!(watermark.admit(NOW + 3, 2, NOW + 5), Admission::No, "not history, so it waits for the next look");
        watermark.complete();
        assert_eq!(watermark.admit(NOW - 60_000, 1, NOW + 5), Admission::No);
        assert_eq!(watermark.admit(NOW - 60_000, 3, NOW + 5), Admission::New);
        assert_eq!(watermark.admit(NOW + 3, 2, NOW + 5), Admission::New);
    }

    #[test]
    fn equal_times_count_by_id() {
        let mut watermark = ready();
        assert_eq!(watermark.admit(NOW, 1, NOW), Admission::New);
        assert_eq!(watermark.admit(NOW, 2, NOW), Admission::New);
        assert_eq!(watermark.admit(NOW, 1, NOW), Admission::No);
    }

    #[test]
    fn the_far_future_blinds_nothing() {
        let mut watermark = ready();
        assert_eq!(watermark.admit(253_402_300_799_999, 1, NOW), Admission::No);
        watermark.settle();
        assert_eq!(watermark.admit(NOW - 90_000, 2, NOW), Admission::New);
        assert_eq!(watermark.admit(NOW + 1, 3, NOW), Admission::No);
        assert_eq!(watermark.admit(NOW + 1, 3, NOW + 1), Admission::New);
    }

    #[test]
    fn memory_is_bounded_and_a_shorter_window_is_reported() {
        let mut watermark = ready();
        for id in 0..MAX_SEEN as u64 + 10 {
            watermark.admit(NOW + i64::try_from(id / 10).unwrap(), id, NOW + 60_000);
        }
        assert!(watermark.settle());
        assert!(watermark.seen.len() <= MAX_SEEN + 10, "{}", watermark.seen.len());
        assert!(watermark.from() > NOW && !watermark.settle());
        assert_eq!(watermark.admit(NOW, 7, NOW + 60_000), Admission::No);
    }

    /// What happens to a collection between two looks.
    #[derive(Clone, Debug)]
    enum Event {
        /// The clock goes on.
        Tick(i64),
        /// A document becomes visible, dated so much against the clock; some are dated ahead of it.
        Insert(i64),
        /// A look, which reads at most so many documents, and whether the process dies before its state is written.
        Look(usize, bool),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            (0_i64..60_000).prop_map(Event::Tick),
            (-OVERLAP_MS..=30_000).prop_map(Event::Insert),
            Just(Event::Insert(-1000)),
            (1_usize..6, any::<bool>()).prop_map(|(limit, dies)| Event::Look(limit, dies)),
        ]
    }

    /// Reads as the tail does: by time from the floor on, so many new ones at most.
    fn look(watermark: &mut Watermark, documents: &[(i64, u64)], now: i64, limit: usize, counted: &mut Vec<u64>) -> bool {
        let mut sorted: Vec<_> = documents.iter().filter(|(time, _)| (watermark.from()..=watermark.until(now)).contains(time)).collect();
        sorted.sort_unstable();
        let unread: Vec<_> = sorted.into_iter().filter(|(time, id)| watermark.is_unread(*time, *id, now)).collect();
        for (time, id) in unread.iter().take(limit) {
            if watermark.admit(*time, *id, now) == Admission::New {
                counted.push(*id);
            }
        }
        let complete = unread.len() <= limit;
        if complete {
            watermark.complete();
        }
        watermark.settle();
        complete
    }

    proptest! {
        #[test]
        fn each_document_that_is_not_too_late_counts_once(history in 0_u64..5, events in prop::collection::vec(event(), 0..60)) {
            let (mut now, mut next_id) = (NOW, history);
            let mut documents: Vec<(i64, u64)> = (0..history).map(|id| (NOW - 1000, id)).collect();
            let mut counted = Vec::new();
            let mut saved = Watermark::begin(NOW);
            while !look(&mut saved, &documents, now, 3, &mut counted) {}
            prop_assert!(counted.is_empty());
            for event in events {
                match event {
                    Event::Tick(by) => now += by,
                    Event::Insert(offset) => {
                        documents.push((now + offset, next_id));
                        next_id += 1;
                    }
                    Event::Look(limit, dies) => {
                        let bytes = postcard::to_stdvec(&saved).unwrap();
                        let mut watermark: Watermark = postcard::from_bytes(&bytes).unwrap();
                        prop_assert_eq!(&watermark, &saved);
                        let mut read = Vec::new();
                        look(&mut watermark, &documents, now, limit, &mut read);
                        if !dies {
                            saved = watermark;
                            counted.extend(read);
                        }
                    }
                }
            }
            now += 30_000;
            while !look(&mut saved, &documents, now, 3, &mut counted) {}
            counted.sort_unstable();
            prop_assert_eq!(counted, (history..next_id).collect::<Vec<_>>());
        }
    }
}
