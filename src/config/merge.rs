//! A configuration over a profile, key by key.
//!
//! Maps are merged; `null` takes a key of the profile away. Lists whose items have a name are merged by it: an item
//! replaces all of the profile's items of that name, and `enabled: false` takes them away. Other lists are replaced.

use crate::config::tree::{Content, Node};

/// The keys that name an item of a list, in the order in which they are looked for.
const NAMES: [&str; 4] = ["name", "metric", "tail", "collection"];

/// Lays `over` upon `base`.
#[must_use]
pub fn merge(base: Node, over: Node) -> Node {
    let Node { place, content } = over;
    let content = match (base.content, content) {
        (Content::Map(mut base), Content::Map(over)) => {
            for (key, value) in over {
                let position = base.iter().position(|(found, _)| found.text == key.text);
                match (position, value.is_null()) {
                    (Some(position), true) => drop(base.remove(position)),
                    (Some(position), false) => {
                        let (_, under) = base.remove(position);
                        base.insert(position, (key, merge(under, value)));
                    }
                    (None, true) => {}
                    (None, false) => base.push((key, value)),
                }
            }
            Content::Map(base)
        }
        (Content::List(base), Content::List(over)) => Content::List(merge_lists(base, over)),
        (_, over) => over,
    };
    Node { place, content }
}

fn merge_lists(base: Vec<Node>, over: Vec<Node>) -> Vec<Node> {
    if base.iter().chain(&over).any(|item| name(item).is_none()) {
        return over;
    }
    let mut merged: Vec<Node> = base.into_iter().filter(|item| !over.iter().any(|other| name(other) == name(item))).collect();
    merged.extend(over);
    merged
}

/// Takes the items away that are `enabled: false`, and the key from the others.
pub fn drop_disabled(node: &mut Node) {
    match &mut node.content {
        Content::List(items) => {
            items.retain(|item| item.get("enabled").and_then(Node::as_text) != Some("false"));
            for item in items {
                if let Content::Map(entries) = &mut item.content {
                    entries.retain(|(key, _)| key.text != "enabled");
                }
                drop_disabled(item);
            }
        }
        Content::Map(entries) => entries.iter_mut().for_each(|(_, value)| drop_disabled(value)),
        Content::Scalar(_) | Content::Failed => {}
    }
}

fn name(item: &Node) -> Option<(&'static str, &str)> {
    NAMES.into_iter().find_map(|key| Some((key, item.get(key)?.as_text()?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::problems::Problems;
    use crate::config::tree::parse;

    fn print(node: &Node) -> String {
        match &node.content {
            Content::Scalar(scalar) => scalar.text.clone(),
            Content::List(items) => format!("[{}]", items.iter().map(print).collect::<Vec<_>>().join(",")),
            Content::Map(entries) => {
                format!("{{{}}}", entries.iter().map(|(key, value)| format!("{}:{}", key.text, print(value))).collect::<Vec<_>>().join(","))
            }
            Content::Failed => "!".to_owned(),
        }
    }

    #[track_caller]
    fn check(base: &str, over: &str, merged: &str) {
        let mut problems = Problems::default();
        let mut read = |text| parse("test", text, &mut problems).expect("YAML");
        let (base, over) = (read(base), read(over));
        let mut result = merge(base, over);
        drop_disabled(&mut result);
        assert_eq!(print(&result), merged);
    }

    #[test]
    fn maps_are_merged_and_null_removes() {
        check("{a: 1, b: {c: 2, d: 3}}", "{b: {c: 4, d: null}, e: 5}", "{a:1,b:{c:4},e:5}");
    }

    #[test]
    fn lists_of_named_items_are_merged_by_name() {
        check("[{name: a, x: 1}, {name: b}]", "[{name: a, x: 2}, {name: c}]", "[{name:b},{name:a,x:2},{name:c}]");
        check("[{metric: m, x: 1}, {metric: m, x: 2}]", "[{metric: m, enabled: false}]", "[]");
        check("[{name: a, enabled: false}]", "[{name: b}]", "[{name:b}]");
    }

    #[test]
    fn other_lists_are_replaced() {
        check("[1, 2]", "[3]", "[3]");
    }
}
