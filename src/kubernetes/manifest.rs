//! Containers and their probes, wherever they stand: pods, templates of all kinds, lists, and the values of charts. Pure.
//!
//! Whatever has a `livenessProbe`, a `readinessProbe` or a `startupProbe` is a container; no kind needs to be known.

use crate::config::problems::Place;
use crate::config::tree::{Content, Node};

/// A container with its probes.
#[derive(Clone, Debug)]
pub(super) struct Container {
    /// Such as `Deployment/api, container api`.
    pub title: String,
    /// Everything that names it, in lower case: its file, its object, its namespace, itself, its image.
    pub names: String,
    pub liveness: Option<Probe>,
    pub readiness: Option<Probe>,
    pub startup: Option<Probe>,
}

/// A probe, with the kubelet's defaults filled in.
#[derive(Clone, Debug)]
pub(super) struct Probe {
    pub place: Place,
    pub asks: Asks,
    pub initial_delay: u32,
    pub period: u32,
    pub timeout: u32,
    pub failures: u32,
    /// Written as values of a chart, which makes an `httpGet` of it.
    pub is_values: bool,
}

/// What a probe asks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Asks {
    Http { path: String, port: String },
    Tcp { port: String },
    Exec { command: String },
    Other,
}

/// All containers of the documents of a file.
pub(super) fn containers(source: &str, documents: &[Node]) -> Vec<Container> {
    let mut found = Vec::new();
    for document in documents {
        walk(document, &Surroundings { title: String::new(), names: source.to_lowercase() }, &mut found);
    }
    found
}

/// What stands around a node.
#[derive(Clone, Debug)]
struct Surroundings {
    title: String,
    names: String,
}

fn walk(node: &Node, around: &Surroundings, found: &mut Vec<Container>) {
    let around = &around.within(node);
    let probe = |key: &str| node.get(key).and_then(probe);
    let container = Container {
        title: around.title(node),
        names: format!("{} {}", around.names, names_of(node)),
        liveness: probe("livenessProbe"),
        readiness: probe("readinessProbe"),
        startup: probe("startupProbe"),
    };
    if container.liveness.is_some() || container.readiness.is_some() {
        found.push(container);
    }
    match &node.content {
        Content::Map(entries) => entries.iter().for_each(|(_, value)| walk(value, around, found)),
        Content::List(items) => items.iter().for_each(|item| walk(item, around, found)),
        Content::Scalar(_) | Content::Failed => {}
    }
}

/// The name and the image of a node; in the values of charts the image is a map.
fn names_of(node: &Node) -> String {
    let image = node.get("image");
    let repository = image.and_then(|image| image.get("repository"));
    let texts = [node.get("name"), image, repository].into_iter().flatten().filter_map(Node::as_text);
    texts.collect::<Vec<_>>().join(" ").to_lowercase()
}

fn probe(node: &Node) -> Option<Probe> {
    if node.get("enabled").and_then(Node::as_text) == Some("false") || !matches!(node.content, Content::Map(_)) {
        return None;
    }
    let number = |key: &str, default: u32| node.get(key).and_then(|node| node.as_text()?.parse().ok()).unwrap_or(default);
    let text = |node: Option<&Node>| node.and_then(Node::as_text).unwrap_or_default().to_owned();
    let http = |node: &Node| Asks::Http { path: text(node.get("path")), port: text(node.get("port")) };
    let asks = match (node.get("httpGet"), node.get("tcpSocket"), node.get("exec")) {
        (Some(get), ..) => http(get),
        (_, Some(socket), _) => Asks::Tcp { port: text(socket.get("port")) },
        (_, _, Some(exec)) => Asks::Exec { command: command(exec.get("command")) },
        _ if node.get("path").is_some() => http(node),
        _ => Asks::Other,
    };
    Some(Probe {
        place: node.place.clone(),
        asks,
        initial_delay: number("initialDelaySeconds", 0),
        period: number("periodSeconds", 10).max(1),
        timeout: number("timeoutSeconds", 1).max(1),
        failures: number("failureThreshold", 3).max(1),
        is_values: node.get("path").is_some() && node.get("httpGet").is_none(),
    })
}

fn command(node: Option<&Node>) -> String {
    match node.map(|node| &node.content) {
        Some(Content::List(words)) => words.iter().filter_map(Node::as_text).collect::<Vec<_>>().join(" "),
        _ => String::new(),
    }
}

// === impl Surroundings ===

impl Surroundings {
    /// An object's kind and name, where the node is one.
    fn within(&self, node: &Node) -> Self {
        let metadata = node.get("metadata");
        let (Some(kind), Some(name)) =
            (node.get("kind").and_then(Node::as_text), metadata.and_then(|metadata| metadata.get("name")).and_then(Node::as_text))
        else {
            return self.clone();
        };
        let namespace = metadata.and_then(|metadata| metadata.get("namespace")).and_then(Node::as_text).unwrap_or_default();
        let names = format!("{} {name} {namespace}", self.names).to_lowercase();
        Self { title: format!("{kind}/{name}"), names }
    }

    fn title(&self, node: &Node) -> String {
        match (self.title.is_empty(), node.get("name").and_then(Node::as_text)) {
            (false, Some(name)) => format!("{}, container {name}", self.title),
            (true, Some(name)) => format!("container {name}"),
            (false, None) => self.title.clone(),
            (true, None) => "values".to_owned(),
        }
    }
}
