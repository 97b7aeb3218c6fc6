//! `bellwether check --kubernetes`: what is wrong with the probes of manifests, and what to write instead.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use crate::cli::{DATA, Failure, NO_INPUT};
use crate::kubernetes::{Finding, advise};

/// Looks at all files; exits with 1 when there is anything to say.
pub(super) fn lint(files: &[PathBuf], as_json: bool) -> Result<ExitCode, Failure> {
    let mut findings = Vec::new();
    for file in files {
        let name = file.display().to_string();
        let text = std::fs::read_to_string(file).map_err(|error| Failure::new(NO_INPUT, format!("cannot read {name}: {error}")))?;
        let found = advise(&name, &text).map_err(|error| {
            let hint = if text.contains("{{") { "\nthis looks like a template: render it first, with `helm template`" } else { "" };
            Failure::new(DATA, format!("{error}{hint}"))
        })?;
        findings.extend(found);
    }
    if as_json {
        println!("{:#}", json!({ "findings": findings.iter().map(to_json).collect::<Vec<_>>() }));
    } else {
        findings.iter().for_each(show);
        let count = match findings.len() {
            0 => "ok: nothing is wrong with the probes".to_owned(),
            1 => "1 finding".to_owned(),
            count => format!("{count} findings"),
        };
        println!("{count} in {} file{}", files.len(), if files.len() == 1 { "" } else { "s" });
    }
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show(finding: &Finding) {
    println!("{}: {}: {}", finding.place, finding.rule.code(), finding.container);
    println!("  {}", finding.why);
    println!("  Write instead:");
    finding.snippet.lines().for_each(|line| println!("    {line}"));
    println!();
}

fn to_json(finding: &Finding) -> serde_json::Value {
    json!({
        "file": &*finding.place.source,
        "line": finding.place.line,
        "column": finding.place.column,
        "rule": finding.rule.code(),
        "container": finding.container,
        "why": finding.why,
        "snippet": finding.snippet,
    })
}
