//! `golden.json`: nested lists become tensors of the one dtype that holds all their values.

use std::fmt;

use gristmill_engine::golden::{GoldenCase, Tolerance};
use gristmill_engine::request::NamedTensor;
use gristmill_engine::tensor::{DType, Shape, ShapeText, Tensor};

use super::draft::{Draft, add};
use crate::codec::json::element::element_reader;
use crate::codec::json::scan::{JsonError, Scalar, Scanner};

/// The cases of the file that errors call `label`.
///
/// # Errors
/// The bytes are no JSON, or do not say what golden inputs must.
pub fn parse(bytes: &[u8], label: &str) -> Result<Vec<GoldenCase>, String> {
    let text = Scanner::check_text(bytes).map_err(|error| error.to_string())?;
    read(text, label).map_err(|error| error.into_infer_error(text).to_string())
}

fn read(text: &str, label: &str) -> Result<Vec<GoldenCase>, JsonError> {
    let mut alone = Draft::default();
    let mut listed: Option<Vec<Draft>> = None;
    let mut scanner = Scanner::new(text);
    scanner.object("the file", |scanner, key| {
        if key != "cases" {
            return member(&mut alone, scanner, key, "\"cases\", ");
        }
        if listed.is_some() {
            return Err(JsonError::meaning("\"cases\" is given twice"));
        }
        listed = Some(cases(scanner)?);
        Ok(())
    })?;
    scanner.end()?;
    let default = Tolerance::default();
    let Some(listed) = listed else {
        return Ok(vec![alone.finish(label, None, default).map_err(JsonError::Meaning)?]);
    };
    if !alone.is_bare() {
        let problem =
            "the file has a case of its own beside \"cases\": put its inputs and outputs into the list";
        return Err(JsonError::meaning(problem));
    }
    if listed.is_empty() {
        return Err(JsonError::meaning("\"cases\" is empty: expected one case at least"));
    }
    let default = Tolerance {
        absolute: alone.absolute.unwrap_or(default.absolute),
        relative: alone.relative.unwrap_or(default.relative),
    };
    let numbered = listed.into_iter().zip(1..);
    let finished = numbered.map(|(draft, number)| draft.finish(label, Some(number), default));
    finished.collect::<Result<_, _>>().map_err(JsonError::Meaning)
}

fn cases(scanner: &mut Scanner<'_>) -> Result<Vec<Draft>, JsonError> {
    let mut drafts = Vec::new();
    scanner.list("\"cases\"", |scanner, _| {
        let mut draft = Draft::default();
        scanner.object("a case", |scanner, key| member(&mut draft, scanner, key, ""))?;
        drafts.push(draft);
        Ok(())
    })?;
    Ok(drafts)
}

/// Reads one member of a case. `others` are the keys that are known beside those of a case.
fn member(draft: &mut Draft, scanner: &mut Scanner<'_>, key: &str, others: &str) -> Result<(), JsonError> {
    match key {
        "name" => match scanner.scalar()? {
            Scalar::Text(name) => once(key, &mut draft.name, name.into_owned()),
            _ => Err(JsonError::meaning("\"name\" must be a text")),
        },
        "inputs" => once(key, &mut draft.inputs, tensors(scanner, "input")?),
        "outputs" => once(key, &mut draft.outputs, tensors(scanner, "output")?),
        "tolerance" => tolerance(draft, scanner),
        _ => Err(JsonError::meaning(format!(
            "unknown member \"{key}\": expected {others}\"name\", \"inputs\", \"outputs\" or \"tolerance\""
        ))),
    }
}

fn once<T>(key: &str, field: &mut Option<T>, value: T) -> Result<(), JsonError> {
    match field.replace(value) {
        None => Ok(()),
        Some(_) => Err(JsonError::meaning(format!("\"{key}\" is given twice"))),
    }
}

fn tolerance(draft: &mut Draft, scanner: &mut Scanner<'_>) -> Result<(), JsonError> {
    if scanner.peek() != Some(b'{') {
        let bound = number(scanner, "\"tolerance\"")?;
        draft.set_bound("absolute", bound).map_err(JsonError::Meaning)?;
        return draft.set_bound("relative", bound).map_err(JsonError::Meaning);
    }
    scanner.object("\"tolerance\"", |scanner, key| {
        if !matches!(key, "absolute" | "relative") {
            let problem =
                format!("unknown member \"{key}\" of \"tolerance\": expected \"absolute\" or \"relative\"");
            return Err(JsonError::Meaning(problem));
        }
        let bound = number(scanner, key)?;
        draft.set_bound(key, bound).map_err(JsonError::Meaning)
    })
}

fn number(scanner: &mut Scanner<'_>, what: &str) -> Result<f64, JsonError> {
    let found = scanner.excerpt();
    let number = match scanner.scalar()? {
        Scalar::Number(text) => text.parse().ok(),
        _ => None,
    };
    number.ok_or_else(|| JsonError::Meaning(format!("{what} must be a number, got {found}")))
}

fn tensors(scanner: &mut Scanner<'_>, side: &str) -> Result<Vec<NamedTensor>, JsonError> {
    let mut tensors = Vec::new();
    scanner.object(format_args!("\"{side}s\""), |scanner, name| {
        let tensor = tensor(scanner, &format_args!("{side} '{name}'"))?;
        add(&mut tensors, name, tensor).map_err(|problem| JsonError::Meaning(format!("{side} {problem}")))
    })?;
    Ok(tensors)
}

/// Reads a tensor twice: for its shape and dtype, and then for its elements.
fn tensor(scanner: &mut Scanner<'_>, what: &dyn fmt::Display) -> Result<Tensor, JsonError> {
    let mut survey = Survey::default();
    survey.level(&mut scanner.clone(), 0, what)?;
    let dtype = survey.dtype();
    let read = element_reader(dtype);
    let mut data = Vec::new();
    elements(scanner, &mut |scanner| {
        let problem = |problem| JsonError::Meaning(format!("{what}: {problem}"));
        read(scanner, &mut data).map_err(problem)
    })?;
    Tensor::new(dtype, survey.shape(), data.into())
        .map_err(|problem| JsonError::Meaning(format!("{what}: {problem}")))
}

/// Calls `element` with the scanner at each value that is no list.
fn elements<'a>(
    scanner: &mut Scanner<'a>,
    element: &mut dyn FnMut(&mut Scanner<'a>) -> Result<(), JsonError>,
) -> Result<(), JsonError> {
    if scanner.peek() != Some(b'[') {
        return element(scanner);
    }
    scanner.list("", |scanner, _| elements(scanner, element)).map(|_| ())
}

/// What the values of nested lists have in common.
#[derive(Default)]
struct Survey {
    /// Lengths of lists by depth, from the first that ended there.
    sizes: Vec<Option<usize>>,
    /// The depth at which values are, once one was seen.
    leaf_depth: Option<usize>,
    kind: Option<Kind>,
    /// Where the walk is: the index at each depth.
    index: Vec<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Truth,
    Text,
    Number {
        /// One has a fraction or an exponent, or is not finite, or no integer of 64 bits.
        real: bool,
        negative: bool,
        /// One is beyond INT64 and within UINT64.
        large: bool,
    },
}

// === impl Survey ===

impl Survey {
    fn shape(&self) -> Shape {
        // Every depth down to the deepest list has ended.
        self.sizes.iter().flatten().copied().collect()
    }

    fn dtype(&self) -> DType {
        match self.kind {
            Some(Kind::Truth) => DType::Bool,
            Some(Kind::Text) => DType::Bytes,
            Some(Kind::Number { real: false, large: false, .. }) => DType::Int64,
            Some(Kind::Number { real: false, negative: false, .. }) => DType::Uint64,
            // No element is an element of any dtype.
            Some(Kind::Number { .. }) | None => DType::Fp64,
        }
    }

    fn level(
        &mut self,
        scanner: &mut Scanner<'_>,
        depth: usize,
        what: &dyn fmt::Display,
    ) -> Result<(), JsonError> {
        if scanner.peek() != Some(b'[') {
            return self.leaf(scanner, depth, what);
        }
        if self.leaf_depth.is_some_and(|leaf_depth| leaf_depth <= depth) {
            return Err(self.mixed(what));
        }
        let count = scanner.list("", |scanner, entry| {
            self.index.push(entry);
            self.level(scanner, depth + 1, what)?;
            self.index.pop();
            Ok(())
        })?;
        self.sizes.resize(self.sizes.len().max(depth + 1), None);
        match self.sizes[depth].replace(count) {
            Some(first) if first != count => Err(JsonError::Meaning(format!(
                "{what}: the list at {} has length {count}, those before it {first}",
                ShapeText(&self.index)
            ))),
            _ => Ok(()),
        }
    }

    fn leaf(
        &mut self,
        scanner: &mut Scanner<'_>,
        depth: usize,
        what: &dyn fmt::Display,
    ) -> Result<(), JsonError> {
        let ended = self.sizes.get(depth).copied().flatten();
        if *self.leaf_depth.get_or_insert(depth) != depth || ended.is_some() {
            return Err(self.mixed(what));
        }
        let found = scanner.excerpt();
        let kind = match scanner.scalar()? {
            Scalar::Bool(_) => Kind::Truth,
            Scalar::Text(_) => Kind::Text,
            Scalar::Number(text) => Kind::of_number(text),
            Scalar::Null | Scalar::Container => {
                return Err(JsonError::Meaning(format!(
                    "{what}: expected a number, a text or a truth value at {}, got {found}",
                    ShapeText(&self.index)
                )));
            }
        };
        let joined = match self.kind {
            None => Some(kind),
            Some(before) => before.join(kind),
        };
        self.kind = Some(joined.ok_or_else(|| {
            let (before, now) = (self.kind.map_or("", Kind::name), kind.name());
            let index = ShapeText(&self.index);
            JsonError::Meaning(format!(
                "{what}: expected {before} at {index} as before it, got {now}: {found}"
            ))
        })?);
        Ok(())
    }

    fn mixed(&self, what: &dyn fmt::Display) -> JsonError {
        JsonError::Meaning(format!("{what}: lists and values are mixed at {}", ShapeText(&self.index)))
    }
}

// === impl Kind ===

impl Kind {
    fn of_number(text: &str) -> Kind {
        let whole = text.parse::<i64>().is_ok();
        let large = !whole && text.parse::<u64>().is_ok();
        Kind::Number { real: !whole && !large, negative: text.starts_with('-'), large }
    }

    fn join(self, other: Kind) -> Option<Kind> {
        match (self, other) {
            (
                Kind::Number { real, negative, large },
                Kind::Number { real: other_real, negative: other_negative, large: other_large },
            ) => Some(Kind::Number {
                real: real || other_real,
                negative: negative || other_negative,
                large: large || other_large,
            }),
            (a, b) => (a == b).then_some(a),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Truth => "a truth value",
            Kind::Text => "a text",
            Kind::Number { .. } => "a number",
        }
    }
}
