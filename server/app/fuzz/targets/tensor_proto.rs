//! Any bytes as TensorFlow's `TensorProto`: what decodes is sound and bounded, and says the same when it is sent again.
#![no_main]

use bytes::Bytes;
use gristmill::codec::proto::tensorflow::{decode_tensor, encode_tensor};
use gristmill_engine::request::NamedTensor;
use gristmill_fuzz::{check_inputs, with_plain_bools};
use gristmill_proto::tensorflow::TensorProto;
use libfuzzer_sys::fuzz_target;
use prost::Message;

/// Most bytes that a message may stand for.
const BYTES_MAX: usize = 1 << 16;

fuzz_target!(|data: &[u8]| {
    let Ok(message) = TensorProto::decode(Bytes::copy_from_slice(data)) else { return };
    let Ok(tensor) = decode_tensor("x", message, BYTES_MAX) else { return };
    assert!(tensor.data().len() <= BYTES_MAX + 5 * data.len(), "elements beyond the limit were made");
    let inputs = [NamedTensor { name: "x".into(), tensor }];
    check_inputs(&inputs);
    let again = decode_tensor("x", encode_tensor(&inputs[0].tensor), BYTES_MAX);
    assert_eq!(again.expect("what was decoded can be sent"), with_plain_bools(&inputs)[0].tensor);
});
