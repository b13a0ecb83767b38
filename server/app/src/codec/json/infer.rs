//! The inference request of the Open Inference Protocol: JSON, with binary tensors behind it.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use gristmill_engine::error::InferError;
use gristmill_engine::request::NamedTensor;
use gristmill_engine::tensor::{DType, Shape, Signature, Tensor};

use super::data::read_data;
use super::integer::read_integer;
use super::scan::{JsonError, Scalar, Scanner};
use crate::codec::binary::{BinaryTail, raw_input, split_body};
use crate::shared_memory::{Place, PlacedOutput, Reach};

/// Most dimensions of a tensor in JSON; nesting is bounded as well.
const RANK_MAX: usize = 32;

/// An inference request, decoded and not yet checked against a model.
#[derive(Debug, Default)]
pub struct InferBody {
    /// Given back in the response.
    pub id: Option<String>,
    pub inputs: Vec<NamedTensor>,
    /// Empty asks for all.
    pub outputs: Vec<WantedOutput>,
    /// Outputs that are to be answered in shared memory.
    pub placed: Vec<PlacedOutput>,
    /// Outputs are binary unless they say otherwise.
    pub binary_data_output: bool,
    /// The `timeout` parameter, which is in microseconds; 0 is none.
    pub timeout: Option<Duration>,
    /// The `priority` parameter: from 1, the most urgent; 0 is the model's default.
    pub priority: u64,
    /// Parameters that mean nothing here, where their value is a text, a number or a truth: as it is written, a text
    /// without its quotes.
    pub others: Vec<(String, String)>,
}

/// One entry of a request's `outputs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedOutput {
    pub name: String,
    /// The `binary_data` parameter.
    pub binary_data: Option<bool>,
    /// The `classification` parameter: how many classes, 0 for the whole output.
    pub classes: usize,
}

/// Decodes a request. `header_length` is the value of `Inference-Header-Content-Length`; without it the
/// whole body is JSON. With 0 there is no JSON: see [`decode_raw`].
///
/// # Errors
/// `InvalidInput` that says what is malformed and where, or which tensor is wrong and how.
pub fn decode_infer(body: Bytes, header_length: Option<usize>) -> Result<InferBody, InferError> {
    decode_infer_within(body, header_length, &mut Reach::nothing())
}

/// The same for a request whose tensors may be in shared memory, within `reach`: inputs are copied from there now.
///
/// # Errors
/// As [`decode_infer`], and `TooLarge` for more inputs there than a request may have.
pub(crate) fn decode_infer_within(
    body: Bytes,
    header_length: Option<usize>,
    reach: &mut Reach<'_>,
) -> Result<InferBody, InferError> {
    let (json, mut tail) = split_body(body, header_length)?;
    let text = Scanner::check_text(&json)?;
    let parsed = parse(text).map_err(|error| error.into_infer_error(text))?;
    let mut request = parsed.request;
    for input in parsed.inputs {
        let tensor = input.into_tensor(&mut tail, header_length.is_some(), reach)?;
        request.inputs.push(tensor);
    }
    for (output, place) in parsed.places {
        let part = reach.find(&format!("output '{}'", request.outputs[output].name), place)?;
        request.placed.push(PlacedOutput { output, part });
    }
    tail.end()?;
    Ok(request)
}

/// Decodes a body that is nothing but the bytes of the model's one input; all outputs become binary.
///
/// # Errors
/// `InvalidInput` if the input does not follow from `signature` and the byte count.
pub fn decode_raw(signature: &Signature, body: Bytes) -> Result<InferBody, InferError> {
    let input = raw_input(signature, body)?;
    Ok(InferBody { inputs: vec![input], binary_data_output: true, ..InferBody::default() })
}

/// What the JSON says, before binary tensors have their bytes.
#[derive(Default)]
struct Parsed {
    request: InferBody,
    inputs: Vec<Input>,
    /// Of outputs in shared memory, with their places in the request's list.
    places: Vec<(usize, Place)>,
}

struct Input {
    name: String,
    dtype: DType,
    shape: Shape,
    source: Source,
}

enum Source {
    Json(Vec<u8>),
    Binary(usize),
    Shared(Place),
}

/// An input whose keys may come in any order.
#[derive(Default)]
struct PartialInput<'a> {
    name: Option<String>,
    dtype: Option<DType>,
    shape: Option<Shape>,
    binary_data_size: Option<usize>,
    place: Place,
    data: Option<Data<'a>>,
}

enum Data<'a> {
    Read(Vec<u8>),
    /// It came before what is needed to read it; this is where.
    Ahead(Scanner<'a>),
}

fn parse(text: &str) -> Result<Parsed, JsonError> {
    let mut parsed = Parsed::default();
    let mut has_inputs = false;
    let mut scanner = Scanner::new(text);
    scanner.object("the request", |scanner, key| {
        match key {
            "id" => parsed.request.id = read_id(scanner)?,
            "parameters" => read_parameters(scanner, &mut parsed.request)?,
            "inputs" if has_inputs => return Err(given_twice("inputs")),
            "inputs" => {
                has_inputs = true;
                scanner.list("'inputs'", |scanner, index| {
                    parsed.inputs.push(read_input(scanner, index)?);
                    Ok(())
                })?;
            }
            "outputs" if scanner.peek() == Some(b'n') => scanner.skip()?,
            "outputs" => {
                scanner.list("'outputs'", |scanner, index| {
                    let (output, place) = read_output(scanner, index)?;
                    parsed.request.outputs.push(output);
                    parsed.places.extend(place.map(|place| (index, place)));
                    Ok(())
                })?;
            }
            // Unknown keys are passed over: KServe's client sends "model_name", for example.
            _ => scanner.skip()?,
        }
        Ok(())
    })?;
    scanner.end()?;
    if !has_inputs {
        return Err(JsonError::meaning(
            "the request has no 'inputs': expected a list of {\"name\", \"shape\", \"datatype\", \"data\"}",
        ));
    }
    Ok(parsed)
}

pub(crate) fn read_id(scanner: &mut Scanner<'_>) -> Result<Option<String>, JsonError> {
    match scanner.clone().scalar()? {
        Scalar::Null => scanner.skip().map(|()| None),
        Scalar::Text(_) => scanner.string().map(|id| Some(id.into_owned())),
        _ => Err(scanner.unexpected("'id' must be a string")),
    }
}

fn read_parameters(scanner: &mut Scanner<'_>, request: &mut InferBody) -> Result<(), JsonError> {
    members(scanner, "'parameters'", |scanner, key| read_parameter(scanner, key, request))
}

/// Reads the value of the parameter `key`.
pub(crate) fn read_parameter(
    scanner: &mut Scanner<'_>,
    key: &str,
    request: &mut InferBody,
) -> Result<(), JsonError> {
    match key {
        "timeout" => {
            let microseconds = unsigned(scanner, "parameter 'timeout' (microseconds)")?;
            request.timeout = (microseconds > 0).then(|| Duration::from_micros(microseconds));
        }
        "priority" => request.priority = unsigned(scanner, "parameter 'priority'")?,
        "binary_data_output" => {
            request.binary_data_output = boolean(scanner, "parameter 'binary_data_output'")?
        }
        "sequence_id" | "sequence_start" | "sequence_end" => {
            let got = scanner.excerpt();
            match scanner.scalar()? {
                Scalar::Null | Scalar::Bool(false) | Scalar::Number("0") => {}
                Scalar::Text(text) if text.is_empty() => {}
                _ => {
                    return Err(JsonError::Meaning(format!(
                        "parameter '{key}' is {got}: stateful sequences are not supported, leave it out"
                    )));
                }
            }
        }
        _ => {
            let value = match scanner.scalar()? {
                Scalar::Null | Scalar::Container => return Ok(()),
                Scalar::Bool(value) => value.to_string(),
                Scalar::Number(number) => number.to_owned(),
                Scalar::Text(text) => text.into_owned(),
            };
            request.others.push((key.to_owned(), value));
        }
    }
    Ok(())
}

fn read_input(scanner: &mut Scanner<'_>, index: usize) -> Result<Input, JsonError> {
    let mut input = PartialInput::default();
    scanner.object(format_args!("entry {index} of 'inputs'"), |scanner, key| {
        match key {
            "name" => input.name = Some(text(scanner, format_args!("'name' of entry {index} of 'inputs'"))?),
            "datatype" => input.dtype = Some(read_dtype(scanner, input.label(index))?),
            "shape" => input.shape = Some(read_dims(scanner, input.label(index))?),
            "parameters" => {
                let label = Label { name: input.name.as_deref(), index };
                members(scanner, format_args!("'parameters' of {label}"), |scanner, key| {
                    match key {
                        "binary_data_size" => {
                            let size = unsigned(scanner, format_args!("'binary_data_size' of {label}"))?;
                            input.binary_data_size = Some(usize::try_from(size).unwrap_or(usize::MAX));
                        }
                        key => read_place(scanner, key, label, &mut input.place)?,
                    }
                    Ok(())
                })?;
            }
            "data" if input.data.is_some() => return Err(given_twice("data")),
            "data" => input.read_data(scanner)?,
            _ => scanner.skip()?,
        }
        Ok(())
    })?;
    input.finish(index)
}

/// How errors name an input: by its name once that is known, else by its place in the list.
#[derive(Clone, Copy)]
struct Label<'a> {
    name: Option<&'a str>,
    index: usize,
}

impl fmt::Display for Label<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name {
            Some(name) => write!(f, "input '{name}'"),
            None => write!(f, "entry {} of 'inputs'", self.index),
        }
    }
}

impl<'a> PartialInput<'a> {
    fn label(&self, index: usize) -> Label<'_> {
        Label { name: self.name.as_deref(), index }
    }

    fn read_data(&mut self, scanner: &mut Scanner<'a>) -> Result<(), JsonError> {
        self.data = Some(match (&self.name, self.dtype, &self.shape) {
            (Some(name), Some(dtype), Some(shape)) => {
                check_carried(name, dtype)?;
                Data::Read(read_data(scanner, name, dtype, shape)?)
            }
            _ => {
                let start = scanner.clone();
                scanner.skip()?;
                Data::Ahead(start)
            }
        });
        Ok(())
    }

    fn finish(self, index: usize) -> Result<Input, JsonError> {
        let Some(name) = self.name else {
            return Err(JsonError::Meaning(format!("entry {index} of 'inputs' has no 'name'")));
        };
        let missing = |key: &str| JsonError::Meaning(format!("input '{name}' has no '{key}'"));
        let dtype = self.dtype.ok_or_else(|| missing("datatype"))?;
        let shape = self.shape.ok_or_else(|| missing("shape"))?;
        if self.place.is_said() && (self.data.is_some() || self.binary_data_size.is_some()) {
            return Err(JsonError::Meaning(format!(
                "input '{name}' is in shared memory and has 'data' or 'binary_data_size' too: use one of them"
            )));
        }
        let source = match (self.data, self.binary_data_size) {
            _ if self.place.is_said() => Source::Shared(self.place),
            (Some(Data::Read(data)), None) => Source::Json(data),
            (Some(Data::Ahead(mut start)), None) => {
                check_carried(&name, dtype)?;
                Source::Json(read_data(&mut start, &name, dtype, &shape)?)
            }
            (None, Some(size)) => Source::Binary(size),
            (None, None) => return Err(missing("data")),
            (Some(_), Some(_)) => {
                return Err(JsonError::Meaning(format!(
                    "input '{name}' has both 'data' and 'binary_data_size': its elements come either in JSON or \
                     behind it"
                )));
            }
        };
        Ok(Input { name, dtype, shape, source })
    }
}

impl Input {
    fn into_tensor(
        self,
        tail: &mut BinaryTail,
        has_header: bool,
        reach: &mut Reach<'_>,
    ) -> Result<NamedTensor, InferError> {
        let Input { name, dtype, shape, source } = self;
        let whole = |data: Bytes, shape: Shape| {
            let tensor = Tensor::new(dtype, shape, data);
            tensor.map_err(|error| InferError::InvalidInput(format!("input '{name}': {error}")))
        };
        let tensor = match source {
            Source::Json(data) => whole(data.into(), shape)?,
            Source::Shared(place) => whole(reach.read(&format!("input '{name}'"), place)?, shape)?,
            Source::Binary(size) if !has_header => {
                return Err(InferError::InvalidInput(format!(
                    "input '{name}' has binary_data_size {size}: the header Inference-Header-Content-Length must \
                     give the length of the JSON"
                )));
            }
            Source::Binary(size) => tail.take(&name, dtype, shape, size)?,
        };
        Ok(NamedTensor { name, tensor })
    }
}

fn read_output(scanner: &mut Scanner<'_>, index: usize) -> Result<(WantedOutput, Option<Place>), JsonError> {
    let label = format_args!("entry {index} of 'outputs'");
    let (mut name, mut binary_data, mut classes) = (None, None, 0);
    let mut place = Place::default();
    scanner.object(label, |scanner, key| {
        match key {
            "name" => name = Some(text(scanner, format_args!("'name' of {label}"))?),
            "parameters" => members(scanner, format_args!("'parameters' of {label}"), |scanner, key| {
                match key {
                    "binary_data" => {
                        binary_data = Some(boolean(scanner, format_args!("'binary_data' of {label}"))?)
                    }
                    "classification" => {
                        let count = unsigned(scanner, format_args!("'classification' of {label}"))?;
                        classes = usize::try_from(count).unwrap_or(usize::MAX);
                    }
                    key => read_place(scanner, key, label, &mut place)?,
                }
                Ok(())
            })?,
            _ => scanner.skip()?,
        }
        Ok(())
    })?;
    let name = name.ok_or_else(|| JsonError::Meaning(format!("{label} has no 'name'")))?;
    if place.is_said() && classes > 0 {
        return Err(JsonError::Meaning(format!(
            "output '{name}' has both 'classification' and 'shared_memory_region': classes are answered in the message"
        )));
    }
    Ok((WantedOutput { name, binary_data, classes }, place.is_said().then_some(place)))
}

/// Reads the value of the parameter `key` of a tensor where it says something of shared memory, and else skips it.
fn read_place(
    scanner: &mut Scanner<'_>,
    key: &str,
    label: impl fmt::Display,
    place: &mut Place,
) -> Result<(), JsonError> {
    let what = format_args!("'{key}' of {label}");
    match key {
        "shared_memory_region" => place.region = Some(text(scanner, what)?),
        "shared_memory_byte_size" => place.byte_size = Some(unsigned(scanner, what)?),
        "shared_memory_offset" => place.offset = Some(unsigned(scanner, what)?),
        _ => scanner.skip()?,
    }
    Ok(())
}

/// FP16, BF16 and narrow types have no JSON form in the protocol.
fn check_carried(name: &str, dtype: DType) -> Result<(), JsonError> {
    if matches!(dtype, DType::Fp16 | DType::Bf16 | DType::Narrow(_)) {
        return Err(JsonError::Meaning(format!(
            "input '{name}': {dtype} is not representable in JSON: send it with the binary tensor extension \
             (parameter 'binary_data_size' and header Inference-Header-Content-Length)"
        )));
    }
    Ok(())
}

fn read_dtype(scanner: &mut Scanner<'_>, label: Label<'_>) -> Result<DType, JsonError> {
    let name = text(scanner, format_args!("'datatype' of {label}"))?;
    DType::parse(&name).ok_or_else(|| {
        let known = DType::ALL.map(DType::name).join(", ");
        JsonError::Meaning(format!("{label}: unknown datatype '{name}': expected one of {known}"))
    })
}

fn read_dims(scanner: &mut Scanner<'_>, label: Label<'_>) -> Result<Shape, JsonError> {
    let mut shape = Shape::new();
    scanner.list(format_args!("'shape' of {label}"), |scanner, axis| {
        if axis == RANK_MAX {
            return Err(JsonError::Meaning(format!("{label}: 'shape' has more than {RANK_MAX} dimensions")));
        }
        let dim = unsigned(scanner, format_args!("dimension {axis} of {label}"))?;
        shape.push(usize::try_from(dim).unwrap_or(usize::MAX));
        Ok(())
    })?;
    Ok(shape)
}

/// Reads an object or `null`, which stands for an empty one.
fn members<'a>(
    scanner: &mut Scanner<'a>,
    what: impl fmt::Display,
    member: impl FnMut(&mut Scanner<'a>, &str) -> Result<(), JsonError>,
) -> Result<(), JsonError> {
    if scanner.peek() == Some(b'n') { scanner.skip() } else { scanner.object(what, member) }
}

fn text(scanner: &mut Scanner<'_>, what: impl fmt::Display) -> Result<String, JsonError> {
    if scanner.peek() == Some(b'"') {
        return scanner.string().map(|text| text.into_owned());
    }
    Err(scanner.unexpected(format_args!("{what} must be a string")))
}

fn boolean(scanner: &mut Scanner<'_>, what: impl fmt::Display) -> Result<bool, JsonError> {
    match scanner.clone().scalar() {
        Ok(Scalar::Bool(value)) => scanner.skip().map(|()| value),
        _ => Err(scanner.unexpected(format_args!("{what} must be true or false"))),
    }
}

fn unsigned(scanner: &mut Scanner<'_>, what: impl fmt::Display) -> Result<u64, JsonError> {
    if let Ok(Scalar::Number(number)) = scanner.clone().scalar()
        && let Ok((value, _length)) = read_integer(number.as_bytes())
        && let Ok(value) = u64::try_from(value)
    {
        return scanner.skip().map(|()| value);
    }
    Err(scanner.unexpected(format_args!("{what} must be a non-negative integer")))
}

fn given_twice(key: &str) -> JsonError {
    JsonError::Meaning(format!("the key '{key}' is given twice"))
}
