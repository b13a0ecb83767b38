//! From names and values to the fields of Triton's `ModelConfig`: types, ranges, names of enum values,
//! lists, maps and choices, in both syntaxes by one set of rules.
//!
//! The descriptors of our own .proto file say which fields there are. Libraries that read the text
//! format by descriptors do not take `input [ … ]` without a colon, as nearly every file has it.

use std::collections::{BTreeMap, HashMap};
use std::str::FromStr;
use std::sync::LazyLock;

use gristmill_proto::FILE_DESCRIPTOR_SET;
use gristmill_proto::inference as pb;
use prost_reflect::{
    DescriptorPool, DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value,
};

use super::document::{Content, Entry, Fault, Node};

/// The rules that differ between the two ways to write a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Syntax {
    Text,
    /// The JSON mapping of protocol buffers, with field names in snake_case or camelCase.
    Json,
}

/// A configuration whose fields exist and have values of the right types.
pub(super) struct Bound {
    pub(super) config: pb::ModelConfig,
    /// The line of each field that is written, by its path.
    written: BTreeMap<String, Option<usize>>,
}

struct Binder {
    syntax: Syntax,
    written: BTreeMap<String, Option<usize>>,
}

// === impl Bound ===

impl Bound {
    /// # Errors
    /// A field does not exist, comes twice, or has a value of another type.
    pub(super) fn new(entries: &[Entry], syntax: Syntax) -> Result<Bound, Fault> {
        static CONFIG: LazyLock<MessageDescriptor> = LazyLock::new(|| {
            DescriptorPool::decode(FILE_DESCRIPTOR_SET)
                .ok()
                .and_then(|pool| pool.get_message_by_name("inference.ModelConfig"))
                .expect("the compiled .proto files hold ModelConfig; this is a bug")
        });
        let mut binder = Binder { syntax, written: BTreeMap::new() };
        let message = binder.message(&CONFIG, entries, "")?;
        let config = message
            .transcode_to()
            .expect("the descriptors and the messages come from the same .proto files; this is a bug");
        Ok(Bound { config, written: binder.written })
    }

    /// The fault with its line: that of its field or, where the field is not written, of what should hold it.
    pub(super) fn located(&self, fault: Fault) -> Fault {
        let mut path = fault.field.as_str();
        let line = loop {
            if let Some(line) = self.written.get(path) {
                break *line;
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = &path[..end],
                None => break None,
            }
        };
        Fault { line, ..fault }
    }
}

// === impl Binder ===

impl Binder {
    fn message(
        &mut self,
        descriptor: &MessageDescriptor,
        entries: &[Entry],
        path: &str,
    ) -> Result<DynamicMessage, Fault> {
        let mut message = DynamicMessage::new(descriptor.clone());
        let mut found: HashMap<u32, &str> = HashMap::new();
        for entry in entries {
            let field = self.field(descriptor, entry, path)?;
            if entry.value.content == Content::Null && self.syntax == Syntax::Json {
                continue;
            }
            let path = joined(path, field.name());
            let repeats = field.is_list() || field.is_map();
            let again = found.insert(field.number(), &entry.name).is_some();
            if again && (!repeats || self.syntax == Syntax::Json) {
                return Err(Fault::at(entry.line, path, "comes twice"));
            }
            if let Some(choice) = field.containing_oneof()
                && let Some(other) = choice.fields().find(|other| *other != field && message.has_field(other))
            {
                let reason = format!("cannot be given together with {}", other.name());
                return Err(Fault::at(entry.line, path, reason));
            }
            self.written.entry(path.clone()).or_insert(entry.line);
            if field.is_map() {
                self.map(&field, &mut message, &entry.value, &path)?;
            } else if field.is_list() {
                self.list(&field, &mut message, &entry.value, &path)?;
            } else {
                let value = self.value(&field.kind(), &entry.value, &path)?;
                message.set_field(&field, value);
            }
        }
        Ok(message)
    }

    fn field(
        &self,
        descriptor: &MessageDescriptor,
        entry: &Entry,
        path: &str,
    ) -> Result<FieldDescriptor, Fault> {
        let name = &entry.name;
        let by_json_name = || match self.syntax {
            Syntax::Text => None,
            Syntax::Json => descriptor.get_field_by_json_name(name),
        };
        descriptor.get_field_by_name(name).or_else(by_json_name).ok_or_else(|| {
            let known: Vec<String> = descriptor.fields().map(|field| field.name().to_owned()).collect();
            let expected = if known.is_empty() {
                "no field can be given here".to_owned()
            } else {
                format!("expected one of {}", known.join(", "))
            };
            Fault::at(entry.line, joined(path, name), format!("there is no such field: {expected}"))
        })
    }

    fn list(
        &mut self,
        field: &FieldDescriptor,
        message: &mut DynamicMessage,
        node: &Node,
        path: &str,
    ) -> Result<(), Fault> {
        let items = self.items(node, path)?;
        let mut values = match message.get_field(field).into_owned() {
            Value::List(values) => values,
            _ => Vec::new(),
        };
        for item in items {
            let path = format!("{path}[{}]", values.len());
            self.written.insert(path.clone(), item.line);
            values.push(self.value(&field.kind(), item, &path)?);
        }
        message.set_field(field, Value::List(values));
        Ok(())
    }

    fn map(
        &mut self,
        field: &FieldDescriptor,
        message: &mut DynamicMessage,
        node: &Node,
        path: &str,
    ) -> Result<(), Fault> {
        let kind = field.kind();
        let pair = kind.as_message().expect("the entries of a map are messages; this is a bug");
        let (key_kind, value_kind) = (pair.map_entry_key_field().kind(), pair.map_entry_value_field().kind());
        let pairs = match (self.syntax, &node.content) {
            (Syntax::Text, _) => self.pairs(pair, node, path)?,
            (Syntax::Json, Content::Entries(entries)) => {
                let key = |name: &str| Node { line: None, content: Content::Quoted(name.to_owned()) };
                entries.iter().map(|entry| (key(&entry.name), Some(&entry.value))).collect()
            }
            (Syntax::Json, _) => return Err(expected(node, path, "an object")),
        };
        let mut values = match message.get_field(field).into_owned() {
            Value::Map(values) => values,
            _ => HashMap::new(),
        };
        for (key, value) in pairs {
            let path = match &key.content {
                Content::Quoted(text) => format!("{path}[{text}]"),
                _ => format!("{path}[{key}]"),
            };
            let line = key.line;
            let key = self.map_key(&key_kind, &key, &path)?;
            if values.contains_key(&key) {
                return Err(Fault::at(line, path, "comes twice"));
            }
            self.written.insert(path.clone(), line);
            let value = match value {
                Some(value) => self.value(&value_kind, value, &path)?,
                None => Value::default_value(&value_kind),
            };
            values.insert(key, value);
        }
        message.set_field(field, Value::Map(values));
        Ok(())
    }

    /// The text format writes a map as groups of `key` and `value`.
    fn pairs<'a>(
        &self,
        pair: &MessageDescriptor,
        node: &'a Node,
        path: &str,
    ) -> Result<Vec<(Node, Option<&'a Node>)>, Fault> {
        let mut pairs = Vec::new();
        for item in self.items(node, path)? {
            let Content::Entries(entries) = &item.content else {
                return Err(expected(item, path, "a group with key and value"));
            };
            let (mut key, mut value) = (None, None);
            for entry in entries {
                let field = self.field(pair, entry, path)?;
                let part = if field == pair.map_entry_key_field() { &mut key } else { &mut value };
                if part.replace(&entry.value).is_some() {
                    return Err(Fault::at(entry.line, joined(path, &entry.name), "comes twice"));
                }
            }
            match key {
                Some(key) => pairs.push((key.clone(), value)),
                None => return Err(Fault::at(item.line, path, "expected a key in each of its groups")),
            }
        }
        Ok(pairs)
    }

    fn map_key(&mut self, kind: &Kind, key: &Node, path: &str) -> Result<MapKey, Fault> {
        self.value(kind, key, path)?
            .into_map_key()
            .ok_or_else(|| Fault::at(key.line, path, "expected a string or a number as key"))
    }

    /// A repeated field's values: the text format takes one without brackets too.
    fn items<'a>(&self, node: &'a Node, path: &str) -> Result<&'a [Node], Fault> {
        match (&node.content, self.syntax) {
            (Content::List(items), _) => Ok(items),
            (_, Syntax::Text) => Ok(std::slice::from_ref(node)),
            (_, Syntax::Json) => Err(expected(node, path, "a list")),
        }
    }

    fn value(&mut self, kind: &Kind, node: &Node, path: &str) -> Result<Value, Fault> {
        Ok(match kind {
            Kind::Int32 => Value::I32(self.number(node, path, i32::MIN, i32::MAX)?),
            Kind::Int64 => Value::I64(self.number(node, path, i64::MIN, i64::MAX)?),
            Kind::Uint32 => Value::U32(self.number(node, path, u32::MIN, u32::MAX)?),
            Kind::Uint64 => Value::U64(self.number(node, path, u64::MIN, u64::MAX)?),
            Kind::Float => Value::F32(self.float(node, path)? as f32),
            Kind::Double => Value::F64(self.float(node, path)?),
            Kind::Bool => Value::Bool(self.boolean(node, path)?),
            Kind::Enum(names) => Value::EnumNumber(self.choice(names, node, path)?),
            Kind::String => match &node.content {
                Content::Quoted(text) => Value::String(text.clone()),
                _ => return Err(expected(node, path, "a string in quotes")),
            },
            Kind::Message(descriptor) => match &node.content {
                Content::Entries(entries) => Value::Message(self.message(descriptor, entries, path)?),
                _ => return Err(expected(node, path, "a group of fields in braces")),
            },
            other => {
                return Err(Fault::at(node.line, path, format!("fields of kind {other:?} are not read")));
            }
        })
    }

    fn number<T>(&self, node: &Node, path: &str, min: T, max: T) -> Result<T, Fault>
    where
        T: FromStr + TryFrom<i128> + std::fmt::Display,
    {
        let text = match (&node.content, self.syntax) {
            (Content::Bare(text), _) | (Content::Quoted(text), Syntax::Json) => Some(text),
            _ => None,
        };
        text.and_then(|text| self.integer(text))
            .and_then(|value| T::try_from(value).ok())
            .ok_or_else(|| expected(node, path, &format!("a whole number from {min} to {max}")))
    }

    fn integer(&self, text: &str) -> Option<i128> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, text),
        };
        let (digits, radix) = match self.syntax {
            Syntax::Json => (digits, 10),
            Syntax::Text => match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
                Some(hexadecimal) => (hexadecimal, 16),
                None if digits.starts_with('0') => (digits, 8),
                None => (digits, 10),
            },
        };
        if !digits.starts_with(|first: char| first.is_digit(radix)) {
            return None;
        }
        let value = i128::from_str_radix(digits, radix).ok()?;
        Some(if negative { -value } else { value })
    }

    fn float(&self, node: &Node, path: &str) -> Result<f64, Fault> {
        let text = match (&node.content, self.syntax) {
            (Content::Bare(text), Syntax::Text) => Some(text.trim_end_matches(['f', 'F'])),
            (Content::Bare(text) | Content::Quoted(text), Syntax::Json) => Some(text.as_str()),
            _ => None,
        };
        text.and_then(|text| text.parse().ok()).ok_or_else(|| expected(node, path, "a number"))
    }

    fn boolean(&self, node: &Node, path: &str) -> Result<bool, Fault> {
        match (&node.content, self.syntax) {
            (Content::Bare(text), Syntax::Text) => match text.as_str() {
                "true" | "True" | "t" | "1" => Some(true),
                "false" | "False" | "f" | "0" => Some(false),
                _ => None,
            },
            (Content::Bare(text), Syntax::Json) => text.parse().ok(),
            _ => None,
        }
        .ok_or_else(|| expected(node, path, "true or false"))
    }

    /// An enum's value by its name, whose case JSON ignores, or by its number.
    fn choice(&self, names: &EnumDescriptor, node: &Node, path: &str) -> Result<i32, Fault> {
        let found = match (&node.content, self.syntax) {
            (Content::Bare(text), _) => match self.integer(text).map(i32::try_from) {
                Some(number) => number.ok().filter(|number| names.get_value(*number).is_some()),
                None => names.get_value_by_name(text).map(|value| value.number()),
            },
            (Content::Quoted(text), Syntax::Json) => {
                let mut values = names.values();
                values.find(|value| value.name().eq_ignore_ascii_case(text)).map(|value| value.number())
            }
            _ => None,
        };
        found.ok_or_else(|| {
            let known: Vec<String> = names.values().map(|value| value.name().to_owned()).collect();
            expected(node, path, &format!("one of {}", known.join(", ")))
        })
    }
}

fn expected(node: &Node, path: &str, what: &str) -> Fault {
    Fault::at(node.line, path, format!("expected {what}, got {node}"))
}

fn joined(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}
