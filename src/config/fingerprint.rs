//! What a configuration is made of, as numbers: so that a reload knows what has changed, secrets included, without
//! keeping or comparing them.

use std::collections::BTreeMap;
use std::path::Path;

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::config::tree::{Content, Node};
use crate::config::trust::Authorities;

/// Sections of which a part can be taken over without a restart.
const PARTLY_LIVE: [&str; 1] = ["logs"];

/// The numbers of one configuration. They are never shown: a guessed secret could be tried against them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Fingerprints {
    /// The file's text as it was read; `None` without a file.
    pub file: Option<u64>,
    /// Each section, by its key, with variables filled in; of some of them each part, as `logs.rules`.
    pub sections: BTreeMap<String, u64>,
}

/// The number of a file's text.
///
/// # Errors
/// When it cannot be read.
pub fn of_file(path: &Path) -> std::io::Result<u64> {
    std::fs::read(path).map(|text| of_text(&text))
}

/// The number of a check whose server is judged by certificates from a file: by what is in the file, not by its name.
pub(super) fn with_authorities(number: u64, authorities: &Authorities) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(&number.to_le_bytes());
    authorities.certificates().iter().for_each(|certificate| hasher.update(certificate));
    hasher.digest()
}

/// The number of a text.
pub(super) fn of_text(text: &[u8]) -> u64 {
    xxh3_64(text)
}

/// The numbers of all sections.
pub(super) fn of_sections(root: &Node) -> BTreeMap<String, u64> {
    let parts = |key: &str, node: &Node| -> Vec<(String, u64)> {
        if PARTLY_LIVE.contains(&key) && matches!(node.content, Content::Map(_)) {
            return entries(node).map(|(part, node)| (format!("{key}.{part}"), of_nodes(&[node]))).collect();
        }
        vec![(key.to_owned(), of_nodes(&[node]))]
    };
    entries(root).flat_map(|(key, node)| parts(key, node)).collect()
}

/// The number of each check: what is written of it, and what it takes from the defaults and the stores.
pub(super) fn of_checks(root: &Node) -> BTreeMap<String, u64> {
    let Some(health) = root.get("health") else { return BTreeMap::new() };
    let shared: Vec<&Node> = [health.get("defaults"), root.get("stores")].into_iter().flatten().collect();
    let checks = health.get("checks").map(entries).into_iter().flatten();
    checks.map(|(name, node)| (name.to_owned(), of_nodes(&[&[node], shared.as_slice()].concat()))).collect()
}

fn entries(node: &Node) -> impl Iterator<Item = (&str, &Node)> {
    let entries = if let Content::Map(entries) = &node.content { entries.as_slice() } else { &[] };
    entries.iter().map(|(key, node)| (key.text.as_str(), node))
}

fn of_nodes(nodes: &[&Node]) -> u64 {
    let mut hasher = Xxh3::new();
    nodes.iter().for_each(|node| feed(&mut hasher, node));
    hasher.digest()
}

/// Each kind begins with a byte of its own and ends with another, so that different trees never feed the same bytes.
fn feed(hasher: &mut Xxh3, node: &Node) {
    let text = |hasher: &mut Xxh3, text: &str| {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    };
    match &node.content {
        Content::Scalar(scalar) => {
            hasher.update(&[1, u8::from(scalar.plain)]);
            text(hasher, &scalar.text);
        }
        Content::List(items) => {
            hasher.update(&[2]);
            items.iter().for_each(|item| feed(hasher, item));
            hasher.update(&[3]);
        }
        Content::Map(entries) => {
            hasher.update(&[4]);
            for (key, value) in entries {
                text(hasher, &key.text);
                feed(hasher, value);
            }
            hasher.update(&[5]);
        }
        Content::Failed => hasher.update(&[6]),
    }
}
