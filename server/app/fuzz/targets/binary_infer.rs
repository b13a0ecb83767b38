//! Any bytes as a body with binary tensors behind (or instead of) its JSON. The first two bytes are the
//! header's length, little-endian; when that is 0, the next one picks the model's signature.
#![no_main]

use bytes::Bytes;
use gristmill::codec::json::{self, InferBody};
use gristmill_engine::tensor::{BatchAxis, DType, Dim, Signature};
use gristmill_fuzz::{answer_as_request, assert_same, check_inputs, echo, tensor_spec};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((length, rest)) = data.split_first_chunk::<2>() else { return };
    let decoded = match u16::from_le_bytes(*length) {
        0 => {
            let Some((&pick, body)) = rest.split_first() else { return };
            json::decode_raw(&signature(pick), Bytes::copy_from_slice(body))
        }
        length => json::decode_infer(Bytes::copy_from_slice(rest), Some(length.into())),
    };
    let Ok(body) = decoded else { return };
    check_inputs(&body.inputs);

    let binary = InferBody { id: body.id.clone(), binary_data_output: true, ..InferBody::default() };
    let answer = json::encode_infer(&binary, &echo(&body.inputs)).expect("every dtype can go in binary");
    assert_eq!(answer.header_length.is_some(), !body.inputs.is_empty());
    let request = answer_as_request(&answer.parts.concat());
    // "inputs" is one byte shorter than "outputs".
    let length = answer.header_length.map(|length| length - 1);
    let read = json::decode_infer(request.into(), length).expect("our own writing is read");
    assert_eq!(read.id, body.id);
    assert_same(&body.inputs, &read.inputs);
});

/// One input of any dtype, of rank 0 to 3, with any of its axes dynamic.
fn signature(pick: u8) -> Signature {
    let pick = usize::from(pick);
    let dtype = DType::ALL[pick % DType::ALL.len()];
    let rank = pick / DType::ALL.len() % 4;
    let axis = |axis: usize| if pick >> axis & 1 == 1 { Dim::Dynamic(None) } else { Dim::Fixed(axis + 1) };
    let shape: Vec<Dim> = (0..rank).map(axis).collect();
    let batched = shape.first().is_some_and(|dim| matches!(dim, Dim::Dynamic(_)));
    Signature {
        inputs: vec![tensor_spec("x", dtype, shape)],
        outputs: Vec::new(),
        batch: if batched { BatchAxis::Rows } else { BatchAxis::None { reason: "fuzzed".into() } },
    }
}
