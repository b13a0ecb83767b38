//! TensorFlow's examples: how features become inputs, classes and values that come of them, and what is refused.

use expect_test::expect;
use gristmill::codec::proto::examples::decode_examples;
use gristmill_engine::request::VersionSelector;
use gristmill_engine::tensor::{BatchAxis, DType, Signature};
use gristmill_engine::testing::{FakeBackend, batched_signature, copy};
use gristmill_proto::tensorflow::feature::Kind;
use gristmill_proto::tensorflow::serving::inference_result::Result as Found;
use gristmill_proto::tensorflow::serving::model_service_client::ModelServiceClient;
use gristmill_proto::tensorflow::serving::prediction_service_client::PredictionServiceClient;
use gristmill_proto::tensorflow::serving::{
    ClassificationRequest, ExampleList, ExampleListWithContext, InferenceTask, Input, ModelSpec,
    MultiInferenceRequest, RegressionRequest, ReloadConfigRequest, input,
};
use gristmill_proto::tensorflow::{BytesList, Example, Feature, Features, FloatList, Int64List};
use tonic::Code;

use crate::server::{Server, text};

const BYTES_MAX: usize = 1000;

/// Identity models: with names for its two values, with one value a row, and one for each of some datatypes.
async fn server() -> Server {
    let mut labelled = batched_signature(DType::Fp32, &[2]);
    labelled.outputs[0].labels = vec!["no".into(), "yes".into()];
    let alone =
        Signature { batch: BatchAxis::None { reason: "so".into() }, ..batched_signature(DType::Fp32, &[]) };
    let of = |signature: Signature| FakeBackend::new(signature, |inputs| Ok(vec![copy(&inputs[0])]));
    Server::start([
        ("classes", of(labelled)),
        ("value", FakeBackend::identity(DType::Fp32, &[1])),
        ("alone", of(alone)),
        ("wide", FakeBackend::identity(DType::Fp64, &[1])),
        ("half", FakeBackend::identity(DType::Fp16, &[1])),
        ("byte", FakeBackend::identity(DType::Uint8, &[2])),
        ("truth", FakeBackend::identity(DType::Bool, &[1])),
        ("texts", FakeBackend::identity(DType::Bytes, &[1])),
    ])
    .await
}

fn spec(model: &str) -> Option<ModelSpec> {
    Some(ModelSpec { name: model.into(), ..ModelSpec::default() })
}

fn floats(values: &[f32]) -> Kind {
    Kind::FloatList(FloatList { value: values.to_vec() })
}

fn integers(values: &[i64]) -> Kind {
    Kind::Int64List(Int64List { value: values.to_vec() })
}

fn bytes(values: &[&'static str]) -> Kind {
    Kind::BytesList(BytesList { value: values.iter().map(|&value| value.into()).collect() })
}

fn example(name: &str, kind: Kind) -> Example {
    let feature = [(name.to_owned(), Feature { kind: Some(kind) })].into_iter().collect();
    Example { features: Some(Features { feature }) }
}

/// Examples with a feature `x` each.
fn list(kinds: impl IntoIterator<Item = Kind>) -> Option<Input> {
    let examples = kinds.into_iter().map(|kind| example("x", kind)).collect();
    Some(Input { kind: Some(input::Kind::ExampleList(ExampleList { examples })) })
}

fn with_context(examples: Vec<Example>, context: Example) -> Option<Input> {
    let list = ExampleListWithContext { examples, context: Some(context) };
    Some(Input { kind: Some(input::Kind::ExampleListWithContext(list)) })
}

#[tokio::test(flavor = "multi_thread")]
async fn features_become_the_inputs_own_datatype() {
    let server = server().await;
    let read = |model: &str, input: Option<Input>| {
        let model = server.engine.model(model, &VersionSelector::Default).unwrap();
        match decode_examples(&model, input.as_ref(), BYTES_MAX) {
            Ok(inputs) => {
                let tensor = &inputs[0].tensor;
                format!("{tensor:?} {:?}\n", &tensor.data()[..])
            }
            Err(error) => format!("{error}\n"),
        }
    };
    let mut lines = String::new();
    lines += &read("value", list([floats(&[1.0]), integers(&[2])]));
    lines += &read("wide", list([floats(&[0.5])]));
    lines += &read("half", list([floats(&[1.0]), integers(&[1])]));
    lines += &read("byte", list([integers(&[0, 255])]));
    lines += &read("truth", list([integers(&[1]), integers(&[0])]));
    lines += &read("texts", list([bytes(&["ab"]), bytes(&[""])]));
    lines += &read("alone", list([floats(&[1.0])]));
    // The context stands in for what an example lacks; features that the model does not take are passed over.
    let lacking = || vec![Example::default(), example("x", floats(&[3.0])), example("other", bytes(&["a"]))];
    lines += &read("value", with_context(lacking(), example("x", floats(&[7.0]))));

    lines += &read("value", None);
    lines += &read("value", list([]));
    lines += &read("value", with_context(lacking(), Example::default()));
    lines += &read("alone", list([floats(&[1.0]), floats(&[2.0])]));
    lines += &read("value", list([floats(&[1.0]), floats(&[1.0, 2.0])]));
    lines += &read("classes", list([floats(&[1.0])]));
    lines += &read("value", list([bytes(&["a"])]));
    lines += &read("byte", list([floats(&[1.0, 2.0])]));
    lines += &read("byte", list([integers(&[1, 256])]));
    lines += &read("truth", list([integers(&[2])]));
    lines += &read("texts", list([integers(&[1])]));
    // A few bytes of examples, each with the long text of the context.
    let context = example("x", bytes(&["a text of some length that many examples share"]));
    lines += &read("texts", with_context(vec![Example::default(); 100], context));
    expect![[r#"
        FP32 [2, 1] (8 bytes) [0, 0, 128, 63, 0, 0, 0, 64]
        FP64 [1, 1] (8 bytes) [0, 0, 0, 0, 0, 0, 224, 63]
        FP16 [2, 1] (4 bytes) [0, 60, 0, 60]
        UINT8 [1, 2] (2 bytes) [0, 255]
        BOOL [2, 1] (2 bytes) [1, 0]
        BYTES [2, 1] (10 bytes) [2, 0, 0, 0, 97, 98, 0, 0, 0, 0]
        FP32 [1] (4 bytes) [0, 0, 128, 63]
        FP32 [3, 1] (12 bytes) [0, 0, 224, 64, 0, 0, 64, 64, 0, 0, 224, 64]
        input has no examples: send one for each row
        input has no examples: send one for each row
        example 0: lacks feature 'x': the model takes x FP32 [batch, 1]
        model 'alone' takes one row at a time (so), got 2 examples
        example 1: feature 'x' has 2 values, that of example 0 has 1
        example 0: feature 'x': expected 2 values, got 1
        example 0: feature 'x': expected float_list or int64_list for FP32, got bytes_list
        example 0: feature 'x': expected int64_list for UINT8, got float_list
        example 0: feature 'x': 256 does not fit UINT8
        example 0: feature 'x': 2 is neither 0 nor 1, as BOOL has it
        example 0: feature 'x': expected bytes_list for BYTES, got int64_list
        example 20, feature 'x': the inputs have more bytes than the limit of messages allows: send fewer examples, or raise --grpc-message-bytes-max
    "#]].assert_eq(&lines);
}

#[tokio::test(flavor = "multi_thread")]
async fn classes_and_values() {
    let server = server().await;
    let mut client = PredictionServiceClient::new(server.channel().await);
    let two = || list([floats(&[0.25, 0.75]), floats(&[1.0, 0.0])]);
    let request = ClassificationRequest { model_spec: spec("classes"), input: two() };
    let answer = client.classify(request).await.unwrap().into_inner();
    expect![[r#"ClassificationResult { classifications: [Classifications { classes: [Class { label: "no", score: 0.25 }, Class { label: "yes", score: 0.75 }] }, Classifications { classes: [Class { label: "no", score: 1.0 }, Class { label: "yes", score: 0.0 }] }] }"#]].assert_eq(&format!("{:?}", answer.result.unwrap()));
    assert_eq!(answer.model_spec.unwrap().name, "classes");

    let request =
        RegressionRequest { model_spec: spec("value"), input: list([floats(&[0.5]), floats(&[-1.0])]) };
    let answer = client.regress(request).await.unwrap().into_inner();
    expect!["RegressionResult { regressions: [Regression { value: 0.5 }, Regression { value: -1.0 }] }"]
        .assert_eq(&format!("{:?}", answer.result.unwrap()));

    let task =
        |model: &str, method: &str| InferenceTask { model_spec: spec(model), method_name: method.into() };
    let classify = || task("classes", "tensorflow/serving/classify");
    let request = MultiInferenceRequest { tasks: vec![classify(), classify()], input: two() };
    let answer = client.multi_inference(request).await.unwrap().into_inner();
    let results: Vec<_> = answer.results.into_iter().map(|result| result.result.unwrap()).collect();
    assert_eq!(results.len(), 2);
    assert_eq!(results[0], results[1]);
    assert!(matches!(&results[0], Found::ClassificationResult(result) if result.classifications.len() == 2));

    let mut lines = String::new();
    for (model, input) in [("value", list([floats(&[0.5])])), ("nope", two()), ("classes", None)] {
        let request = ClassificationRequest { model_spec: spec(model), input };
        lines += &format!("{}\n", text(&client.classify(request).await.unwrap_err()));
    }
    let request = RegressionRequest { model_spec: spec("classes"), input: two() };
    lines += &format!("{}\n", text(&client.regress(request).await.unwrap_err()));
    for tasks in [
        vec![],
        vec![classify(), task("value", "tensorflow/serving/regress")],
        vec![task("classes", "tensorflow/serving/predict")],
        vec![classify(), task("classes", "tensorflow/serving/regress")],
    ] {
        let request = MultiInferenceRequest { tasks, input: two() };
        lines += &format!("{}\n", text(&client.multi_inference(request).await.unwrap_err()));
    }
    expect![[r#"
        InvalidArgument: model 'value' has no output of class scores: predict instead
        NotFound: model 'nope' is not in the repository: its index lists what is
        InvalidArgument: input has no examples: send one for each row
        InvalidArgument: model 'classes' does not give one number a row: predict instead
        InvalidArgument: tasks is empty: name what to run
        InvalidArgument: tasks ask 'classes' and 'value': expected one version of one model in all
        InvalidArgument: method_name is 'tensorflow/serving/predict': expected tensorflow/serving/classify or tensorflow/serving/regress
        InvalidArgument: model 'classes' does not give one number a row: predict instead
    "#]].assert_eq(&lines);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_may_give_orders() {
    let server = server().await;
    let mut client = ModelServiceClient::new(server.channel().await);
    let refused = client.handle_reload_config_request(ReloadConfigRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{}", text(&refused));
}
