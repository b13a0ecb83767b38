//! TensorFlow Serving's services: predictions with its tensors, metadata, states, and what is refused.

use std::collections::HashMap;

use expect_test::expect;
use gristmill_engine::tensor::DType;
use gristmill_engine::testing::FakeBackend;
use gristmill_proto::tensorflow::serving::model_service_client::ModelServiceClient;
use gristmill_proto::tensorflow::serving::model_spec::VersionChoice;
use gristmill_proto::tensorflow::serving::prediction_service_client::PredictionServiceClient;
use gristmill_proto::tensorflow::serving::{
    GetModelMetadataRequest, GetModelStatusRequest, ModelSpec, PredictRequest, PredictResponse,
    SignatureDefMap,
};
use gristmill_proto::tensorflow::tensor_shape_proto::Dim;
use gristmill_proto::tensorflow::{DataType, TensorProto, TensorShapeProto};
use prost::Message;
use tonic::{Code, Status};

use crate::server::{Server, echo, frame, text};

async fn server() -> Server {
    Server::start([("echo", echo()), ("texts", FakeBackend::identity(DType::Bytes, &[]))]).await
}

fn spec(model: &str) -> Option<ModelSpec> {
    Some(ModelSpec { name: model.into(), ..ModelSpec::default() })
}

fn tensor(dtype: DataType, shape: &[i64]) -> TensorProto {
    let dim = shape.iter().map(|&size| Dim { size, name: String::new() }).collect();
    let tensor_shape = Some(TensorShapeProto { dim, unknown_rank: false });
    TensorProto { dtype: dtype.into(), tensor_shape, ..TensorProto::default() }
}

fn floats(shape: &[i64], values: &[f32]) -> TensorProto {
    TensorProto { float_val: values.to_vec(), ..tensor(DataType::DtFloat, shape) }
}

fn request(model: &str, x: TensorProto) -> PredictRequest {
    PredictRequest { model_spec: spec(model), inputs: HashMap::from([("x".into(), x)]), ..Default::default() }
}

async fn predict(server: &Server, request: PredictRequest) -> Result<PredictResponse, Status> {
    let mut client = PredictionServiceClient::new(server.channel().await);
    client.predict(request).await.map(tonic::Response::into_inner)
}

#[tokio::test(flavor = "multi_thread")]
async fn predictions_come_in_the_field_for_their_type() {
    let server = server().await;
    let typed =
        predict(&server, request("echo", floats(&[2, 2], &[1.0, 2.0, 3.0, f32::INFINITY]))).await.unwrap();
    let answered = typed.model_spec.unwrap();
    assert_eq!((answered.name.as_str(), answered.signature_name.as_str()), ("echo", "serving_default"));
    assert_eq!(answered.version_choice, Some(VersionChoice::Version(1)));
    assert_eq!(typed.outputs["y"], floats(&[2, 2], &[1.0, 2.0, 3.0, f32::INFINITY]));

    let bytes: Vec<u8> = [1.0f32, 2.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    let raw = TensorProto { tensor_content: bytes.into(), ..tensor(DataType::DtFloat, &[1, 2]) };
    assert_eq!(
        predict(&server, request("echo", raw)).await.unwrap().outputs["y"],
        floats(&[1, 2], &[1.0, 2.0])
    );
    let repeated = predict(&server, request("echo", floats(&[2, 2], &[1.0, 2.0]))).await.unwrap();
    assert_eq!(repeated.outputs["y"], floats(&[2, 2], &[1.0, 2.0, 2.0, 2.0]));

    let zeros = predict(&server, request("echo", tensor(DataType::DtFloat, &[1, 2]))).await.unwrap();
    assert_eq!(zeros.outputs["y"], floats(&[1, 2], &[0.0, 0.0]));

    let strings = TensorProto {
        string_val: vec!["a".into(), b"\xff".as_slice().into()],
        ..tensor(DataType::DtString, &[2])
    };
    assert_eq!(predict(&server, request("texts", strings.clone())).await.unwrap().outputs["y"], strings);
    let repeated = TensorProto { string_val: vec!["a".into()], ..tensor(DataType::DtString, &[2]) };
    let answer = predict(&server, request("texts", repeated)).await.unwrap();
    assert_eq!(answer.outputs["y"].string_val, ["a", "a"]);
    let packed = TensorProto {
        tensor_content: b"\x01\x01a\xff".as_slice().into(),
        ..tensor(DataType::DtString, &[2])
    };
    assert_eq!(predict(&server, request("texts", packed)).await.unwrap().outputs["y"], strings);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused() {
    let server = server().await;
    let x = || floats(&[1, 2], &[1.0, 2.0]);
    let with_spec = |change: fn(&mut ModelSpec)| {
        let mut request = request("echo", x());
        change(request.model_spec.as_mut().unwrap());
        request
    };
    let mut lines = String::new();
    for request in [
        request("nope", x()),
        PredictRequest { model_spec: None, ..request("echo", x()) },
        with_spec(|spec| spec.version_choice = Some(VersionChoice::Version(7))),
        with_spec(|spec| spec.version_choice = Some(VersionChoice::Version(-1))),
        with_spec(|spec| spec.version_choice = Some(VersionChoice::VersionLabel("stable".into()))),
        with_spec(|spec| spec.signature_name = "other".into()),
        PredictRequest { output_filter: vec!["z".into()], ..request("echo", x()) },
        PredictRequest { inputs: HashMap::new(), ..request("echo", x()) },
        request("echo", tensor(DataType::DtComplex64, &[1])),
        request("echo", TensorProto { dtype: 99, ..x() }),
        request("echo", floats(&[1, 2], &[1.0, 2.0, 3.0])),
        request("echo", floats(&[1, -1], &[1.0])),
        request("echo", floats(&[1 << 40, 2], &[1.0])),
        request("echo", floats(&[i64::MAX, 4], &[1.0])),
        request("echo", TensorProto { double_val: vec![1.0], ..tensor(DataType::DtFloat, &[1, 2]) }),
        request("echo", TensorProto { tensor_content: vec![0; 8].into(), ..x() }),
        request(
            "echo",
            TensorProto { tensor_content: vec![0; 7].into(), ..tensor(DataType::DtFloat, &[1, 2]) },
        ),
        request(
            "echo",
            TensorProto {
                tensor_shape: Some(TensorShapeProto { dim: Vec::new(), unknown_rank: true }),
                ..x()
            },
        ),
        request("echo", TensorProto { int_val: vec![300], ..tensor(DataType::DtUint8, &[1]) }),
        request(
            "texts",
            TensorProto { tensor_content: vec![5, 1].into(), ..tensor(DataType::DtString, &[2]) },
        ),
    ] {
        lines += &text(&predict(&server, request).await.unwrap_err());
        lines += "\n";
    }
    expect![[r#"
        NotFound: model 'nope' is not in the repository: its index lists what is
        InvalidArgument: model_spec.name is missing: name a model
        NotFound: model 'echo' has no version 7: its versions are 1
        InvalidArgument: model_spec.version is -1: expected 0 or more
        NotFound: model 'echo' has no version 'stable': expected a number or one of its labels (none)
        InvalidArgument: signature 'other' is not found: every model has one, called 'serving_default'
        InvalidArgument: unexpected output 'z': the model gives 'y'
        InvalidArgument: missing input 'x' (FP32 [-1, 2]): the model takes 'x'
        InvalidArgument: input 'x': datatype DT_COMPLEX64 (8) is not supported
        InvalidArgument: input 'x': datatype DT_INVALID (99) is not supported
        InvalidArgument: input 'x': expected at most 2 elements for shape [1, 2] in float_val, got 3
        InvalidArgument: input 'x': tensor_shape has the size -1: send that of this tensor
        ResourceExhausted: input 'x': the elements of shape [1099511627776, 2] would take 8796093022204 bytes, the limit is 67108864: send less, or raise --grpc-message-bytes-max
        InvalidArgument: input 'x': shape [9223372036854775807, 4] has too many elements
        InvalidArgument: input 'x': expected elements of DT_FLOAT in float_val, got 1 in double_val
        InvalidArgument: input 'x': has elements in tensor_content and in float_val
        InvalidArgument: input 'x': expected 8 bytes for FP32 [1, 2], got 7 bytes
        InvalidArgument: input 'x': tensor_shape has an unknown rank: send the sizes of this tensor
        InvalidArgument: input 'x': element 0 is 300, which does not fit UINT8
        InvalidArgument: input 'x': tensor_content is not the lengths and the bytes of its strings
    "#]].assert_eq(&lines);
    let path = "/tensorflow.serving.SessionService/SessionRun";
    let (_, status) = server.raw_call_to(path, &[], frame(0, &[])).await;
    assert_eq!(status.code(), Code::Unimplemented);
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata() {
    let server = server().await;
    let mut client = PredictionServiceClient::new(server.channel().await);
    let ask = |fields: &[&str]| GetModelMetadataRequest {
        model_spec: spec("echo"),
        metadata_field: fields.iter().map(ToString::to_string).collect(),
    };
    let answer = client.get_model_metadata(ask(&["signature_def"])).await.unwrap().into_inner();
    assert_eq!(answer.model_spec.unwrap().version_choice, Some(VersionChoice::Version(1)));
    let signatures = &answer.metadata["signature_def"];
    assert_eq!(signatures.type_url, "type.googleapis.com/tensorflow.serving.SignatureDefMap");
    let signatures = SignatureDefMap::decode(signatures.value.as_slice()).unwrap();
    let signature = &signatures.signature_def["serving_default"];
    assert_eq!(signature.method_name, "tensorflow/serving/predict");
    assert_eq!(signature.inputs["x"].dtype(), DataType::DtFloat);
    let sizes: Vec<i64> =
        signature.outputs["y"].tensor_shape.as_ref().unwrap().dim.iter().map(|dim| dim.size).collect();
    assert_eq!(sizes, [-1, 2]);
    let refused = client.get_model_metadata(ask(&["other"])).await.unwrap_err();
    expect![[r#"InvalidArgument: metadata_field is ["other"]: expected ["signature_def"], which is all that there is"#]].assert_eq(&text(&refused));
    let refused = client.get_model_metadata(ask(&[])).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn states() {
    let server = server().await;
    let mut client = ModelServiceClient::new(server.channel().await);
    let answer = client.get_model_status(GetModelStatusRequest { model_spec: spec("echo") }).await.unwrap();
    expect![[r#"[ModelVersionStatus { version: 1, state: Available, status: Some(StatusProto { error_code: Ok, error_message: "" }) }]"#]].assert_eq(&format!("{:?}", answer.into_inner().model_version_status));
    let refused =
        client.get_model_status(GetModelStatusRequest { model_spec: spec("nope") }).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
}
