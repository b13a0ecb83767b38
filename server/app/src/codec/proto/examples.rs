//! TensorFlow's examples as a model's inputs: features are matched to inputs by name and become the input's own dtype.

use bytes::{BufMut, BytesMut};
use gristmill_engine::error::InferError;
use gristmill_engine::request::{ModelInfo, NamedTensor};
use gristmill_engine::tensor::{BatchAxis, DType, Dim, Shape, Tensor, TensorSpec, push_bytes_element};
use gristmill_proto::tensorflow::feature::Kind;
use gristmill_proto::tensorflow::serving::Input;
use gristmill_proto::tensorflow::serving::input;
use gristmill_proto::tensorflow::{Example, Feature};
use half::{bf16, f16};

use crate::features::{feature_count, unflatten};

/// The inputs that `input` has for `model`, with a row for each example. A feature that an example lacks is taken from
/// the context; features that the model does not take are passed over, as TensorFlow does. Inputs that would have more
/// than `bytes_max` bytes together are refused before they are made: a context can stand in for any number of features.
///
/// # Errors
/// `InvalidInput` for no examples, and for features that are missing or not what the model takes; `TooLarge`.
pub fn decode_examples(
    model: &ModelInfo,
    input: Option<&Input>,
    bytes_max: usize,
) -> Result<Vec<NamedTensor>, InferError> {
    let (examples, context) = match input.and_then(|input| input.kind.as_ref()) {
        None => (&[][..], None),
        Some(input::Kind::ExampleList(list)) => (list.examples.as_slice(), None),
        Some(input::Kind::ExampleListWithContext(list)) => (list.examples.as_slice(), list.context.as_ref()),
    };
    let name = &model.name;
    if examples.is_empty() {
        return Err(InferError::InvalidInput("input has no examples: send one for each row".into()));
    }
    if let BatchAxis::None { reason } = &model.signature.batch
        && examples.len() != 1
    {
        let count = examples.len();
        let text = format!("model '{name}' takes one row at a time ({reason}), got {count} examples");
        return Err(InferError::InvalidInput(text));
    }
    let mut bytes_left = bytes_max;
    let mut inputs = Vec::with_capacity(model.signature.inputs.len());
    for spec in &model.signature.inputs {
        let found = read_input(spec, model.signature.is_batched(), examples, context, bytes_left)?;
        if let Some(tensor) = found {
            bytes_left -= tensor.data().len();
            inputs.push(NamedTensor { name: spec.name.clone(), tensor });
        }
    }
    Ok(inputs)
}

/// `None` for an optional input that no example has.
fn read_input(
    spec: &TensorSpec,
    batched: bool,
    examples: &[Example],
    context: Option<&Example>,
    bytes_max: usize,
) -> Result<Option<Tensor>, InferError> {
    let name = &spec.name;
    let default = context.and_then(|context| feature(context, name));
    let mut data = BytesMut::new();
    // Of the first example; all have the same.
    let mut count = None;
    for (index, example) in examples.iter().enumerate() {
        let Some(kind) = feature(example, name).or(default) else {
            if spec.optional && count.is_none() {
                continue;
            }
            return Err(complaint(index, format_args!("lacks feature '{name}': the model takes {spec}")));
        };
        if count.is_none() && index > 0 {
            return Err(complaint(index, format_args!("has feature '{name}', which example 0 lacks")));
        }
        let values = push(spec.dtype, kind, &mut data)
            .map_err(|problem| complaint(index, format_args!("feature '{name}': {problem}")))?;
        if data.len() > bytes_max {
            return Err(InferError::TooLarge(format!(
                "example {index}, feature '{name}': the inputs have more bytes than the limit of messages allows: send \
                 fewer examples, or raise --grpc-message-bytes-max"
            )));
        }
        match count {
            Some(count) if count != values => {
                return Err(complaint(
                    index,
                    format_args!("feature '{name}' has {values} values, that of example 0 has {count}"),
                ));
            }
            _ => count = Some(values),
        }
    }
    let Some(count) = count else { return Ok(None) };
    let dims = spec.shape.as_deref().map(|dims| dims.get(usize::from(batched)..).unwrap_or(&[]));
    let row = row(dims, count).ok_or_else(|| {
        let expected = feature_count(dims.unwrap_or(&[])).replace("feature", "value");
        complaint(0, format_args!("feature '{name}': expected {expected}, got {count}"))
    })?;
    let mut shape = Shape::new();
    shape.extend(batched.then_some(examples.len()));
    shape.extend(row);
    let tensor = Tensor::new(spec.dtype, shape, data.freeze());
    tensor.map(Some).map_err(|error| InferError::InvalidInput(format!("feature '{name}': {error}")))
}

fn row(dims: Option<&[Dim]>, count: usize) -> Option<Vec<usize>> {
    dims.map_or_else(|| Some(vec![count]), |dims| unflatten(count, dims))
}

/// A feature without values of any kind is none.
fn feature<'e>(example: &'e Example, name: &str) -> Option<&'e Kind> {
    let Feature { kind } = example.features.as_ref()?.feature.get(name)?;
    kind.as_ref()
}

/// Appends the values of a feature as elements of `dtype` and says how many there are.
fn push(dtype: DType, kind: &Kind, data: &mut BytesMut) -> Result<usize, String> {
    match (kind, dtype) {
        (Kind::BytesList(list), DType::Bytes) => {
            for value in &list.value {
                push_bytes_element(data, value).map_err(|error| error.to_string())?;
            }
            Ok(list.value.len())
        }
        (Kind::FloatList(list), dtype) if is_float(dtype) => {
            for &value in &list.value {
                push_float(dtype, value, data);
            }
            Ok(list.value.len())
        }
        (Kind::Int64List(list), dtype) if dtype != DType::Bytes => {
            for &value in &list.value {
                push_integer(dtype, value, data)?;
            }
            Ok(list.value.len())
        }
        (kind, _) => {
            let (got, expected) = match kind {
                Kind::BytesList(_) if is_float(dtype) => ("bytes_list", "float_list or int64_list"),
                Kind::BytesList(_) => ("bytes_list", "int64_list"),
                Kind::FloatList(_) if dtype == DType::Bytes => ("float_list", "bytes_list"),
                Kind::FloatList(_) => ("float_list", "int64_list"),
                Kind::Int64List(_) => ("int64_list", "bytes_list"),
            };
            Err(format!("expected {expected} for {dtype}, got {got}"))
        }
    }
}

fn is_float(dtype: DType) -> bool {
    matches!(dtype, DType::Fp16 | DType::Bf16 | DType::Fp32 | DType::Fp64)
}

fn push_float(dtype: DType, value: f32, data: &mut BytesMut) {
    match dtype {
        DType::Fp16 => data.put_slice(&f16::from_f32(value).to_le_bytes()),
        DType::Bf16 => data.put_slice(&bf16::from_f32(value).to_le_bytes()),
        DType::Fp64 => data.put_f64_le(value.into()),
        _ => data.put_f32_le(value),
    }
}

/// Integers for floats are rounded, as those in JSON are.
fn push_integer(dtype: DType, value: i64, data: &mut BytesMut) -> Result<(), String> {
    let misfit = |_| format!("{value} does not fit {dtype}");
    match dtype {
        DType::Bool if !matches!(value, 0 | 1) => {
            return Err(format!("{value} is neither 0 nor 1, as BOOL has it"));
        }
        DType::Bool => data.put_u8(u8::from(value == 1)),
        DType::Int8 => data.put_i8(value.try_into().map_err(misfit)?),
        DType::Int16 => data.put_i16_le(value.try_into().map_err(misfit)?),
        DType::Int32 => data.put_i32_le(value.try_into().map_err(misfit)?),
        DType::Int64 => data.put_i64_le(value),
        DType::Uint8 => data.put_u8(value.try_into().map_err(misfit)?),
        DType::Uint16 => data.put_u16_le(value.try_into().map_err(misfit)?),
        DType::Uint32 => data.put_u32_le(value.try_into().map_err(misfit)?),
        DType::Uint64 => data.put_u64_le(value.try_into().map_err(misfit)?),
        DType::Fp64 => data.put_f64_le(value as f64),
        DType::Fp16 | DType::Bf16 | DType::Fp32 | DType::Bytes => push_float(dtype, value as f32, data),
        DType::Narrow(_) => return Err(format!("examples have no form for {dtype}")),
    }
    Ok(())
}

fn complaint(index: usize, problem: impl std::fmt::Display) -> InferError {
    InferError::InvalidInput(format!("example {index}: {problem}"))
}
