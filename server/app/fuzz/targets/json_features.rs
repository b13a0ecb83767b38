//! Any bytes as rows, columns, examples or frames of features. The first byte picks the model: one input of any dtype
//! and rank, or several. What decodes is sound, was JSON to others too, and rows are read back from our own writing.
//! What `/predict` answers of a model that gives back its features is JSON.
#![no_main]

use std::time::Duration;

use gristmill::predict_http::{decode_features, encode_features};
use gristmill::scoring_http::{MediaType, decode_scoring};
use gristmill::tensorflow_http::{Format, decode_examples, decode_predict, encode_predictions};
use gristmill_fuzz::{assert_same, check_inputs, echo, echo_rows, is_json, model_of_rows};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&pick, body)) = data.split_first() else { return };
    let model = model_of_rows(pick.into());
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
    if let Ok((inputs, listed)) = decode_features(&model, body) {
        check_inputs(&inputs);
        assert!(is_json(body), "serde_json refuses what was accepted");
        let answer = encode_features(&echo_rows(&inputs), listed, Duration::ZERO);
        assert!(answer.is_ok_and(|answer| is_json(&answer)), "an answer is JSON");
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
