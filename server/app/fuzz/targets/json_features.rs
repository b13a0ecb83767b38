//! Any bytes as rows, columns, examples or frames of features. The first byte picks the model: one input of any dtype
//! and rank, or several. What decodes is sound, was JSON to others too, and rows are read back from our own writing.
#![no_main]

use std::time::Duration;

use gristmill::scoring_http::{MediaType, decode_scoring};
use gristmill::tensorflow_http::{Format, decode_examples, decode_predict, encode_predictions};
use gristmill_engine::request::ModelInfo;
use gristmill_engine::tensor::{BatchAxis, DType, Dim, Signature, TensorSpec};
use gristmill_fuzz::{assert_same, check_inputs, echo, is_json};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&pick, body)) = data.split_first() else { return };
    let model = model(pick.into());
    if let Ok(inputs) = decode_examples(&model, body) {
        check_inputs(&inputs);
        assert!(is_json(body), "serde_json refuses what was accepted");
    }
    for media_type in [MediaType::Csv { has_header: true }, MediaType::Csv { has_header: false }] {
        check_inputs(&decode_scoring(&model, media_type, body).unwrap_or_default());
    }
    if let Ok(inputs) = decode_scoring(&model, MediaType::Json, body) {
        check_inputs(&inputs);
        assert!(is_json(body), "serde_json refuses what was accepted");
    }
    let Ok((inputs, format)) = decode_predict(&model, body) else { return };
    check_inputs(&inputs);
    assert!(is_json(body), "serde_json refuses what was accepted");

    // Text that is not UTF-8 can come in base64 and has no row to go back in.
    let Ok(answer) = encode_predictions(Format::Rows, &echo(&inputs)) else { return };
    let rows = answer.strip_prefix(b"{\"predictions\":").expect("rows begin so");
    let again = [b"{\"instances\":".as_slice(), rows].concat();
    let is_whole = inputs.len() == model.signature.inputs.len() && !rows.starts_with(b"[]");
    if format == Format::Rows && is_whole {
        let (read, _) = decode_predict(&model, &again).expect("our own writing is read");
        assert_same(&inputs, &read);
    }
});

/// One input of any dtype with rows of rank 0 to 2, some of any size; or, for the highest numbers, three inputs.
fn model(pick: usize) -> ModelInfo {
    let row = |rank: usize| [Dim::Fixed(2), Dim::Dynamic(None)].into_iter().take(rank);
    let input = |name: &str, dtype, rank| TensorSpec {
        name: name.into(),
        dtype,
        shape: Some([Dim::Dynamic(None)].into_iter().chain(row(rank)).collect()),
        optional: false,
        labels: Vec::new(),
    };
    let dtype = DType::ALL[pick % DType::ALL.len()];
    let inputs = match pick / DType::ALL.len() {
        rank @ 0..=2 => vec![input("x", dtype, rank)],
        _ => vec![input("a", dtype, 0), input("b", DType::Fp32, 1), input("c", DType::Bytes, 0)],
    };
    ModelInfo {
        name: "m".into(),
        version: 1,
        signature: Signature { inputs, outputs: Vec::new(), batch: BatchAxis::Rows },
        platform: "fuzzed".into(),
        batch_rows_max: 1,
        batch_delay: Duration::ZERO,
        instances: 1,
        threads: 1,
        notes: Vec::new(),
    }
}
