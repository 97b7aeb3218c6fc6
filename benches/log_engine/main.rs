//! The log engine in figures: lines per CPU-second on a corpus whose truth is known, beside what nothing can beat
//! (counting newlines), `serde_json` and mtail, all in the same run; then what two threads bring beside what they bring to
//! others, how often memory is asked for, and what snapshots of many series cost.
//!
//! `just bench-logs`, or `cargo bench --bench log_engine -- [--lines N] [--rounds N] [--only PART] [--write FOLDER]`, where
//! PART is in the names of the rows that are wanted. A figure is printed only when every count is exact.
//! The steps of a round follow each other, so that a machine that is shared
//! disturbs them alike; what counts are the medians and, on such a machine, the ratios.

#![allow(
    missing_docs,
    clippy::cast_precision_loss,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a bench that cannot go on says where"
)]

mod corpus;
mod counts;
mod engine;
mod floors;
mod mtail;
mod snapshot;

use std::alloc::System;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use rustix::time::{ClockId, clock_gettime};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

use bellwether::config::Config;

use crate::corpus::Truth;
use crate::counts::Rules;

/// Counts how often memory is asked for.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// No more allocations are made for a line, on average: those of a start and of each buffer, none of its own.
const ALLOCATIONS: f64 = 0.05;

/// One way to go over the corpus.
type Work<'a> = Box<dyn Fn() -> Result<Spent, String> + 'a>;

/// What it took, in seconds.
#[derive(Clone, Copy)]
struct Spent {
    /// Of all threads, user and system.
    cpu: f64,
    /// As a clock on the wall shows it.
    wall: f64,
}

/// A row of the table.
struct Step<'a> {
    name: &'static str,
    work: Work<'a>,
    /// Of each round.
    spent: Vec<Spent>,
    /// Why there is no figure.
    failure: Option<String>,
}

struct Options {
    lines: u64,
    rounds: usize,
    /// Only the rows whose names have this in them.
    only: String,
    /// Where the corpus is left, instead of a measurement.
    write: Option<PathBuf>,
}

fn main() -> ExitCode {
    let options = Options::read();
    if let Some(folder) = &options.write {
        let truth = Truth::of_all(&write_corpus(folder, options.lines));
        println!("{} lines, {} bytes in {}", truth.total(), truth.bytes, folder.display());
        return ExitCode::SUCCESS;
    }
    let folder = tempfile::tempdir().unwrap();
    let truths = write_corpus(folder.path(), options.lines);
    let truth = Truth::of_all(&truths);
    println!(
        "{} lines in two files, {} B a line, {} malformed, {} of panics; {} rounds, medians",
        truth.total(),
        truth.bytes / truth.total(),
        truth.malformed,
        truth.panics,
        options.rounds
    );
    if measure(folder.path(), &truth, &truths, &options) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn measure(folder: &Path, truth: &Truth, truths: &[Truth], options: &Options) -> bool {
    let files = engine::files(folder);
    let all = engine::config(folder, Rules::All, "threads: 1");
    let two = engine::config(folder, Rules::All, "threads: 2");
    let rare = engine::config(folder, Rules::Rare, "threads: 1");
    let sieve = engine::config(folder, Rules::Rare, "threads: 1\n  validation: sampled");
    let profile = engine::profile(folder);
    let mut steps = vec![
        Step::new("newlines counted (memchr)", || timed(|| floors::newlines(&files, truth))),
        Step::new("newlines counted, two threads", || timed(|| floors::newlines_together(&files, truth))),
        Step::new("cut into lines", || timed(|| floors::lines(&files, truth))),
        Step::new("serde_json, typed and borrowed", || timed(|| floors::typed(&files, truth))),
        Step::new("serde_json, two threads", || timed(|| floors::typed_together(&files, truths))),
        Step::new("engine, each line decoded and counted", || timed(|| engine::run(&all, truth, Some(Rules::All)))),
        Step::new("engine, two threads", || timed(|| engine::run(&two, truth, Some(Rules::All)))),
        Step::new("engine, rules that most lines cannot match", || timed(|| engine::run(&rare, truth, Some(Rules::Rare)))),
        Step::new("engine, the same, validation: sampled", || timed(|| engine::run(&sieve, truth, Some(Rules::Rare)))),
        Step::new("engine, the rules of the profile", || timed(|| engine::run(&profile, truth, None))),
    ];
    if mtail::is_there() {
        mtail::prepare(folder);
        steps.push(Step::new("mtail", || timed_child(|| mtail::run(folder, truth))));
    } else {
        println!("mtail is not installed (Debian package `mtail`); its row is left out");
    }
    steps.retain(|step| step.name.contains(&options.only));
    for _ in 0..options.rounds {
        steps.iter_mut().for_each(Step::round);
    }
    print(&steps, truth);
    print_threads(&steps);
    let is_frugal = !options.only.is_empty() || (print_allocations(&all, truth) && print_snapshots(folder));
    is_frugal && steps.iter().all(|step| step.failure.is_none())
}

fn print(steps: &[Step<'_>], truth: &Truth) {
    let of = |name: &str| steps.iter().find(|step| step.name.starts_with(name)).filter(|step| step.failure.is_none());
    let (floor, peer) = (of("newlines"), of("mtail"));
    println!("\n{:<44} {:>14} {:>10} {:>12} {:>10}", "", "lines/CPU-s", "ns/line", "of newlines", "x mtail");
    for step in steps {
        if let Some(failure) = &step.failure {
            println!("{:<44} no figure: {failure}", step.name);
            continue;
        }
        let rate = truth.total() as f64 / median(step.spent.iter().map(|spent| spent.cpu));
        let ratio = |other: Option<&Step<'_>>| other.map_or(f64::NAN, |other| ratio(other, step, |spent| spent.cpu));
        println!("{:<44} {:>14} {:>10.1} {:>10.1} % {:>10.1}", step.name, thousands(rate), 1e9 / rate, ratio(floor) * 100.0, ratio(peer));
    }
}

/// What two threads bring. On a machine that others use too, the clock on the wall says less than the CPU time.
fn print_threads(steps: &[Step<'_>]) {
    let of = |name: &str| steps.iter().find(|step| step.name == name).filter(|step| step.failure.is_none());
    println!();
    for (one, two) in [
        ("newlines counted (memchr)", "newlines counted, two threads"),
        ("serde_json, typed and borrowed", "serde_json, two threads"),
        ("engine, each line decoded and counted", "engine, two threads"),
    ] {
        let (Some(one), Some(two)) = (of(one), of(two)) else { continue };
        println!(
            "{}: {:.2} times as fast as one by the clock on the wall (best round {:.2}), with {:.2} times its CPU time",
            two.name,
            ratio(one, two, |spent| spent.wall),
            one.spent.iter().zip(&two.spent).map(|(one, two)| one.wall / two.wall).fold(0.0, f64::max),
            ratio(two, one, |spent| spent.cpu)
        );
    }
}

/// How often memory is asked for while the corpus is read. Whether that is not for each line.
fn print_allocations(config: &Config, truth: &Truth) -> bool {
    let region = Region::new(ALLOCATOR);
    let result = engine::run(config, truth, Some(Rules::All));
    let made = region.change();
    let a_line = (made.allocations + made.reallocations) as f64 / truth.total() as f64;
    match result {
        Ok(()) => println!("allocations, the start and the comparison with the truth included: {a_line:.4} a line (at most {ALLOCATIONS})"),
        Err(failure) => println!("allocations: no figure: {failure}"),
    }
    a_line <= ALLOCATIONS
}

fn print_snapshots(folder: &Path) -> bool {
    let share = snapshot::share(folder);
    match &share {
        Ok(share) => println!("snapshots of {} series that all change: {:.2} % of a core", snapshot::SERIES, share * 100.0),
        Err(failure) => println!("snapshots: no figure: {failure}"),
    }
    share.is_ok()
}

/// How many times less a step takes than another one: the median over the rounds.
fn ratio(other: &Step<'_>, step: &Step<'_>, of: impl Fn(&Spent) -> f64) -> f64 {
    median(other.spent.iter().zip(&step.spent).map(|(other, own)| of(other) / of(own)))
}

// === impl Step ===

impl<'a> Step<'a> {
    fn new(name: &'static str, work: impl Fn() -> Result<Spent, String> + 'a) -> Self {
        Self { name, work: Box::new(work), spent: Vec::new(), failure: None }
    }

    fn round(&mut self) {
        match (self.work)() {
            Ok(spent) => self.spent.push(spent),
            Err(failure) => self.failure = Some(failure),
        }
    }
}

// === impl Options ===

impl Options {
    fn read() -> Self {
        let mut options = Self { lines: 1_000_000, rounds: 5, only: String::new(), write: None };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().expect("a value behind the option");
            match argument.as_str() {
                "--lines" => options.lines = value().parse().expect("a number of lines"),
                "--rounds" => options.rounds = value().parse().expect("a number of rounds"),
                "--only" => options.only = value(),
                "--write" => options.write = Some(value().into()),
                // Cargo says so.
                "--bench" => {}
                other => panic!("unknown option {other}"),
            }
        }
        options
    }
}

/// Writes the corpus as two files of the same length.
fn write_corpus(folder: &Path, lines: u64) -> Vec<Truth> {
    let write = |(path, seed): (&PathBuf, u64)| {
        let mut out = BufWriter::new(File::create(path).unwrap());
        let truth = corpus::write(lines / 2, seed, &mut out).unwrap();
        out.flush().unwrap();
        truth
    };
    engine::files(folder).iter().zip(1..).map(write).collect()
}

/// The CPU time of this process, user and system.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn timed(work: impl Fn() -> Result<(), String>) -> Result<Spent, String> {
    let (cpu, wall) = (cpu_seconds(), Instant::now());
    work()?;
    Ok(Spent { cpu: cpu_seconds() - cpu, wall: wall.elapsed().as_secs_f64() })
}

/// Of another process, which says itself how much CPU time it took.
fn timed_child(work: impl Fn() -> Result<f64, String>) -> Result<Spent, String> {
    let wall = Instant::now();
    Ok(Spent { cpu: work()?, wall: wall.elapsed().as_secs_f64() })
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
