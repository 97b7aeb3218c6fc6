//! What keeps the sidecar from its own work is told to people, by Prometheus with Alertmanager and by the sidecar alone: a
//! disk for archives that is full, a receiver that takes nothing, a token and a certificate that were replaced by nothing.
//!
//! Not here: the end of `BellwetherRetentionArchiveFailing`, which looks back on a day and so would take twelve minutes even
//! with time made faster. promtool tests it. That retention goes on when there is room again is shown.

use std::path::Path;
use std::time::{Duration, Instant};

use super::servers::Stack;
use super::{PATIENCE, not_inhibited, not_over, not_told};
use crate::component::Component;
use crate::mongod::Mongod;
use crate::namespace::{alone, fill, mount};
use crate::retention_bench::{Bench, DATABASE};
use crate::sidecar::{Setup, eventually};
use crate::tls;

/// What is told and ends when its cause does.
const ENDS: [(&str, &str); 3] =
    [("BellwetherNotifyFailing", "warning"), ("BellwetherTokenReloadFailed", "warning"), ("BellwetherCertificateReloadFailed", "warning")];
const ARCHIVE: [(&str, &str); 1] = [("BellwetherRetentionArchiveFailing", "warning")];

fn config(bench: &Bench, stack: &Stack, away: &str, secrets: &Path) -> String {
    let receiver = format!(", {{ name: away, webhook: {{ url: \"{away}\" }}, group_wait: 1s, group_interval: 2s }}");
    format!(
        "stores: {{ mongodb: {{ uri: \"{}\", database: {DATABASE} }} }}
retention:
  mode: enforce
  lease: 3s
  soak: 0s
  archive: file://{}
  guards: {{ max_fraction: 1.0 }}
  schedule: \"0 * * * *\"
  jitter: 0s
  catch_up: 2h
  policies:
    - name: discoveries
      mongodb: {{ collection: discoveries, field: created_at }}
      keep: 30d
      children:
        - {{ collection: feedback, field: discovery_id, id: objectid_hex }}
        - {{ collection: insights, field: discovery_id, id: objectid_hex }}
{}{}",
        bench.server.uri(),
        bench.archive().display(),
        stack.own(&receiver),
        tls::admin(secrets)
    )
}

async fn until(what: &str, mut missing: impl AsyncFnMut() -> Vec<String>, log: impl Fn() -> String) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let missing = missing().await;
        if missing.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "waited for {what}: {missing:#?}\n{}", log());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[test]
fn what_keeps_the_sidecar_from_its_work_is_told() {
    alone("alerting::own_trouble::what_keeps_the_sidecar_from_its_work_is_told", async || {
        let bench = Bench::on(Mongod::start().await).await;
        bench.seed(60, 10).await;
        let before = bench.contents().await;
        std::fs::create_dir(bench.archive()).unwrap();
        mount(&["-t", "tmpfs", "-o", "size=1m", "tmpfs"], &bench.archive());
        let filler = fill(&bench.archive());
        let (stack, away, secrets) = (Stack::start().await, Component::start(), tempfile::tempdir().unwrap());
        away.answer_with(503);
        let sidecar = Setup::default().config(&config(&bench, &stack, &away.url(), secrets.path())).start();
        stack.scrape(&[&sidecar.address]);
        let log = || sidecar.log();

        // The disk is full: a start that was missed is made up at once, fails, and is made again 15 s later. Other alerts give the
        // receiver that is away something to miss.
        until("a full disk to be told", async || not_told(&stack, 0, &ARCHIVE), log).await;
        assert_eq!(bench.contents().await, before, "nothing is deleted that is in no archive");
        until("its consequence not to be", async || not_inhibited(&stack, &[("BellwetherRetentionFailing", "warning")]).await, log).await;

        std::fs::write(secrets.path().join("token"), "short").unwrap();
        std::fs::write(secrets.path().join("server.pem"), "nothing").unwrap();
        until("the rest to be told", async || not_told(&stack, 0, &ENDS), log).await;
        let told = stack.told();
        let label = |alert: &str, label: &str| {
            let one = told.iter().find(|it| it.firing && it.labels["alertname"] == alert).unwrap();
            one.labels[label].clone()
        };
        assert_eq!(label("BellwetherNotifyFailing", "receiver"), "away");
        assert_eq!(label("BellwetherCertificateReloadFailed", "listener"), "control");
        assert_eq!(label("BellwetherRetentionArchiveFailing", "policy"), "discoveries");

        // All of it is put right.
        drop(tls::admin(secrets.path()));
        away.answer_with(200);
        std::fs::remove_file(filler).unwrap();
        until("the end of alerts", async || not_over(&stack, &ENDS), log).await;
        let rest = async || {
            let after = bench.contents().await;
            if after.len() == 3 * 10 { Vec::new() } else { vec![format!("{} documents", after.len())] }
        };
        until("retention to go on", rest, log).await;
        Bench::assert_nothing_is_lost(&before, &bench.contents().await, &bench.archived().await);
        for left in ["bellwether_retention_matched_documents", "bellwether_retention_oldest_eligible_age_seconds"] {
            let series = format!("{left}{{policy=\"discoveries\"}}");
            eventually("nothing is left to do", || sidecar.value(&series), |value| *value == Some(0.0));
        }
    });
}
