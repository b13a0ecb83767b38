//! Any bytes as a body for a model whose `[input]` says text, CSV, bytes or rows. The first byte picks the model and the
//! second the content type. What decodes is sound, and texts are rows of one length.
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

/// A model's inputs, the sizes of a row of each, where 0 is any, and what `model.toml` says.
const KINDS: [(&[&str], DType, &[usize], &str); 7] = [
    (&["input_ids", "attention_mask"], DType::Int64, &[0], "kind = \"text\", tokenizer = \"wordpiece.json\""),
    (&["input_ids"], DType::Int32, &[0], "kind = \"text\", tokenizer = \"bytelevel.json\", lengths = [4, 16]"),
    (&["a", "b"], DType::Fp32, &[1], "kind = \"csv\""),
    (&["x"], DType::Int64, &[2], "kind = \"csv\", header = false"),
    (&["x"], DType::Fp32, &[2], "kind = \"bytes\""),
    (&["x"], DType::Int16, &[2, 0], "kind = \"bytes\""),
    (&["x"], DType::Fp64, &[2], "kind = \"rows\""),
];
const TEXT_KINDS: usize = 2;
const CONTENT_TYPES: [Option<&str>; 4] =
    [None, Some("application/json"), Some("text/plain"), Some("multipart/form-data; boundary=b")];

static MODELS: LazyLock<Vec<(ModelInfo, Handler)>> = LazyLock::new(|| KINDS.map(built).into());

fn built((names, dtype, row, settings): (&[&str], DType, &[usize], &str)) -> (ModelInfo, Handler) {
    let dim = |&size: &usize| if size == 0 { Dim::Dynamic(None) } else { Dim::Fixed(size) };
    let shape = || [Dim::Dynamic(None)].into_iter().chain(row.iter().map(dim)).collect();
    let inputs = names.iter().map(|name| tensor_spec(name, dtype, shape())).collect();
    let signature = Signature { inputs, outputs: Vec::new(), batch: BatchAxis::Rows };
    let sections = parse_model_toml(&format!("input = {{ {settings} }}")).expect("it is a model.toml").sections;
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/texts");
    let handler = sections.bind(&signature, &directory, &directory).expect("it fits the model");
    (model(signature), handler)
}

fuzz_target!(|data: &[u8]| {
    let Some(([pick, content_type], body)) = data.split_first_chunk::<2>() else { return };
    let pick = usize::from(*pick) % MODELS.len();
    let (model, handler) = &MODELS[pick];
    let content_type = CONTENT_TYPES[usize::from(*content_type) % CONTENT_TYPES.len()];
    let body = Bytes::copy_from_slice(body);
    let Ok((inputs, _form)) = decode_prediction(model, Some(handler), content_type, body) else { return };
    check_inputs(&inputs);
    // Rows of tokens in JSON may have any length, but those of texts have the model's.
    if pick < TEXT_KINDS && content_type == Some("text/plain") {
        let shape = inputs[0].tensor.shape();
        assert!(shape.len() == 2 && shape[0] == 1 && shape[1] > 0, "{shape:?}");
        assert!(inputs.iter().all(|input| input.tensor.shape() == shape));
    }
});
