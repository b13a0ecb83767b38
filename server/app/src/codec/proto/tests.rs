//! What each part of a request decodes to, what each fault is told, and that tensors survive the way there and back.

use std::sync::Arc;

use expect_test::{Expect, expect};
use gristmill_engine::companions::Companions;
use gristmill_engine::request::{ModelInfo, Timing};
use gristmill_engine::tensor::{BatchAxis, Dim, Signature, TensorSpec};
use gristmill_proto::inference::InferParameter;
use gristmill_proto::inference::infer_parameter::ParameterChoice;
use proptest::prelude::*;

use super::*;

fn input(name: &str, datatype: &str, shape: &[i64]) -> InferInputTensor {
    InferInputTensor {
        name: name.into(),
        datatype: datatype.into(),
        shape: shape.into(),
        ..Default::default()
    }
}

fn typed(mut input: InferInputTensor, contents: InferTensorContents) -> InferInputTensor {
    input.contents = Some(contents);
    input
}

fn request(inputs: Vec<InferInputTensor>, raw: &[&'static [u8]]) -> ModelInferRequest {
    ModelInferRequest {
        model_name: "m".into(),
        inputs,
        raw_input_contents: raw.iter().map(|bytes| Bytes::from_static(bytes)).collect(),
        ..Default::default()
    }
}

fn with_parameter(name: &str, choice: ParameterChoice) -> ModelInferRequest {
    ModelInferRequest {
        parameters: [(name.to_owned(), InferParameter { parameter_choice: Some(choice) })].into(),
        ..request(vec![], &[])
    }
}

fn fp32s(values: &[f32]) -> InferTensorContents {
    InferTensorContents { fp32_contents: values.into(), ..Default::default() }
}

fn ints(values: &[i32]) -> InferTensorContents {
    InferTensorContents { int_contents: values.into(), ..Default::default() }
}

fn check(request: ModelInferRequest, expect: Expect) {
    let text = match decode(request) {
        Ok(InferCall { query, id, timeout, form, classes, .. }) => {
            let inputs: Vec<_> = query
                .inputs
                .iter()
                .map(|input| format!("{} {:?} {:02x?}", input.name, input.tensor, &input.tensor.data()[..]))
                .collect();
            format!(
                "{}/{:?} id '{id}' {timeout:?} {form:?}\nin {inputs:?}\nout {:?}{}",
                query.model,
                query.version,
                query.outputs,
                classes.iter().map(|wanted| format!(" {wanted:?}")).collect::<String>()
            )
        }
        Err(error) => format!("{error:?}"),
    };
    expect.assert_eq(&text);
}

#[test]
fn raw_request() {
    let mut request =
        request(vec![input("a", "FP32", &[1, 2]), input("b", "BYTES", &[1])], &[&[1; 8], b"\x02\0\0\0hi"]);
    request.id = "7".into();
    request.model_version = "3".into();
    request.outputs = vec![InferRequestedOutputTensor { name: "y".into(), ..Default::default() }];
    check(
        request,
        expect![[r#"
            m/Number(3) id '7' None Raw
            in ["a FP32 [1, 2] (8 bytes) [01, 01, 01, 01, 01, 01, 01, 01]", "b BYTES [1] (6 bytes) [02, 00, 00, 00, 68, 69]"]
            out ["y"]"#]],
    );
}

#[test]
fn raw_tensors_keep_the_memory_of_the_message() {
    let message = Bytes::from(request(vec![input("a", "FP32", &[2])], &[b"12345678"]).encode_to_vec());
    let memory = message.as_ptr_range();
    let call = decode(ModelInferRequest::decode(message.clone()).unwrap()).unwrap();
    assert!(memory.contains(&call.query.inputs[0].tensor.data().as_ptr()));
}

#[test]
fn wide_typed_contents_keep_their_memory() {
    let values = vec![1.0f32, 2.0];
    let memory = values.as_ptr().cast::<u8>();
    let contents = InferTensorContents { fp32_contents: values, ..Default::default() };
    let call = decode(request(vec![typed(input("a", "FP32", &[2]), contents)], &[])).unwrap();
    assert_eq!(call.query.inputs[0].tensor.data().as_ptr(), memory);
}

#[test]
fn typed_request() {
    check(
        request(
            vec![
                typed(input("a", "FP32", &[1]), fp32s(&[1.0])),
                typed(input("b", "INT8", &[2]), ints(&[-1, 127])),
                input("c", "INT64", &[0]),
            ],
            &[],
        ),
        expect![[r#"
            m/Default id '' None Typed
            in ["a FP32 [1] (4 bytes) [00, 00, 80, 3f]", "b INT8 [2] (2 bytes) [ff, 7f]", "c INT64 [0] (0 bytes) []"]
            out []"#]],
    );
}

#[test]
fn narrow_integers_are_range_checked() {
    check(
        request(vec![typed(input("a", "INT8", &[2]), ints(&[0, 128]))], &[]),
        expect![[r#"InvalidInput("input 'a': element 1 is 128, which does not fit INT8")"#]],
    );
    let contents = InferTensorContents { uint_contents: vec![65536], ..Default::default() };
    check(
        request(vec![typed(input("a", "UINT16", &[1]), contents)], &[]),
        expect![[r#"InvalidInput("input 'a': element 0 is 65536, which does not fit UINT16")"#]],
    );
}

#[test]
fn faults_of_one_tensor() {
    let one = |input, raw: &[&'static [u8]]| request(vec![input], raw);
    check(
        one(input("a", "FLOAT", &[1]), &[&[0; 4]]),
        expect![[
            r#"InvalidInput("input 'a': unknown datatype 'FLOAT', expected one of BOOL, INT8, INT16, INT32, INT64, UINT8, UINT16, UINT32, UINT64, FP16, BF16, FP32, FP64, BYTES")"#
        ]],
    );
    check(
        one(input("a", "FP32", &[1, -1]), &[&[0; 4]]),
        expect![[
            r#"InvalidInput("input 'a': shape [1, -1] has a negative dimension: send the sizes of this tensor")"#
        ]],
    );
    check(
        one(input("a", "FP32", &[1, 2]), &[&[0; 4]]),
        expect![[r#"InvalidInput("input 'a': expected 8 bytes for FP32 [1, 2], got 4 bytes")"#]],
    );
    check(
        one(input("a", "FP32", &[i64::MAX, i64::MAX]), &[&[0; 4]]),
        expect![[
            r#"InvalidInput("input 'a': shape [9223372036854775807, 9223372036854775807] has too many elements")"#
        ]],
    );
    check(
        one(typed(input("a", "FP32", &[i64::MAX, i64::MAX]), fp32s(&[1.0])), &[]),
        expect![[
            r#"InvalidInput("input 'a': shape [9223372036854775807, 9223372036854775807] has too many elements")"#
        ]],
    );
    check(
        one(typed(input("a", "FP32", &[3]), fp32s(&[1.0])), &[]),
        expect![[r#"InvalidInput("input 'a': expected 3 elements for shape [3] in fp32_contents, got 1")"#]],
    );
    check(
        one(input("a", "FP32", &[3]), &[]),
        expect![[
            r#"InvalidInput("input 'a': no data: expected 3 elements for shape [3] in fp32_contents, or every input in raw_input_contents")"#
        ]],
    );
    check(
        one(typed(input("a", "FP32", &[1]), ints(&[1])), &[]),
        expect![[
            r#"InvalidInput("input 'a': expected FP32 elements in fp32_contents, got 1 in int_contents")"#
        ]],
    );
    check(
        one(typed(input("a", "FP16", &[1]), fp32s(&[1.0])), &[]),
        expect![[r#"InvalidInput("input 'a': FP16 has no typed contents: send it in raw_input_contents")"#]],
    );
    check(
        one(typed(input("a", "FP32", &[1]), fp32s(&[1.0])), &[&[0; 4]]),
        expect![[
            r#"InvalidInput("input 'a': has contents in a request with raw_input_contents: use one of the two for all inputs")"#
        ]],
    );
    check(
        one(input("a", "BYTES", &[1]), &[b"\x09\0\0\0hi"]),
        expect![[
            r#"InvalidInput("input 'a': BYTES element 0 is cut short: its length says 9 bytes, 2 are left")"#
        ]],
    );
}

#[test]
fn raw_entries_must_be_as_many_as_inputs() {
    let inputs = || vec![input("a", "FP32", &[1]), input("b", "FP32", &[1])];
    check(
        request(inputs(), &[&[0; 4]]),
        expect![[
            r#"InvalidInput("raw_input_contents has 1 entry for 2 inputs: expected one entry for each input, in the order of the inputs")"#
        ]],
    );
    check(
        request(inputs(), &[&[0; 4], &[0; 4], &[0; 4]]),
        expect![[
            r#"InvalidInput("raw_input_contents has 3 entries for 2 inputs: expected one entry for each input, in the order of the inputs")"#
        ]],
    );
}

#[test]
fn version_must_be_a_number() {
    check(
        ModelInferRequest { model_version: "latest".into(), ..request(vec![], &[]) },
        expect![[r#"
            m/Label("latest") id '' None Raw
            in []
            out []"#]],
    );
}

#[test]
fn parameters_with_a_meaning() {
    let text = |request| match decode(request) {
        Ok(call) if call.query.priority > 0 => format!("priority {}", call.query.priority),
        Ok(call) => format!("{:?} {:?}", call.timeout, call.form),
        Err(error) => error.to_string(),
    };
    assert_eq!(text(with_parameter("timeout", ParameterChoice::Int64Param(1500))), "Some(1.5ms) Raw");
    assert_eq!(text(with_parameter("timeout", ParameterChoice::Uint64Param(0))), "None Raw");
    assert_eq!(text(with_parameter("binary_data_output", ParameterChoice::BoolParam(false))), "None Typed");
    assert_eq!(text(with_parameter("priority", ParameterChoice::Uint64Param(1))), "priority 1");
    assert_eq!(text(with_parameter("sequence_id", ParameterChoice::Int64Param(0))), "None Raw");
    assert_eq!(text(with_parameter("sequence_start", ParameterChoice::BoolParam(false))), "None Raw");
    assert_eq!(text(with_parameter("my_own", ParameterChoice::DoubleParam(1.0))), "None Raw");
    assert_eq!(
        text(with_parameter("triton_enable_empty_final_response", ParameterChoice::BoolParam(true))),
        "None Raw"
    );
}

#[test]
fn parameters_that_are_refused() {
    check(
        with_parameter("timeout", ParameterChoice::Int64Param(-1)),
        expect![[r#"InvalidInput("parameter 'timeout': expected 0 or more, got -1")"#]],
    );
    check(
        with_parameter("timeout", ParameterChoice::StringParam("1s".into())),
        expect![[
            r#"InvalidInput("parameter 'timeout': expected int64_param or uint64_param, got string_param")"#
        ]],
    );
    check(
        with_parameter("sequence_id", ParameterChoice::StringParam("chat".into())),
        expect![[
            r#"InvalidInput("parameter 'sequence_id': sequences are not supported, every request is answered by itself")"#
        ]],
    );
    check(
        with_parameter("sequence_end", ParameterChoice::BoolParam(true)),
        expect![[
            r#"InvalidInput("parameter 'sequence_end': sequences are not supported, every request is answered by itself")"#
        ]],
    );
    check(
        with_parameter("triton_speed", ParameterChoice::Int64Param(9)),
        expect![[
            r#"InvalidInput("parameter 'triton_speed': names that begin with 'triton_' are reserved; the only one known is 'triton_enable_empty_final_response'")"#
        ]],
    );
    let parameter = InferParameter { parameter_choice: Some(ParameterChoice::Int64Param(3)) };
    let mut shared = input("a", "FP32", &[1]);
    shared.parameters.insert("shared_memory_region".into(), parameter.clone());
    check(
        request(vec![shared], &[]),
        expect![[
            r#"InvalidInput("parameter 'shared_memory_region': expected string_param, got int64_param")"#
        ]],
    );
    let shared = wanted("shared_memory_region", ParameterChoice::StringParam("r".into()));
    check(
        shared,
        expect![[
            r#"InvalidInput("output 'y': system shared memory is off: start the server with --allow-system-shared-memory, or send tensors in requests")"#
        ]],
    );
    let mut both = wanted("shared_memory_region", ParameterChoice::StringParam("r".into()));
    let classes = InferParameter { parameter_choice: Some(ParameterChoice::Int64Param(3)) };
    both.outputs[0].parameters.insert("classification".into(), classes);
    check(
        both,
        expect![[
            r#"InvalidInput("output 'y' has both 'classification' and 'shared_memory_region': classes are answered in the message")"#
        ]],
    );
}

/// A request for the output `y`, with this parameter.
fn wanted(parameter: &str, choice: ParameterChoice) -> ModelInferRequest {
    let parameter = (parameter.to_owned(), InferParameter { parameter_choice: Some(choice) });
    let output = InferRequestedOutputTensor { name: "y".into(), parameters: [parameter].into() };
    ModelInferRequest { outputs: vec![output], ..request(vec![], &[]) }
}

#[test]
fn classes_are_asked_for_by_number() {
    let classification = |choice| wanted("classification", choice);
    check(
        classification(ParameterChoice::Int64Param(3)),
        expect![[r#"
        m/Default id '' None Raw
        in []
        out ["y"] WantedClasses { output: 0, count: 3 }"#]],
    );
    check(
        classification(ParameterChoice::Int64Param(0)),
        expect![[r#"
        m/Default id '' None Raw
        in []
        out ["y"]"#]],
    );
    check(
        classification(ParameterChoice::BoolParam(true)),
        expect![[
            r#"InvalidInput("parameter 'classification': expected int64_param or uint64_param, got bool_param")"#
        ]],
    );
}

#[test]
fn garbled_messages_are_told_apart() {
    let message = request(vec![input("a", "FP32", &[1])], &[b"1234"]).encode_to_vec();
    let cut = decode_infer(&message[..message.len() - 1]).unwrap_err();
    expect!["malformed ModelInferRequest: failed to decode Protobuf message: ModelInferRequest.raw_input_contents: buffer underflow"]
        .assert_eq(&cut.to_string());
    let garbled = decode_infer(b"\xff\xff\xff").unwrap_err();
    expect!["malformed ModelInferRequest: failed to decode Protobuf message: invalid varint"]
        .assert_eq(&garbled.to_string());
    assert!(decode_infer(&message).is_ok());
}

fn answer(tensors: &[Tensor]) -> Response {
    let spec = |index: usize, tensor: &Tensor| TensorSpec {
        name: format!("y{index}"),
        dtype: tensor.dtype(),
        shape: Some(tensor.shape().iter().map(|&size| Dim::Fixed(size)).collect()),
        optional: false,
        labels: vec![],
    };
    let info = ModelInfo {
        name: "m".into(),
        version: 2,
        signature: Signature {
            inputs: vec![],
            outputs: tensors.iter().enumerate().map(|(index, tensor)| spec(index, tensor)).collect(),
            batch: BatchAxis::Rows,
        },
        platform: "onnxruntime_onnx".into(),
        batch_rows_max: 8,
        batch_delay: Duration::ZERO,
        instances: 1,
        threads: 1,
        companions: Companions::default(),
        notes: vec![],
    };
    Response {
        model: Arc::new(info),
        degraded_from: None,
        routed: None,
        rows: 1,
        outputs: tensors.iter().cloned().enumerate().collect(),
        timing: Timing::default(),
        batches: Vec::new(),
        answer_limit: None,
    }
}

#[test]
fn half_precision_makes_the_whole_answer_raw() {
    let half = Tensor::new(DType::Fp16, [1usize].as_slice(), Bytes::from_static(&[0, 60])).unwrap();
    let whole = Tensor::new(DType::Int32, [1usize].as_slice(), Bytes::from_static(&[1, 0, 0, 0])).unwrap();
    let message = encode(answer(&[whole.clone(), half]), "7".into(), Form::Typed);
    assert_eq!(message.raw_output_contents, [&[1u8, 0, 0, 0][..], &[0, 60]]);
    assert!(message.outputs.iter().all(|output| output.contents.is_none()));
    let message = encode(answer(&[whole]), "7".into(), Form::Typed);
    assert_eq!(message.outputs[0].contents, Some(ints(&[1])));
    assert!(message.raw_output_contents.is_empty());
    assert_eq!(
        (message.model_name.as_str(), message.model_version.as_str(), message.id.as_str()),
        ("m", "2", "7")
    );
}

#[test]
fn large_outputs_stay_where_they_are() {
    let large = Tensor::new(DType::Uint8, [70_000usize].as_slice(), vec![7; 70_000].into()).unwrap();
    let small = Tensor::new(DType::Uint8, [2usize].as_slice(), vec![7; 2].into()).unwrap();
    let tensors = [small.clone(), large.clone(), small];
    let encoded = wire::encode(answer(&tensors), String::new(), Form::Raw, &[], |_| []);
    let [_, middle, _] = &encoded.segments[..] else { panic!("{} segments", encoded.segments.len()) };
    assert_eq!(middle.as_ptr(), large.data().as_ptr());
}

/// Any tensor of up to 24 elements.
fn any_tensor() -> impl Strategy<Value = Tensor> {
    let dtype = prop::sample::select(DType::ALL.to_vec());
    (dtype, prop::collection::vec(0usize..4, 0..3)).prop_flat_map(|(dtype, shape)| {
        let count: usize = shape.iter().product();
        match (dtype, dtype.size()) {
            (_, None) => prop::collection::vec(prop::collection::vec(any::<u8>(), 0..5), count)
                .prop_map(move |elements| Tensor::from_elements(shape.as_slice(), elements).unwrap())
                .boxed(),
            (DType::Bool, _) => prop::collection::vec(0u8..2, count)
                .prop_map(move |data| Tensor::new(dtype, shape.as_slice(), data.into()).unwrap())
                .boxed(),
            (_, Some(size)) => prop::collection::vec(any::<u8>(), count * size)
                .prop_map(move |data| Tensor::new(dtype, shape.as_slice(), data.into()).unwrap())
                .boxed(),
        }
    })
}

/// The request that carries what `message` carries, which a client would send to an identity model.
fn sent_back(message: ModelInferResponse) -> ModelInferRequest {
    let back = |output: InferOutputTensor| InferInputTensor {
        name: output.name,
        datatype: output.datatype,
        shape: output.shape,
        contents: output.contents,
        ..Default::default()
    };
    ModelInferRequest {
        model_name: message.model_name,
        inputs: message.outputs.into_iter().map(back).collect(),
        raw_input_contents: message.raw_output_contents,
        ..Default::default()
    }
}

proptest! {
    #[test]
    fn tensors_survive_both_forms(tensors in prop::collection::vec(any_tensor(), 0..4), typed in any::<bool>()) {
        let form = if typed { Form::Typed } else { Form::Raw };
        let message = encode(answer(&tensors), String::new(), form).encode_to_vec();
        let request = sent_back(ModelInferResponse::decode(&message[..]).unwrap());
        let call = decode_infer(&request.encode_to_vec()).unwrap();
        let names: Vec<_> = call.query.inputs.iter().map(|input| input.name.clone()).collect();
        let expected: Vec<_> = (0..tensors.len()).map(|index| format!("y{index}")).collect();
        prop_assert_eq!(names, expected);
        let decoded: Vec<_> = call.query.inputs.into_iter().map(|input| input.tensor).collect();
        prop_assert_eq!(decoded, tensors);
    }

    #[test]
    fn answers_have_the_bytes_of_their_messages(
        tensors in prop::collection::vec(any_tensor(), 0..4),
        typed in any::<bool>(),
        large in any::<bool>(),
        id in "[a-z]{0,3}",
    ) {
        let form = if typed { Form::Typed } else { Form::Raw };
        let large = large.then(|| Tensor::new(DType::Uint8, [70_000usize].as_slice(), vec![7; 70_000].into()).unwrap());
        let tensors: Vec<Tensor> = tensors.into_iter().chain(large).collect();
        let message = encode(answer(&tensors), id.clone(), form).encode_to_vec();
        let prefix = |length: usize| [0xa5, (length % 251) as u8];
        let encoded = wire::encode(answer(&tensors), id, form, &[], prefix);
        prop_assert_eq!(encoded.length, message.len());
        prop_assert!(encoded.segments.iter().all(|segment| !segment.is_empty()));
        let whole = encoded.segments.concat();
        prop_assert_eq!(&whole[..2], prefix(message.len()));
        prop_assert_eq!(&whole[2..], message);
    }

    #[test]
    fn no_message_panics(message in prop::collection::vec(any::<u8>(), 0..200)) {
        drop(decode_infer(&message));
    }
}
