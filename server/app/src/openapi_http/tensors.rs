//! Schemas and examples of a model's bodies, from its signature: real names, datatypes and sizes.

use gristmill_engine::request::ModelInfo;
use gristmill_engine::tensor::{DType, Dim, TensorSpec};
use serde_json::{Map, Value, json};

use super::operations::Takes;

/// An example of more elements helps nobody.
const EXAMPLE_ELEMENTS_MAX: usize = 1024;

/// What a body for `model` must be.
pub(super) fn schema(model: &ModelInfo, takes: Takes) -> Value {
    let rows = || json!({"type": "array", "items": row_schema(model), "minItems": 1});
    let object = |properties: Value, required: &str| json!({"type": "object", "properties": properties, "required": [required]});
    match takes {
        Takes::Tensors => request_schema(model),
        Takes::Features => json!({"anyOf": [
            object(json!({"features": {"anyOf": [row_schema(model), rows()]}}), "features"),
            object(json!({"instances": rows()}), "instances"),
        ]}),
        Takes::Instances => json!({"anyOf": [
            object(json!({"instances": rows(), "signature_name": {"const": "serving_default"}}), "instances"),
            object(json!({"inputs": columns_schema(model)}), "inputs"),
        ]}),
        Takes::Examples => object(
            json!({"examples": {"type": "array", "items": named_schema(model), "minItems": 1}}),
            "examples",
        ),
        Takes::Rows => json!({"anyOf": [rows(), object(json!({"instances": rows()}), "instances")]}),
        Takes::Frame => json!({"anyOf": [
            object(json!({"instances": rows(), "params": {"type": "object"}}), "instances"),
            object(json!({"inputs": columns_schema(model)}), "inputs"),
            object(json!({"dataframe_records": {"type": "array", "items": {"type": "object"}, "minItems": 1}}),
                "dataframe_records"),
            object(json!({"dataframe_split": object(json!({
                "columns": {"type": "array", "items": {"type": "string"}},
                "data": {"type": "array", "items": {"type": "array"}},
            }), "data")}), "dataframe_split"),
        ]}),
        Takes::OnlyInstances => object(json!({"instances": rows()}), "instances"),
        Takes::Nothing
        | Takes::Index
        | Takes::Order
        | Takes::Reason
        | Takes::Label
        | Takes::Route
        | Takes::Promotion
        | Takes::Feedback
        | Takes::Generate
        | Takes::LogSettings
        | Takes::TraceSettings
        | Takes::Region
        | Takes::DeviceRegion => json!({}),
    }
}

/// A body for `model` that it answers; `None` where one would be too long, or a datatype has no form in JSON.
pub(super) fn example(model: &ModelInfo, takes: Takes) -> Option<Value> {
    let row = || row_example(model);
    Some(match takes {
        Takes::Tensors => {
            let input = |spec: &TensorSpec| {
                let dims = dims(spec);
                let data = nested(dims, spec.dtype)?;
                let shape: Vec<usize> = dims.iter().map(size).collect();
                Some(json!({"name": spec.name, "datatype": spec.dtype.name(), "shape": shape, "data": data}))
            };
            let inputs: Option<Vec<Value>> = required(model).map(input).collect();
            json!({"inputs": inputs?})
        }
        Takes::Features => json!({"features": row()?}),
        Takes::Instances | Takes::OnlyInstances | Takes::Frame => json!({"instances": [row()?]}),
        Takes::Examples => json!({"examples": [named_example(model)?]}),
        Takes::Rows => json!([row()?]),
        Takes::Nothing
        | Takes::Index
        | Takes::Order
        | Takes::Reason
        | Takes::Label
        | Takes::Route
        | Takes::Promotion
        | Takes::Feedback
        | Takes::Generate
        | Takes::LogSettings
        | Takes::TraceSettings
        | Takes::Region
        | Takes::DeviceRegion => return None,
    })
}

/// What `model` answers to tensors.
pub(super) fn answer_schema(model: &ModelInfo) -> Value {
    let output = |spec: &TensorSpec| tensor_schema(spec);
    json!({
        "type": "object",
        "properties": {
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "outputs": {"type": "array", "items": {"anyOf": model.signature.outputs.iter().map(output).collect::<Vec<_>>()}},
        },
        "required": ["model_name", "model_version", "outputs"],
    })
}

/// The dimensions of one row, or of all where rows are not told apart.
pub(super) fn row(spec: &TensorSpec, batched: bool) -> &[Dim] {
    dims(spec).get(usize::from(batched)..).unwrap_or(&[])
}

pub(super) fn is_one_value(row: &[Dim]) -> bool {
    row.iter().all(|dim| *dim == Dim::Fixed(1))
}

/// A tensor whose rank is not known is shown as a list.
fn dims(spec: &TensorSpec) -> &[Dim] {
    spec.shape.as_deref().unwrap_or(&[Dim::Dynamic(None)])
}

fn required(model: &ModelInfo) -> impl Iterator<Item = &TensorSpec> {
    model.signature.inputs.iter().filter(|spec| !spec.optional)
}

fn request_schema(model: &ModelInfo) -> Value {
    let inputs: Vec<Value> = model.signature.inputs.iter().map(tensor_schema).collect();
    let outputs: Vec<&str> = model.signature.outputs.iter().map(|spec| spec.name.as_str()).collect();
    json!({
        "type": "object",
        "properties": {
            "id": {"type": "string"},
            "parameters": {"type": "object"},
            "inputs": {
                "type": "array",
                "items": {"anyOf": inputs},
                "minItems": required(model).count(),
                "maxItems": model.signature.inputs.len(),
            },
            "outputs": {"type": "array", "items": {
                "type": "object",
                "properties": {"name": {"enum": outputs}, "parameters": {"type": "object"}},
                "required": ["name"],
            }},
        },
        "required": ["inputs"],
    })
}

fn tensor_schema(spec: &TensorSpec) -> Value {
    let mut shape = json!({"type": "array", "items": {"type": "integer", "minimum": 0}});
    if let Some(dims) = &spec.shape {
        shape["minItems"] = dims.len().into();
        shape["maxItems"] = dims.len().into();
    }
    json!({
        "type": "object",
        "description": spec.to_string(),
        "properties": {
            "name": {"const": spec.name},
            "datatype": {"const": spec.dtype.name()},
            "shape": shape,
            "data": {"type": "array", "description": "elements in row-major order, nested like the shape or flat"},
            "parameters": {"type": "object"},
        },
        "required": ["name", "datatype", "shape"],
    })
}

fn row_schema(model: &ModelInfo) -> Value {
    match model.signature.inputs.as_slice() {
        [only] => nested_schema(row(only, model.signature.is_batched()), only.dtype),
        _ => named_schema(model),
    }
}

/// An object with a value of one row for each input.
fn named_schema(model: &ModelInfo) -> Value {
    let batched = model.signature.is_batched();
    let property = |spec: &TensorSpec| {
        let row = row(spec, batched);
        let nested = nested_schema(row, spec.dtype);
        let value = if is_one_value(row) && !row.is_empty() {
            json!({"anyOf": [element_schema(spec.dtype), nested]})
        } else {
            nested
        };
        (spec.name.clone(), value)
    };
    let properties: Map<String, Value> = model.signature.inputs.iter().map(property).collect();
    let required: Vec<&str> = required(model).map(|spec| spec.name.as_str()).collect();
    json!({"type": "object", "properties": properties, "required": required})
}

/// Whole inputs by name.
fn columns_schema(model: &ModelInfo) -> Value {
    let property = |spec: &TensorSpec| (spec.name.clone(), nested_schema(dims(spec), spec.dtype));
    let properties: Map<String, Value> = model.signature.inputs.iter().map(property).collect();
    let required: Vec<&str> = required(model).map(|spec| spec.name.as_str()).collect();
    json!({"type": "object", "properties": properties, "required": required})
}

fn nested_schema(dims: &[Dim], dtype: DType) -> Value {
    dims.iter().rev().fold(element_schema(dtype), |items, dim| {
        let mut list = json!({"type": "array", "items": items});
        if let Dim::Fixed(size) = dim {
            list["minItems"] = (*size).into();
            list["maxItems"] = (*size).into();
        }
        list
    })
}

fn element_schema(dtype: DType) -> Value {
    let integer =
        |minimum: i64, maximum: u64| json!({"type": "integer", "minimum": minimum, "maximum": maximum});
    match dtype {
        DType::Bool => json!({"type": "boolean"}),
        DType::Int8 => integer(i8::MIN.into(), i8::MAX as u64),
        DType::Int16 => integer(i16::MIN.into(), i16::MAX as u64),
        DType::Int32 => integer(i32::MIN.into(), i32::MAX as u64),
        DType::Int64 => integer(i64::MIN, i64::MAX as u64),
        DType::Uint8 => integer(0, u8::MAX.into()),
        DType::Uint16 => integer(0, u16::MAX.into()),
        DType::Uint32 => integer(0, u32::MAX.into()),
        DType::Uint64 => integer(0, u64::MAX),
        DType::Fp16 | DType::Bf16 | DType::Fp32 | DType::Fp64 => json!({"type": "number"}),
        DType::Bytes => json!({"type": "string"}),
        // Nothing in JSON.
        DType::Narrow(_) => json!({"not": {}}),
    }
}

fn row_example(model: &ModelInfo) -> Option<Value> {
    match model.signature.inputs.as_slice() {
        [only] => nested(row(only, model.signature.is_batched()), only.dtype),
        _ => named_example(model),
    }
}

fn named_example(model: &ModelInfo) -> Option<Value> {
    let batched = model.signature.is_batched();
    let property = |spec: &TensorSpec| {
        let row = row(spec, batched);
        let dims = if is_one_value(row) { &[] } else { row };
        Some((spec.name.clone(), nested(dims, spec.dtype)?))
    };
    let properties: Option<Map<String, Value>> = required(model).map(property).collect();
    properties.map(Value::Object)
}

/// Lists of the same value; 1 stands for sizes that may be any.
fn nested(dims: &[Dim], dtype: DType) -> Option<Value> {
    let elements = dims.iter().try_fold(1usize, |count, dim| count.checked_mul(size(dim)))?;
    if elements > EXAMPLE_ELEMENTS_MAX {
        return None;
    }
    let element = match dtype {
        DType::Bool => json!(true),
        DType::Fp16 | DType::Bf16 | DType::Narrow(_) => return None,
        DType::Fp32 | DType::Fp64 => json!(0.5),
        DType::Bytes => json!("text"),
        _ => json!(1),
    };
    Some(dims.iter().rev().fold(element, |item, dim| vec![item; size(dim)].into()))
}

fn size(dim: &Dim) -> usize {
    match dim {
        Dim::Fixed(size) => *size,
        Dim::Dynamic(_) => 1,
    }
}
