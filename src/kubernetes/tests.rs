//! Manifests like those that are shipped, and what is said of them.

use super::*;

/// A deployment with one container, whose probes are given.
fn deployment(name: &str, probes: &str) -> String {
    let probes: String = probes.lines().map(|line| format!("          {line}\n")).collect();
    format!(
        "---\n# Source: chart/templates/deployment.yaml\napiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: {name}\n  \
         namespace: decisionbox\nspec:\n  template:\n    spec:\n      containers:\n        - name: {name}\n          image: \
         \"ghcr.io/decisionbox-io/{name}:main\"\n{probes}"
    )
}

#[track_caller]
fn rules(text: &str) -> Vec<(usize, &'static str)> {
    advise("x.yaml", text).unwrap().iter().map(|finding| (finding.place.line, finding.rule.code())).collect()
}

const DASHBOARD: &str = "livenessProbe:\n  httpGet:\n    path: /health\n    port: 3000\n  initialDelaySeconds: 15\n  periodSeconds: 15\n  timeoutSeconds: 5\n  failureThreshold: 3\nreadinessProbe:\n  httpGet:\n    path: /health\n    port: 3000\n  periodSeconds: 10\n  timeoutSeconds: 3";
const API: &str = "livenessProbe:\n  httpGet: { path: /health, port: 8080 }\n  initialDelaySeconds: 15\n  periodSeconds: 30\n  timeoutSeconds: 5\nreadinessProbe:\n  httpGet: { path: /health, port: 8080 }\n  timeoutSeconds: 3";

/// Section 0 of the facts: the dashboard is killed for MongoDB, and the API never leaves rotation.
#[test]
fn the_inverted_probes_of_the_shipped_charts_are_found() {
    let dashboard = advise("x.yaml", &deployment("decisionbox-dashboard", DASHBOARD)).unwrap();
    let found: Vec<_> = dashboard.iter().map(|finding| finding.rule).collect();
    assert_eq!(
        found,
        [Rule::LivenessDependsOnDownstream, Rule::LivenessWithoutStartup, Rule::LivenessEqualsReadiness, Rule::TimeoutTooShort]
    );
    assert_eq!(dashboard[0].place.to_string(), "x.yaml:15:13");
    assert_eq!(dashboard[0].container, "Deployment/decisionbox-dashboard, container decisionbox-dashboard");
    assert!(dashboard[0].why.contains("depends on the API and, behind it, MongoDB"), "{}", dashboard[0].why);
    assert!(dashboard[0].why.contains("45 s of an outage there kill this container"), "{}", dashboard[0].why);
    assert_eq!(
        dashboard[0].snippet,
        "livenessProbe:\n  tcpSocket: { port: 3000 }\n  periodSeconds: 15\n  timeoutSeconds: 5\n  failureThreshold: 3\n"
    );
    assert!(dashboard[3].snippet.contains("timeoutSeconds: 4"), "{}", dashboard[3].snippet);

    let api = advise("x.yaml", &deployment("decisionbox-api", API)).unwrap();
    let found: Vec<_> = api.iter().map(|finding| finding.rule).collect();
    assert_eq!(found, [Rule::LivenessWithoutStartup, Rule::LivenessEqualsReadiness, Rule::ReadinessCannotFail]);
    let snippet = "readinessProbe:\n  httpGet: { path: /health/ready, port: 8080 }\n  periodSeconds: 10\n  timeoutSeconds: 6\n  failureThreshold: 3\n";
    assert_eq!(api[2].snippet, snippet);
}

#[test]
fn what_is_advised_is_not_complained_about() {
    let dashboard = "startupProbe: { tcpSocket: { port: 3000 }, failureThreshold: 36 }\nlivenessProbe: { tcpSocket: { port: 3000 } }\nreadinessProbe: { httpGet: { path: /health, port: 3000 }, timeoutSeconds: 4 }";
    let api = "startupProbe: { httpGet: { path: /health, port: 8080 }, failureThreshold: 36 }\nlivenessProbe: { httpGet: { path: /health, port: 8080 } }\nreadinessProbe: { httpGet: { path: /health/ready, port: 8080 }, timeoutSeconds: 6 }";
    let both = deployment("decisionbox-dashboard", dashboard) + &deployment("decisionbox-api", api);
    assert_eq!(rules(&both), []);
}

#[test]
fn values_of_charts_are_read_too() {
    let text = "image:\n  repository: ghcr.io/decisionbox-io/decisionbox-dashboard\nlivenessProbe:\n  enabled: true\n  path: /health\n  port: 3000\n  initialDelaySeconds: 60\nreadinessProbe:\n  enabled: false\n  path: /health\n";
    let findings = advise("values.yaml", text).unwrap();
    assert_eq!(findings.iter().map(|finding| finding.rule).collect::<Vec<_>>(), [Rule::LivenessDependsOnDownstream, Rule::TimeoutTooShort]);
    assert!(findings[0].snippet.starts_with("livenessProbe:\n  path: /\n  port: 3000\n"), "{}", findings[0].snippet);
}

#[test]
fn timeouts_count_with_their_default_and_with_the_endpoints_own_limit() {
    let probe = "readinessProbe: { httpGet: { path: /health/ready, port: 8080 }";
    assert_eq!(rules(&deployment("decisionbox-api", &format!("{probe} }}"))), [(14, "timeout-too-short")]);
    assert_eq!(rules(&deployment("decisionbox-api", &format!("{probe}, timeoutSeconds: 5 }}"))), [(14, "timeout-too-short")]);
    assert_eq!(rules(&deployment("decisionbox-api", &format!("{probe}, timeoutSeconds: 6 }}"))), []);
}

#[test]
fn conventions_are_known_and_what_is_not_known_is_left_alone() {
    let liveness = |path: &str| format!("livenessProbe: {{ httpGet: {{ path: {path}, port: http }}, initialDelaySeconds: 60 }}");
    for (path, found) in [("/readyz", 1), ("/ready/", 1), ("/health/ready?verbose", 1), ("/healthz", 0), ("/livez", 0), ("/", 0)] {
        assert_eq!(rules(&deployment("shop", &liveness(path))).len(), found, "{path}");
    }
    let readiness = |path: &str| format!("readinessProbe: {{ httpGet: {{ path: {path}, port: http }} }}");
    for (path, found) in [("/livez", 1), ("/ping", 1), ("/healthz", 0), ("/readyz", 0)] {
        assert_eq!(rules(&deployment("shop", &readiness(path))).len(), found, "{path}");
    }
    assert_eq!(rules(&deployment("worker", "readinessProbe: { exec: { command: [sh, -c, \"true\"] } }")).len(), 1);
    assert_eq!(rules(&deployment("worker", "readinessProbe: { exec: { command: [redis-cli, ping] } }")).len(), 0);
    assert_eq!(rules(&deployment("worker", "readinessProbe: { grpc: { port: 1 } }")).len(), 0);
}

#[test]
fn lists_several_documents_and_other_kinds_are_walked_through() {
    let text = "---\n---\nkind: List\nitems:\n  - kind: CronJob\n    metadata: { name: nightly }\n    spec: { jobTemplate: { spec: { template: { spec: { containers: [\n      { name: a, livenessProbe: { httpGet: { path: /readyz, port: 1 }, initialDelaySeconds: 60 } } ] } } } } }\n---\nkind: ConfigMap\nmetadata: { name: x }\ndata: { livenessProbe: text }\n";
    let findings = advise("x.yaml", text).unwrap();
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].container, "CronJob/nightly, container a");
}

#[test]
fn a_chart_that_is_not_rendered_is_no_manifest() {
    let error = advise("x.yaml", "spec:\n  {{- if .Values.x }}\n  a: b\n").unwrap_err().to_string();
    assert!(error.contains("x.yaml:"), "{error}");
    assert_eq!(advise("x.yaml", "").unwrap(), []);
}
