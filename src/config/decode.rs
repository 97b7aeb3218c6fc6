//! From the tree to the raw types, by serde, with every problem in one go.
//!
//! A value that does not fit is reported with its place and taken out, and the decoding is tried again without it,
//! until it succeeds or nothing more can be taken out. Unknown keys are reported on the way. Values that came from
//! the environment are never printed: a message shows what stands in the file.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::fmt;

use serde::Deserializer;
use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess, Visitor};

use crate::config::problems::{Problem, Problems};
use crate::config::spanned;
use crate::config::tree::{Content, Key, Node, Scalar};

/// Decodes a tree. `None` when there were problems that leave nothing to go on with.
pub fn decode<T: DeserializeOwned>(node: &Node, problems: &mut Problems) -> Option<T> {
    let session = Session { pruned: RefCell::default(), found: RefCell::default(), progress: Cell::new(false) };
    let decoded = loop {
        session.progress.set(false);
        match T::deserialize(Decoder { node, path: String::new(), session: &session }) {
            Ok(value) => break Some(value),
            Err(error) => {
                session.report(&error, node, "");
                if !session.progress.get() {
                    break None;
                }
            }
        }
    };
    session.found.into_inner().into_iter().for_each(|problem| problems.error(problem));
    decoded
}

struct Session {
    /// Addresses of nodes that were taken out; the tree does not move while it is decoded.
    pruned: RefCell<HashSet<*const Node>>,
    found: RefCell<Vec<Problem>>,
    progress: Cell<bool>,
}

struct Decoder<'a> {
    node: &'a Node,
    path: String,
    session: &'a Session,
}

/// Why a value does not fit. `Reported` has been written down where it happened.
#[derive(Debug)]
enum DecodeError {
    New { message: String, missing: bool },
    Reported,
}

// === impl Session ===

impl Session {
    fn is_gone(&self, node: &Node) -> bool {
        matches!(node.content, Content::Failed) || self.pruned.borrow().contains(&std::ptr::from_ref(node))
    }

    /// Writes the problem down (unless it is one that follows from another) and takes the node out.
    fn report(&self, error: &DecodeError, node: &Node, path: &str) {
        let DecodeError::New { message, missing } = error else { return };
        if self.pruned.borrow_mut().insert(std::ptr::from_ref(node)) {
            self.progress.set(true);
        }
        // What is missing may be what was taken out before.
        let follows = *missing && matches!(&node.content, Content::Map(entries) if entries.iter().any(|(_, value)| self.is_gone(value)));
        if !follows {
            self.found.borrow_mut().push(Problem { place: Some(node.place.clone()), path: path.to_owned(), message: hide(message, node) });
        }
    }

    fn unknown_key(&self, key: &Key, fields: &[&str], path: &str) {
        let near = fields.iter().min_by_key(|field| distance(field, &key.text)).filter(|field| distance(field, &key.text) <= 3);
        let hint = match near {
            Some(field) => format!("did you mean `{field}`?"),
            None => format!("known here: {}", fields.join(", ")),
        };
        let problem =
            Problem { place: Some(key.place.clone()), path: path.to_owned(), message: format!("unknown key `{}`; {hint}", key.text) };
        if !self.found.borrow().contains(&problem) {
            self.found.borrow_mut().push(problem);
        }
    }
}

/// Puts what stands in the file into a message in the place of what came from the environment.
fn hide(message: &str, node: &Node) -> String {
    match &node.content {
        Content::Scalar(Scalar { text, written: Some(written), .. }) if !text.is_empty() => message.replace(text.as_str(), written),
        _ => message.to_owned(),
    }
}

/// The Levenshtein distance, for hints.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

// === impl Decoder ===

impl<'a> Decoder<'a> {
    fn child(&self, node: &'a Node, step: &str) -> Self {
        let path = if self.path.is_empty() { step.to_owned() } else { format!("{}.{step}", self.path) };
        Self { node, path, session: self.session }
    }

    fn wrong(&self, expected: &str) -> DecodeError {
        let found = match &self.node.content {
            Content::Scalar(_) if self.node.is_null() => "nothing".to_owned(),
            Content::Scalar(scalar) => format!("`{}`", scalar.text),
            Content::List(_) => "a list".to_owned(),
            Content::Map(_) => "a map".to_owned(),
            Content::Failed => return DecodeError::Reported,
        };
        DecodeError::New { message: format!("expected {expected}, found {found}"), missing: false }
    }

    fn scalar(&self, expected: &str) -> Result<&'a Scalar, DecodeError> {
        match &self.node.content {
            Content::Scalar(scalar) if !self.node.is_null() => Ok(scalar),
            _ => Err(self.wrong(expected)),
        }
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident $type:ty, $expected:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
            let number = self.scalar($expected)?.text.parse::<$type>().map_err(|_| self.wrong($expected))?;
            visitor.$visit(number)
        }
    )*};
}

impl<'de> Deserializer<'de> for Decoder<'_> {
    type Error = DecodeError;

    numbers! {
        deserialize_u8 visit_u8 u8, "a whole number from 0 to 255";
        deserialize_u16 visit_u16 u16, "a whole number from 0 to 65535";
        deserialize_u32 visit_u32 u32, "a whole number from 0";
        deserialize_u64 visit_u64 u64, "a whole number from 0";
        deserialize_i8 visit_i8 i8, "a whole number";
        deserialize_i16 visit_i16 i16, "a whole number";
        deserialize_i32 visit_i32 i32, "a whole number";
        deserialize_i64 visit_i64 i64, "a whole number";
        deserialize_f32 visit_f32 f32, "a number";
        deserialize_f64 visit_f64 f64, "a number";
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.node.content {
            Content::Map(_) => self.deserialize_map(visitor),
            Content::List(_) => self.deserialize_seq(visitor),
            Content::Failed => Err(DecodeError::Reported),
            Content::Scalar(_) if self.node.is_null() => visitor.visit_unit(),
            Content::Scalar(scalar) if !scalar.plain => visitor.visit_str(&scalar.text),
            Content::Scalar(scalar) => match scalar.text.as_str() {
                "true" => visitor.visit_bool(true),
                "false" => visitor.visit_bool(false),
                text => match (text.parse::<i64>(), text.parse::<f64>()) {
                    (Ok(number), _) => visitor.visit_i64(number),
                    (_, Ok(number)) if text.starts_with(|first: char| first.is_ascii_digit() || first == '-') => visitor.visit_f64(number),
                    _ => visitor.visit_str(text),
                },
            },
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.scalar("true or false")?.text.as_str() {
            "true" => visitor.visit_bool(true),
            "false" => visitor.visit_bool(false),
            _ => Err(self.wrong("true or false")),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_str(&self.scalar("a text")?.text)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        if self.node.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.node.content {
            Content::List(items) => visitor.visit_seq(Items { decoder: &self, items: items.iter().enumerate() }),
            _ => Err(self.wrong("a list")),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.node.content {
            Content::Map(entries) => visitor.visit_map(Entries { decoder: &self, entries: entries.iter(), value: None, fields: None }),
            _ => Err(self.wrong("a map")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        if name == spanned::NAME {
            return visitor.visit_map(SpannedAccess { decoder: Some(self), step: 0 });
        }
        match &self.node.content {
            Content::Map(entries) => {
                visitor.visit_map(Entries { decoder: &self, entries: entries.iter(), value: None, fields: Some(fields) })
            }
            _ => Err(self.wrong("a map")),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        let text = &self.scalar("a word")?.text;
        if !variants.contains(&text.as_str()) {
            return Err(self.wrong(&format!("one of {}", variants.join(", "))));
        }
        visitor.visit_enum(text.as_str().into_deserializer())
    }

    serde::forward_to_deserialize_any! {
        char bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

struct Items<'a, 'b> {
    decoder: &'b Decoder<'a>,
    items: std::iter::Enumerate<std::slice::Iter<'a, Node>>,
}

impl<'de> SeqAccess<'de> for Items<'_, '_> {
    type Error = DecodeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, DecodeError> {
        let session = self.decoder.session;
        let Some((index, node)) = self.items.find(|(_, node)| !session.is_gone(node)) else { return Ok(None) };
        let child = self.decoder.child(node, &index.to_string());
        let path = child.path.clone();
        seed.deserialize(child).map(Some).map_err(|error| {
            session.report(&error, node, &path);
            DecodeError::Reported
        })
    }
}

struct Entries<'a, 'b> {
    decoder: &'b Decoder<'a>,
    entries: std::slice::Iter<'a, (Key, Node)>,
    value: Option<(&'a Key, &'a Node)>,
    /// The keys that are known, where they are.
    fields: Option<&'static [&'static str]>,
}

impl<'de> MapAccess<'de> for Entries<'_, '_> {
    type Error = DecodeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, DecodeError> {
        let session = self.decoder.session;
        for (key, node) in self.entries.by_ref() {
            if let Some(fields) = self.fields
                && !fields.contains(&key.text.as_str())
            {
                session.unknown_key(key, fields, &self.decoder.path);
            } else if !session.is_gone(node) {
                self.value = Some((key, node));
                return seed.deserialize(key.text.as_str().into_deserializer()).map(Some);
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, DecodeError> {
        let Some((key, node)) = self.value.take() else { return Err(DecodeError::Reported) };
        let child = self.decoder.child(node, &key.text);
        let path = child.path.clone();
        seed.deserialize(child).map_err(|error| {
            self.decoder.session.report(&error, node, &path);
            DecodeError::Reported
        })
    }
}

/// Hands a `Spanned` its place, field by field, and then the value.
struct SpannedAccess<'a> {
    decoder: Option<Decoder<'a>>,
    step: u8,
}

impl<'de> MapAccess<'de> for SpannedAccess<'_> {
    type Error = DecodeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, DecodeError> {
        match spanned::FIELDS.get(usize::from(self.step)) {
            Some(field) => seed.deserialize((*field).into_deserializer()).map(Some),
            None => Ok(None),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, DecodeError> {
        let Some(decoder) = &self.decoder else { return Err(DecodeError::Reported) };
        let place = &decoder.node.place;
        self.step += 1;
        match self.step {
            1 => seed.deserialize((&*place.source).into_deserializer()),
            2 => seed.deserialize(place.line.into_deserializer()),
            3 => seed.deserialize(place.column.into_deserializer()),
            _ => self.decoder.take().map_or(Err(DecodeError::Reported), |decoder| seed.deserialize(decoder)),
        }
    }
}

// === impl DecodeError ===

impl fmt::Display for DecodeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::New { message, .. } => formatter.write_str(message),
            Self::Reported => formatter.write_str("reported"),
        }
    }
}

impl std::error::Error for DecodeError {}

impl de::Error for DecodeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::New { message: message.to_string(), missing: false }
    }

    fn missing_field(field: &'static str) -> Self {
        Self::New { message: format!("the key `{field}` is missing"), missing: true }
    }
}
