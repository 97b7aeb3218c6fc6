//! CPU, memory and disk, held to limits: of the control group where it has limits of its own, else of the machine.
//!
//! Owns the judgement. `figures` knows where the numbers stand.

mod figures;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::config::health::{HostProbe, Limits};
use crate::health::outcome::{Reason, Warning};
use crate::health::probe::host::figures::{Cpu, Source};
use crate::health::probe::{Answer, Failed, Found};

/// The first look has none before it to compare with, and takes two within so much time.
const FIRST_SPAN: Duration = Duration::from_millis(200);

/// Looks at one machine or control group.
#[derive(Debug)]
pub struct Prober {
    probe: HostProbe,
    source: Arc<Source>,
    /// The CPU time at the last look.
    before: Mutex<Option<(Cpu, Instant)>>,
}

/// One figure: what it is of, how much is used, and its limits.
#[derive(Debug)]
struct Use {
    of: &'static str,
    /// `None` when the system does not tell.
    share: Option<f64>,
    limits: Limits,
}

// === impl Prober ===

impl Prober {
    pub fn new(probe: &HostProbe) -> Self {
        Self { probe: probe.clone(), source: Arc::new(Source::new(probe.cgroup.clone())), before: Mutex::default() }
    }

    pub async fn ask(&self) -> Answer {
        let mut uses = Vec::new();
        if let Some(limits) = self.probe.cpu {
            uses.push(Use { of: "CPU", share: self.cpu().await, limits });
        }
        if let Some(limits) = self.probe.memory {
            uses.push(Use { of: "memory", share: self.source.memory(), limits });
        }
        if let Some(disk) = self.probe.disk.clone() {
            // A file system of the network may hang for ever: on a thread that nothing else waits for.
            let share = tokio::task::spawn_blocking(move || figures::disk(&disk.path)).await.ok().flatten();
            uses.push(Use { of: "disk", share, limits: disk.limits });
        }
        judge(&uses)
    }

    /// The share of the CPU that was used since the last look.
    async fn cpu(&self) -> Option<f64> {
        let kept = self.before().take();
        let (before, at) = match kept {
            Some(before) => before,
            None => {
                let first = (self.source.cpu()?, Instant::now());
                tokio::time::sleep(FIRST_SPAN).await;
                first
            }
        };
        let (after, now) = (self.source.cpu()?, Instant::now());
        *self.before() = Some((after, now));
        after.share_since(before, now.saturating_duration_since(at))
    }

    fn before(&self) -> std::sync::MutexGuard<'_, Option<(Cpu, Instant)>> {
        self.before.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The worst of the figures decides; all that are beyond a limit are named.
fn judge(uses: &[Use]) -> Answer {
    let beyond = |limit: fn(&Limits) -> Option<f64>, word: &str| -> Vec<String> {
        let hits = uses.iter().filter_map(|found| {
            let (share, limit) = (found.share?, limit(&found.limits)?);
            (share >= limit).then(|| format!("{} {} ({word} at {})", found.of, percent(share), percent(limit)))
        });
        hits.collect()
    };
    let failed = beyond(|limits| limits.fail, "fails");
    if !failed.is_empty() {
        return Err(Failed::saying(Reason::Limit, failed.join(", ")));
    }
    if let Some(unknown) = uses.iter().find(|found| found.share.is_none()) {
        return Err(Failed::saying(Reason::Missing, format!("the system does not tell the use of {}", unknown.of)));
    }
    let near = beyond(|limits| limits.warn, "warns");
    if !near.is_empty() {
        return Ok(Found { warning: Some(Warning::NearLimit), detail: Some(near.join(", ")) });
    }
    let all: Vec<String> = uses.iter().filter_map(|found| Some(format!("{} {}", found.of, percent(found.share?)))).collect();
    Ok(Found::saying(all.join(", ")))
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(shares: [Option<f64>; 2], expected: Result<(Option<Warning>, &str), (Reason, &str)>) {
        let limits = Limits { warn: Some(0.8), fail: Some(0.95) };
        let uses = [Use { of: "memory", share: shares[0], limits }, Use { of: "disk", share: shares[1], limits }];
        let found = judge(&uses);
        let found = found.map(|found| (found.warning, found.detail.unwrap())).map_err(|failed| (failed.reason, failed.detail.unwrap()));
        assert_eq!(found, expected.map(|(warning, text)| (warning, text.to_owned())).map_err(|(reason, text)| (reason, text.to_owned())));
    }

    #[test]
    fn the_worst_figure_decides() {
        check([Some(0.5), Some(0.6)], Ok((None, "memory 50 %, disk 60 %")));
        check([Some(0.8), Some(0.6)], Ok((Some(Warning::NearLimit), "memory 80 % (warns at 80 %)")));
        check([Some(0.85), Some(0.99)], Err((Reason::Limit, "disk 99 % (fails at 95 %)")));
        check([Some(0.97), Some(0.99)], Err((Reason::Limit, "memory 97 % (fails at 95 %), disk 99 % (fails at 95 %)")));
        check([None, Some(0.5)], Err((Reason::Missing, "the system does not tell the use of memory")));
        check([None, Some(0.99)], Err((Reason::Limit, "disk 99 % (fails at 95 %)")));
    }

    #[tokio::test]
    async fn this_machine_has_figures() {
        let limits = Some(Limits { warn: None, fail: Some(10.0) });
        let disk = Some(crate::config::health::Disk { path: "/".into(), limits: Limits { warn: Some(10.0), fail: None } });
        let prober = Prober::new(&HostProbe { cpu: limits, memory: limits, disk, cgroup: None });
        for _ in 0..2 {
            let found = prober.ask().await.unwrap();
            assert!(found.detail.unwrap().starts_with("CPU "));
        }
    }
}
