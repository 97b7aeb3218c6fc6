//! The `process_*` metrics that every Prometheus client exposes, read from `/proc/self`.
//!
//! Names and meanings: <https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics>.

use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use rustix::process::{Resource, getrlimit};

use crate::metrics::write_gauge;

/// Reads the figures at each scrape; what the system does not tell is left out.
#[derive(Debug)]
pub struct Process;

/// What `/proc/self/stat` tells.
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_ticks: f64,
    threads: f64,
    start_ticks: f64,
    virtual_bytes: f64,
    resident_pages: f64,
}

// === impl Process ===

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        #[expect(clippy::cast_precision_loss, reason = "ticks and page sizes are small")]
        let (tick, page) = (rustix::param::clock_ticks_per_second() as f64, rustix::param::page_size() as f64);
        if let Some(stat) = fs::read_to_string("/proc/self/stat").ok().and_then(|text| parse_stat(&text)) {
            let seconds = ConstCounter::new(stat.cpu_ticks / tick);
            let metric =
                encoder.encode_descriptor("process_cpu_seconds", "User and system CPU time spent.", None, seconds.metric_type())?;
            seconds.encode(metric)?;
            write_gauge(&mut encoder, "process_resident_memory_bytes", "Resident memory size.", stat.resident_pages * page)?;
            write_gauge(&mut encoder, "process_virtual_memory_bytes", "Virtual memory size.", stat.virtual_bytes)?;
            write_gauge(&mut encoder, "process_threads", "Threads of the process.", stat.threads)?;
            if let Some(boot) = boot_time() {
                write_gauge(
                    &mut encoder,
                    "process_start_time_seconds",
                    "Start time since the Unix epoch.",
                    boot + stat.start_ticks / tick,
                )?;
            }
        }
        if let Ok(descriptors) = fs::read_dir("/proc/self/fd") {
            #[expect(clippy::cast_precision_loss, reason = "descriptors are few")]
            write_gauge(&mut encoder, "process_open_fds", "Open file descriptors.", descriptors.count() as f64)?;
        }
        if let Some(limit) = getrlimit(Resource::Nofile).current {
            #[expect(clippy::cast_precision_loss, reason = "limits are far below 2^53")]
            write_gauge(&mut encoder, "process_max_fds", "Limit of open file descriptors.", limit as f64)?;
        }
        Ok(())
    }
}

/// Reads the fields after the command, which stands in parentheses and may hold anything (proc(5)).
fn parse_stat(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    // The first field here is number 3 of proc(5).
    let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    Some(Stat {
        cpu_ticks: field(14)? + field(15)?,
        threads: field(20)?,
        start_ticks: field(22)?,
        virtual_bytes: field(23)?,
        resident_pages: field(24)?,
    })
}

/// When the system was booted, in seconds since the epoch.
fn boot_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{Stat, parse_stat};

    #[test]
    fn a_command_with_spaces_and_parentheses_is_passed_over() {
        let text = "42 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 100 50 0 0 20 0 7 0 9000 4096000 250 0";
        let stat = Stat { cpu_ticks: 150.0, threads: 7.0, start_ticks: 9000.0, virtual_bytes: 4_096_000.0, resident_pages: 250.0 };
        assert_eq!(parse_stat(text), Some(stat));
        assert_eq!(parse_stat("garbage"), None);
    }
}
