//! `bellwether check --kubernetes`: manifests in, findings and an exit code out.

use std::path::Path;

use crate::sidecar::command;

#[track_caller]
fn lint(arguments: &[&str]) -> (i32, String, String) {
    let output = command().args(["check", "--kubernetes"]).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn inverted_probes_are_named_with_their_line_and_the_remedy() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = "kind: Deployment\nmetadata: { name: decisionbox-dashboard }\nspec:\n  template:\n    spec:\n      containers:\n        - name: dashboard\n          livenessProbe:\n            httpGet: { path: /health, port: 3000 }\n            initialDelaySeconds: 30\n            periodSeconds: 15\n            timeoutSeconds: 5\n";
    std::fs::write(file.path(), text).unwrap();
    let path = file.path().to_str().unwrap();
    let (code, stdout, _) = lint(&[path]);
    assert_eq!(code, 1, "{stdout}");
    let place = format!("{path}:9:13: liveness-depends-on-downstream: Deployment/decisionbox-dashboard, container dashboard\n");
    assert!(stdout.starts_with(&place), "{stdout}");
    assert!(
        stdout.contains("    livenessProbe:\n      tcpSocket: { port: 3000 }\n") && stdout.ends_with("1 finding in 1 file\n"),
        "{stdout}"
    );
    let (code, stdout, _) = lint(&[path, "--json"]);
    let document: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &document["findings"][0]["line"]), (1, &9.into()));
}

#[test]
fn our_own_manifest_is_as_we_advise() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/kubernetes/deployment.yaml");
    let (code, stdout, stderr) = lint(&[path.to_str().unwrap()]);
    assert_eq!((code, stdout.as_str()), (0, "ok: nothing is wrong with the probes in 1 file\n"), "{stderr}");
}

#[test]
fn what_cannot_be_read_has_its_own_codes() {
    assert_eq!(lint(&["/nonexistent.yaml"]).0, 66);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "spec:\n  {{- if .Values.x }}\n  a: b\n").unwrap();
    let (code, _, stderr) = lint(&[file.path().to_str().unwrap()]);
    assert!(code == 65 && stderr.contains("render it first, with `helm template`"), "{code} {stderr}");
}
