//! Random histories of a log, its reader and its state, against a model: after each, every counter is exact.

use super::*;
use crate::logs::interlude;

/// What happens.
#[derive(Clone, Copy, Debug)]
enum Event {
    Append(u64),
    /// The begin of a line, whose end comes with the next event that writes.
    AppendPart(usize),
    /// A line by a writer that has not noticed the rotation.
    LateLine,
    Rename,
    /// The rotated file is compressed at once; whether the compressed one gets the time of the original.
    RenameAndCompress(Packing, bool),
    /// The file is copied and cut off.
    Copy,
    CopyAndCompress(Packing),
    /// After everything in it was read and kept.
    Truncate,
    Delete,
    Look,
    /// After so many moments of a look, a rotation comes in between.
    LookWhile(usize, Rotation),
    Save,
    Kill,
}

/// What is done with the file, and how what was put aside is compressed.
#[derive(Clone, Copy, Debug)]
enum Rotation {
    Rename(Option<(Packing, bool)>),
    Copy(Option<(Packing, bool)>),
}

fn event() -> impl proptest::strategy::Strategy<Value = Event> {
    use proptest::prelude::*;
    let packing = || prop_oneof![Just(Packing::Gzip), Just(Packing::Zstd)];
    let packed = || proptest::option::of((packing(), any::<bool>()));
    let rotation = prop_oneof![packed().prop_map(Rotation::Rename), packed().prop_map(Rotation::Copy)];
    prop_oneof![
        4 => (1_u64..20).prop_map(Event::Append),
        2 => (1_usize..60).prop_map(Event::AppendPart),
        1 => Just(Event::LateLine),
        2 => Just(Event::Rename),
        2 => (packing(), any::<bool>()).prop_map(|(packing, keeps_time)| Event::RenameAndCompress(packing, keeps_time)),
        1 => Just(Event::Copy),
        1 => packing().prop_map(Event::CopyAndCompress),
        1 => Just(Event::Truncate),
        1 => Just(Event::Delete),
        4 => Just(Event::Look),
        3 => (0_usize..40, rotation).prop_map(|(moment, rotation)| Event::LookWhile(moment, rotation)),
        2 => Just(Event::Save),
        2 => Just(Event::Kill),
    ]
}

/// The writer, and the counters that are right.
struct Model {
    bench: Bench,
    /// The end of the line that has been begun.
    pending: String,
    written: u64,
    rotated: u64,
    before: Option<File>,
    /// It was cut off without a copy, and not looked at since.
    was_cut_off: bool,
}

// === impl Model ===

impl Model {
    fn end_line(&mut self) {
        self.bench.append("app.log", std::mem::take(&mut self.pending));
    }

    fn next(&mut self, count: u64) -> String {
        self.written += count;
        lines(self.written - count..self.written)
    }

    /// A name that no rotated file has had.
    fn put_aside(&mut self) -> String {
        self.end_line();
        // Rotations are further apart than a tick of the kernel's clock, by which files are told apart.
        std::thread::sleep(TICK);
        self.rotated += 1;
        format!("app.log.{}", self.rotated)
    }

    fn append(&mut self, count: u64) {
        let text = self.next(count);
        self.bench.append("app.log", text);
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Append(count) => {
                self.end_line();
                self.append(count);
            }
            Event::AppendPart(length) => {
                self.end_line();
                let text = self.next(1);
                self.bench.append("app.log", &text[..length]);
                self.pending = text[length..].to_owned();
            }
            Event::LateLine => {
                if let Some(mut file) = self.before.take() {
                    let text = self.next(1);
                    file.write_all(text.as_bytes()).unwrap();
                    self.before = Some(file);
                }
            }
            Event::Rename => {
                let name = self.put_aside();
                self.before = Some(self.bench.append("app.log", ""));
                self.bench.rename("app.log", &name);
                self.append(1);
            }
            Event::RenameAndCompress(packing, keeps_time) => {
                let name = self.put_aside();
                self.bench.append("app.log", "");
                self.bench.rename("app.log", &name);
                self.before = None;
                self.append(1);
                self.bench.compress(&name, packing, keeps_time);
            }
            Event::Copy | Event::CopyAndCompress(_) => {
                let name = self.put_aside();
                self.bench.copy_and_cut_off("app.log", &name);
                if let Event::CopyAndCompress(packing) = event {
                    self.bench.compress(&name, packing, true);
                }
                self.append(1);
            }
            Event::Truncate => {
                // What nobody has read, or nobody has kept, is lost by a truncation.
                self.end_line();
                self.look();
                self.bench.save();
                OpenOptions::new().write(true).create(true).truncate(true).open(self.bench.path("app.log")).unwrap();
                self.was_cut_off = true;
            }
            Event::Delete => {
                self.end_line();
                self.look();
                self.bench.save();
                fs::remove_file(self.bench.path("app.log")).unwrap();
                self.before = None;
                self.append(1);
            }
            Event::LookWhile(moment, rotation) => self.look_while(moment, rotation),
            Event::Look => self.look(),
            Event::Save => self.bench.save(),
            Event::Kill => {
                self.bench.kill();
                self.look();
            }
        }
    }

    fn look(&mut self) {
        self.bench.look();
        self.was_cut_off = false;
    }

    fn look_while(&mut self, moment: usize, rotation: Rotation) {
        // Whose bytes the length was that a look has seen in between, nobody could tell.
        if self.was_cut_off {
            self.look();
        }
        self.rotated += 1;
        self.before = None;
        let (end, last, next) = (format!(".{}", self.rotated), std::mem::take(&mut self.pending) + &self.next(1), self.next(2));
        let log = Hand(self.bench.path("app.log"));
        let rotate = move || {
            std::thread::sleep(TICK);
            log.append(&last);
            let (Rotation::Rename(packed) | Rotation::Copy(packed)) = rotation;
            match rotation {
                Rotation::Rename(_) => log.rename(&end, &next),
                Rotation::Copy(_) => log.copy(&end, &next),
            }
            if let Some((packing, keeps_time)) = packed {
                log.compress(&end, packing, keeps_time);
            }
        };
        let waiting = interlude::at(moment, rotate.clone());
        self.look();
        if !waiting.has_happened() {
            rotate();
        }
    }

    fn counted(&self) -> (u64, u64) {
        (self.bench.value("decisionbox_log_lines_total", &["info", "decisionbox-agent"]), self.bench.lost())
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_happens_each_line_counts_once(events in proptest::collection::vec(event(), 1..40)) {
        let mut bench = Bench::new();
        bench.append("app.log", "");
        // The keeper writes the first snapshot after the first look.
        bench.look().save();
        let mut model = Model { bench, pending: String::new(), written: 0, rotated: 0, before: None, was_cut_off: false };
        events.into_iter().for_each(|event| model.happens(event));
        model.end_line();
        model.bench.look();
        proptest::prop_assert_eq!(model.counted(), (model.written, 0));
        model.bench.pass_grace();
        proptest::prop_assert_eq!(model.counted(), (model.written, 0));
        // And nothing of it counts again.
        model.bench.save();
        model.bench.kill();
        model.bench.look();
        proptest::prop_assert_eq!(model.counted(), (model.written, 0));
    }
}

#[test]
fn an_empty_file_that_was_copied_twice_and_renamed_between_two_looks_is_read_in_full() {
    let mut bench = Bench::new();
    bench.append("app.log", "");
    bench.look().save();
    let mut model = Model { bench, pending: String::new(), written: 0, rotated: 0, before: None, was_cut_off: false };
    for event in
        [Event::LookWhile(1, Rotation::Copy(Some((Packing::Gzip, false)))), Event::Copy, Event::LookWhile(0, Rotation::Rename(None))]
    {
        model.happens(event);
    }
    model.bench.pass_grace();
    assert_eq!(model.counted(), (7, 0));
}
