//! Decides the bytes of a request: each body is encoded once, before the load, and then only handed out.

use bytes::{BufMut, Bytes, BytesMut};
use gristmill_proto::inference::model_infer_request::InferInputTensor;
use gristmill_proto::inference::{InferTensorContents, ModelInferRequest};
use prost::Message;
use serde_json::{Value, json};

use crate::datatype::Datatype;
use crate::model::Inputs;
use crate::tensor::Tensor;

/// How tensors are written into a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Body {
    /// gRPC, `raw_input_contents`.
    Raw,
    /// gRPC, typed contents such as `fp32_contents`.
    Typed,
    /// HTTP, JSON with flat `data`.
    Json,
    /// HTTP, the binary tensor extension, both ways.
    Binary,
    /// HTTP, `POST /predict/{model}` with `features`.
    Predict,
}

/// One encoded request.
#[derive(Clone, Debug)]
pub(crate) struct Payload {
    pub(crate) body: Bytes,
    pub(crate) rows: u64,
    /// The length of the JSON part in front of binary tensors, in bytes.
    pub(crate) json_length: Option<usize>,
}

// === impl Body ===

impl Body {
    pub(crate) fn is_grpc(self) -> bool {
        matches!(self, Body::Raw | Body::Typed)
    }

    /// Encodes a request to `model`; an error names what this kind of body cannot carry.
    pub(crate) fn encode(self, model: &str, version: &str, inputs: &Inputs) -> Result<Payload, String> {
        let rows = inputs.rows as u64;
        let (body, json_length) = match self {
            Body::Raw => (raw(model, version, inputs).encode_to_vec().into(), None),
            Body::Typed => (typed(model, version, inputs)?.encode_to_vec().into(), None),
            Body::Json => {
                let tensors: Vec<_> = inputs.tensors.iter().map(Tensor::to_json).collect::<Result<_, _>>()?;
                (json!({ "inputs": tensors }).to_string().into(), None)
            }
            Body::Binary => {
                let (body, json_length) = binary(inputs);
                (body, Some(json_length))
            }
            Body::Predict => (json!({ "features": features(inputs)? }).to_string().into(), None),
        };
        Ok(Payload { body, rows, json_length })
    }
}

fn raw(model: &str, version: &str, inputs: &Inputs) -> ModelInferRequest {
    ModelInferRequest {
        model_name: model.to_owned(),
        model_version: version.to_owned(),
        inputs: inputs.tensors.iter().map(|tensor| input(tensor, None)).collect(),
        raw_input_contents: inputs.tensors.iter().map(|tensor| tensor.data.clone()).collect(),
        ..ModelInferRequest::default()
    }
}

fn typed(model: &str, version: &str, inputs: &Inputs) -> Result<ModelInferRequest, String> {
    let tensors = inputs.tensors.iter().map(|tensor| Ok(input(tensor, Some(contents(tensor)?))));
    Ok(ModelInferRequest {
        model_name: model.to_owned(),
        model_version: version.to_owned(),
        inputs: tensors.collect::<Result<_, String>>()?,
        ..ModelInferRequest::default()
    })
}

fn input(tensor: &Tensor, contents: Option<InferTensorContents>) -> InferInputTensor {
    InferInputTensor {
        name: tensor.name.clone(),
        datatype: tensor.datatype.name().to_owned(),
        shape: tensor.shape.clone(),
        contents,
        ..InferInputTensor::default()
    }
}

fn contents(tensor: &Tensor) -> Result<InferTensorContents, String> {
    if matches!(tensor.datatype, Datatype::Fp16 | Datatype::Bf16) {
        return Err(format!("{} has no typed contents: use `--body raw`", tensor.datatype.name()));
    }
    let values = tensor.values()?;
    let signed = || values.iter().filter_map(Value::as_i64);
    let unsigned = || values.iter().filter_map(Value::as_u64);
    let floats = || values.iter().filter_map(Value::as_f64);
    let mut contents = InferTensorContents::default();
    match tensor.datatype {
        Datatype::Bool => contents.bool_contents = values.iter().filter_map(Value::as_bool).collect(),
        Datatype::Int8 | Datatype::Int16 | Datatype::Int32 => {
            contents.int_contents = signed().map(|value| value as i32).collect();
        }
        Datatype::Int64 => contents.int64_contents = signed().collect(),
        Datatype::Uint8 | Datatype::Uint16 | Datatype::Uint32 => {
            contents.uint_contents = unsigned().map(|value| value as u32).collect();
        }
        Datatype::Uint64 => contents.uint64_contents = unsigned().collect(),
        Datatype::Fp32 => contents.fp32_contents = floats().map(|value| value as f32).collect(),
        Datatype::Fp64 => contents.fp64_contents = floats().collect(),
        Datatype::Bytes => {
            let texts = values.iter().filter_map(Value::as_str);
            contents.bytes_contents = texts.map(|text| Bytes::copy_from_slice(text.as_bytes())).collect();
        }
        // Refused above.
        Datatype::Fp16 | Datatype::Bf16 => {}
    }
    Ok(contents)
}

fn binary(inputs: &Inputs) -> (Bytes, usize) {
    let tensors = inputs.tensors.iter().map(|tensor| {
        json!({
            "name": tensor.name,
            "shape": tensor.shape,
            "datatype": tensor.datatype.name(),
            "parameters": { "binary_data_size": tensor.data.len() },
        })
    });
    let header = json!({
        "parameters": { "binary_data_output": true },
        "inputs": tensors.collect::<Vec<_>>(),
    })
    .to_string();
    let mut body = BytesMut::from(header.as_bytes());
    for tensor in &inputs.tensors {
        body.put_slice(&tensor.data);
    }
    (body.freeze(), header.len())
}

/// Each row is the values of all inputs for that row, in the order of the inputs.
fn features(inputs: &Inputs) -> Result<Vec<Vec<Value>>, String> {
    let mut rows = vec![Vec::new(); inputs.rows];
    for tensor in &inputs.tensors {
        let values = tensor.values()?;
        let row_elements = values.len() / inputs.rows;
        for (row, values) in rows.iter_mut().zip(values.chunks(row_elements.max(1))) {
            row.extend_from_slice(values);
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    fn inputs(datatype: Datatype) -> Inputs {
        let mut rng = SmallRng::seed_from_u64(0);
        Inputs { tensors: vec![Tensor::random("x", datatype, vec![2, 3], &mut rng)], rows: 2 }
    }

    #[test]
    fn typed_contents_hold_every_element_in_the_one_field_of_the_datatype() {
        for (name, field) in [
            ("BOOL", 1),
            ("INT8", 2),
            ("INT16", 2),
            ("INT32", 2),
            ("INT64", 3),
            ("UINT8", 4),
            ("UINT16", 4),
            ("UINT32", 4),
            ("UINT64", 5),
            ("FP32", 6),
            ("FP64", 7),
            ("BYTES", 8),
        ] {
            let inputs = inputs(Datatype::parse(name).unwrap());
            let payload = Body::Typed.encode("m", "", &inputs).unwrap();
            let message = ModelInferRequest::decode(payload.body).unwrap();
            let contents = message.inputs[0].contents.clone().unwrap();
            let lengths = [
                contents.bool_contents.len(),
                contents.int_contents.len(),
                contents.int64_contents.len(),
                contents.uint_contents.len(),
                contents.uint64_contents.len(),
                contents.fp32_contents.len(),
                contents.fp64_contents.len(),
                contents.bytes_contents.len(),
            ];
            let mut expected = [0; 8];
            expected[field - 1] = 6;
            assert_eq!(lengths, expected, "{name}");
        }
    }

    #[test]
    fn what_a_body_cannot_carry_says_what_can() {
        for (body, expected) in [
            (Body::Typed, "use `--body raw`"),
            (Body::Json, "`--body binary`"),
            (Body::Predict, "`--body binary`"),
        ] {
            let message = body.encode("m", "", &inputs(Datatype::Bf16)).unwrap_err();
            assert!(message.contains("BF16") && message.contains(expected), "{message}");
        }
        assert!(Body::Raw.encode("m", "", &inputs(Datatype::Bf16)).is_ok());
    }

    #[test]
    fn a_binary_body_is_its_json_and_then_the_bytes() {
        let inputs = inputs(Datatype::Fp16);
        let payload = Body::Binary.encode("m", "", &inputs).unwrap();
        let (header, tensors) = payload.body.split_at(payload.json_length.unwrap());
        assert_eq!(tensors, inputs.tensors[0].data);
        let header: Value = serde_json::from_slice(header).unwrap();
        assert_eq!(header["inputs"][0]["parameters"]["binary_data_size"], 12);
    }
}
