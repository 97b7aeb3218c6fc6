//! Texts as YAML. Pure.

/// A text within quotes: what JSON writes is YAML, too.
pub(super) fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Texts as a list on one line.
pub(super) fn flow(texts: &[&str]) -> String {
    format!("[{}]", texts.iter().map(|text| quote(text)).collect::<Vec<_>>().join(", "))
}
