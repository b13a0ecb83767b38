//! Any bytes as a body of TorchServe's: JSON, raw bytes or a form. The first byte picks the model and the second the
//! content type. What decodes is sound.
#![no_main]

use bytes::Bytes;
use gristmill::torchserve_http::decode_prediction;
use gristmill_fuzz::{check_inputs, model_of_rows};
use libfuzzer_sys::fuzz_target;

const CONTENT_TYPES: [Option<&str>; 4] = [
    None,
    Some("application/json"),
    Some("application/octet-stream"),
    Some("multipart/form-data; boundary=b"),
];

fuzz_target!(|data: &[u8]| {
    let Some(([model, content_type], body)) = data.split_first_chunk::<2>() else { return };
    let content_type = CONTENT_TYPES[usize::from(*content_type) % CONTENT_TYPES.len()];
    let decoded =
        decode_prediction(&model_of_rows((*model).into()), None, content_type, Bytes::copy_from_slice(body));
    if let Ok((inputs, _form)) = decoded {
        check_inputs(&inputs);
    }
});
