//! `[input]` and `[output]` of a `model.toml` as they are written, and what they mean for a signature.

mod elements;
mod text;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path};

use gristmill_engine::tensor::{DType, Dim, Shape, Signature, TensorSpec};
use serde::Deserialize;

use self::elements::RawElements;
use self::text::RawText;
use super::classes::{Answer, Classes};
use super::picture::{Color, Layout, Picture, Values};
use super::{Handler, Input, Output};
use crate::codec::byte_order_mark::without_byte_order_mark;

/// Classes that are told where nothing is said, as TorchServe's classifiers do.
const TOP_BY_DEFAULT: usize = 5;
/// Longest side of an image that a model takes: more is a typing error.
const SIDE_MAX: usize = 16_384;

/// Both sections as they are written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sections {
    pub(crate) input: Option<RawInput>,
    pub(crate) output: Option<RawOutput>,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum RawInput {
    Image(RawImage),
    Text(RawText),
    Csv(RawCsv),
    Bytes(RawElements),
    Rows(RawRows),
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawCsv {
    header: Option<bool>,
}

/// JSON alone, which has nothing to say more.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawRows {}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawImage {
    tensor: Option<String>,
    /// Height and width.
    size: Option<[usize; 2]>,
    resize: Option<usize>,
    layout: Option<RawLayout>,
    color: Option<RawColor>,
    mean: Option<Vec<f32>>,
    std: Option<Vec<f32>>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
enum RawLayout {
    #[serde(rename = "CHW")]
    Planes,
    #[serde(rename = "HWC")]
    Interleaved,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
enum RawColor {
    #[serde(rename = "RGB")]
    Rgb,
    #[serde(rename = "BGR")]
    Bgr,
    #[serde(rename = "gray")]
    Gray,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawOutput {
    kind: RawAnswer,
    tensor: Option<String>,
    #[serde(default)]
    softmax: bool,
    top: Option<usize>,
    labels: Option<RawLabels>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum RawAnswer {
    Classes,
    Label,
    Rows,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(
    untagged,
    expecting = "expected a list of names, or the name of a file with one a line or of a JSON file"
)]
enum RawLabels {
    List(Vec<String>),
    File(String),
}

/// Where the files are that the sections name.
#[derive(Clone, Copy, Debug)]
struct Directories<'a> {
    version: &'a Path,
    model: &'a Path,
}

/// TorchServe's `index_to_name.json`: a name, or WordNet's number and a name.
#[derive(Deserialize)]
#[serde(untagged)]
enum RawName {
    Name(String),
    Numbered(Vec<String>),
}

// === impl Sections ===

impl Sections {
    pub(crate) fn is_empty(&self) -> bool {
        self.input.is_none() && self.output.is_none()
    }

    /// The handler of a version with this signature. Files that are named are in the version's directory, or else in
    /// the model's.
    ///
    /// # Errors
    /// The text names the field, what was expected and what the model or the file has.
    pub fn bind(
        &self,
        signature: &Signature,
        version_directory: &Path,
        model_directory: &Path,
    ) -> Result<Handler, String> {
        let directories = Directories { version: version_directory, model: model_directory };
        let input = self.input.as_ref().map(|input| match input {
            RawInput::Image(image) => picture(image, signature).map(Input::Picture),
            RawInput::Text(text) => text::text(text, signature, directories).map(Box::new).map(Input::Text),
            RawInput::Csv(csv) => Ok(Input::Csv { has_header: csv.header.unwrap_or(true) }),
            RawInput::Bytes(bytes) => elements::elements(bytes, signature).map(Input::Elements),
            RawInput::Rows(RawRows {}) => Ok(Input::Rows),
        });
        let output = self.output.as_ref().map(|output| match output.kind {
            RawAnswer::Rows => rows(output, signature).map(Output::Rows),
            RawAnswer::Classes => {
                let count = output.top.unwrap_or(TOP_BY_DEFAULT);
                classes(output, Answer::Best(count), signature, directories).map(Output::Classes)
            }
            RawAnswer::Label => classes(output, Answer::Label, signature, directories).map(Output::Classes),
        });
        Ok(Handler { input: input.transpose()?, output: output.transpose()? })
    }
}

// === impl Directories ===

impl Directories<'_> {
    fn read(self, name: &str) -> Result<Vec<u8>, String> {
        if Path::new(name).components().any(|part| !matches!(part, Component::Normal(_))) {
            return Err("expected a file in the model's directory, or the version's".to_owned());
        }
        let of_version = self.version.join(name);
        let path = if of_version.exists() { of_version } else { self.model.join(name) };
        fs::read(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))
    }
}

fn named<'a>(
    field: &str,
    wanted: Option<&str>,
    specs: &'a [TensorSpec],
    fits: impl Fn(&TensorSpec) -> bool,
) -> Result<(usize, &'a TensorSpec), String> {
    let known = || specs.iter().map(|spec| format!("'{}'", spec.name)).collect::<Vec<_>>().join(", ");
    let mut found = specs.iter().enumerate().filter(|(_, spec)| match wanted {
        Some(name) => spec.name == name,
        None => fits(spec),
    });
    match (found.next(), found.next(), wanted) {
        (Some(found), None, _) => Ok(found),
        (_, _, Some(name)) => Err(format!("{field} is '{name}': expected one of {}", known())),
        (_, _, None) => Err(format!("{field} is not said: expected the name of one of {}", known())),
    }
}

/// The input that a body is, where no other must be there.
fn only_input<'a>(
    kind: &str,
    wanted: Option<&str>,
    signature: &'a Signature,
) -> Result<&'a TensorSpec, String> {
    let (_, spec) = named("input.tensor", wanted, &signature.inputs, |_| true)?;
    if signature.inputs.iter().any(|other| other.name != spec.name && !other.optional) {
        return Err(format!(
            "input.kind is \"{kind}\": expected a model with no other input than '{}'",
            spec.name
        ));
    }
    Ok(spec)
}

fn picture(raw: &RawImage, signature: &Signature) -> Result<Picture, String> {
    let spec = only_input("image", raw.tensor.as_deref(), signature)?;
    let dims = spec.shape.as_deref().unwrap_or_default();
    let (leading, sides) = match dims {
        [rows, sides @ ..] if sides.len() == 3 && matches!(rows, Dim::Fixed(1) | Dim::Dynamic(_)) => {
            (1, sides)
        }
        sides if sides.len() == 3 => (0, sides),
        _ => {
            return Err(format!(
                "input '{}' is {} {:?}: expected an image, with three dimensions or four",
                spec.name,
                spec.dtype.name(),
                spec.protocol_shape()
            ));
        }
    };
    let is_channels = |dim: &Dim| matches!(dim, Dim::Fixed(1 | 3));
    let layout = match raw.layout {
        Some(RawLayout::Planes) => Layout::Planes,
        Some(RawLayout::Interleaved) => Layout::Interleaved,
        None if is_channels(&sides[0]) => Layout::Planes,
        None if is_channels(&sides[2]) => Layout::Interleaved,
        None => return Err("input.layout is not said: expected \"CHW\" or \"HWC\"".to_owned()),
    };
    let (channels, height, width) = match layout {
        Layout::Planes => (&sides[0], &sides[1], &sides[2]),
        Layout::Interleaved => (&sides[2], &sides[0], &sides[1]),
    };
    let color = match (raw.color, channels) {
        (Some(RawColor::Rgb), _) => Color::Rgb,
        (Some(RawColor::Bgr), _) => Color::Bgr,
        (Some(RawColor::Gray), _) | (None, Dim::Fixed(1)) => Color::Gray,
        (None, _) => Color::Rgb,
    };
    let agree = |what: &str, dim: &Dim, size: usize| match dim {
        Dim::Fixed(fixed) if *fixed != size => Err(format!(
            "input '{}' has {fixed} {what}: expected {size}, as input.size and input.color say",
            spec.name
        )),
        _ => Ok(()),
    };
    let [to_height, to_width] = match (raw.size, height, width) {
        (Some(size), _, _) => size,
        (None, Dim::Fixed(height), Dim::Fixed(width)) => [*height, *width],
        _ => return Err("input.size is not said, nor by the model: expected [height, width]".to_owned()),
    };
    agree("channels", channels, color.channels())?;
    agree("rows", height, to_height)?;
    agree("columns", width, to_width)?;
    if [to_height, to_width].iter().any(|side| !(1..=SIDE_MAX).contains(side)) {
        return Err(format!("input.size is [{to_height}, {to_width}]: expected 1 to {SIDE_MAX}"));
    }
    let longest = to_height.max(to_width);
    if let Some(side) = raw.resize.filter(|side| !(longest..=SIDE_MAX).contains(side)) {
        return Err(format!("input.resize is {side}: expected {longest}, which is cut out, to {SIDE_MAX}"));
    }
    let values = values(raw, spec, color.channels())?;
    let image: [usize; 3] = match layout {
        Layout::Planes => [color.channels(), to_height, to_width],
        Layout::Interleaved => [to_height, to_width, color.channels()],
    };
    let mut shape = Shape::new();
    shape.extend(std::iter::repeat_n(1, leading));
    shape.extend(image);
    Ok(Picture {
        name: spec.name.clone(),
        shape,
        color,
        layout,
        height: to_height,
        width: to_width,
        shorter_side: raw.resize,
        values,
    })
}

fn values(raw: &RawImage, spec: &TensorSpec, channels: usize) -> Result<Values, String> {
    let check = |field: &str, given: &Option<Vec<f32>>, otherwise: f32| match given {
        None => Ok(vec![otherwise; channels]),
        Some(given) if given.len() == channels && given.iter().all(|value| value.is_finite()) => {
            Ok(given.clone())
        }
        Some(given) => {
            Err(format!("input.{field} is {given:?}: expected {channels} numbers, one for each channel"))
        }
    };
    let (mean, std) = (check("mean", &raw.mean, 0.0)?, check("std", &raw.std, 1.0)?);
    if std.contains(&0.0) {
        return Err(format!("input.std is {std:?}: expected numbers that are not 0"));
    }
    match spec.dtype {
        DType::Fp32 => Ok(Values::normalized(&mean, &std)),
        DType::Uint8 if raw.mean.is_none() && raw.std.is_none() => Ok(Values::Bytes),
        DType::Uint8 => Err(format!(
            "input '{}' is UINT8, so its values stay as they are: leave input.mean and input.std out",
            spec.name
        )),
        dtype => Err(format!("input '{}' is {}: an image can be FP32 or UINT8", spec.name, dtype.name())),
    }
}

/// The output that is written alone, if one is named.
fn rows(raw: &RawOutput, signature: &Signature) -> Result<Option<usize>, String> {
    let surplus = [("softmax", raw.softmax), ("top", raw.top.is_some()), ("labels", raw.labels.is_some())];
    if let Some((field, _)) = surplus.into_iter().find(|(_, is_said)| *is_said) {
        return Err(format!("output.{field} is for classes, and output.kind is \"rows\": leave it out"));
    }
    let only = raw.tensor.as_deref().map(|name| {
        named("output.tensor", Some(name), &signature.outputs, |_| true).map(|(place, _spec)| place)
    });
    only.transpose()
}

fn classes(
    raw: &RawOutput,
    answer: Answer,
    signature: &Signature,
    directories: Directories<'_>,
) -> Result<Classes, String> {
    let is_scores = |spec: &TensorSpec| matches!(spec.dtype, DType::Fp32 | DType::Fp64);
    let (output, spec) = named("output.tensor", raw.tensor.as_deref(), &signature.outputs, is_scores)?;
    let dims = spec.shape.as_deref().unwrap_or_default();
    if !is_scores(spec) || !(1..=2).contains(&dims.len()) {
        return Err(format!(
            "output '{}' is {} {:?}: expected scores of classes by row, FP32 or FP64",
            spec.name,
            spec.dtype.name(),
            spec.protocol_shape()
        ));
    }
    match (answer, raw.top) {
        (Answer::Label, Some(_)) => {
            return Err("output.top is for output.kind = \"classes\": leave it out".to_owned());
        }
        (Answer::Best(0), _) => return Err("output.top is 0: expected at least 1".to_owned()),
        _ => {}
    }
    let labels = match &raw.labels {
        None => spec.labels.clone(),
        Some(RawLabels::List(labels)) => labels.clone(),
        Some(RawLabels::File(name)) => {
            read_labels(directories, name).map_err(|why| format!("output.labels is \"{name}\": {why}"))?
        }
    };
    if let Some(Dim::Fixed(classes)) = dims.last()
        && !labels.is_empty()
        && labels.len() != *classes
    {
        return Err(format!("output.labels has {}: expected {classes}, one for each class", labels.len()));
    }
    Ok(Classes { output, softmax: raw.softmax, answer, labels })
}

fn read_labels(directories: Directories<'_>, name: &str) -> Result<Vec<String>, String> {
    let content = directories.read(name)?;
    let text = std::str::from_utf8(without_byte_order_mark(&content))
        .map_err(|error| format!("it is not UTF-8 at byte {}", error.valid_up_to()))?;
    if !name.ends_with(".json") {
        return Ok(text.lines().map(str::to_owned).collect());
    }
    let names: BTreeMap<usize, RawName> = serde_json::from_str(text).map_err(|error| {
        format!("expected {{\"0\": \"name\", ...}} or {{\"0\": [\"number\", \"name\"], ...}}: {error}")
    })?;
    let last = names.keys().last().map_or(0, |last| last + 1);
    if last != names.len() {
        return Err(format!(
            "it has {} names, the last for class {}: expected all from 0",
            names.len(),
            last - 1
        ));
    }
    let name = |name| match name {
        RawName::Name(name) => Some(name),
        RawName::Numbered(parts) => parts.into_iter().next_back(),
    };
    names.into_values().map(|raw| name(raw).ok_or_else(|| "it has an empty list".to_owned())).collect()
}
