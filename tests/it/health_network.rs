//! The fault table of health where it takes a network of its own: packets that the kernel drops or refuses (H3), and names
//! that nobody answers for (H7). `namespace` says where these tests run.

use serde_json::Value;

use crate::component::Component;
use crate::mongod::Mongod;
use crate::namespace::{Answer, NameServer, alone, packets};
use crate::sidecar::{Setup, Sidecar, eventually};

fn start(stores: &str, checks: &str) -> Sidecar {
    let text = format!(
        "state_dir: \"${{BELLWETHER_STATE_DIR}}\"\nstores: {{ {stores} }}\nhealth:\n  defaults: {{ interval: 1s, timeout: 900ms, fail_after: 2, pass_after: 1 }}\n  checks:\n{checks}"
    );
    let sidecar = Setup::default().config(&text).start();
    sidecar.wait_for("/startupz", 200);
    sidecar
}

fn check(sidecar: &Sidecar, name: &str) -> Value {
    let document: Value = serde_json::from_str(&sidecar.get(&format!("/health/{name}")).body).unwrap();
    document["checks"][format!("{name}:responseTime")][0].clone()
}

/// Waits until checks are down for a reason, each.
#[track_caller]
fn expect_down(sidecar: &Sidecar, names: &[&str], reasons: &[&str]) {
    for name in names {
        eventually(
            &format!("{name} is down: {reasons:?}"),
            || check(sidecar, name),
            |seen| seen["x-verdict"] == "down" && reasons.iter().any(|reason| seen["x-reason"] == *reason),
        );
    }
}

fn port_of(address: &str) -> u16 {
    address.rsplit(':').next().unwrap().parse().unwrap()
}

/// H3: what the kernel drops on the way ends with the check's own deadline, and takes no socket and no task more.
#[test]
fn h3_packets_that_are_dropped_are_a_timeout_and_those_that_are_rejected_are_not() {
    alone("health_network::h3_packets_that_are_dropped_are_a_timeout_and_those_that_are_rejected_are_not", async || {
        let (mongod, component) = (Mongod::start().await, Component::start());
        let server = component.url().replace("http://", "");
        let checks = format!(
            "    mongodb: {{ type: mongodb, critical: true }}\n    api: {{ type: http, critical: true, url: \"http://{server}\" }}\n    port: {{ type: tcp, critical: true, address: \"{server}\" }}\n"
        );
        let sidecar = start(&format!("mongodb: {{ uri: \"{}\", database: app }}", mongod.uri()), &checks);
        let all = ["mongodb", "api", "port"];
        let both = |verdict: Option<&str>| packets([port_of(&mongod.address()), port_of(&server)], verdict);
        sidecar.wait_for("/readyz", 200);
        let held = || (sidecar.sockets(), sidecar.value("bellwether_runtime_tasks{runtime=\"checks\"}").unwrap());
        let before = held();

        both(Some("drop"));
        sidecar.wait_for("/readyz", 503);
        expect_down(&sidecar, &all, &["timeout"]);
        for name in all {
            let looks = || sidecar.value(&format!("bellwether_check_results_total{{check=\"{name}\",reason=\"timeout\"}}")).unwrap();
            let seen = looks();
            eventually("looks go on", looks, |looks| *looks >= seen + 4.0);
            // The deadline of the check, and not the two minutes of the system.
            assert!(check(&sidecar, name)["observedValue"].as_u64() <= Some(900), "{name}");
        }
        eventually("no more is held", held, |now| now.0 <= before.0 + 3 && now.1 <= before.1 + 3.0);
        for probe in ["/livez", "/startupz", "/self/readyz"] {
            assert_eq!(sidecar.get(probe).status, 200, "{probe}");
        }

        both(None);
        sidecar.wait_for("/readyz", 200);
        both(Some("reject with tcp reset"));
        expect_down(&sidecar, &all, &["refused", "reset"]);
        both(None);
        sidecar.wait_for("/readyz", 200);
        both(Some("reject with icmpx type admin-prohibited"));
        expect_down(&sidecar, &all, &["unreachable"]);
        both(None);
        sidecar.wait_for("/readyz", 200);
        eventually("no more is held", held, |now| now.0 <= before.0 + 3 && now.1 <= before.1 + 3.0);
    });
}

/// A network that is gone is one cause, of whatever kind the checks are.
#[test]
fn a_machine_without_a_route_has_lost_its_network() {
    alone("health_network::a_machine_without_a_route_has_lost_its_network", async || {
        let component = Component::start();
        let checks = format!(
            "    mongodb: {{ type: mongodb, critical: true }}\n    api: {{ type: http, url: \"http://198.51.100.7/\" }}\n    own: {{ type: http, url: \"{}\" }}\n",
            component.url()
        );
        let sidecar = start("mongodb: { uri: \"mongodb://203.0.113.7/\", database: app }", &checks);
        expect_down(&sidecar, &["mongodb", "api"], &["unreachable"]);
        let causes = || serde_json::from_str::<Value>(&sidecar.get("/health").body).unwrap()["x-root_causes"].to_string();
        eventually("one cause", causes, |causes| causes == "[\"local_network\"]");
        assert_eq!(check(&sidecar, "own")["x-state"], "up");
    });
}

/// H7: a name that does not exist, one that is answered late, and one that nobody answers for differ; and no question is
/// asked twice at once, however long the first one waits.
#[test]
fn h7_names_that_are_unknown_late_or_never_answered_differ() {
    alone("health_network::h7_names_that_are_unknown_late_or_never_answered_differ", async || {
        let component = Component::start();
        let port = component.url().rsplit(':').next().unwrap().to_owned();
        let names = NameServer::start([
            ("fine.test", Answer::Loopback),
            ("late.test", Answer::Late(std::time::Duration::from_millis(400))),
            ("silent.test", Answer::Silence),
            ("database.test", Answer::Silence),
        ]);
        let checks = format!(
            r#"    fine: {{ type: dns, name: fine.test }}
    api: {{ type: http, url: "http://fine.test:{port}/" }}
    late: {{ type: dns, name: late.test, degraded_after: 200ms }}
    unknown: {{ type: dns, name: unknown.test }}
    unknown_api: {{ type: http, url: "http://unknown.test:{port}/" }}
    silent: {{ type: dns, name: silent.test }}
    silent_api: {{ type: http, url: "http://silent.test:{port}/" }}
    silent_port: {{ type: tcp, address: "silent.test:{port}" }}
    mongodb: {{ type: mongodb }}
"#
        );
        let sidecar = start("mongodb: { uri: \"mongodb://database.test/\", database: app }", &checks);
        expect_down(&sidecar, &["unknown", "unknown_api"], &["dns"]);
        expect_down(&sidecar, &["silent", "silent_api", "silent_port", "mongodb"], &["timeout"]);
        for name in ["fine", "api"] {
            eventually(name, || check(&sidecar, name), |seen| seen["x-verdict"] == "up");
        }
        eventually("late is a warning", || check(&sidecar, "late"), |seen| seen["x-verdict"] == "degraded" && seen["x-warning"] == "slow");
        // Each question that waits holds a thread of the resolver, for ten seconds and more.
        let looks = || sidecar.value("bellwether_check_results_total{check=\"silent_api\",reason=\"timeout\"}").unwrap();
        let seen = looks();
        eventually("many more looks", looks, |looks| *looks >= seen + 12.0);
        let threads = sidecar.value("process_threads").unwrap();
        println!("threads while four names are not answered for: {threads}");
        assert!(threads <= 40.0, "{threads} threads");
        assert_eq!(check(&sidecar, "fine")["x-verdict"], "up", "and no other name waits");

        for name in ["silent.test", "database.test"] {
            names.answers(name, Answer::Unknown);
        }
        expect_down(&sidecar, &["silent", "silent_api", "silent_port", "mongodb"], &["dns"]);
        names.answers("silent.test", Answer::Loopback);
        for name in ["silent", "silent_api", "silent_port"] {
            eventually(name, || check(&sidecar, name), |seen| seen["x-verdict"] == "up");
        }
    });
}
