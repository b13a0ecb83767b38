//! The inference request and response of the Open Inference Protocol as JSON, with binary tensors behind it.

use std::time::Duration;

use bytes::Bytes;
use gristmill_engine::error::InferError;
use gristmill_engine::request::{NamedTensor, Response};
use gristmill_engine::tensor::{DType, Shape, Signature, Tensor};
use smallvec::SmallVec;

use super::element::read_data;
use super::scan::{JsonError, Scalar, Scanner};
use super::write::{write_data, write_integer, write_shape, write_string};
use crate::codec::binary::{BinaryTail, raw_input, split_body};

/// Most dimensions of a tensor in JSON; nesting is bounded as well.
const RANK_MAX: usize = 32;

/// Binary outputs of up to this many bytes together are copied behind the JSON, so that a small answer
/// is one buffer; larger ones are sent from where they are.
const COPIED_BYTES_MAX: usize = 16 * 1024;

/// An inference request, decoded and not yet checked against a model.
#[derive(Debug, Default)]
pub struct InferBody {
    /// Given back in the response.
    pub id: Option<String>,
    pub inputs: Vec<NamedTensor>,
    /// Empty asks for all.
    pub outputs: Vec<WantedOutput>,
    /// Outputs are binary unless they say otherwise.
    pub binary_data_output: bool,
    /// The `timeout` parameter, which is in microseconds; 0 is none.
    pub timeout: Option<Duration>,
}

/// One entry of a request's `outputs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedOutput {
    pub name: String,
    /// The `binary_data` parameter.
    pub binary_data: Option<bool>,
}

/// The body of a response.
#[derive(Debug)]
pub struct Encoded {
    /// To be sent one after another.
    pub parts: SmallVec<[Bytes; 1]>,
    /// Bytes of JSON at the start, where binary tensors follow.
    pub header_length: Option<usize>,
}

/// Decodes a request. `header_length` is the value of `Inference-Header-Content-Length`; without it the
/// whole body is JSON. With 0 there is no JSON: see [`decode_raw`].
///
/// # Errors
/// `InvalidInput` that says what is malformed and where, or which tensor is wrong and how.
pub fn decode_infer(body: Bytes, header_length: Option<usize>) -> Result<InferBody, InferError> {
    let (json, mut tail) = split_body(body, header_length)?;
    let text = Scanner::check_text(&json)?;
    let parsed = parse(text).map_err(|error| error.into_infer_error(text))?;
    let mut request = parsed.request;
    for input in parsed.inputs {
        let tensor = input.into_tensor(&mut tail, header_length.is_some())?;
        request.inputs.push(tensor);
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

/// Encodes the answer to `request`.
///
/// # Errors
/// `InvalidInput` for an output that JSON cannot carry and that was not asked for as binary.
pub fn encode_infer(request: &InferBody, response: &Response) -> Result<Encoded, InferError> {
    let model = &response.model;
    let mut json = Vec::with_capacity(256 + json_bytes_estimate(request, response));
    json.push(b'{');
    if let Some(id) = &request.id {
        json.extend_from_slice(b"\"id\":");
        write_string(id, &mut json);
        json.push(b',');
    }
    json.extend_from_slice(b"\"model_name\":");
    write_string(&model.name, &mut json);
    json.extend_from_slice(b",\"model_version\":\"");
    write_integer(model.version, &mut json);
    json.extend_from_slice(b"\",\"outputs\":[");

    let mut binary: SmallVec<[Bytes; 2]> = SmallVec::new();
    for (position, (index, tensor)) in response.outputs.iter().enumerate() {
        let name = &model.signature.outputs[*index].name;
        if position > 0 {
            json.push(b',');
        }
        json.extend_from_slice(b"{\"name\":");
        write_string(name, &mut json);
        json.extend_from_slice(b",\"datatype\":\"");
        json.extend_from_slice(tensor.dtype().name().as_bytes());
        json.extend_from_slice(b"\",\"shape\":");
        write_shape(tensor.shape(), &mut json);
        if request.is_binary(position) {
            json.extend_from_slice(b",\"parameters\":{\"binary_data_size\":");
            write_integer(tensor.data().len(), &mut json);
            json.push(b'}');
            binary.push(tensor.data().clone());
        } else {
            json.extend_from_slice(b",\"data\":");
            write_data(name, tensor, &mut json)?;
        }
        json.push(b'}');
    }
    json.extend_from_slice(b"]}");

    let header_length = (!binary.is_empty()).then_some(json.len());
    let mut parts = SmallVec::new();
    if binary.iter().map(Bytes::len).sum::<usize>() <= COPIED_BYTES_MAX {
        binary.iter().for_each(|data| json.extend_from_slice(data));
        parts.push(json.into());
    } else {
        parts.push(json.into());
        parts.extend(binary.into_iter().filter(|data| !data.is_empty()));
    }
    Ok(Encoded { parts, header_length })
}

/// What the JSON says, before binary tensors have their bytes.
#[derive(Default)]
struct Parsed {
    request: InferBody,
    inputs: Vec<Input>,
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
}

/// An input whose keys may come in any order.
#[derive(Default)]
struct PartialInput<'a> {
    name: Option<String>,
    dtype: Option<DType>,
    shape: Option<Shape>,
    binary_data_size: Option<usize>,
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
                    parsed.request.outputs.push(read_output(scanner, index)?);
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

fn read_id(scanner: &mut Scanner<'_>) -> Result<Option<String>, JsonError> {
    match scanner.clone().scalar()? {
        Scalar::Null => scanner.skip().map(|()| None),
        Scalar::Text(_) => scanner.string().map(|id| Some(id.into_owned())),
        _ => Err(scanner.unexpected("'id' must be a string")),
    }
}

fn read_parameters(scanner: &mut Scanner<'_>, request: &mut InferBody) -> Result<(), JsonError> {
    members(scanner, "'parameters'", |scanner, key| {
        match key {
            "timeout" => {
                let microseconds = unsigned(scanner, "parameter 'timeout' (microseconds)")?;
                request.timeout = (microseconds > 0).then(|| Duration::from_micros(microseconds));
            }
            "priority" => {
                unsigned(scanner, "parameter 'priority'")?;
            }
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
            _ => scanner.skip()?,
        }
        Ok(())
    })
}

fn read_input(scanner: &mut Scanner<'_>, index: usize) -> Result<Input, JsonError> {
    let mut input = PartialInput::default();
    scanner.object(&format!("entry {index} of 'inputs'"), |scanner, key| {
        match key {
            "name" => input.name = Some(text(scanner, &format!("'name' of entry {index} of 'inputs'"))?),
            "datatype" => input.dtype = Some(read_dtype(scanner, &input.label(index))?),
            "shape" => input.shape = Some(read_dims(scanner, &input.label(index))?),
            "parameters" => {
                let label = input.label(index);
                members(scanner, &format!("'parameters' of {label}"), |scanner, key| {
                    match key {
                        "binary_data_size" => {
                            let size = unsigned(scanner, &format!("'binary_data_size' of {label}"))?;
                            input.binary_data_size = Some(usize::try_from(size).unwrap_or(usize::MAX));
                        }
                        "shared_memory_region" => {
                            return Err(JsonError::Meaning(format!(
                                "{label}: shared memory is not supported: send the data in the request"
                            )));
                        }
                        _ => scanner.skip()?,
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

impl<'a> PartialInput<'a> {
    /// How errors name it: by its name once that is known.
    fn label(&self, index: usize) -> String {
        match &self.name {
            Some(name) => format!("input '{name}'"),
            None => format!("entry {index} of 'inputs'"),
        }
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
        let label = self.label(index);
        let missing = |key: &str| JsonError::Meaning(format!("{label} has no '{key}'"));
        let name = self.name.ok_or_else(|| missing("name"))?;
        let dtype = self.dtype.ok_or_else(|| missing("datatype"))?;
        let shape = self.shape.ok_or_else(|| missing("shape"))?;
        let source = match (self.data, self.binary_data_size) {
            (Some(Data::Read(data)), None) => Source::Json(data),
            (Some(Data::Ahead(mut start)), None) => {
                check_carried(&name, dtype)?;
                Source::Json(read_data(&mut start, &name, dtype, &shape)?)
            }
            (None, Some(size)) => Source::Binary(size),
            (None, None) => return Err(missing("data")),
            (Some(_), Some(_)) => {
                return Err(JsonError::Meaning(format!(
                    "{label} has both 'data' and 'binary_data_size': its elements come either in JSON or behind it"
                )));
            }
        };
        Ok(Input { name, dtype, shape, source })
    }
}

impl Input {
    fn into_tensor(self, tail: &mut BinaryTail, has_header: bool) -> Result<NamedTensor, InferError> {
        let Input { name, dtype, shape, source } = self;
        let tensor = match source {
            Source::Json(data) => Tensor::new(dtype, shape, data.into())
                .map_err(|error| InferError::InvalidInput(format!("input '{name}': {error}")))?,
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

fn read_output(scanner: &mut Scanner<'_>, index: usize) -> Result<WantedOutput, JsonError> {
    let label = format!("entry {index} of 'outputs'");
    let (mut name, mut binary_data) = (None, None);
    scanner.object(&label, |scanner, key| {
        match key {
            "name" => name = Some(text(scanner, &format!("'name' of {label}"))?),
            "parameters" => members(scanner, &format!("'parameters' of {label}"), |scanner, key| {
                match key {
                    "binary_data" => binary_data = Some(boolean(scanner, &format!("'binary_data' of {label}"))?),
                    "classification" if unsigned(scanner, &format!("'classification' of {label}"))? > 0 => {
                        return Err(JsonError::Meaning(format!(
                            "{label}: the classification extension is not supported: ask for the scores and sort \
                             them, or use /predict"
                        )));
                    }
                    "classification" => {}
                    "shared_memory_region" => {
                        return Err(JsonError::Meaning(format!("{label}: shared memory is not supported")));
                    }
                    _ => scanner.skip()?,
                }
                Ok(())
            })?,
            _ => scanner.skip()?,
        }
        Ok(())
    })?;
    let name = name.ok_or_else(|| JsonError::Meaning(format!("{label} has no 'name'")))?;
    Ok(WantedOutput { name, binary_data })
}

// === impl InferBody ===

impl InferBody {
    /// Whether the output at `position` of the response is sent as binary data.
    fn is_binary(&self, position: usize) -> bool {
        self.outputs.get(position).and_then(|output| output.binary_data).unwrap_or(self.binary_data_output)
    }
}

fn json_bytes_estimate(request: &InferBody, response: &Response) -> usize {
    let tensors = response.outputs.iter().enumerate();
    tensors
        .map(|(position, (_, tensor))| match tensor.dtype() {
            _ if request.is_binary(position) => 128,
            DType::Bytes => 128 + tensor.data().len() * 2,
            _ => 128 + tensor.element_count() * 12,
        })
        .sum()
}

/// FP16 and BF16 have no JSON form in the protocol.
fn check_carried(name: &str, dtype: DType) -> Result<(), JsonError> {
    if matches!(dtype, DType::Fp16 | DType::Bf16) {
        return Err(JsonError::Meaning(format!(
            "input '{name}': {dtype} is not representable in JSON: send it with the binary tensor extension \
             (parameter 'binary_data_size' and header Inference-Header-Content-Length)"
        )));
    }
    Ok(())
}

fn read_dtype(scanner: &mut Scanner<'_>, label: &str) -> Result<DType, JsonError> {
    let name = text(scanner, &format!("'datatype' of {label}"))?;
    DType::parse(&name).ok_or_else(|| {
        let known = DType::ALL.map(DType::name).join(", ");
        JsonError::Meaning(format!("{label}: unknown datatype '{name}': expected one of {known}"))
    })
}

fn read_dims(scanner: &mut Scanner<'_>, label: &str) -> Result<Shape, JsonError> {
    let mut shape = Shape::new();
    scanner.list(&format!("'shape' of {label}"), |scanner, axis| {
        if axis == RANK_MAX {
            return Err(JsonError::Meaning(format!("{label}: 'shape' has more than {RANK_MAX} dimensions")));
        }
        let dim = unsigned(scanner, &format!("dimension {axis} of {label}"))?;
        shape.push(usize::try_from(dim).unwrap_or(usize::MAX));
        Ok(())
    })?;
    Ok(shape)
}

/// Reads an object or `null`, which stands for an empty one.
fn members<'a>(
    scanner: &mut Scanner<'a>,
    what: &str,
    member: impl FnMut(&mut Scanner<'a>, &str) -> Result<(), JsonError>,
) -> Result<(), JsonError> {
    if scanner.peek() == Some(b'n') { scanner.skip() } else { scanner.object(what, member) }
}

fn text(scanner: &mut Scanner<'_>, what: &str) -> Result<String, JsonError> {
    if scanner.peek() == Some(b'"') {
        return scanner.string().map(|text| text.into_owned());
    }
    Err(scanner.unexpected(&format!("{what} must be a string")))
}

fn boolean(scanner: &mut Scanner<'_>, what: &str) -> Result<bool, JsonError> {
    match scanner.clone().scalar() {
        Ok(Scalar::Bool(value)) => scanner.skip().map(|()| value),
        _ => Err(scanner.unexpected(&format!("{what} must be true or false"))),
    }
}

fn unsigned(scanner: &mut Scanner<'_>, what: &str) -> Result<u64, JsonError> {
    if let Ok(Scalar::Number(number)) = scanner.clone().scalar()
        && let Ok(value) = number.parse()
    {
        return scanner.skip().map(|()| value);
    }
    Err(scanner.unexpected(&format!("{what} must be a non-negative integer")))
}

fn given_twice(key: &str) -> JsonError {
    JsonError::Meaning(format!("the key '{key}' is given twice"))
}
