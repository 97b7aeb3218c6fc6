//! Rules and routes in which an hour lasts half a minute, and everything else is as shipped.

use bellwether::shipped::rules::RuleFile;
use serde_json::{Value, json};

/// How many times faster time goes.
pub const FACTOR: f64 = 120.0;
/// A range must hold a few scrapes, one a second.
const SHORTEST_RANGE: f64 = 4.0;

/// The rules with every `for`, range and offset made shorter.
pub fn rules(mut file: RuleFile) -> RuleFile {
    for rule in file.rules_mut() {
        rule.expr = expression(&rule.expr);
        rule.hold = rule.hold.as_deref().map(|hold| written(seconds(hold) / FACTOR));
    }
    file
}

/// The sample of Alertmanager with its own routes and inhibitions, quick, and with one receiver for everything.
pub fn alertmanager(sample: &str, receiver: &str) -> Value {
    let mut config: Value = serde_saphyr::from_str(sample).expect("the sample");
    let fields = config.as_object_mut().expect("a map");
    fields.remove("global");
    fields.remove("templates");
    for one in config["receivers"].as_array_mut().expect("receivers") {
        let name = one["name"].as_str().expect("a name").to_owned();
        let webhook = json!({ "url": format!("{receiver}/{name}"), "send_resolved": true });
        *one = if name == "nobody" { json!({ "name": name }) } else { json!({ "name": name, "webhook_configs": [webhook] }) };
    }
    let quick = |route: &mut Value| {
        route["group_wait"] = json!("1s");
        route["group_interval"] = json!("2s");
        route["repeat_interval"] = json!("1h");
    };
    quick(&mut config["route"]);
    for route in config["route"]["routes"].as_array_mut().expect("routes") {
        quick(route);
        // What makes the Watchdog come again and again is that this is the shorter of the two.
        if route["receiver"] == "watchdog" {
            route["repeat_interval"] = json!("1s");
        }
    }
    config
}

/// Shortens what stands in brackets and behind `offset`.
fn expression(text: &str) -> String {
    let mut short = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('[') {
        let end = at + rest[at..].find(']').expect("a closing bracket");
        short.push_str(&rest[..=at]);
        short.push_str(&written((seconds(&rest[at + 1..end]) / FACTOR).max(SHORTEST_RANGE)));
        short.push(']');
        rest = &rest[end + 1..];
        if let Some(behind) = rest.strip_prefix(" offset ") {
            let end = behind.find(|c: char| !c.is_alphanumeric()).unwrap_or(behind.len());
            short.push_str(&format!(" offset {}", written(seconds(&behind[..end]) / FACTOR)));
            rest = &behind[end..];
        }
    }
    short + rest
}

/// A duration of one unit, as all rules are written.
fn seconds(duration: &str) -> f64 {
    let (number, unit) = duration.split_at(duration.len() - 1);
    let factor = [("s", 1.0), ("m", 60.0), ("h", 3600.0), ("d", 86_400.0)].into_iter().find(|(letter, _)| *letter == unit);
    number.parse::<f64>().expect("a number") * factor.expect("a unit").1
}

fn written(seconds: f64) -> String {
    format!("{}ms", (seconds * 1000.0).round())
}

#[test]
fn only_times_are_made_shorter() {
    assert_eq!(expression("rate(a[1h]) / b > 1800"), "rate(a[30000ms]) / b > 1800");
    assert_eq!(expression("x(a[5m] offset 270m) and on (job) b[6h]) >= 5"), "x(a[4000ms] offset 135000ms) and on (job) b[180000ms]) >= 5");
    assert_eq!(expression("vector(0.99)"), "vector(0.99)");
}
