//! mtail with equal rules, as a program written for it. Lines that do not end in a brace are left out by its first
//! pattern, as it knows no JSON; the patterns are ordered by how much they spare.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::corpus::{DISCOVERY, DISCOVERY_BOUNDS, EVENTS, QUERY, QUERY_BOUNDS, Truth};
use crate::counts::{self, Rules};
use crate::engine;

/// The kernel counts the CPU time of a process in these parts of a second.
const TICKS: f64 = 100.0;

/// Whether mtail is installed.
pub fn is_there() -> bool {
    Command::new("mtail").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Writes the program.
pub fn prepare(folder: &Path) {
    let bounds = |bounds: &[f64]| bounds.iter().map(f64::to_string).collect::<Vec<_>>().join(", ");
    let (queries, runs, events) = (bounds(&QUERY_BOUNDS), bounds(&DISCOVERY_BOUNDS), EVENTS.join("|"));
    let program = format!(
        r#"counter app_log_lines_total by level, service
counter app_errors_total by service
counter app_events_total by event, service
histogram app_query_duration_seconds by kind buckets {queries}
histogram app_discovery_duration_seconds buckets {runs}

/^\{{.*\}}$/ {{
  /"level": ?"(?P<level>[a-z]+)"/ {{
    /"service": ?"(?P<service>[^"]+)"/ {{
      app_log_lines_total[$level][$service]++
      $level == "error" {{
        app_errors_total[$service]++
      }}
      /"msg": ?"(?P<event>{events})"/ {{
        app_events_total[$event][$service]++
      }}
    }}
  }}
  /"msg": ?"{QUERY}"/ {{
    /"query_kind": ?"(?P<kind>[a-z]+)"/ {{
      /"duration_ms": ?(?P<millis>[0-9]+)/ {{
        app_query_duration_seconds[$kind] = $millis / 1000.0
      }}
    }}
  }}
  /"msg": ?"{DISCOVERY}"/ {{
    /"duration": ?"(?P<minutes>[0-9]+)m(?P<seconds>[0-9]+\.[0-9]+)s"/ {{
      app_discovery_duration_seconds = $minutes * 60.0 + $seconds
    }}
  }}
}}
"#
    );
    let programs = folder.join("mtail");
    fs::create_dir_all(&programs).expect("a folder that can be written to");
    fs::write(programs.join("app.mtail"), program).expect("a folder that can be written to");
}

/// Reads the corpus, and compares with the truth. The CPU time in seconds.
pub fn run(folder: &Path, truth: &Truth) -> Result<f64, String> {
    let output = folder.join("mtail.prometheus");
    let out = fs::File::create(&output).map_err(|error| error.to_string())?;
    let mut command = Command::new("mtail");
    command.args(["-one_shot", "-one_shot_format", "prometheus", "-progs"]).arg(folder.join("mtail"));
    for file in engine::files(folder) {
        command.arg("-logs").arg(file);
    }
    let mut child = command.stdout(out).stderr(Stdio::null()).spawn().map_err(|error| error.to_string())?;
    // A process that has ended and was not waited for still tells what it used.
    let used = loop {
        let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).map_err(|error| error.to_string())?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        if fields.first() == Some(&"Z") {
            let ticks = |position: usize| fields.get(position).and_then(|field| field.parse::<f64>().ok()).unwrap_or(f64::NAN);
            break (ticks(11) + ticks(12)) / TICKS;
        }
        thread::sleep(Duration::from_millis(10));
    };
    child.wait().map_err(|error| error.to_string())?;
    let text = fs::read_to_string(&output).map_err(|error| error.to_string())?;
    match counts::difference(&counts::read(&text), &counts::expected(truth, Rules::All)) {
        Some(difference) => Err(difference),
        None => Ok(used),
    }
}
