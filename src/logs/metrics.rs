//! What the engine says of itself. What must be exact over a restart lives in the families of the rules, so that it
//! is kept together with the offsets.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use crate::config::rules::{DEFAULT_SERIES_LIMIT, Metric, MetricKind};
use crate::logs::fault::{Oddities, Reason};
use crate::logs::outcome::{Outcome, Tally};
use crate::series::families::{DeclareError, Families, SeriesId};

/// How a file was rotated.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Rotation {
    /// Another file stands at its path.
    Rename,
    /// It begins anew.
    Truncate,
}

/// Why a file cannot be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Trouble {
    /// We may not.
    Permission,
    /// It was gone when it was to be opened, or a link leads nowhere.
    Vanished,
    /// A folder, a pipe or a device has the name of a log.
    NotAFile,
    /// The operating system reported an error.
    Read,
    /// There are too many already.
    TooManyFiles,
}

/// The series of one input.
#[derive(Clone, Debug)]
pub struct InputSeries {
    outcomes: [SeriesId; Outcome::NAMES.len()],
    malformed: [SeriesId; Reason::ALL.len()],
    repaired: [SeriesId; Oddities::NAMES.len()],
    samples: [SeriesId; 2],
    bytes: SeriesId,
    lost: SeriesId,
    rotations: [SeriesId; 2],
    troubles: [SeriesId; 5],
    files: SeriesId,
    lag: SeriesId,
    behind: SeriesId,
}

/// What happened at a socket that others connect to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ConnectionEvent {
    /// Somebody was let in.
    Accepted,
    /// There was no room.
    Refused,
    /// One that was silent made room.
    Idle,
    /// The operating system let nobody in, as when descriptors have run out.
    Failed,
}

/// The series of a socket that others connect to.
#[derive(Clone, Debug)]
pub struct DoorSeries {
    open: SeriesId,
    events: [SeriesId; ConnectionEvent::NAMES.len()],
}

/// What is not kept over a restart.
#[derive(Clone, Debug, Default)]
pub struct SnapshotMetrics {
    /// Snapshots that could not be written, or not be trusted at the start.
    pub failures: Counter,
    /// What was written to the disk for them.
    pub bytes: Counter,
    /// When the last one was written.
    pub written: Gauge<f64, AtomicU64>,
}

// === impl Trouble ===

impl Trouble {
    const ALL: [Self; 5] = [Self::Permission, Self::Vanished, Self::NotAFile, Self::Read, Self::TooManyFiles];

    /// The value of the label `reason`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Permission => "permission",
            Self::Vanished => "vanished",
            Self::NotAFile => "not_a_file",
            Self::Read => "read",
            Self::TooManyFiles => "too_many_files",
        }
    }

    /// What can be done about it.
    #[must_use]
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Permission => "let the sidecar's user read it, for example by a group that both are in",
            Self::Vanished => "nothing to do where it was rotated away; else check where the link leads",
            Self::NotAFile => "make the pattern of the input more exact",
            Self::Read => "check the file system",
            Self::TooManyFiles => {
                "make the patterns of the inputs more exact, remove old logs, or raise the limit of open files (ulimit -n)"
            }
        }
    }

    /// Which trouble an error is.
    #[must_use]
    pub fn of(error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::PermissionDenied => Self::Permission,
            std::io::ErrorKind::NotFound => Self::Vanished,
            std::io::ErrorKind::IsADirectory | std::io::ErrorKind::NotADirectory => Self::NotAFile,
            _ => Self::Read,
        }
    }
}

// === impl InputSeries ===

impl InputSeries {
    /// Declares the metrics, and exposes all series of this input as zero.
    ///
    /// # Errors
    /// When a rule feeds a metric of the same name.
    pub fn declare(input: &str, families: &mut Families) -> Result<Self, DeclareError> {
        let mut series =
            |name: &str, help: &str, kind: MetricKind, label: Option<(&str, &str)>| declare(families, input, (name, help, kind), label);
        let counter = MetricKind::Counter;
        let outcomes =
            each(Outcome::NAMES, |name| series("bellwether_log_lines_total", "Log lines by outcome", counter, Some(("outcome", name))))?;
        let malformed = each(Reason::ALL.map(Reason::name), |name| {
            let help = "Log lines, or begins of them, that told nothing, by what is wrong with them";
            series("bellwether_log_malformed_total", help, counter, Some(("reason", name)))
        })?;
        let repaired = each(Oddities::NAMES, |name| {
            let help = "Log lines in which something was put right before they counted";
            series("bellwether_log_repaired_total", help, counter, Some(("repair", name)))
        })?;
        let samples = each(["record", "malformed"], |name| {
            let help = "Log lines that could have been skipped and were decoded to see whether they are whole, by outcome";
            series("bellwether_log_sampled_lines_total", help, counter, Some(("outcome", name)))
        })?;
        let rotations = each(["rename", "truncate"], |kind| {
            series("bellwether_log_rotations_total", "Rotations of log files that were seen, by kind", counter, Some(("kind", kind)))
        })?;
        let troubles = each(Trouble::ALL.map(Trouble::name), |name| {
            let help = "Log files that could not be read, by reason; each counts once until it can be read again";
            series("bellwether_log_file_errors_total", help, counter, Some(("reason", name)))
        })?;
        Ok(Self {
            outcomes,
            malformed,
            repaired,
            samples,
            rotations,
            troubles,
            bytes: series("bellwether_log_bytes_total", "Bytes of log lines that were counted", counter, None)?,
            lost: series("bellwether_log_lost_bytes_total", "Bytes known to have vanished before they were read", counter, None)?,
            files: series("bellwether_log_files", "Log files that are open", MetricKind::Gauge, None)?,
            lag: series("bellwether_log_lag_bytes", "Bytes of log files that are not yet counted", MetricKind::Gauge, None)?,
            behind: {
                let help = "Seconds since all bytes of log files were last counted, 0 while they are";
                series("bellwether_log_lag_seconds", help, MetricKind::Gauge, None)?
            },
        })
    }

    /// Adds what a buffer had in it.
    pub fn commit(&self, tally: &Tally, bytes: u64, families: &mut Families) {
        let all = self.outcomes.iter().zip(&tally.outcomes);
        let all = all.chain(self.malformed.iter().zip(&tally.reasons)).chain(self.repaired.iter().zip(&tally.oddities));
        let all = all.chain(self.samples.iter().zip(&tally.samples));
        for (series, count) in all.filter(|(_, count)| **count > 0) {
            families.add(*series, f64::from(*count));
        }
        families.add(self.bytes, amount(bytes));
    }

    /// Counts a rotation.
    pub fn rotated(&self, rotation: Rotation, families: &mut Families) {
        families.add(self.rotations[usize::from(rotation == Rotation::Truncate)], 1.0);
    }

    /// Counts bytes that nobody will read any more.
    pub fn lost(&self, bytes: u64, families: &mut Families) {
        families.add(self.lost, amount(bytes));
    }

    /// Counts a file that cannot be read.
    pub fn troubled(&self, trouble: Trouble, families: &mut Families) {
        let position = Trouble::ALL.iter().position(|other| *other == trouble);
        position.into_iter().for_each(|position| families.add(self.troubles[position], 1.0));
    }

    /// Says how many files are open, and how far behind they are: in bytes, and for how long.
    pub fn set_open(&self, files: u64, lag: u64, behind: Duration, families: &mut Families) {
        families.set(self.files, amount(files));
        families.set(self.lag, amount(lag));
        families.set(self.behind, behind.as_secs_f64());
    }
}

// === impl ConnectionEvent ===

impl ConnectionEvent {
    /// The values of the label `event`, in the order of their numbers.
    const NAMES: [&'static str; 4] = ["accepted", "refused", "idle", "failed"];
}

// === impl DoorSeries ===

impl DoorSeries {
    /// Declares the metrics, and exposes all series of this input as zero.
    ///
    /// # Errors
    /// When a rule feeds a metric of the same name.
    pub fn declare(input: &str, families: &mut Families) -> Result<Self, DeclareError> {
        let help = "Writers that are connected to the socket of a log input";
        let open = declare(families, input, ("bellwether_log_connections", help, MetricKind::Gauge), None)?;
        let help = "What happened at the socket of a log input: accepted, refused for want of room, idle and closed to make room, failed";
        let metric = ("bellwether_log_connections_total", help, MetricKind::Counter);
        let events = each(ConnectionEvent::NAMES, |name| declare(families, input, metric, Some(("event", name))))?;
        families.set(open, 0.0);
        Ok(Self { open, events })
    }

    /// Counts what happened, and says how many are connected.
    pub fn commit(&self, event: Option<ConnectionEvent>, open: u64, families: &mut Families) {
        if let Some(event) = event {
            families.add(self.events[event as usize], 1.0);
        }
        families.set(self.open, amount(open));
    }
}

/// The series of an input, and of one value of another label.
fn declare(
    families: &mut Families,
    input: &str,
    (name, help, kind): (&str, &str, MetricKind),
    label: Option<(&str, &str)>,
) -> Result<SeriesId, DeclareError> {
    let metric = Metric { name: name.to_owned(), help: help.to_owned(), kind, buckets: Vec::new(), series_limit: DEFAULT_SERIES_LIMIT };
    let mut names = vec!["input".to_owned()];
    names.extend(label.map(|(name, _)| name.to_owned()));
    let family = families.declare(&metric, &names)?;
    let mut values = vec![input];
    values.extend(label.map(|(_, value)| value));
    Ok(families.series(family, &values))
}

/// A series for each name.
fn each<const N: usize>(
    names: [&str; N],
    mut series: impl FnMut(&str) -> Result<SeriesId, DeclareError>,
) -> Result<[SeriesId; N], DeclareError> {
    let made = names.iter().map(|name| series(name)).collect::<Result<Vec<_>, _>>()?;
    Ok(std::array::from_fn(|position| made[position]))
}

#[expect(clippy::cast_precision_loss, reason = "counters are f64; sizes are below 2^53 for any log there is")]
fn amount(count: u64) -> f64 {
    count as f64
}

// === impl SnapshotMetrics ===

impl SnapshotMetrics {
    /// Exposes them.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Snapshots of the log state that could not be written, or not be trusted at the start";
        registry.register("bellwether_log_snapshot_failures", help, self.failures.clone());
        let help = "Bytes that snapshots of the log state had to write: the blocks that have changed";
        registry.register("bellwether_log_snapshot_bytes", help, self.bytes.clone());
        let help = "When the log state was last written, in seconds since the epoch; 0 before the first time";
        registry.register("bellwether_log_snapshot_timestamp_seconds", help, self.written.clone());
    }
}
