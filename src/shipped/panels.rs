//! A panel: its small source, and how each kind is drawn. Only kinds that every Grafana has.
//!
//! Knows nothing of where it stands.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::shipped::KitError;
use crate::shipped::dashboards::narrowed;
use crate::shipped::rules::{Rule, RuleFile};

/// The source of a panel.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Panel {
    title: String,
    #[serde(rename = "type")]
    kind: Kind,
    /// In columns.
    width: u64,
    /// What it shows and how to read it.
    about: String,
    unit: String,
    decimals: Option<u64>,
    /// What is written where there is no data.
    none: String,
    /// The alerts whose thresholds it shows.
    #[serde(default)]
    alerts: Vec<String>,
    /// Steps of its own, for values that mean states.
    #[serde(default)]
    steps: Vec<Step>,
    /// Words for values.
    #[serde(default)]
    words: Vec<Word>,
    /// The colours of single series, by their legend.
    #[serde(default)]
    colors: BTreeMap<String, String>,
    /// The labels that are the first columns of a table.
    #[serde(default)]
    labels: Vec<String>,
    /// The columns of a table that are yes or no, by the legend of their query.
    #[serde(default)]
    flags: Vec<String>,
    queries: Vec<Query>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Kind {
    /// One value, large.
    Stat,
    /// The names of series, large.
    Names,
    /// Lines over time.
    Lines,
    /// Counts over time, one upon the other.
    Bars,
    /// States over time.
    States,
    /// How many values fell into which range, over time.
    Heatmap,
    /// A line for each combination of labels, a column for each query.
    Table,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    /// From here upwards; the first has none.
    from: Option<f64>,
    color: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Word {
    value: i64,
    text: String,
    color: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    query: String,
    #[serde(default)]
    legend: String,
}

/// The data source that the reader chose.
pub(super) fn data_source() -> Value {
    json!({ "type": "prometheus", "uid": "${datasource}" })
}

// === impl Panel ===

impl Panel {
    pub(super) fn width(&self) -> u64 {
        self.width
    }

    /// Everything but its number and its place.
    pub(super) fn draw(&self, rules: &RuleFile) -> Result<Value, KitError> {
        let mut defaults = Map::new();
        defaults.insert("unit".into(), json!(self.unit));
        defaults.insert("noValue".into(), json!(self.none));
        defaults.insert("thresholds".into(), json!({ "mode": "absolute", "steps": self.steps(rules)? }));
        if let Some(decimals) = self.decimals {
            defaults.insert("decimals".into(), json!(decimals));
        }
        if !self.words.is_empty() {
            let words: Map<String, Value> = self.words.iter().zip(0..).map(|(word, index)| word.mapping(index)).collect();
            defaults.insert("mappings".into(), json!([{ "type": "value", "options": words }]));
        }
        for (key, value) in self.kind_defaults() {
            defaults.insert(key.into(), value);
        }
        let mut panel = json!({
            "type": self.kind.name(),
            "title": self.title,
            "description": self.alerts.iter().fold(self.about.clone(), |about, alert| format!("{about} Alert: {alert}.")),
            "datasource": data_source(),
            "fieldConfig": { "defaults": defaults, "overrides": self.overrides() },
            "options": self.options(),
            "targets": self.targets(),
        });
        if self.kind == Kind::Table {
            panel["transformations"] = self.columns();
        }
        Ok(panel)
    }

    /// The colours from which value on. An alert on "above 0" of something that is counted begins at 1.
    fn steps(&self, rules: &RuleFile) -> Result<Vec<Value>, KitError> {
        let step = |from: Option<f64>, color: &str| json!({ "value": from, "color": color });
        if !self.steps.is_empty() {
            return Ok(self.steps.iter().map(|it| step(it.from, &it.color)).collect());
        }
        let mut limits: Vec<(f64, &str, bool)> = Vec::new();
        for name in &self.alerts {
            let missing = || KitError::NoAlert { panel: self.title.clone(), alert: name.clone() };
            let found: Vec<&Rule> = rules.rules().filter(|rule| rule.alert.as_deref() == Some(name)).collect();
            if found.is_empty() {
                return Err(missing());
            }
            for rule in found {
                let threshold = rule.threshold().ok_or_else(missing)?;
                let below = rule.threshold_place().is_some_and(|place| rule.expr[..place.start].trim_end().ends_with('<'));
                limits.push((if threshold == 0.0 { 1.0 } else { threshold }, color(rule), below));
            }
        }
        // Red before orange at one value, so that the first of them is the one that stays.
        limits.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(a.1)));
        limits.dedup_by(|later, first| later.0.to_bits() == first.0.to_bits());
        if limits.iter().any(|limit| limit.2) {
            let after = limits.iter().skip(1).map(|limit| limit.1).chain(["green"]);
            let rest = limits.iter().zip(after).map(|(limit, next)| step(Some(limit.0), next));
            return Ok(limits.first().map(|limit| step(None, limit.1)).into_iter().chain(rest).collect());
        }
        Ok([step(None, "green")].into_iter().chain(limits.iter().map(|limit| step(Some(limit.0), limit.1))).collect())
    }

    fn kind_defaults(&self) -> Vec<(&'static str, Value)> {
        let axis = |style: &str, fill: u64, stacking: &str, line: &str| {
            json!({
                "axisPlacement": "auto", "drawStyle": style, "fillOpacity": fill, "lineWidth": 1, "showPoints": "never", "spanNulls": false,
                "stacking": { "group": "A", "mode": stacking }, "thresholdsStyle": { "mode": line }
            })
        };
        let palette = ("color", json!({ "mode": "palette-classic" }));
        match self.kind {
            Kind::Stat | Kind::Names => vec![("color", json!({ "mode": "thresholds" }))],
            Kind::Lines => {
                let line = if self.alerts.is_empty() { "off" } else { "dashed" };
                vec![palette, ("min", json!(0)), ("custom", axis("line", 10, "none", line))]
            }
            Kind::Bars => {
                let mut bars = axis("bars", 80, "normal", "off");
                // Without it nothing is drawn against a hundred.
                bars["axisSoftMax"] = json!(1);
                vec![palette, ("min", json!(0)), ("custom", bars)]
            }
            Kind::States => {
                vec![("color", json!({ "mode": "thresholds" })), ("custom", json!({ "fillOpacity": 70, "lineWidth": 0 }))]
            }
            Kind::Heatmap => {
                let hidden = json!({ "legend": false, "tooltip": false, "viz": false });
                vec![("custom", json!({ "hideFrom": hidden, "scaleDistribution": { "type": "linear" } }))]
            }
            Kind::Table => vec![("color", json!({ "mode": "fixed", "fixedColor": "text" }))],
        }
    }

    fn overrides(&self) -> Value {
        let flag = |name: &String| {
            json!({
                "matcher": { "id": "byName", "options": name },
                "properties": [
                    { "id": "unit", "value": "bool_yes_no" },
                    { "id": "color", "value": { "mode": "thresholds" } },
                    { "id": "custom.cellOptions", "value": { "type": "color-text" } }
                ]
            })
        };
        let color = |(name, color): (&String, &String)| {
            json!({
                "matcher": { "id": "byName", "options": name },
                "properties": [{ "id": "color", "value": { "mode": "fixed", "fixedColor": color } }]
            })
        };
        self.flags.iter().map(flag).chain(self.colors.iter().map(color)).collect()
    }

    fn options(&self) -> Value {
        let tooltip = json!({ "mode": "multi", "sort": "desc" });
        // What happens stands on top of the many series that are 0.
        // No sum: the windows of `$__rate_interval` overlap, so that it would count what happened several times.
        let legend = json!({
            "calcs": ["max"], "displayMode": "table", "placement": "bottom", "showLegend": true, "sortBy": "Max", "sortDesc": true
        });
        match self.kind {
            Kind::Stat | Kind::Names => json!({
                "colorMode": "background", "graphMode": "none", "justifyMode": "auto", "orientation": "auto",
                "reduceOptions": { "calcs": ["lastNotNull"], "fields": "", "values": false },
                "textMode": if self.kind == Kind::Names { "name" } else { "auto" }, "wideLayout": true
            }),
            Kind::Lines | Kind::Bars => json!({ "legend": legend, "tooltip": tooltip }),
            Kind::States => json!({
                "alignValue": "left", "legend": { "displayMode": "list", "placement": "bottom", "showLegend": false },
                "mergeValues": true, "rowHeight": 0.8, "showValue": "auto", "tooltip": { "mode": "single", "sort": "none" }
            }),
            Kind::Heatmap => json!({
                "calculate": false, "cellGap": 1, "cellValues": { "decimals": 0 },
                "color": {
                    "exponent": 0.5, "fill": "dark-blue", "mode": "scheme", "reverse": false, "scale": "exponential", "scheme": "Blues",
                    "steps": 32
                },
                "filterValues": { "le": 1e-9 }, "legend": { "show": true }, "rowsFrame": { "layout": "auto" },
                "tooltip": { "mode": "single", "showColorScale": false, "yHistogram": false },
                "yAxis": { "axisPlacement": "left", "reverse": false, "unit": self.unit }
            }),
            Kind::Table => {
                let first = self.labels.first().map(|label| capitalized(label)).unwrap_or_default();
                json!({ "cellHeight": "sm", "showHeader": true, "sortBy": [{ "desc": false, "displayName": first }] })
            }
        }
    }

    fn targets(&self) -> Vec<Value> {
        let instant = matches!(self.kind, Kind::Stat | Kind::Names | Kind::Table);
        let target = |(query, reference): (&Query, char)| {
            let mut target = json!({
                "datasource": data_source(), "editorMode": "code", "expr": narrowed(&query.query), "legendFormat": query.legend,
                "refId": reference.to_string(), "instant": instant, "range": !instant
            });
            match self.kind {
                Kind::Table => {
                    target["format"] = json!("table");
                    target["legendFormat"] = json!("");
                }
                Kind::Heatmap => target["format"] = json!("heatmap"),
                _ => {}
            }
            target
        };
        self.queries.iter().zip('A'..).map(target).collect()
    }

    /// Merges the queries of a table into one line for each combination of labels.
    fn columns(&self) -> Value {
        let value = |reference: char| if self.queries.len() == 1 { "Value".to_owned() } else { format!("Value #{reference}") };
        let columns = || self.labels.iter().cloned().chain(('A'..).take(self.queries.len()).map(value));
        let order: Map<String, Value> = columns().zip(0..).map(|(column, at)| (column, json!(at))).collect();
        let titles = self.labels.iter().map(|label| capitalized(label)).chain(self.queries.iter().map(|query| query.legend.clone()));
        let names: Map<String, Value> = columns().zip(titles).map(|(column, title)| (column, json!(title))).collect();
        json!([
            { "id": "merge", "options": {} },
            { "id": "organize", "options": { "excludeByName": { "Time": true }, "indexByName": order, "renameByName": names } }
        ])
    }
}

// === impl Kind ===

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Stat | Self::Names => "stat",
            Self::Lines | Self::Bars => "timeseries",
            Self::States => "state-timeline",
            Self::Heatmap => "heatmap",
            Self::Table => "table",
        }
    }
}

// === impl Word ===

impl Word {
    fn mapping(&self, index: u64) -> (String, Value) {
        (self.value.to_string(), json!({ "text": self.text, "color": self.color, "index": index }))
    }
}

fn color(rule: &Rule) -> &'static str {
    match rule.labels.get("severity").map(String::as_str) {
        Some("critical") => "red",
        Some("warning") => "orange",
        _ => "blue",
    }
}

fn capitalized(label: &str) -> String {
    let mut letters = label.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}
