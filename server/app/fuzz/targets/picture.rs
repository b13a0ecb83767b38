//! Any bytes as a JPEG or PNG file. The first byte picks what the model takes: its size, layout, colours and values, and
//! whether its middle is cut out. What decodes is one whole picture of that kind.
#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use bytes::Bytes;
use gristmill::config::parse_model_toml;
use gristmill::handler::Handler;
use gristmill::torchserve_http::decode_prediction;
use gristmill_engine::request::ModelInfo;
use gristmill_engine::tensor::{BatchAxis, DType, Dim, Signature};
use gristmill_fuzz::{check_inputs, model, tensor_spec};
use libfuzzer_sys::fuzz_target;

/// A model's input, where 0 is any size, and what `model.toml` says of it.
const KINDS: [(DType, &[usize], &str); 6] = [
    (DType::Fp32, &[0, 3, 8, 6], ""),
    (DType::Uint8, &[0, 6, 8, 3], ""),
    (DType::Fp32, &[0, 1, 0, 0], "size = [5, 7], resize = 9"),
    (DType::Uint8, &[3, 4, 4], "color = \"BGR\""),
    (DType::Fp32, &[1, 0, 0, 1], "size = [1, 30]"),
    (
        DType::Fp32,
        &[0, 3, 224, 224],
        "resize = 256, mean = [0.485, 0.456, 0.406], std = [0.229, 0.224, 0.225]",
    ),
];

static MODELS: LazyLock<Vec<(ModelInfo, Handler)>> = LazyLock::new(|| KINDS.map(built).into());

fn built((dtype, shape, settings): (DType, &[usize], &str)) -> (ModelInfo, Handler) {
    let dim = |&size: &usize| if size == 0 { Dim::Dynamic(None) } else { Dim::Fixed(size) };
    let signature = Signature {
        inputs: vec![tensor_spec("x", dtype, shape.iter().map(dim).collect())],
        outputs: Vec::new(),
        batch: BatchAxis::None { reason: "fuzzed".into() },
    };
    let separator = if settings.is_empty() { "" } else { ", " };
    let text = format!("input = {{ kind = \"image\"{separator}{settings} }}");
    let sections = parse_model_toml(&text).expect("it is a model.toml").sections;
    let handler = sections.bind(&signature, Path::new("."), Path::new(".")).expect("it fits the model");
    (model(signature), handler)
}

fuzz_target!(|data: &[u8]| {
    let Some((&pick, file)) = data.split_first() else { return };
    let (model, handler) = &MODELS[usize::from(pick) % MODELS.len()];
    let bytes = Some("application/octet-stream");
    let Ok((inputs, _form)) = decode_prediction(model, Some(handler), bytes, Bytes::copy_from_slice(file))
    else {
        return;
    };
    check_inputs(&inputs);
    let spec = &model.signature.inputs[0];
    let [input] = inputs.as_slice() else { panic!("a picture is one input") };
    assert_eq!((input.name.as_str(), input.tensor.dtype()), ("x", spec.dtype));
    let expected = spec.shape.as_deref().unwrap_or_default();
    assert_eq!(input.tensor.shape().len(), expected.len());
    for (size, dim) in input.tensor.shape().iter().zip(expected) {
        assert!(*size > 0 && (matches!(dim, Dim::Dynamic(_)) || *dim == Dim::Fixed(*size)));
    }
});
