//! A dashboard: its small source, and the JSON that Grafana reads (the classic model, schema version 42, which Grafana
//! 10 to 13 take).
//!
//! Owns what all dashboards have in common: variables, annotations, links, and where panels stand. Knows nothing of
//! what a panel looks like.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::shipped::KitError;
use crate::shipped::panels::{Panel, data_source};
use crate::shipped::rules::RuleFile;

/// The width of the grid in columns.
const COLUMNS: u64 = 24;

/// The source of a dashboard.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Its name in URLs, stable for ever.
    uid: String,
    title: String,
    description: String,
    tags: Vec<String>,
    /// Events that are marked in every panel, besides the starts of the sidecar.
    #[serde(default)]
    annotations: Vec<Annotation>,
    rows: Vec<Row>,
}

/// An event that is marked in every panel.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Annotation {
    name: String,
    color: String,
    query: String,
    /// The label whose value is shown.
    label: String,
}

/// Panels side by side, with a headline but for the first row.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    title: Option<String>,
    height: u64,
    panels: Vec<Panel>,
}

// === impl Source ===

impl Source {
    /// The dashboard. Thresholds of panels are those of the alerts that they name.
    ///
    /// # Errors
    /// A panel that names an alert which is not in `rules`.
    pub fn assemble(&self, rules: &RuleFile) -> Result<Value, KitError> {
        let mut panels = Vec::new();
        let (mut x, mut y, mut id) = (0, 0, 0);
        for row in &self.rows {
            if let Some(title) = &row.title {
                id += 1;
                let place = json!({ "h": 1, "w": COLUMNS, "x": 0, "y": y });
                panels.push(json!({ "id": id, "type": "row", "title": title, "collapsed": false, "gridPos": place, "panels": [] }));
                y += 1;
            }
            for panel in &row.panels {
                if x + panel.width() > COLUMNS {
                    (x, y) = (0, y + row.height);
                }
                id += 1;
                let mut drawn = panel.draw(rules)?;
                drawn["id"] = json!(id);
                drawn["gridPos"] = json!({ "h": row.height, "w": panel.width(), "x": x, "y": y });
                panels.push(drawn);
                x += panel.width();
            }
            (x, y) = (0, y + row.height);
        }
        Ok(self.frame(&panels))
    }

    fn frame(&self, panels: &[Value]) -> Value {
        let mut notes = vec![annotation("Sidecar starts", "blue", "process_start_time_seconds{$target} * 1000", "instance", true)];
        notes.extend(self.annotations.iter().map(|note| annotation(&note.name, &note.color, &note.query, &note.label, false)));
        json!({
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": self.tags,
            "schemaVersion": 42,
            "version": 1,
            "editable": false,
            "graphTooltip": 1,
            "timezone": "browser",
            "refresh": "30s",
            "fiscalYearStartMonth": 0,
            "liveNow": false,
            "preload": false,
            "weekStart": "",
            "time": { "from": "now-1h", "to": "now" },
            "timepicker": {},
            "links": [{
                "type": "dashboards", "title": "Bellwether", "tags": ["bellwether"], "asDropdown": true, "includeVars": true,
                "keepTime": true, "targetBlank": false, "icon": "external link", "tooltip": "", "url": ""
            }],
            "annotations": { "list": notes },
            "templating": { "list": [
                {
                    "name": "datasource", "label": "Data Source", "type": "datasource", "query": "prometheus", "regex": "", "refresh": 1,
                    "multi": false, "includeAll": false, "hide": 0, "skipUrlSync": false, "options": [],
                    "current": { "selected": false, "text": "default", "value": "default" }
                },
                variable("job", "label_values(bellwether_build_info, job)"),
                variable("instance", "label_values(bellwether_build_info{job=~\"$job\"}, instance)"),
            ] },
            "panels": panels,
        })
    }
}

/// A query of a source, narrowed to what was chosen: `$target` stands for the matchers on job and instance.
pub(super) fn narrowed(query: &str) -> String {
    query.trim().replace("$target", r#"job=~"$job",instance=~"$instance""#)
}

fn annotation(name: &str, color: &str, query: &str, label: &str, value_is_time: bool) -> Value {
    json!({
        "name": name, "datasource": data_source(), "enable": true, "hide": false, "iconColor": color, "expr": narrowed(query),
        "titleFormat": name, "textFormat": format!("{{{{{label}}}}}"), "tagKeys": label, "useValueForTime": value_is_time, "step": "60s"
    })
}

fn variable(name: &str, query: &str) -> Value {
    json!({
        "name": name, "label": name, "type": "query", "datasource": data_source(), "query": query, "definition": query, "regex": "",
        "refresh": 2, "sort": 1, "multi": true, "includeAll": true, "allValue": ".+", "hide": 0, "skipUrlSync": false, "options": [],
        "current": { "selected": true, "text": ["All"], "value": ["$__all"] }
    })
}
