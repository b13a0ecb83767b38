//! Any bytes as a `ModelInferRequest`: what decodes is sound, and says the same when it is sent again.
#![no_main]

use gristmill::codec::proto::{self, Form, InferCall};
use gristmill_engine::request::{NamedTensor, VersionSelector};
use gristmill_fuzz::{assert_same, check_inputs, echo, with_plain_bools};
use gristmill_proto::inference::infer_parameter::ParameterChoice;
use gristmill_proto::inference::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use gristmill_proto::inference::{InferParameter, ModelInferRequest, ModelInferResponse};
use libfuzzer_sys::fuzz_target;
use prost::Message;

fuzz_target!(|data: &[u8]| {
    let Ok(call) = proto::decode_infer(data) else { return };
    check_inputs(&call.query.inputs);

    let again = proto::decode_infer(&request(&call).encode_to_vec()).expect("what was decoded can be sent");
    assert_same(&call.query.inputs, &again.query.inputs);
    assert_eq!((&call.query.model, &call.query.version), (&again.query.model, &again.query.version));
    assert_eq!((&call.query.outputs, &call.id), (&again.query.outputs, &again.id));
    assert_eq!(call.timeout, again.timeout);

    for form in [Form::Raw, Form::Typed] {
        let answer = proto::encode(echo(&call.query.inputs), call.id.clone(), form);
        assert_eq!(answer.id, call.id);
        let typed = answer.raw_output_contents.is_empty();
        let read = proto::decode_infer(&answer_as_request(answer).encode_to_vec());
        let read = read.expect("an answer is as well formed as a request").query.inputs;
        if typed {
            assert_same(&with_plain_bools(&call.query.inputs), &read);
        } else {
            assert_same(&call.query.inputs, &read);
        }
    }
});

/// `call` with raw tensors.
fn request(call: &InferCall) -> ModelInferRequest {
    let query = &call.query;
    let mut message = ModelInferRequest {
        model_name: query.model.clone(),
        model_version: match &query.version {
            VersionSelector::Default => String::new(),
            VersionSelector::Number(version) => version.to_string(),
            VersionSelector::Label(label) => label.clone(),
        },
        id: call.id.clone(),
        ..ModelInferRequest::default()
    };
    for NamedTensor { name, tensor } in &query.inputs {
        message.inputs.push(InferInputTensor {
            name: name.clone(),
            datatype: tensor.dtype().name().into(),
            shape: tensor.shape().iter().map(|&size| size as i64).collect(),
            ..InferInputTensor::default()
        });
        message.raw_input_contents.push(tensor.data().clone());
    }
    for name in &query.outputs {
        let output =
            InferRequestedOutputTensor { name: name.clone(), ..InferRequestedOutputTensor::default() };
        message.outputs.push(output);
    }
    if let Some(timeout) = call.timeout {
        let microseconds = u64::try_from(timeout.as_micros()).expect("it was read from 64 bits");
        let parameter_choice = Some(ParameterChoice::Uint64Param(microseconds));
        message.parameters.insert("timeout".into(), InferParameter { parameter_choice });
    }
    message
}

fn answer_as_request(answer: ModelInferResponse) -> ModelInferRequest {
    let inputs = answer.outputs.into_iter().map(|output| InferInputTensor {
        name: output.name,
        datatype: output.datatype,
        shape: output.shape,
        contents: output.contents,
        ..InferInputTensor::default()
    });
    ModelInferRequest {
        inputs: inputs.collect(),
        raw_input_contents: answer.raw_output_contents,
        ..ModelInferRequest::default()
    }
}
