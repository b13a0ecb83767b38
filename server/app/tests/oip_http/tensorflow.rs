//! `/v1/models`: TensorFlow Serving's REST API and KServe's V1 protocol.

use expect_test::{Expect, expect};
use gristmill_engine::tensor::{BatchAxis, DType, Signature};
use gristmill_engine::testing::FakeBackend;
use gristmill_engine::tuning::Tuning;

use crate::server::{Server, batched, by_row, fp32, int64, spec};

/// Three named features; a label (with class names in the scores) and its probabilities.
fn cancer() -> FakeBackend {
    let input = |name| spec(name, DType::Fp32, &[-1, 1], &[]);
    let signature = batched(
        vec![input("radius"), input("area"), input("texture")],
        vec![
            spec("label", DType::Int64, &[-1], &[]),
            spec("probabilities", DType::Fp32, &[-1, 2], &["benign", "malignant"]),
        ],
    );
    by_row(signature, |rows| {
        let malign = |row: &Vec<f32>| row.iter().sum::<f32>() > 6.0;
        vec![
            int64(&[rows.len()], rows.iter().map(|row| malign(row).into())),
            fp32(
                &[rows.len(), 2],
                rows.iter().flat_map(|row| if malign(row) { [0.1, 0.9] } else { [0.8, 0.2] }),
            ),
        ]
    })
}

fn ratio() -> FakeBackend {
    let signature =
        batched(vec![spec("x", DType::Fp32, &[-1, 2], &[])], vec![spec("y", DType::Fp32, &[-1, 1], &[])]);
    by_row(signature, |rows| vec![fp32(&[rows.len(), 1], rows.iter().map(|row| row[0] / row[1]))])
}

/// Texts in, and the same out as text and as bytes.
fn texts() -> FakeBackend {
    let text = |name| spec(name, DType::Bytes, &[-1], &[]);
    let signature = batched(vec![text("x")], vec![text("text"), text("raw_bytes")]);
    FakeBackend::new(signature, |inputs| {
        let copy = || gristmill_engine::testing::copy(&inputs[0]);
        Ok(vec![copy(), copy()])
    })
}

/// Without a batch axis, three by two in, and its transposed shape beside a scalar out.
fn fixed() -> FakeBackend {
    let signature = Signature {
        inputs: vec![spec("x", DType::Fp32, &[3, 2], &[])],
        outputs: vec![spec("t", DType::Fp32, &[2, 3], &[]), spec("sum", DType::Fp32, &[], &[])],
        batch: BatchAxis::None { reason: "axis 0 is fixed".into() },
    };
    FakeBackend::new(signature, |inputs| {
        let values: Vec<f32> = inputs[0]
            .as_ref()
            .unwrap()
            .data
            .as_chunks::<4>()
            .0
            .iter()
            .map(|&bytes| f32::from_le_bytes(bytes))
            .collect();
        Ok(vec![fp32(&[2, 3], values.clone()), fp32(&[], [values.iter().sum()])])
    })
}

async fn server() -> Server {
    let tuning =
        || Tuning { instances: Some(1), threads: Some(1), batch_rows_max: Some(8), ..Tuning::default() };
    Server::start_tuned([
        ("cancer", 1, cancer(), tuning()),
        ("ratio", 1, ratio(), tuning()),
        ("ratio", 2, ratio(), tuning()),
        ("texts", 1, texts(), tuning()),
        ("echo", 1, FakeBackend::identity(DType::Bytes, &[1]), tuning()),
        ("half", 1, FakeBackend::identity(DType::Fp16, &[2]), tuning()),
        ("fixed", 1, fixed(), tuning()),
    ])
    .await
}

macro_rules! check {
    ($server:expr, $path:expr, $body:expr, $expected:expr) => {{
        let expected: Expect = $expected;
        expected.assert_eq(&$server.post(&format!("/v1/models/{}", $path), $body).await.line());
    }};
}

#[tokio::test]
async fn rows_and_columns() {
    let server = server().await;
    check!(
        server,
        "ratio:predict",
        r#"{"instances":[[1,10],[1,0],[0,0],[-1,0]]}"#,
        expect![[r#"200 {"predictions":[[0.1],[Infinity],[NaN],[-Infinity]]}"#]]
    );
    check!(
        server,
        "ratio:predict",
        r#"{"signature_name":"serving_default","instances":[{"x":[1,10]}]}"#,
        expect![[r#"200 {"predictions":[[0.1]]}"#]]
    );
    check!(
        server,
        "ratio/versions/1:predict",
        r#"{"inputs":[[1,10],[1,4]]}"#,
        expect![[r#"200 {"outputs":[[0.1],[0.25]]}"#]]
    );
    check!(
        server,
        "ratio:predict",
        r#"{"inputs":{"x":[[1,10],[1,4]]},"signature_name":""}"#,
        expect![[r#"200 {"outputs":[[0.1],[0.25]]}"#]]
    );
    check!(
        server,
        "cancer:predict",
        r#"{"instances":[{"radius":1,"area":[2],"texture":3.5},{"texture":0,"radius":[1],"area":[2]}]}"#,
        expect![[
            r#"200 {"predictions":[{"label":1,"probabilities":[0.1,0.9]},{"label":0,"probabilities":[0.8,0.2]}]}"#
        ]]
    );
    check!(
        server,
        "cancer:predict",
        r#"{"inputs":{"radius":[[1],[1]],"area":[[2],[2]],"texture":[3.5,0]}}"#,
        expect![[r#"200 {"outputs":{"label":[1,0],"probabilities":[[0.1,0.9],[0.8,0.2]]}}"#]]
    );
    check!(
        server,
        "half:predict",
        r#"{"instances":[[0.5,1]]}"#,
        expect![[r#"200 {"predictions":[[0.5,1.0]]}"#]]
    );
}

#[tokio::test]
async fn texts_and_bytes() {
    let server = server().await;
    check!(
        server,
        "texts:predict",
        r#"{"instances":["a",{"b64":"w6k="}]}"#,
        expect![[
            r#"200 {"predictions":[{"text":"a","raw_bytes":{"b64":"YQ=="}},{"text":"é","raw_bytes":{"b64":"w6k="}}]}"#
        ]]
    );
    check!(
        server,
        "texts:predict",
        r#"{"instances":[{"b64":"w6k="},"a"]}"#,
        expect![[
            r#"200 {"predictions":[{"text":"é","raw_bytes":{"b64":"w6k="}},{"text":"a","raw_bytes":{"b64":"YQ=="}}]}"#
        ]]
    );
    check!(
        server,
        "texts:predict",
        r#"{"inputs":{"x":["a",{"b64":"w6k="}]}}"#,
        expect![[r#"200 {"outputs":{"text":["a","é"],"raw_bytes":[{"b64":"YQ=="},{"b64":"w6k="}]}}"#]]
    );
    check!(
        server,
        "texts:predict",
        r#"{"instances":[{"x":{"b64":"w6k="}}]}"#,
        expect![[r#"200 {"predictions":[{"text":"é","raw_bytes":{"b64":"w6k="}}]}"#]]
    );
    check!(
        server,
        "echo:predict",
        r#"{"inputs":[["a"],[{"b64":"w6k="}]]}"#,
        expect![[r#"200 {"outputs":[["a"],["é"]]}"#]]
    );
    check!(
        server,
        "echo:predict",
        r#"{"instances":[{"b64":"/w=="}]}"#,
        expect![[
            r#"400 {"error":"output 'y' has an element that is not UTF-8, which JSON must be: ask for it at /v2 with the parameter \"binary_data\": true"}"#
        ]]
    );
    check!(
        server,
        "echo:predict",
        r#"{"instances":[{"b64":"?"}]}"#,
        expect![[
            r#"400 {"error":"model 'echo': feature 0: 'b64' is not base64: Invalid symbol 63, offset 0."}"#
        ]]
    );
    check!(
        server,
        "ratio:predict",
        r#"{"instances":[[{"b64":"?"}, 1]]}"#,
        expect![[r#"400 {"error":"model 'ratio': row 0: expected a number, got an object"}"#]]
    );
}

#[tokio::test]
async fn without_a_batch_axis_the_list_is_the_first_dimension() {
    let server = server().await;
    check!(
        server,
        "fixed:predict",
        r#"{"inputs":[[1,2],[3,4],[5,6]]}"#,
        expect![[r#"200 {"outputs":{"t":[[1.0,2.0,3.0],[4.0,5.0,6.0]],"sum":21.0}}"#]]
    );
    check!(
        server,
        "fixed:predict",
        r#"{"instances":[[1,2],[3,4],[5,6]]}"#,
        expect![[
            r#"400 {"error":"model 'fixed' has no batch axis (axis 0 is fixed), so its outputs cannot be told apart by row, and 3 rows came: ask for whole outputs, at /v1/models with 'inputs' in place of 'instances', or at /v2/models"}"#
        ]]
    );
}

#[tokio::test]
async fn classes_and_values() {
    let server = server().await;
    let examples =
        r#"{"examples":[{"radius":1,"area":2,"texture":3.5},{"radius":1,"area":2,"texture":[0]}]}"#;
    check!(
        server,
        "cancer:classify",
        examples,
        expect![[
            r#"200 {"results":[[["benign",0.1],["malignant",0.9]],[["benign",0.8],["malignant",0.2]]]}"#
        ]]
    );
    let context = r#"{"context":{"radius":1},"examples":[{"area":2,"texture":3.5}]}"#;
    check!(
        server,
        "cancer:classify",
        context,
        expect![[r#"200 {"results":[[["benign",0.1],["malignant",0.9]]]}"#]]
    );
    check!(
        server,
        "cancer:regress",
        examples,
        expect![[r#"400 {"error":"model 'cancer' does not give one number a row: predict instead"}"#]]
    );
    check!(
        server,
        "ratio:regress",
        r#"{"examples":[{"x":[1,10]},{"x":[1,0]}]}"#,
        expect![[r#"200 {"results":[0.1,Infinity]}"#]]
    );
    check!(
        server,
        "ratio:classify",
        r#"{"examples":[{"x":[1,10]}]}"#,
        expect![[r#"400 {"error":"model 'ratio' has no output of class scores: predict instead"}"#]]
    );
    check!(
        server,
        "ratio:regress",
        r#"{"examples":[]}"#,
        expect![[r#"400 {"error":"'examples' is empty: expected a list of rows"}"#]]
    );
    check!(
        server,
        "ratio:regress",
        r#"{"instances":[[1,2]]}"#,
        expect![[r#"400 {"error":"the request has no 'examples': expected a list of objects"}"#]]
    );
}

#[tokio::test]
async fn what_is_refused() {
    let server = server().await;
    let rows = r#"{"instances":[[1,10]]}"#;
    check!(
        server,
        "nope:predict",
        rows,
        expect![[r#"404 {"error":"model 'nope' is not in the repository: its index lists what is"}"#]]
    );
    check!(
        server,
        "ratio/versions/7:predict",
        rows,
        expect![[r#"404 {"error":"model 'ratio' has no version 7: its versions are 1, 2"}"#]]
    );
    check!(
        server,
        "ratio/versions/stable:predict",
        rows,
        expect![[
            r#"400 {"error":"version 'stable' is not a number: labels are asked for at /labels/stable"}"#
        ]]
    );
    check!(
        server,
        "ratio/labels/stable:predict",
        rows,
        expect![[
            r#"404 {"error":"model 'ratio' has no version 'stable': expected a number or one of its labels (none)"}"#
        ]]
    );
    check!(
        server,
        "ratio",
        rows,
        expect![[
            r#"400 {"error":"malformed request: expected ':predict', ':classify', ':regress' or ':explain' at the end of the path, got nothing"}"#
        ]]
    );
    check!(
        server,
        "ratio:guess",
        rows,
        expect![[
            r#"400 {"error":"malformed request: expected ':predict', ':classify', ':regress' or ':explain' at the end of the path, got ':guess'"}"#
        ]]
    );
    check!(
        server,
        "ratio:explain",
        rows,
        expect![[r#"501 {"error":"model 'ratio' has no explainer: explanations are not supported"}"#]]
    );
    check!(
        server,
        "ratio:predict",
        r#"{"signature_name":"other","instances":[[1,10]]}"#,
        expect![[
            r#"400 {"error":"signature 'other' is not found: every model has one, called 'serving_default'"}"#
        ]]
    );
    check!(
        server,
        "ratio:predict",
        r#"{"signature_name":7,"instances":[[1,10]]}"#,
        expect![[r#"400 {"error":"'signature_name' must be a string, got 7"}"#]]
    );
    check!(
        server,
        "ratio:predict",
        r#"{"instances":[[1,10]],"inputs":[[1,10]]}"#,
        expect![[r#"400 {"error":"the request has more than one of 'instances' and 'inputs'"}"#]]
    );
    check!(
        server,
        "ratio:predict",
        "{}",
        expect![[
            r#"400 {"error":"the request has neither 'instances' (a list of rows) nor 'inputs' (columns)"}"#
        ]]
    );
    check!(
        server,
        "ratio:predict",
        "[1]",
        expect![[r#"400 {"error":"the request must be an object, got a list"}"#]]
    );
    check!(
        server,
        "ratio:predict",
        r#"{"instances":[]}"#,
        expect![[r#"400 {"error":"'instances' is empty: expected a list of rows"}"#]]
    );
    check!(
        server,
        "ratio:predict",
        r#"{"instances":[[1,2],[3]]}"#,
        expect![[r#"400 {"error":"model 'ratio' takes 2 features per row, row 1 has 1"}"#]]
    );
    check!(
        server,
        "ratio:predict",
        r#"{"instances":[[1,null]]}"#,
        expect![[r#"400 {"error":"model 'ratio': row 0: expected a number, got null"}"#]]
    );
    check!(
        server,
        "ratio:predict",
        r#"{"inputs":[[1,2,3]]}"#,
        expect![[r#"400 {"error":"input 'x': expected shape [-1, 2], got [1, 3]"}"#]]
    );
    check!(
        server,
        "ratio:predict",
        r#"{"inputs":7}"#,
        expect![[r#"400 {"error":"input 'x': expected a list of rows, got one value"}"#]]
    );
    check!(
        server,
        "ratio:predict",
        r#"{"inputs":{"z":[[1,2]]}}"#,
        expect![[r#"400 {"error":"model 'ratio' has no feature 'z': it takes 'x'"}"#]]
    );
    check!(
        server,
        "cancer:predict",
        r#"{"inputs":[[1,2,3]]}"#,
        expect![[
            r#"400 {"error":"'inputs' must be an object with 'radius', 'area', 'texture', got a list"}"#
        ]]
    );
    check!(
        server,
        "cancer:predict",
        r#"{"inputs":{"radius":[1],"area":[1]}}"#,
        expect![[
            r#"400 {"error":"missing input 'texture' (FP32 [-1, 1]): the model takes 'radius', 'area', 'texture'"}"#
        ]]
    );
}

#[tokio::test]
async fn what_is_said_about_models() {
    let server = server().await;
    let get = async |path: &str| server.get(path).await.line();
    expect![[r#"200 {"models":["cancer","echo","fixed","half","ratio","texts"]}"#]]
        .assert_eq(&get("/v1/models").await);
    expect![[r#"200 {"name":"ratio","ready":true,"model_version_status":[{"version":"1","state":"AVAILABLE","status":{"error_code":"OK","error_message":""}},{"version":"2","state":"AVAILABLE","status":{"error_code":"OK","error_message":""}}]}"#]].assert_eq(&get("/v1/models/ratio").await);
    expect![[r#"200 {"model_version_status":[{"version":"1","state":"AVAILABLE","status":{"error_code":"OK","error_message":""}}]}"#]].assert_eq(&get("/v1/models/ratio/versions/1").await);
    expect![[r#"404 {"error":"model 'ratio' has no version 9: its versions are 1, 2"}"#]]
        .assert_eq(&get("/v1/models/ratio/versions/9").await);
    expect![[r#"404 {"error":"model 'nope' is not in the repository: its index lists what is"}"#]]
        .assert_eq(&get("/v1/models/nope").await);
    expect![[r#"405 {"error":"GET is not allowed for ':predict': it takes a POST"}"#]]
        .assert_eq(&get("/v1/models/ratio:predict").await);
    expect![[r#"200 {"model_spec":{"name":"ratio","signature_name":"","version":"2"},"metadata":{"signature_def":{"signature_def":{"serving_default":{"inputs":{"x":{"dtype":"DT_FLOAT","tensor_shape":{"dim":[{"size":"-1","name":""},{"size":"2","name":""}],"unknown_rank":false},"name":"x"}},"outputs":{"y":{"dtype":"DT_FLOAT","tensor_shape":{"dim":[{"size":"-1","name":""},{"size":"1","name":""}],"unknown_rank":false},"name":"y"}},"method_name":"tensorflow/serving/predict"}}}}}"#]].assert_eq(&get("/v1/models/ratio/metadata").await);
    expect![[r#"404 {"error":"model 'ratio' has no version 9: its versions are 1, 2"}"#]]
        .assert_eq(&get("/v1/models/ratio/versions/9/metadata").await);
    expect![[
        r#"405 {"error":"DELETE is not allowed for '/v1/models/ratio': the Allow header says what is"}"#
    ]]
    .assert_eq(&server.send("DELETE", "/v1/models/ratio", &[], b"").await.line());
}
