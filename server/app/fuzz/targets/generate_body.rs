//! Any bytes as a body of Triton's generate extension. The first byte picks the model: one input of any dtype and rank,
//! or several. What decodes is sound, has each of the model's inputs with one row, and was JSON to others too.
#![no_main]

use gristmill::oip_http::decode_generate;
use gristmill_fuzz::{check_inputs, is_json, model_of_rows};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&pick, body)) = data.split_first() else { return };
    let model = model_of_rows(pick.into());
    let Ok(asked) = decode_generate(&model, body) else { return };
    check_inputs(&asked.inputs);
    assert!(is_json(body), "serde_json refuses what was accepted");
    assert_eq!(asked.inputs.len(), model.signature.inputs.len());
    for input in &asked.inputs {
        assert_eq!(input.tensor.shape().first(), Some(&1), "'{}' has one row", input.name);
    }
});
