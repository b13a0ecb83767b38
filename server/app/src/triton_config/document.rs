//! A configuration as it is written, whichever syntax it came in: names and values with their lines,
//! before anything is known of what they mean; and where a fault of it lies.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::codec::byte_order_mark::without_byte_order_mark;

/// One value as it is written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    /// Counted from 1; JSON has none.
    pub(super) line: Option<usize>,
    pub(super) content: Content,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Content {
    /// What stands without quotes: a number, `true`, the name of an enum's value.
    Bare(String),
    Quoted(String),
    List(Vec<Node>),
    Entries(Vec<Entry>),
    /// JSON's way to leave a field out.
    Null,
}

/// A field's name and its value. A name may come several times.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) line: Option<usize>,
    pub(super) value: Node,
}

/// What is wrong with a configuration, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) line: Option<usize>,
    /// The path of the field, for example `input[0].dims`; empty for a fault of the syntax.
    pub(super) field: String,
    pub(super) reason: String,
}

/// Reads JSON.
///
/// # Errors
/// It is not JSON, or not an object.
pub(super) fn parse_json(text: &str) -> Result<Vec<Entry>, Fault> {
    let text = without_byte_order_mark(text.as_bytes());
    let node: Node = serde_json::from_slice(text).map_err(|error| Fault {
        line: None,
        field: String::new(),
        reason: format!("not JSON: {error}"),
    })?;
    match node.content {
        Content::Entries(entries) => Ok(entries),
        _ => Err(Fault::new("", format!("expected a JSON object, got {node}"))),
    }
}

// === impl Node ===

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.content {
            Content::Bare(text) => f.write_str(text),
            Content::Quoted(text) => write!(f, "{text:?}"),
            Content::List(_) => f.write_str("a list"),
            Content::Entries(_) => f.write_str("a group of fields"),
            Content::Null => f.write_str("null"),
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        let content = deserializer.deserialize_any(ContentVisitor)?;
        Ok(Node { line: None, content })
    }
}

/// Keeps every entry of an object, those with the same name too.
struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Content, E> {
        Ok(Content::Bare(value.to_string()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Content, E> {
        Ok(Content::Bare(value.to_string()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Content, E> {
        Ok(Content::Bare(value.to_string()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Content, E> {
        Ok(Content::Bare(value.to_string()))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Content, E> {
        Ok(Content::Quoted(value.to_owned()))
    }

    fn visit_unit<E: Error>(self) -> Result<Content, E> {
        Ok(Content::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Content, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Content::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Content, A::Error> {
        let mut entries = Vec::new();
        while let Some((name, value)) = map.next_entry()? {
            entries.push(Entry { name, line: None, value });
        }
        Ok(Content::Entries(entries))
    }
}

// === impl Fault ===

impl Fault {
    /// A fault whose line is not known, or not yet.
    pub(super) fn new(field: impl Into<String>, reason: impl Into<String>) -> Fault {
        Fault { line: None, field: field.into(), reason: reason.into() }
    }

    pub(super) fn at(line: Option<usize>, field: impl Into<String>, reason: impl Into<String>) -> Fault {
        Fault { line, ..Fault::new(field, reason) }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.reason)
    }
}
