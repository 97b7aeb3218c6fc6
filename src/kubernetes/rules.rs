//! What is wrong with the probes of a container. Pure.

use crate::kubernetes::endpoints::{Endpoint, Nature, find};
use crate::kubernetes::manifest::{Asks, Container, Probe};
use crate::kubernetes::{Finding, Rule};

/// A shorter delay than this is no start that was thought of. JVMs, migrations and waits for a database take longer.
const SMALL_DELAY: u32 = 30;

/// Everything that is wrong with one container.
pub(super) fn judge(container: &Container) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(probe) = &container.liveness {
        findings.extend(liveness_downstream(container, probe));
        findings.extend(too_short(container, probe, "livenessProbe"));
        findings.extend(no_startup(container, probe));
    }
    if let Some(probe) = &container.readiness {
        findings.extend(readiness_that_cannot_fail(container, probe));
        findings.extend(too_short(container, probe, "readinessProbe"));
    }
    findings.extend(same_question(container));
    findings
}

fn known(container: &Container, probe: &Probe) -> Option<&'static Endpoint> {
    match &probe.asks {
        Asks::Http { path, .. } => find(&container.names, path),
        _ => None,
    }
}

fn liveness_downstream(container: &Container, probe: &Probe) -> Option<Finding> {
    let endpoint = known(container, probe)?;
    let Nature::DependsOn(what) = endpoint.nature else { return None };
    let seconds = probe.failures * probe.period;
    let why = format!(
        "{} depends on {what} ({}): {seconds} s of an outage there kill this container in a loop, which mends nothing",
        shown(&probe.asks),
        endpoint.source
    );
    Some(finding(container, probe, Rule::LivenessDependsOnDownstream, why, write_liveness(container, probe)))
}

fn readiness_that_cannot_fail(container: &Container, probe: &Probe) -> Option<Finding> {
    let (source, better) = match (&probe.asks, known(container, probe)) {
        (Asks::Exec { command }, _) if always_succeeds(command) => ("the command always succeeds", None),
        // Its own readiness is all that a sidecar has.
        (_, Some(endpoint)) if endpoint.nature == Nature::Alone && !container.names.contains("bellwether") => {
            (endpoint.source, endpoint.readiness)
        }
        _ => return None,
    };
    let why = format!(
        "{} answers as long as the process does ({source}): the pod stays in rotation while what it needs is down",
        shown(&probe.asks)
    );
    let snippet = match better {
        Some((path, limit)) => write(probe, "readinessProbe", &http(probe, path), probe.timeout.max(limit + 1)),
        None => write(probe, "readinessProbe", "# an endpoint that fails while this pod cannot serve requests", probe.timeout),
    };
    Some(finding(container, probe, Rule::ReadinessCannotFail, why, snippet))
}

fn too_short(container: &Container, probe: &Probe, key: &str) -> Option<Finding> {
    let endpoint = known(container, probe)?;
    // An endpoint with a limit of its own says no only at that limit: the same number of seconds is a race.
    if endpoint.answers_after == 0 || probe.timeout > endpoint.answers_after {
        return None;
    }
    let why = format!(
        "{} takes up to {} s to say no ({}), and the kubelet gives up after {} s: it reports a timeout and never the cause",
        shown(&probe.asks),
        endpoint.answers_after,
        endpoint.source,
        probe.timeout
    );
    let snippet =
        if key == "livenessProbe" { write_liveness(container, probe) } else { write(probe, key, &same(probe), endpoint.answers_after + 1) };
    Some(finding(container, probe, Rule::TimeoutTooShort, why, snippet))
}

fn no_startup(container: &Container, probe: &Probe) -> Option<Finding> {
    if container.startup.is_some() || probe.initial_delay >= SMALL_DELAY {
        return None;
    }
    let seconds = probe.initial_delay + probe.failures * probe.period;
    let why = format!(
        "there is no startupProbe, and the container is killed {seconds} s after its begin if it does not answer by then: a slow start \
         (migrations, indexes, a wait for its database) becomes a loop"
    );
    let asks = better_liveness(container, probe);
    let snippet = if probe.is_values {
        format!("livenessProbe:\n  initialDelaySeconds: {}\n", SMALL_DELAY * 2)
    } else {
        format!(
            "startupProbe:\n{}  periodSeconds: 5\n  failureThreshold: 36   # 3 minutes; liveness begins when it has passed\n",
            indent(&asks)
        )
    };
    Some(finding(container, probe, Rule::LivenessWithoutStartup, why, snippet))
}

fn same_question(container: &Container) -> Option<Finding> {
    let (liveness, readiness) = container.liveness.as_ref().zip(container.readiness.as_ref())?;
    if liveness.asks != readiness.asks || matches!(liveness.asks, Asks::Other) {
        return None;
    }
    let why = format!(
        "liveness and readiness both ask {}: one restarts, the other only takes out of rotation, so one of them is wrong",
        shown(&liveness.asks)
    );
    let readiness_endpoint = known(container, readiness).and_then(|endpoint| endpoint.readiness);
    let (asks, timeout) = match readiness_endpoint {
        Some((path, limit)) => (http(readiness, path), readiness.timeout.max(limit + 1)),
        None => (same(readiness), readiness.timeout),
    };
    let snippet = format!("{}{}", write_liveness(container, liveness), write(readiness, "readinessProbe", &asks, timeout));
    Some(finding(container, liveness, Rule::LivenessEqualsReadiness, why, snippet))
}

fn always_succeeds(command: &str) -> bool {
    let command = command.trim();
    matches!(command, "true" | "/bin/true" | "echo" | "exit 0")
        || command.contains("os.kill(1")
        || command.ends_with("-c true")
        || command.ends_with("-c exit 0")
}

fn finding(container: &Container, probe: &Probe, rule: Rule, why: String, snippet: String) -> Finding {
    Finding { place: probe.place.clone(), container: container.title.clone(), rule, why, snippet }
}

/// What to ask for liveness: what is known to depend on nothing, else the port.
fn better_liveness(container: &Container, probe: &Probe) -> String {
    let Asks::Http { port, .. } = &probe.asks else { return same(probe) };
    match known(container, probe) {
        Some(Endpoint { liveness: Some(path), .. }) => http(probe, path),
        Some(Endpoint { nature: Nature::Alone, .. }) | None => same(probe),
        // A chart that makes an httpGet of its values has no way to say "the port".
        Some(_) if probe.is_values => http(probe, "/"),
        Some(_) => format!("tcpSocket: {{ port: {port} }}"),
    }
}

fn write_liveness(container: &Container, probe: &Probe) -> String {
    write(probe, "livenessProbe", &better_liveness(container, probe), probe.timeout)
}

fn write(probe: &Probe, key: &str, asks: &str, timeout: u32) -> String {
    format!(
        "{key}:\n{}  periodSeconds: {}\n  timeoutSeconds: {timeout}\n  failureThreshold: {}\n",
        indent(asks),
        probe.period,
        probe.failures
    )
}

fn indent(lines: &str) -> String {
    lines.lines().map(|line| format!("  {line}\n")).collect()
}

fn http(probe: &Probe, path: &str) -> String {
    let port = match &probe.asks {
        Asks::Http { port, .. } | Asks::Tcp { port } => port,
        Asks::Exec { .. } | Asks::Other => "",
    };
    if probe.is_values { format!("path: {path}\nport: {port}") } else { format!("httpGet: {{ path: {path}, port: {port} }}") }
}

fn same(probe: &Probe) -> String {
    match &probe.asks {
        Asks::Http { path, .. } => http(probe, path),
        Asks::Tcp { port } => format!("tcpSocket: {{ port: {port} }}"),
        Asks::Exec { .. } | Asks::Other => "# the same as before".to_owned(),
    }
}

fn shown(asks: &Asks) -> String {
    match asks {
        Asks::Http { path, port } => format!("{path} on port {port}"),
        Asks::Tcp { port } => format!("TCP port {port}"),
        Asks::Exec { command } => format!("`{command}`"),
        Asks::Other => "the same".to_owned(),
    }
}
