//! Whole configurations: what is accepted, and every problem that is reported.

use std::io::Write as _;
use std::time::Duration;

use super::services::{CloudSecrets, Provider};
use super::*;

#[track_caller]
fn load_text(text: &str, environment: &Environment) -> Result<Config, String> {
    let mut file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let request = Request { file: Some(file.path()), ..Request::default() };
    load(&request, environment).map_err(|error| error.to_string().replace(file.path().to_str().unwrap(), "b.yaml"))
}

#[track_caller]
fn check_problems(text: &str, expected: &[&str]) {
    let message = load_text(text, &Environment::default()).expect_err("problems");
    // Without the excerpts of the file below some of them.
    let lines: Vec<&str> = message.lines().skip(1).map(str::trim).filter(|line| !line.starts_with('|')).collect();
    assert_eq!(lines, expected, "{message}");
}

#[test]
fn the_profile_needs_nothing_but_the_address_of_mongodb() {
    let request = Request { profile: Some("decisionbox"), ..Request::default() };
    let config = load(&request, &Environment::of([("MONGODB_URI", "mongodb://user:pw@db:27017/?timeoutMS=5")])).unwrap();
    assert_eq!(config.listen.to_string(), "0.0.0.0:9600");
    assert_eq!(config.stores.mongodb.as_ref().unwrap().database, "decisionbox");
    assert_eq!(config.stores.mongodb.as_ref().unwrap().uri.expose(), "mongodb://user:pw@db:27017/");
    assert_eq!(config.health.checks.len(), 3);
    assert_eq!(config.health.checks[1].timing.timeout, Duration::from_secs(7));
    assert_eq!(config.retention.policies[0].keep, Duration::from_secs(90 * 86_400));
    assert!(config.warnings[0].message.contains("timeoutMS"));
    assert!(!format!("{config:?}").contains("pw@"), "no secret is ever printed");
}

#[test]
fn without_the_address_of_mongodb_the_message_names_it_and_the_remedy() {
    let request = Request { profile: Some("decisionbox"), ..Request::default() };
    let error = load(&request, &Environment::default()).unwrap_err().to_string();
    assert!(error.starts_with("the configuration has 1 problem:\n  profile decisionbox:"), "{error}");
    assert!(error.contains("the variable MONGODB_URI is not set; set MONGODB_URI, or MONGODB_URI_FILE"), "{error}");
}

#[test]
fn a_file_overrides_the_profile_key_by_key() {
    let text =
        "profile: decisionbox\nhealth: {defaults: {interval: 1s, timeout: 900ms}, checks: {dashboard: null}, groups: {dashboard: null}}\n";
    let config = load_text(text, &Environment::of([("MONGODB_URI", "mongodb://db")])).unwrap();
    assert_eq!(config.health.checks.len(), 2);
    assert_eq!(config.health.checks[0].timing.interval, Duration::from_secs(1));
    assert_eq!(config.health.checks[0].timing.degraded_after, Some(Duration::from_millis(500)));
}

#[test]
fn every_problem_is_reported_at_once_with_its_place() {
    let text = "\
listen: nowhere
lissten: 0.0.0.0:9600
health:
  defaults: { interval: 30 }
  checks:
    api: { type: http, url: \"ftp://x\", depends_on: [db] }
    self: { type: tcp, address: \"localhost:1\", depends_on: [self] }
    other: { type: udp }
logs:
  inputs:
    - { name: a, files: [\"/x/[\"] }
  rules:
    - { metric: lines, type: counter }
    - { metric: d_seconds, type: histogram, value: { field: d } }
listen: 0.0.0.0:1
";
    check_problems(
        text,
        &[
            "b.yaml:1:9: listen: this is not an address to listen on; write an IP address and a port, such as 0.0.0.0:9600 or [::]:9600",
            "b.yaml:2:1: unknown key `lissten`; did you mean `listen`?",
            "b.yaml:4:25: health.defaults.interval: `30` has no unit: write for example 30s, 5m, 12h or 90d",
            "b.yaml:6:10: health.checks.api: `url` is not an address such as http://localhost:8080/health",
            "b.yaml:7:11: health.checks.self.depends_on: `self` depends on itself; a root cause needs a first cause",
            "b.yaml:8:20: health.checks.other.type: expected one of mongodb, postgres, redis, http, tcp, tls, dns, file, host, found `udp`",
            "b.yaml:11:26: logs.inputs.a: `/x/[` is not a glob: unclosed character class; missing ']'",
            "b.yaml:13:17: rule lines: the name of a counter ends in _total",
            "b.yaml:14:17: rule d_seconds: a histogram needs `buckets`: upper bounds in base units, such as [0.1, 1, 10]",
            "b.yaml:15:1: the key `listen` stands here twice, first on line 1; remove one",
        ],
    );
}

#[test]
fn what_is_not_yaml_is_a_problem_with_a_place() {
    check_problems("listen: [1\nx: y\n", &["b.yaml:2:2: this is not YAML: illegal placement of ':' indicator"]);
    check_problems("a: 1\n---\nb: 2\n", &["b.yaml:3:1: a second document; a configuration is one document"]);
}

#[test]
fn free_text_is_never_a_label_and_filters_run_no_code() {
    check_problems(
        "collect:\n  - { metric: m, mongodb: { collection: c, filter: { $where: \"1\" } } }\nlogs: {rules: [{ metric: m_total, type: counter, labels: { e: { field: error } } }]}\n",
        &[
            "b.yaml:2:5: collect m: $where is not allowed in a filter: it runs code in the server, or writes",
            "b.yaml:3:26: rule m_total: the label `e` needs exactly one of allow, map, classify, path_template: free text is never a label",
        ],
    );
}

#[test]
fn a_metric_has_one_owner() {
    check_problems(
        "stores: {mongodb: {uri: \"mongodb://h\", database: d}}\nlogs: {rules: [{ metric: m_total, type: counter }]}\ncollect: [{ tail: c, time: t, rules: [{ metric: m_total, type: counter }] }]\n",
        &[
            "metric m_total: this metric is fed from two sides, by logs, tails or gauges; give its rules a `fact` and choose in `sources`, or rename one",
        ],
    );
}

#[test]
fn values_from_the_environment_are_not_printed() {
    let environment = Environment::of([("MONGODB_URI", "hunter2-is-no-uri"), ("KEEP", "hunter3")]);
    let text = "stores: {mongodb: {uri: \"${MONGODB_URI}\", database: x}}\nretention: {policies: [{name: p, mongodb: {collection: c, field: f}, keep: \"${KEEP}\"}]}\n";
    let message = load_text(text, &environment).unwrap_err();
    assert!(!message.contains("hunter"), "{message}");
    assert!(message.contains("`${KEEP}` is not a duration"), "{message}");
}

#[test]
fn an_index_that_the_application_declares_cannot_be_the_sidecars() {
    let ttl = |owner: &str, collection: &str| {
        let text = format!(
            "profile: decisionbox\nretention: {{ ttl: [{{ collection: {collection}, field: created_at, expire_after: 10d, owner: {owner} }}] }}\n"
        );
        load_text(&text, &Environment::of([("MONGODB_URI", "mongodb://db")]))
    };
    let refused = ttl("sidecar", "search_history").expect_err("a problem");
    assert!(refused.contains("b.yaml:2:20: retention.ttl.search_history.created_at: the application declares this index"), "{refused}");
    assert!(ttl("application", "search_history").is_ok() && ttl("sidecar", "audit").is_ok());
}

#[test]
fn the_schema_is_made_of_the_same_types() {
    let schema = serde_json::to_value(schema()).unwrap();
    assert_eq!(schema["additionalProperties"], serde_json::json!(false));
    assert!(schema["properties"]["health"].is_object());
}

#[test]
fn log_inputs_have_exactly_one_source_each() {
    let text = "\
logs:
  inputs:
    - { name: none }
    - { name: both, stdin: true, tcp: 1 }
    - { name: stdout, stdin: true }
    - { name: a, unix: relative.sock }
    - { name: b, unix: /run/b.sock, mode: rwx }
    - { name: c, tcp: nowhere }
    - { name: d, tcp: 9602, max_connections: 0 }
    - { name: e, files: [/a/*.log], exclude: ['['], mode: '0600' }
    - { name: f, stdin: true, exclude: [x], idle_timeout: 1s }
    - { name: a, tcp: '[::1]:9602' }
";
    check_problems(
        text,
        &[
            "logs.inputs: only one input can read the standard input",
            "b.yaml:3:7: logs.inputs.none: an input has exactly one of `files`, `stdin: true`, `unix` and `tcp`",
            "b.yaml:4:7: logs.inputs.both: an input has exactly one of `files`, `stdin: true`, `unix` and `tcp`",
            "b.yaml:5:7: logs.inputs.stdout: `stdout` names a stream of the command in `run -- command`; choose another name",
            "b.yaml:6:24: logs.inputs.a: the path of a socket is absolute and has at most 107 bytes",
            "b.yaml:7:43: logs.inputs.b: permissions are octal digits in quotes, such as \"0660\"",
            "b.yaml:8:23: logs.inputs.c: `nowhere` is no address: write 127.0.0.1:9602, or a port alone",
            "b.yaml:9:46: logs.inputs.d: from 1 to 1024 connections",
            "b.yaml:10:47: logs.inputs.e: `[` is not a glob: unclosed character class; missing ']'",
            "b.yaml:10:59: logs.inputs.e: `mode` is for `unix`",
            "b.yaml:11:7: logs.inputs.f: `exclude` leaves out some of `files`, and there are none",
            "b.yaml:11:7: logs.inputs.f: `max_connections` and `idle_timeout` are for `unix` and `tcp`",
            "b.yaml:12:7: logs.inputs: there are two inputs `a`",
        ],
    );
}

#[test]
fn log_sockets_are_read_as_they_are_written() {
    let text = "logs: {inputs: [{name: a, tcp: 9602}, {name: b, tcp: '0.0.0.0:1'}, {name: c, unix: /run/c.sock, mode: '0600', max_connections: 3}]}\n";
    let config = load_text(text, &Environment::default()).unwrap();
    let addresses: Vec<String> = config
        .logs
        .inputs
        .iter()
        .map(|input| match &input.kind {
            logs::InputKind::Listen(logs::Listen { address, max_connections, .. }) => format!("{address:?} {max_connections}"),
            other => format!("{other:?}"),
        })
        .collect();
    let expected = ["Tcp(127.0.0.1:9602) 64", "Tcp(0.0.0.0:1) 64", "Unix { path: \"/run/c.sock\", mode: 384 } 3"];
    assert_eq!(addresses, expected);
    assert!(config.warnings.iter().any(|warning| warning.message.contains("whoever reaches 0.0.0.0:1")), "{:?}", config.warnings);
}

#[test]
fn alert_rules_are_those_of_the_profile_or_files_and_each_can_be_evaluated() {
    let config =
        load_text("profile: none\nalerts: { set: [BellwetherLogLagging.warning.threshold=2000000] }\n", &Environment::default()).unwrap();
    let threshold = config.alerts.rules.rules().find(|rule| rule.name() == "BellwetherLogLagging").unwrap().threshold();
    assert_eq!((config.alerts.every, threshold), (Duration::from_secs(30), Some(2_000_000.0)));

    let mut rules = tempfile::NamedTempFile::new().unwrap();
    write!(rules, "groups: [{{ name: mine, rules: [{{ alert: A, expr: 'up == 1', for: 1m }}] }}]").unwrap();
    let path = rules.path().display();
    let config = load_text(&format!("alerts: {{ every: 5s, rules: [{path}] }}\n"), &Environment::default()).unwrap();
    assert_eq!((config.alerts.every, config.alerts.rules.rules().count()), (Duration::from_secs(5), 1));

    let mut broken = tempfile::NamedTempFile::new().unwrap();
    write!(broken, "groups: [{{ name: mine, rules: [{{ alert: A, expr: 'quantile(1, up)' }}, {{ alert: B, expr: up, for: soon }}] }}]")
        .unwrap();
    let path = broken.path().display();
    check_problems(
        &format!("alerts:\n  every: 5m\n  set: [Nope.threshold=1]\n  rules: [{path}, /nope.yml]\n"),
        &[
            "b.yaml:2:10: alerts.every: rules are evaluated every 1s to 120s",
            "b.yaml:3:9: alerts.set: no rule has the key `Nope`; `bellwether export alerts --settings` lists all",
            &format!("b.yaml:4:11: alerts.rules: {path}: the query of A: byte 8 of the query: this function is not supported"),
            &format!("b.yaml:4:11: alerts.rules: {path}: the time `soon` of B is no duration such as 10m"),
            &format!(
                "b.yaml:4:{}: alerts.rules: cannot read /nope.yml: No such file or directory (os error 2)",
                13 + path.to_string().len()
            ),
        ],
    );
}

fn of_secrets(service: &str) -> String {
    format!("services:\n  secrets: {{ {service} }}\n")
}

#[test]
fn a_service_of_secrets_is_given_what_is_its_own() {
    let of_file = "services.secrets.folder: `folder` is for `provider: file`";
    let of_aws = "services.secrets.region: `region` is for `provider: aws`";
    let of_gcp = "services.secrets.project: `project` is for `provider: gcp`";
    let of_clouds = "services.secrets.endpoint: `endpoint` is for `provider: aws` and `provider: gcp`";
    let all = "folder: /run/secrets, region: eu-central-1, project: mine, endpoint: \"https://secrets.example.com\"";
    let at = |column: usize, problem: &str| format!("b.yaml:2:{column}: {problem}");
    for (provider, wrong) in [
        ("mongodb", &[(41, of_file), (63, of_aws), (86, of_gcp), (102, of_clouds)][..]),
        ("file", &[(60, of_aws), (83, of_gcp), (99, of_clouds)]),
        ("aws", &[(37, of_file), (82, of_gcp)]),
        ("gcp", &[(37, of_file), (59, of_aws)]),
    ] {
        let expected: Vec<String> = wrong.iter().map(|(column, problem)| at(*column, problem)).collect();
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        check_problems(&of_secrets(&format!("provider: {provider}, {all}")), &expected);
    }
    check_problems(
        &of_secrets("provider: azure"),
        &["b.yaml:2:24: services.secrets.provider: expected one of mongodb, file, aws, gcp, found `azure`"],
    );
}

#[test]
fn the_project_of_a_cloud_is_an_id() {
    for project in ["", ", project: \"\"", ", project: a/b", ", project: ../a", ", project: \"a b\"", ", project: \"a?b\""] {
        let text = of_secrets(&format!("provider: gcp{project}"));
        check_problems(&text, &["services.secrets.project: `provider: gcp` needs the id of its `project`"]);
    }
}

#[test]
fn secrets_cross_no_network_in_plain_text() {
    let at = |endpoint: &str| of_secrets(&format!("provider: aws, endpoint: \"{endpoint}\""));
    for endpoint in [
        "http://secrets.example.com",
        "http://10.0.0.1:4566",
        "http://localhost.example.com",
        "http://127.0.0.1@example.com",
        "ftp://localhost",
        "secrets.example.com",
        "",
    ] {
        check_problems(&at(endpoint), &["b.yaml:2:39: services.secrets.endpoint: an address with https; http on loopback alone"]);
    }
    for endpoint in ["https://secrets.example.com", "http://localhost:4566", "http://127.0.0.1:4566/", "http://[::1]:4566"] {
        let config = load_text(&at(endpoint), &Environment::default()).unwrap();
        let Provider::Cloud(CloudSecrets::Aws { region: None, endpoint: Some(found), .. }) = config.services.secrets.provider else {
            panic!("not as it was written: {:?}", config.services.secrets);
        };
        assert_eq!(found, reqwest::Url::parse(endpoint).unwrap());
    }
}

#[test]
fn the_clouds_of_secrets_are_read_as_they_are_written() {
    let provider = |text: &str| load_text(&of_secrets(text), &Environment::default()).unwrap().services.secrets.provider;
    let aws = provider("provider: aws, region: eu-central-1");
    assert!(matches!(&aws, Provider::Cloud(CloudSecrets::Aws { region: Some(region), endpoint: None, .. }) if region == "eu-central-1"));
    let gcp = provider("provider: gcp, project: \"example.com:my-project\"");
    assert!(matches!(&gcp, Provider::Cloud(CloudSecrets::Gcp { project, endpoint: None, .. }) if project == "example.com:my-project"));
}
