//! `PING` on a connection that is kept, and a key that a worker writes again and again.

use std::time::Duration;

use jiff::Timestamp;

use crate::clock::Now;
use crate::config::health::{RedisProbe, WatchedKey};
use crate::health::outcome::Reason;
use crate::health::probe::{Answer, Failed, Found, file};
use crate::store::fault::Fault;
use crate::store::redis::{Redis, RedisFault};
use crate::store::tls::Expiry;

/// Unix seconds are below this until the year 5138, and milliseconds have been above it since 1973.
const SECONDS_END: f64 = 1e11;

/// Asks one server.
#[derive(Debug)]
pub struct Prober {
    redis: Redis,
    key: Option<WatchedKey>,
}

// === impl Prober ===

impl Prober {
    pub fn new(probe: &RedisProbe) -> Self {
        Self { redis: Redis::new(&probe.store), key: probe.key.clone() }
    }

    pub fn expiry(&self) -> &Expiry {
        self.redis.expiry()
    }

    pub async fn ask(&self) -> Answer {
        let failed = |RedisFault(fault): RedisFault| Failed::from(fault);
        self.redis.ping().await.map_err(failed)?;
        let Some(key) = &self.key else { return Ok(Found::default()) };
        if !self.redis.exists(&key.name).await.map_err(failed)? {
            return Err(Failed::saying(Reason::Missing, "the key is not there"));
        }
        let Some(max_age) = key.max_age else { return Ok(Found::default()) };
        let value = self.redis.begin_of(&key.name).await.map_err(|RedisFault(fault)| match fault {
            // WRONGTYPE: there is a list or a hash under this name.
            Fault::Other => no_time(),
            fault => Failed::from(fault),
        })?;
        judge(&value, Now::read().wall, max_age)
    }
}

fn judge(value: &[u8], now: Timestamp, max_age: Duration) -> Answer {
    let written = std::str::from_utf8(value).ok().and_then(|text| read_time(text.trim())).ok_or_else(no_time)?;
    file::judge(Duration::try_from(now.duration_since(written)).unwrap_or_default(), Some(max_age))
}

fn no_time() -> Failed {
    Failed::saying(Reason::BadBody, "the key's value is neither a unix timestamp nor a date such as 2026-11-21T12:00:00Z")
}

/// Unix seconds or milliseconds, or an ISO date with its zone; without one it is taken for UTC, as Python's `utcnow`
/// writes it.
fn read_time(text: &str) -> Option<Timestamp> {
    let text = text.trim_matches('"');
    if let Ok(number) = text.parse::<f64>() {
        let seconds = if number.abs() < SECONDS_END { number } else { number / 1e3 };
        return Timestamp::from_duration(jiff::SignedDuration::try_from_secs_f64(seconds).ok()?).ok();
    }
    text.parse().ok().or_else(|| {
        let civil: jiff::civil::DateTime = text.parse().ok()?;
        civil.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, seconds: Option<i64>) {
        assert_eq!(read_time(text).map(Timestamp::as_second), seconds, "{text}");
    }

    #[test]
    fn heartbeats_are_read_as_workers_write_them() {
        check("1795262400", Some(1_795_262_400));
        check("1795262400.25", Some(1_795_262_400));
        check("1795262400123", Some(1_795_262_400));
        check("2026-11-21T12:00:00Z", Some(1_795_262_400));
        check("2026-11-21T13:00:00+01:00", Some(1_795_262_400));
        check("2026-11-21T12:00:00.123456", Some(1_795_262_400));
        check("2026-11-21 12:00:00", Some(1_795_262_400));
        check("\"2026-11-21T12:00:00.000Z\"", Some(1_795_262_400));
        check("alive", None);
        check("", None);
        check("NaN", None);
        check("1e300", None);
    }

    #[test]
    fn an_old_heartbeat_fails() {
        let now = Timestamp::from_second(1_795_262_400).unwrap();
        let limit = Duration::from_secs(60);
        assert!(judge(b"1795262350", now, limit).is_ok());
        assert!(judge(b"1795262500", now, limit).is_ok(), "a clock that goes ahead");
        assert_eq!(judge(b"1795262300", now, limit).unwrap_err().reason, Reason::TooOld);
        assert_eq!(judge(b"\xff", now, limit).unwrap_err().reason, Reason::BadBody);
    }
}
