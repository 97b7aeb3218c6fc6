//! The engine: wires files, streams, events, state and the stop. The only part that has threads.

use std::fs::File;
use std::future::Future as _;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Waker};
use std::thread;
use std::time::{Duration, Instant};

use prometheus_client::registry::Registry;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::clock::Moment;
use crate::config::logs::{ChildStream, InputKind, LogInput, Logs, Validation};
use crate::event::FatalLine;
use crate::logs::decoder::Decoder;
use crate::logs::fatal::FatalLines;
use crate::logs::keeper::Keeper;
use crate::logs::metrics::{DoorSeries, InputSeries, SnapshotMetrics};
use crate::logs::revision::Revision;
use crate::logs::samples::Samples;
use crate::logs::shard::{FileInput, Shard};
use crate::logs::state::{Saved, Shared};
use crate::logs::stream::door::Door;
use crate::logs::stream::pump::{Entrance, Pump, Source};
use crate::logs::stream::tee::{Output, Tee};
use crate::logs::watch::{Bell, Watch, WatchMetrics};
use crate::runtime::latch::Latch;
use crate::runtime::supervise::PartResult;
use crate::series::families::{DeclareError, Families, SharedFamilies};
use crate::series::rules::RuleSet;

/// Everything that events have missed is found after this.
const SWEEP: Duration = Duration::from_secs(1);
/// A folder in which files come and go all the time is looked at no more often than this.
const SWEEP_AT_MOST: Duration = Duration::from_millis(20);
/// With many files a sweep takes its time. It may have 1/400 of all time where the kernel reports what changes, 1/50
/// where it does not, and 1/10 while files come and go.
const SHARES: [u32; 3] = [400, 50, 10];
/// A sweep is never further away than this.
const SWEEP_AT_LEAST: Duration = Duration::from_secs(60);

/// Why the engine cannot start.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    /// A rule feeds a metric that has another form.
    #[error("the log rules contradict each other, or feed a metric of the engine itself")]
    Rules(#[source] DeclareError),
    /// The folder for the state cannot be used.
    #[error("cannot use {path} for the log state; create it, make it writable, or set another state_dir")]
    StateDir {
        /// The folder.
        path: PathBuf,
        /// Why not.
        #[source]
        cause: std::io::Error,
    },
    /// A socket cannot be listened on.
    #[error("cannot listen for the log input `{input}`; stop what listens there, or choose another address")]
    Listen {
        /// The name of the input.
        input: String,
        /// Why not.
        #[source]
        cause: std::io::Error,
    },
    /// A stream cannot be read.
    #[error("cannot read {input} to its end")]
    Read {
        /// The name of the input.
        input: String,
        /// Why not.
        #[source]
        cause: std::io::Error,
    },
}

/// Reads all inputs of a configuration and counts their lines.
#[derive(Debug)]
pub struct Engine {
    pub(super) shared: Arc<Shared>,
    pub(super) shard: Shard,
    /// The standard input and all sockets.
    streams: Pump,
    /// The streams of the command, each with a thread: one may have to wait until what it passes on is read.
    child: Vec<(ChildStream, Means)>,
    pumps: Vec<Pump>,
    pub(super) keeper: Option<Keeper>,
    pub(super) revision: Revision,
    metrics: SnapshotMetrics,
    watching: WatchMetrics,
    caught_up: Latch,
    fatal_lines: Option<mpsc::Receiver<FatalLine>>,
}

/// What a stream that comes later is read with.
#[derive(Debug)]
struct Means {
    decoder: Decoder,
    series: InputSeries,
}

// === impl Engine ===

impl Engine {
    /// Prepares the inputs and takes the state of an earlier run over. Without a folder nothing is remembered.
    ///
    /// # Errors
    /// When rules contradict each other, or the folder cannot be used. A state that is damaged is no error: it is
    /// said, counted, and `start` counts as at the very first start.
    pub fn new(config: &Logs, state_dir: Option<&Path>) -> Result<Self, LogsError> {
        let mut families = Families::default();
        families.set_now(Moment::read());
        let rules = RuleSet::for_logs(&config.rules, &mut families).map_err(LogsError::Rules)?;
        let metrics = SnapshotMetrics::default();
        let (keeper, saved) = open_state(config, state_dir, &metrics)?;
        let mut decoder = decoder(rules.clone(), config.max_line, config.validation);
        if config.tells_fatal {
            decoder.look_for_fatal();
        }
        let (fatal, fatal_lines) = config.tells_fatal.then(|| FatalLines::new(config)).transpose()?.unzip();
        let (mut inputs, mut sources, mut entrances, mut child) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for input in &config.inputs {
            let series = InputSeries::declare(&input.name, &mut families).map_err(LogsError::Rules)?;
            let is_first = saved.as_ref().is_none_or(|saved| !saved.inputs.contains(&input.name));
            match &input.kind {
                InputKind::Files(globs) => {
                    let start = is_first.then_some(input.start);
                    inputs.push(FileInput { name: input.name.clone(), globs: globs.clone(), start, series, behind_since: None });
                }
                InputKind::Stdin => sources.push(stdin(input, series)?),
                InputKind::Child(stream) => child.push((*stream, Means { decoder: decoder.clone(), series })),
                InputKind::Listen(listen) => {
                    let name = input.name.clone();
                    let counted = DoorSeries::declare(&name, &mut families).map_err(LogsError::Rules)?;
                    let door = Door::open(listen, counted).map_err(|cause| LogsError::Listen { input: name.clone(), cause })?;
                    entrances.push(Entrance { input: name, series, door });
                }
            }
        }
        let (mut positions, mut done) = (Vec::new(), Vec::new());
        if let Some(Saved { families: state, positions: saved, done: saved_done, .. }) = saved {
            (positions, done) = (saved, saved_done);
            for metric in families.restore(state) {
                tracing::warn!(metric, "the metric has another type, other buckets or labels than before; it begins at zero");
            }
        }
        let shared = Arc::new(Shared::new(families, done, fatal));
        let revision = Revision::new(Arc::clone(&shared), rules, config.max_line);
        let streams = Pump::new(decoder.clone(), sources, entrances);
        let shard = Shard::new(inputs, Arc::clone(&shared), decoder, config, positions);
        Ok(Self {
            shared,
            shard,
            streams,
            child,
            pumps: Vec::new(),
            keeper,
            revision,
            metrics,
            watching: WatchMetrics::default(),
            caught_up: Latch::default(),
            fatal_lines,
        })
    }

    /// Where each fatal line comes, where the configuration has somebody who is told of them; once.
    pub fn take_fatal_lines(&mut self) -> Option<mpsc::Receiver<FatalLine>> {
        self.fatal_lines.take()
    }

    /// Reads a stream of the command, for which the configuration has an input, and passes it on.
    pub fn read_child(&mut self, stream: ChildStream, file: File, output: Output) {
        let Some(position) = self.child.iter().position(|(other, _)| *other == stream) else { return };
        let (_, Means { decoder, series }) = self.child.swap_remove(position);
        let (input, name) = (stream.name().to_owned(), "command".to_owned());
        let source = Source { input, series, name, file, tee: Some(Tee::new(output)) };
        self.pumps.push(Pump::new(decoder, vec![source], Vec::new()));
    }

    /// All series: those of the rules and those of the engine. To be registered as a collector.
    #[must_use]
    pub fn families(&self) -> SharedFamilies {
        self.shared.families.clone()
    }

    /// Changes the rules while lines are read.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision.clone()
    }

    /// The last lines that told nothing.
    #[must_use]
    pub fn samples(&self) -> Samples {
        self.shared.samples.clone()
    }

    /// Registers the metrics that are not among [`Engine::families`].
    pub fn register(&self, registry: &mut Registry) {
        self.metrics.register(registry);
        self.watching.register(registry);
    }

    /// Is set once all files that were there at the start have been read to their end: from then on the counters are
    /// those of a run that was never interrupted.
    #[must_use]
    pub fn caught_up(&self) -> Latch {
        self.caught_up.clone()
    }

    /// Reads until the stop, then writes the last snapshot. Blocks: give it a thread of its own.
    ///
    /// # Errors
    /// None of its own: what goes wrong with a file or with the disk is counted and tried again.
    pub fn run(self, stop: CancellationToken) -> PartResult {
        let Self { shared, mut shard, streams, mut pumps, mut keeper, watching, caught_up, .. } = self;
        if !streams.is_empty() {
            pumps.push(streams);
        }
        let bell = Bell::default();
        let waker = Waker::from(bell.clone());
        let mut stopping = Box::pin(stop.cancelled_owned());
        if stopping.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            waker.wake_by_ref();
        }
        thread::scope(|scope| {
            // All end with the reader below, and a panic in one of them becomes one of this part.
            if let Some(keeper) = &mut keeper {
                scope.spawn(|| keeper.run(&shared));
            }
            for pump in pumps {
                let (shared, bell) = (&shared, &bell);
                scope.spawn(move || pump.run(shared, &|| bell.is_stopping()));
            }
            let stops = StopOnDrop(&shared, &bell);
            read_files(&mut shard, &bell, Watch::new(&bell, watching), &caught_up);
            drop(stops);
        });
        if let Some(keeper) = &mut keeper {
            keeper.save(&shared);
        }
        Ok(())
    }
}

/// Ends the other threads, also when the reader panics: the scope would wait for them for ever.
struct StopOnDrop<'a>(&'a Shared, &'a Bell);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.stop();
        self.1.stop();
    }
}

/// What decodes lines for rules, and passes over those that none of them can match where that is wished for.
pub(super) fn decoder(rules: RuleSet, max_line: usize, validation: Validation) -> Decoder {
    let mut decoder = Decoder::new(rules, max_line);
    if validation == Validation::Sampled
        && let Err(metric) = decoder.skip()
    {
        tracing::info!(
            metric,
            "`logs.validation: sampled` has no effect: this rule may apply to a line without any fixed text, or there are too many texts; each line is decoded"
        );
    }
    decoder
}

fn stdin(input: &LogInput, series: InputSeries) -> Result<Source, LogsError> {
    let name = input.name.clone();
    let file = std::io::stdin().as_fd().try_clone_to_owned().map_err(|cause| LogsError::Read { input: name.clone(), cause })?;
    Ok(Source { input: name, series, name: "stdin".to_owned(), file: File::from(file), tee: None })
}

fn open_state(config: &Logs, folder: Option<&Path>, metrics: &SnapshotMetrics) -> Result<(Option<Keeper>, Option<Saved>), LogsError> {
    let Some(folder) = folder else { return Ok((None, None)) };
    std::fs::create_dir_all(folder).map_err(|cause| LogsError::StateDir { path: folder.to_owned(), cause })?;
    let inputs = config.inputs.iter().map(|input| input.name.clone()).collect();
    let (keeper, saved) = Keeper::open(folder, inputs, metrics.clone());
    Ok((Some(keeper), saved))
}

/// How long to wait from one sweep to the next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Pace {
    /// Where nothing asks for one.
    regular: Duration,
    /// Where files have come or gone.
    wanted: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { regular: SWEEP, wanted: SWEEP_AT_MOST }
    }
}

impl Pace {
    /// By what the last sweep has cost, and whether the kernel leaves changes out.
    fn after(cost: Duration, is_blind: bool) -> Self {
        let [seeing, blind, wanted] = SHARES;
        let share = if is_blind { blind } else { seeing };
        Self { regular: (cost * share).clamp(SWEEP, SWEEP_AT_LEAST), wanted: (cost * wanted).clamp(SWEEP_AT_MOST, SWEEP_AT_LEAST) }
    }
}

/// Sweeps, reads, waits; until the bell says stop, and then once more.
fn read_files(shard: &mut Shard, bell: &Bell, mut watch: Watch, caught_up: &Latch) {
    let mut swept: Option<Instant> = None;
    let (mut wants_sweep, mut is_busy) = (true, false);
    let mut pace = Pace::default();
    loop {
        let now = Instant::now();
        let since = swept.map_or(pace.regular, |swept| now.saturating_duration_since(swept));
        if since >= pace.regular || (wants_sweep && since >= pace.wanted) {
            let listing = shard.list();
            let cost = now.elapsed();
            watch.follow(&listing.folders);
            // What came between the look and the watch would be seen only a second later.
            let listing = if swept.is_none() { shard.list() } else { listing };
            shard.sweep(listing, now);
            (swept, wants_sweep, is_busy) = (Some(now), shard.is_outdated(), true);
            pace = Pace::after(cost, watch.is_blind());
        }
        if is_busy {
            is_busy = shard.read(now);
        }
        if !is_busy && shard.is_caught_up() {
            caught_up.set();
        }
        let limit = match (is_busy, wants_sweep) {
            (true, _) => Duration::ZERO,
            (false, true) => pace.wanted.saturating_sub(swept.map_or(pace.wanted, |swept| swept.elapsed())).max(SWEEP_AT_MOST),
            (false, false) => pace.regular.saturating_sub(swept.map_or(pace.regular, |swept| swept.elapsed())),
        };
        let rung = bell.wait(limit);
        if rung.stop {
            break;
        }
        wants_sweep |= rung.sweep;
        if !rung.paths.is_empty() {
            shard.touched(&rung.paths);
            is_busy = true;
        }
    }
    // What was written before the stop is counted before it.
    let now = Instant::now();
    shard.sweep(shard.list(), now);
    while now.elapsed() < SWEEP && shard.read(now) {}
}

#[cfg(test)]
mod pace_tests {
    use super::*;

    #[test]
    fn a_sweep_that_costs_much_comes_less_often() {
        let pace = |millis, is_blind| {
            let Pace { regular, wanted } = Pace::after(Duration::from_millis(millis), is_blind);
            (regular.as_millis(), wanted.as_millis())
        };
        // A hundred files, ten thousand, a million.
        assert_eq!(pace(1, false), (1000, 20));
        assert_eq!(pace(40, false), (16_000, 400));
        assert_eq!(pace(40, true), (2000, 400));
        assert_eq!(pace(60_000, false), (60_000, 60_000));
    }
}
