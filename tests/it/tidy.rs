//! The rules of the house that a compiler does not know: who may import whom, and how files look.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The levels of ARCHITECTURE.md. A module imports only what stands lower; siblings never import each other.
const LEVELS: [(u8, &[&str]); 9] = [
    (8, &["main", "cli"]),
    (7, &["app"]),
    (6, &["admin"]),
    (5, &["front"]),
    (4, &["backup", "health", "logs", "collect", "retention", "services", "notify"]),
    (3, &["store", "series", "lease", "kubernetes"]),
    (2, &["config"]),
    (1, &["profiles", "metrics", "shipped", "http_error", "runtime"]),
    (0, &["promql", "units", "clock", "secret", "event"]),
];

/// Cores that take data and `now`: no async, no clock, no environment.
const PURE: &[&str] = &[
    "collect/filter.rs",
    "collect/watermark.rs",
    "config/decode.rs",
    "config/merge.rs",
    "config/tree.rs",
    "front/admission.rs",
    "front/clients.rs",
    "front/cors.rs",
    "front/headers.rs",
    "front/path.rs",
    "front/refusal.rs",
    "front/routes.rs",
    "health/aggregate.rs",
    "health/aggregate/causes.rs",
    "health/aggregate/views.rs",
    "health/history/log.rs",
    "health/history/slots.rs",
    "health/maintenance.rs",
    "health/schedule/beat.rs",
    "health/state.rs",
    "kubernetes.rs",
    "kubernetes/endpoints.rs",
    "kubernetes/manifest.rs",
    "kubernetes/rules.rs",
    "logs/console.rs",
    "logs/fault.rs",
    "logs/framing.rs",
    "logs/outcome.rs",
    "logs/scanner.rs",
    "logs/sieve.rs",
    "logs/stack.rs",
    "logs/text.rs",
    "logs/text/ansi.rs",
    "logs/text/grammar.rs",
    "logs/text/pairs.rs",
    "metrics/text.rs",
    "notify/alert.rs",
    "notify/evaluate.rs",
    "notify/evaluate/functions.rs",
    "notify/evaluator.rs",
    "notify/exposition.rs",
    "notify/samples.rs",
    "promql.rs",
    "promql/lexer.rs",
    "promql/parser.rs",
    "promql/template.rs",
    "notify/backoff.rs",
    "notify/dispatch.rs",
    "notify/dispatch/kept.rs",
    "notify/dispatch/pace.rs",
    "notify/inhibit.rs",
    "notify/message.rs",
    "notify/outcome.rs",
    "notify/payload.rs",
    "notify/payload/alertmanager.rs",
    "notify/payload/discord.rs",
    "notify/payload/email.rs",
    "notify/payload/sentry.rs",
    "notify/payload/slack.rs",
    "notify/payload/webhook.rs",
    "notify/resend.rs",
    "notify/text.rs",
    "retention/archive/form.rs",
    "retention/archive/layout.rs",
    "retention/archive/segment.rs",
    "retention/agenda.rs",
    "retention/edge.rs",
    "retention/files/choice.rs",
    "retention/files/plan.rs",
    "retention/guard.rs",
    "retention/local/jump.rs",
    "retention/local/report.rs",
    "retention/outcome.rs",
    "retention/pace.rs",
    "front/keys/jwt.rs",
    "retention/plan.rs",
    "retention/shape.rs",
    "retention/soak.rs",
    "retention/table/plan.rs",
    "retention/table/sql.rs",
    "retention/warrant.rs",
    "series/families.rs",
    "series/families/delta.rs",
    "series/families/exemplars.rs",
    "series/families/family.rs",
    "series/families/kept.rs",
    "series/families/pairs.rs",
    "series/families/waits.rs",
    "series/families/write.rs",
    "series/record.rs",
    "series/rules.rs",
    "series/rules/compile.rs",
    "series/rules/explain.rs",
    "series/rules/label.rs",
    "series/rules/literals.rs",
    "series/rules/matching.rs",
    "series/texts.rs",
    "services/runs/jobs/manifest.rs",
    "services/runs/jobs/seen.rs",
    "services/runs/last_error.rs",
    "services/runs/roster.rs",
    "services/runs/run.rs",
    "services/runs/shape.rs",
    "services/secrets/mask.rs",
    "shipped/dashboards.rs",
    "shipped/kubernetes.rs",
    "shipped/panels.rs",
    "shipped/rules.rs",
    "shipped/settings.rs",
];

const LONGEST_FILE: usize = 400;

/// Files that are longer, each with the reason.
const LONG_FILES: [(&str, &str); 1] = [("src/logs/tests/scenarios.rs", "tests alone, one a scenario, under one table")];

fn sources() -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push((path.clone(), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    walk(&root.join("src"), &mut found);
    found.into_iter().map(|(path, text)| (path.strip_prefix(root).unwrap().to_owned(), text)).collect()
}

fn levels() -> BTreeMap<&'static str, u8> {
    LEVELS.iter().flat_map(|(level, modules)| modules.iter().map(|module| (*module, *level))).collect()
}

fn module_of(path: &Path) -> String {
    let first = path.components().nth(1).unwrap().as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

/// The part of a file that is not its tests.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap()
}

/// The modules of ours that a text names: `crate::x`, also within braces.
fn imports(text: &str) -> Vec<String> {
    text.split("crate::").skip(1).map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()).collect()
}

#[test]
fn every_module_imports_only_what_stands_lower() {
    let levels = levels();
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let module = module_of(&path);
        if module == "lib" {
            continue;
        }
        let own = *levels.get(module.as_str()).unwrap_or_else(|| panic!("{module} stands on no level; see ARCHITECTURE.md"));
        for imported in imports(without_tests(&text)) {
            match levels.get(imported.as_str()) {
                _ if imported == module => {}
                Some(level) if *level < own => {}
                Some(level) => wrong.push(format!("{}: {module} (level {own}) imports {imported} (level {level})", path.display())),
                None => wrong.push(format!("{}: `crate::{imported}` is no module of the table", path.display())),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_import_check_sees_what_it_should() {
    assert_eq!(imports("use crate::health::board; use crate::{a};"), ["health", ""]);
}

#[test]
fn architecture_names_every_module_and_stays_short() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md")).unwrap();
    assert!(text.lines().count() <= 150, "ARCHITECTURE.md has {} lines", text.lines().count());
    for (path, _) in sources() {
        let module = module_of(&path);
        assert!(module == "lib" || text.contains(&format!("`{module}")), "ARCHITECTURE.md does not name {module}");
    }
}

#[test]
fn every_file_says_what_it_owns_and_stays_readable() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let name = path.display().to_string();
        if !text.starts_with("//!") {
            wrong.push(format!("{name} does not begin with what it owns"));
        }
        let lines = without_tests(&text).lines().count();
        if lines > LONGEST_FILE && !LONG_FILES.iter().any(|(file, _)| *file == name) {
            wrong.push(format!("{name} has {lines} lines without its tests; split it, or give a reason here"));
        }
        if path.file_name().is_some_and(|file| file == "mod.rs") {
            wrong.push(format!("{name}: modules are named foo.rs beside foo/"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn pure_cores_have_no_clock_no_async_and_no_environment() {
    let files = sources();
    let mut wrong = Vec::new();
    for pure in PURE {
        let Some((path, text)) = files.iter().find(|(path, _)| path.ends_with(pure)) else {
            wrong.push(format!("{pure} is gone; take it from the list or put its successor there"));
            continue;
        };
        for forbidden in
            ["async ", "Instant::now", "Timestamp::now", "SystemTime", "Now::read", "Moment::read", "std::env", "std::fs", "tokio::"]
        {
            if without_tests(text).contains(forbidden) {
                wrong.push(format!("{}: a pure core has no `{forbidden}`", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_the_domains_that_must_touch_mongodb() {
    let allowed =
        ["backup/", "store/", "config/stores.rs", "front/claims.rs", "health/probe/mongodb.rs", "collect/", "retention/", "services/"];
    for (path, text) in sources() {
        let name = path.strip_prefix("src").unwrap().display().to_string();
        if without_tests(&text).contains("mongodb::bson") || without_tests(&text).contains("mongodb::Client") {
            assert!(allowed.iter().any(|prefix| name.starts_with(prefix)), "{name} touches MongoDB");
        }
    }
}

#[test]
fn only_config_reads_the_environment() {
    for (path, text) in sources() {
        let reads = without_tests(&text).contains("env::var");
        assert!(!reads || path.ends_with("config/environment.rs"), "{} reads the environment", path.display());
    }
}
