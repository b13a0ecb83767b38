//! Any bytes as TensorFlow's `Input` of examples. The first byte picks the model: one input of any dtype and rank, or
//! several. What decodes is sound and bounded.
#![no_main]

use gristmill::codec::proto::examples::decode_examples;
use gristmill_fuzz::{check_inputs, model_of_rows};
use gristmill_proto::tensorflow::serving::Input;
use libfuzzer_sys::fuzz_target;
use prost::Message;

/// Most bytes that a message may stand for.
const BYTES_MAX: usize = 1 << 16;

fuzz_target!(|data: &[u8]| {
    let Some((&pick, message)) = data.split_first() else { return };
    let Ok(input) = Input::decode(message) else { return };
    let model = model_of_rows(pick.into());
    let Ok(inputs) = decode_examples(&model, Some(&input), BYTES_MAX) else { return };
    check_inputs(&inputs);
    let bytes: usize = inputs.iter().map(|input| input.tensor.data().len()).sum();
    assert!(bytes <= BYTES_MAX, "{bytes} bytes were made");
});
