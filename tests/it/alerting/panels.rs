//! Every query of every dashboard, asked as Grafana asks it: it must have data, and the labels that its legend names.

use super::servers::Stack;
use crate::observability::dashboard::{DASHBOARDS, dashboard, legend_labels, list, text};

/// Panels that are empty while all components are up: where no check looks at a certificate, no backup is watched, and
/// no policy has been run, planned or stopped yet.
const EMPTY: [&str; 11] = [
    "Time until certificates end",
    "Backups that are not good",
    "Size of the newest backup",
    "Collections in no backup",
    "Time beyond the greatest age",
    "Policies in trouble",
    // Of its two queries one is for policies on tables and files.
    "Time since a start was due",
    "Past its time",
    "Ends of runs",
    "Would go",
    "Since the last good run",
];
/// What takes how long when it does not happen.
const EMPTY_IN_TROUBLE: [&str; 1] = ["Duration of the exploration"];

/// The rows that are empty where no front door is open, and where the sidecar is none of the application's services.
const FRONT_DOOR: [&str; 2] = ["Front door", "Run service and secrets service"];

/// What is wrong with the panels at this moment.
pub async fn problems(stack: &Stack, healthy: bool) -> Vec<String> {
    let may_be_empty =
        |row: &str, title: &str| FRONT_DOOR.contains(&row) || EMPTY.contains(&title) || !healthy && EMPTY_IN_TROUBLE.contains(&title);
    problems_of(stack, |_| true, may_be_empty).await
}

/// What is wrong with those of front doors and services, where there are some.
pub async fn problems_of_the_front_door(stack: &Stack) -> Vec<String> {
    problems_of(stack, |row| FRONT_DOOR.contains(&row), |_, _| false).await
}

async fn problems_of(stack: &Stack, is_wanted: impl Fn(&str) -> bool, may_be_empty: impl Fn(&str, &str) -> bool) -> Vec<String> {
    let (mut problems, mut looked) = (Vec::new(), 0);
    for name in DASHBOARDS {
        let dashboard = dashboard(name);
        let mut row = "";
        for panel in list(&dashboard, "/panels") {
            let title = text(panel, "/title");
            if panel["type"] == "row" {
                row = title;
            } else if is_wanted(row) {
                looked += 1;
                for target in list(panel, "/targets") {
                    if let Some(problem) = problem(stack, target, may_be_empty(row, title)).await {
                        problems.push(format!("{name}: {title}: {}: {problem}", text(target, "/expr")));
                    }
                }
            }
        }
    }
    assert!(looked > 0);
    problems
}

async fn problem(stack: &Stack, target: &serde_json::Value, may_be_empty: bool) -> Option<String> {
    let variables = [("$__rate_interval", "20s"), ("$job", ".+"), ("$instance", ".+")];
    let query = variables.iter().fold(text(target, "/expr").to_owned(), |query, (name, value)| query.replace(name, value));
    if query.contains('$') {
        return Some("a variable is left".to_owned());
    }
    let series = match stack.query(&query, target["range"] == true).await {
        Ok(series) => series,
        Err(error) => return Some(error),
    };
    let has_data = series.iter().any(|(_, values)| values.iter().any(|value| value.is_finite()));
    if !has_data {
        return (!may_be_empty).then(|| "no data".to_owned());
    }
    let wanted = legend_labels(text(target, "/legendFormat"));
    let missing = wanted.into_iter().find(|label| series.iter().any(|(labels, _)| !labels.contains_key(label)))?;
    Some(format!("the legend names {missing}, which a series does not have"))
}
