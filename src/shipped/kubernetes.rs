//! The same rules and dashboards as objects of Kubernetes: what the Prometheus Operator and Grafana's sidecar read.
//!
//! Talks to no cluster.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::shipped::rules::RuleFile;

/// What objects are given beside their content.
#[derive(Clone, Debug)]
pub struct Metadata {
    /// Their namespace; the one of the client where there is none.
    pub namespace: Option<String>,
    /// Labels, such as the one by which a Prometheus selects its rules.
    pub labels: BTreeMap<String, String>,
}

/// What a monitor selects.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Monitor {
    /// Pods: each sidecar is scraped, with or without a Service.
    Pod,
    /// The pods behind a Service.
    Service,
}

/// A `PrometheusRule`.
///
/// # Errors
/// Never for rules that were read from a file.
pub fn prometheus_rule(rules: &RuleFile, metadata: &Metadata) -> serde_json::Result<Value> {
    Ok(json!({
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": metadata.named("bellwether"),
        "spec": { "groups": serde_json::to_value(&rules.groups)? },
    }))
}

/// A `ConfigMap` with one dashboard, found by Grafana's sidecar by its label. The name of the file is that of the
/// dashboard, as all of them end up in one folder.
///
/// # Errors
/// Never for dashboards that were made here.
pub fn config_map(dashboard: &Value, metadata: &Metadata) -> serde_json::Result<Value> {
    let uid = dashboard["uid"].as_str().unwrap_or_default();
    let mut metadata = metadata.clone();
    metadata.labels.entry("grafana_dashboard".to_owned()).or_insert_with(|| "1".to_owned());
    Ok(json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata.named(&format!("dashboard-{uid}")),
        "data": { format!("{uid}.json"): serde_json::to_string_pretty(dashboard)? },
    }))
}

/// A `PodMonitor` or `ServiceMonitor`. One of them: with both, everything is scraped twice.
#[must_use]
pub fn monitor(kind: Monitor, metadata: &Metadata) -> Value {
    let endpoint = json!({ "port": "http", "path": "/metrics", "interval": "15s", "scrapeTimeout": "5s" });
    let (kind, endpoints) = match kind {
        Monitor::Pod => ("PodMonitor", "podMetricsEndpoints"),
        Monitor::Service => ("ServiceMonitor", "endpoints"),
    };
    json!({
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": kind,
        "metadata": metadata.named("bellwether"),
        "spec": {
            "selector": { "matchLabels": { "app.kubernetes.io/name": "bellwether" } },
            endpoints: [endpoint],
        },
    })
}

// === impl Metadata ===

impl Metadata {
    fn named(&self, name: &str) -> Value {
        let mut labels = self.labels.clone();
        labels.entry("app.kubernetes.io/name".to_owned()).or_insert_with(|| "bellwether".to_owned());
        let mut metadata = json!({ "name": name, "labels": labels });
        if let Some(namespace) = &self.namespace {
            metadata["namespace"] = json!(namespace);
        }
        metadata
    }
}
