//! Any bytes as an inference request in JSON: what decodes is sound, was JSON to others too, and is read
//! back from our own writing.
#![no_main]

use bytes::Bytes;
use gristmill::codec::json::{self, InferBody};
use gristmill_fuzz::{answer_as_request, assert_same, check_inputs, echo, is_json};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(body) = json::decode_infer(Bytes::copy_from_slice(data), None) else { return };
    check_inputs(&body.inputs);
    assert!(is_json(data), "serde_json refuses what was accepted");

    let plain = InferBody { id: body.id.clone(), ..InferBody::default() };
    let answer = json::encode_infer(&plain, &echo(&body.inputs)).expect("what came in JSON can go in JSON");
    assert_eq!(answer.header_length, None);
    let answer = answer.parts.concat();
    assert!(is_json(&answer), "serde_json refuses what was written");
    let read = json::decode_infer(answer_as_request(&answer).into(), None).expect("our own writing is read");
    assert_eq!(read.id, body.id);
    assert_same(&body.inputs, &read.inputs);
});
