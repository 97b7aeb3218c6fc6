//! YAML as a tree whose every node knows where it stands.
//!
//! Owns reading the text; duplicate keys, several documents, tags and runaway aliases are refused here. Knows nothing
//! of what the keys mean.

use std::collections::HashMap;
use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle};

use crate::config::problems::{Place, Problem, Problems};

/// A file of this size is no configuration. Aliases count each time they are used, so that they cannot explode.
const MAX_NODES: usize = 100_000;

/// Deeper nesting than this is no configuration either.
const MAX_DEPTH: usize = 64;

/// A value with its place.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where it stands.
    pub place: Place,
    /// What stands there.
    pub content: Content,
}

/// What a node holds.
#[derive(Clone, Debug)]
pub enum Content {
    /// A single value.
    Scalar(Scalar),
    /// A list.
    List(Vec<Node>),
    /// Keys and their values, in the order of the file.
    Map(Vec<(Key, Node)>),
    /// A value that could not be made; the problem has been reported, so that its absence is none.
    Failed,
}

/// A single value, as text.
#[derive(Clone, Debug)]
pub struct Scalar {
    /// The text, with variables filled in once the environment has been read.
    pub text: String,
    /// Written without quotes, so that it may be a number, a boolean or null.
    pub plain: bool,
    /// The text as it stands in the file, where variables were filled in: what may be printed.
    pub written: Option<String>,
}

/// A key with its place.
#[derive(Clone, Debug)]
pub struct Key {
    /// The key.
    pub text: String,
    /// Where it stands.
    pub place: Place,
}

/// Reads YAML as a tree; `None` when there is nothing in it or it cannot be read.
pub fn parse(source: &str, text: &str, problems: &mut Problems) -> Option<Node> {
    let mut reader =
        Reader { source: Arc::from(source), parser: Parser::new_from_str(text), anchors: HashMap::new(), nodes: 0, depth: 0, problems };
    match reader.document() {
        Ok(node) => node,
        Err(problem) => {
            problems.error(problem);
            None
        }
    }
}

/// Reads all documents of a text, empty ones left out: manifests, which are not ours.
pub fn parse_all(source: &str, text: &str, problems: &mut Problems) -> Vec<Node> {
    let mut reader =
        Reader { source: Arc::from(source), parser: Parser::new_from_str(text), anchors: HashMap::new(), nodes: 0, depth: 0, problems };
    let mut documents = Vec::new();
    loop {
        let read = reader.next().and_then(|(event, place)| match event {
            Event::StreamEnd => Ok(false),
            Event::Nothing | Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd => Ok(true),
            event => {
                documents.extend(Some(reader.node(event, place)?).filter(|node| !node.is_null()));
                Ok(true)
            }
        });
        match read {
            Ok(true) => {}
            Ok(false) => return documents,
            Err(problem) => {
                reader.problems.error(problem);
                return Vec::new();
            }
        }
    }
}

struct Reader<'text, 'problems> {
    source: Arc<str>,
    parser: Parser<'text, saphyr_parser::StrInput<'text>>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    depth: usize,
    problems: &'problems mut Problems,
}

// === impl Reader ===

impl<'text> Reader<'text, '_> {
    fn document(&mut self) -> Result<Option<Node>, Problem> {
        let mut root = None;
        loop {
            let (event, place) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(root.filter(|node: &Node| !node.is_null())),
                Event::Nothing | Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd => {}
                _ if root.is_some() => return Err(problem(place, "a second document; a configuration is one document")),
                event => root = Some(self.node(event, place)?),
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'text>, Place), Problem> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, self.place(span.start))),
            Some(Err(error)) => Err(problem(self.place(*error.marker()), &format!("this is not YAML: {}", error.info()))),
            None => Ok((Event::StreamEnd, self.place(Marker::default()))),
        }
    }

    fn place(&self, marker: Marker) -> Place {
        Place { source: Arc::clone(&self.source), line: marker.line(), column: marker.col() + 1 }
    }

    fn node(&mut self, event: Event<'text>, place: Place) -> Result<Node, Problem> {
        self.nodes += 1;
        if self.nodes > MAX_NODES || self.depth > MAX_DEPTH {
            return Err(problem(place, &format!("too large: at most {MAX_NODES} values, {MAX_DEPTH} levels deep")));
        }
        self.depth += 1;
        let (anchor, content) = match event {
            Event::Alias(anchor) => {
                self.depth -= 1;
                let node = self.anchors.get(&anchor).cloned().ok_or_else(|| problem(place, "an alias of something that encloses it"))?;
                self.nodes += node.size();
                return Ok(node);
            }
            Event::Scalar(text, style, anchor, tag) => {
                if tag.is_some() {
                    return Err(problem(place, "tags have no meaning here; leave it out"));
                }
                let plain = style == ScalarStyle::Plain;
                (anchor, Content::Scalar(Scalar { text: text.into_owned(), plain, written: None }))
            }
            Event::SequenceStart(anchor, _) => (anchor, Content::List(self.list()?)),
            Event::MappingStart(anchor, _) => (anchor, Content::Map(self.map()?)),
            _ => return Err(problem(place, "a value is missing here")),
        };
        self.depth -= 1;
        let node = Node { place, content };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self) -> Result<Vec<Node>, Problem> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(items),
                (event, place) => items.push(self.node(event, place)?),
            }
        }
    }

    fn map(&mut self) -> Result<Vec<(Key, Node)>, Problem> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        loop {
            let (event, place) = self.next()?;
            let text = match event {
                Event::MappingEnd => return Ok(entries),
                Event::Scalar(text, ..) => text.into_owned(),
                _ => return Err(problem(place, "a key must be a word")),
            };
            let (event, value_place) = self.next()?;
            let value = self.node(event, value_place)?;
            if let Some((first, _)) = entries.iter().find(|(key, _)| key.text == text) {
                // The rest of the file is still worth reading: its problems belong into the same report.
                let message = format!("the key `{text}` stands here twice, first on line {}; remove one", first.place.line);
                self.problems.error(problem(place, &message));
                continue;
            }
            entries.push((Key { text, place }, value));
        }
    }
}

// === impl Node ===

impl Node {
    /// Whether this is `null`, `~` or nothing at all.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(&self.content, Content::Scalar(scalar) if scalar.plain && matches!(scalar.text.as_str(), "" | "~" | "null"))
    }

    /// The value of a key, where this is a map.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.content {
            Content::Map(entries) => entries.iter().find(|(found, _)| found.text == key).map(|(_, node)| node),
            _ => None,
        }
    }

    /// Leaves only these keys of a map.
    pub fn keep_keys(&mut self, kept: &[&str]) {
        if let Content::Map(entries) = &mut self.content {
            entries.retain(|(key, _)| kept.contains(&key.text.as_str()));
        }
    }

    /// The text, where this is a single value.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match &self.content {
            Content::Scalar(scalar) => Some(&scalar.text),
            _ => None,
        }
    }

    fn size(&self) -> usize {
        match &self.content {
            Content::Scalar(_) | Content::Failed => 1,
            Content::List(items) => 1 + items.iter().map(Node::size).sum::<usize>(),
            Content::Map(entries) => 1 + entries.iter().map(|(_, node)| node.size()).sum::<usize>(),
        }
    }
}

fn problem(place: Place, message: &str) -> Problem {
    Problem { place: Some(place), path: String::new(), message: message.to_owned() }
}
