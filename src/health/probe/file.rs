//! A file that somebody writes again and again: its age is the age of their last sign of life.

use std::io;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use crate::clock::Now;
use crate::config::health::FileProbe;
use crate::health::outcome::Reason;
use crate::health::probe::{Answer, Failed, Found};
use crate::units::format_duration;

/// Looks at one file.
#[derive(Debug)]
pub struct Prober(FileProbe);

// === impl Prober ===

impl Prober {
    pub fn new(probe: &FileProbe) -> Self {
        Self(probe.clone())
    }

    pub async fn ask(&self) -> Answer {
        let written = tokio::fs::metadata(&self.0.path).await.and_then(|metadata| metadata.modified()).map_err(|error| failed(&error))?;
        judge(age(written, Now::read().wall), self.0.max_age)
    }
}

/// How long ago that is. What lies in the future has just been written, by a clock that goes ahead of ours.
fn age(written: SystemTime, now: Timestamp) -> Duration {
    let written = Timestamp::try_from(written).unwrap_or(Timestamp::MIN);
    Duration::try_from(now.duration_since(written)).unwrap_or_default()
}

/// Holds an age to its limit.
pub(super) fn judge(age: Duration, max_age: Option<Duration>) -> Answer {
    let whole_seconds = format_duration(Duration::from_secs(age.as_secs()));
    match max_age {
        Some(limit) if age > limit => {
            Err(Failed::saying(Reason::TooOld, format!("written {whole_seconds} ago, at most {}", format_duration(limit))))
        }
        _ => Ok(Found::saying(format!("written {whole_seconds} ago"))),
    }
}

fn failed(error: &io::Error) -> Failed {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Failed::saying(Reason::Missing, "the file is not there"),
        io::ErrorKind::PermissionDenied => Failed::saying(Reason::Auth, "the file's folder may not be read"),
        _ => Failed::from(Reason::Other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_held_to_its_limit() {
        let limit = Some(Duration::from_secs(120));
        assert_eq!(judge(Duration::from_secs(120), limit), Ok(Found::saying("written 2m ago")));
        assert_eq!(judge(Duration::from_millis(121_500), limit), Err(Failed::saying(Reason::TooOld, "written 2m 1s ago, at most 2m")));
        assert!(judge(Duration::from_secs(1_000_000), None).is_ok());
    }

    #[test]
    fn what_lies_in_the_future_is_new() {
        let now = Timestamp::from_second(1_000).unwrap();
        assert_eq!(age(SystemTime::UNIX_EPOCH + Duration::from_secs(900), now), Duration::from_secs(100));
        assert_eq!(age(SystemTime::UNIX_EPOCH + Duration::from_secs(2_000), now), Duration::ZERO);
    }
}
