//! `POST /predict/{model}`: rows of features in many forms, and what is said about them.

use expect_test::{Expect, expect};
use gristmill_engine::tensor::{BatchAxis, DType, Signature};
use gristmill_engine::testing::FakeBackend;

use crate::server::{Reply, Server, batched, by_row, fp32, int64, spec};

/// Three named features; a label (with class names in the scores) and its probabilities.
fn cancer() -> FakeBackend {
    let input = |name| spec(name, DType::Fp32, &[-1, 1], &[]);
    let signature = batched(
        vec![input("mean radius"), input("mean area"), input("texture")],
        vec![
            spec("label", DType::Int64, &[-1], &[]),
            spec("probabilities", DType::Fp32, &[-1, 2], &["0", "1"]),
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

/// Pictures of 2 x 2; the scores of three classes, the brightest pixel of the first three.
fn pictures(labels: &[&str]) -> FakeBackend {
    let signature = batched(
        vec![spec("picture", DType::Fp32, &[-1, 1, 2, 2], &[])],
        vec![spec("probabilities", DType::Fp32, &[-1, 3], labels)],
    );
    by_row(signature, |rows| {
        let scores = |row: &Vec<f32>| {
            let sum = row[0] + row[1] + row[2];
            [row[0] / sum, row[1] / sum, row[2] / sum]
        };
        vec![fp32(&[rows.len(), 3], rows.iter().flat_map(scores))]
    })
}

fn regression() -> FakeBackend {
    let signature =
        batched(vec![spec("x", DType::Fp32, &[-1, 2], &[])], vec![spec("y", DType::Fp32, &[-1, 1], &[])]);
    by_row(signature, |rows| vec![fp32(&[rows.len(), 1], rows.iter().map(|row| row[0] / row[1]))])
}

fn two_numbers() -> FakeBackend {
    let signature = batched(
        vec![spec("x", DType::Fp32, &[-1, 2], &[])],
        vec![spec("low", DType::Fp32, &[-1, 1], &[]), spec("both", DType::Fp32, &[-1, 2], &[])],
    );
    by_row(signature, |rows| {
        vec![fp32(&[rows.len(), 1], rows.iter().map(|row| row[0])), fp32(&[rows.len(), 2], rows.concat())]
    })
}

/// One text a row in and out, without a batch axis.
fn echo() -> FakeBackend {
    let text = |name| spec(name, DType::Bytes, &[1], &[]);
    let signature = Signature {
        inputs: vec![text("x")],
        outputs: vec![text("y")],
        batch: BatchAxis::None { reason: "axis 0 is fixed".into() },
    };
    FakeBackend::new(signature, |inputs| Ok(vec![gristmill_engine::testing::copy(&inputs[0])]))
}

async fn server() -> Server {
    Server::start([
        ("cancer", cancer()),
        ("digits", pictures(&[])),
        ("animals", pictures(&["cat", "dog", "owl"])),
        ("regression", regression()),
        ("numbers", two_numbers()),
        ("echo", echo()),
        ("bytes", FakeBackend::identity(DType::Uint8, &[2])),
        ("halves", FakeBackend::identity(DType::Fp16, &[2])),
    ])
    .await
}

/// The reply without its time.
fn timeless(reply: &Reply) -> String {
    let line = reply.line();
    match line.find(r#","latency_ms":"#) {
        None => line,
        Some(at) => {
            assert!(reply.json()["latency_ms"].as_f64().unwrap() > 0.0);
            format!("{}}}", &line[..at])
        }
    }
}

macro_rules! check {
    ($server:expr, $model:expr, $body:expr, $expected:expr) => {{
        let expected: Expect = $expected;
        expected.assert_eq(&timeless(&$server.post(&format!("/predict/{}", $model), $body).await));
    }};
}

#[tokio::test]
async fn labels_with_probabilities() {
    let server = server().await;
    let one = r#"{"features":[1,2,3.5]}"#;
    check!(
        server,
        "cancer",
        one,
        expect![[r#"200 {"prediction":1,"probability":0.9,"model":"cancer","model_version":"1"}"#]]
    );
    check!(
        server,
        "cancer/1",
        one,
        expect![[r#"200 {"prediction":1,"probability":0.9,"model":"cancer","model_version":"1"}"#]]
    );
    check!(
        server,
        "cancer",
        r#"{"features":[[1,2,3.5],[1,1,1]]}"#,
        expect![[r#"200 {"prediction":[1,0],"probability":[0.9,0.8],"model":"cancer","model_version":"1"}"#]]
    );
    check!(
        server,
        "cancer",
        r#"{"features":[[1,1,1]]}"#,
        expect![[r#"200 {"prediction":[0],"probability":[0.8],"model":"cancer","model_version":"1"}"#]]
    );
    check!(
        server,
        "cancer",
        r#"{"instances":[[1,1,1]]}"#,
        expect![[r#"200 {"prediction":[0],"probability":[0.8],"model":"cancer","model_version":"1"}"#]]
    );
    check!(
        server,
        "cancer",
        r#"{"features":{"texture":3.5,"mean radius":1,"mean area":2}}"#,
        expect![[r#"200 {"prediction":1,"probability":0.9,"model":"cancer","model_version":"1"}"#]]
    );
    check!(
        server,
        "cancer",
        r#"{"instances":[{"texture":3.5,"mean radius":1,"mean area":2},{"texture":0,"mean radius":[1],"mean area":2}]}"#,
        expect![[r#"200 {"prediction":[1,0],"probability":[0.9,0.8],"model":"cancer","model_version":"1"}"#]]
    );
}

#[tokio::test]
async fn scores_regressions_and_several_outputs() {
    let server = server().await;
    check!(
        server,
        "digits",
        r#"{"features":[1,6,1,9]}"#,
        expect![[r#"200 {"prediction":1,"probability":0.75,"model":"digits","model_version":"1"}"#]]
    );
    check!(
        server,
        "animals",
        r#"{"features":[1,6,1,9]}"#,
        expect![[r#"200 {"prediction":"dog","probability":0.75,"model":"animals","model_version":"1"}"#]]
    );
    check!(
        server,
        "animals",
        r#"{"features":[[[1,6],[1,9]]]}"#,
        expect![[r#"200 {"prediction":"dog","probability":0.75,"model":"animals","model_version":"1"}"#]]
    );
    check!(
        server,
        "animals",
        r#"{"features":[[1,6,1,9],[1,1,2,0]]}"#,
        expect![[
            r#"200 {"prediction":["dog","owl"],"probability":[0.75,0.5],"model":"animals","model_version":"1"}"#
        ]]
    );
    check!(
        server,
        "animals",
        r#"{"features":[[[[1,6],[1,9]]],[[[1,1],[2,0]]]]}"#,
        expect![[
            r#"200 {"prediction":["dog","owl"],"probability":[0.75,0.5],"model":"animals","model_version":"1"}"#
        ]]
    );
    check!(
        server,
        "regression",
        r#"{"features":[1,10]}"#,
        expect![[r#"200 {"prediction":0.1,"probability":null,"model":"regression","model_version":"1"}"#]]
    );
    check!(
        server,
        "regression",
        r#"{"features":[[1,10],[1,0]]}"#,
        expect![[
            r#"200 {"prediction":[0.1,null],"probability":null,"model":"regression","model_version":"1"}"#
        ]]
    );
    check!(
        server,
        "numbers",
        r#"{"features":[[1,2],[3,4]]}"#,
        expect![[
            r#"200 {"prediction":[{"low":1.0,"both":[1.0,2.0]},{"low":3.0,"both":[3.0,4.0]}],"probability":null,"model":"numbers","model_version":"1"}"#
        ]]
    );
    check!(
        server,
        "echo",
        r#"{"features":["é"]}"#,
        expect![[r#"200 {"prediction":"é","probability":null,"model":"echo","model_version":"1"}"#]]
    );
    check!(
        server,
        "bytes",
        r#"{"features":[1,255]}"#,
        expect![[r#"200 {"prediction":[1,255],"probability":null,"model":"bytes","model_version":"1"}"#]]
    );
    check!(
        server,
        "halves",
        r#"{"features":[0.5,1]}"#,
        expect![[r#"200 {"prediction":[0.5,1.0],"probability":null,"model":"halves","model_version":"1"}"#]]
    );
}

#[tokio::test]
async fn features_that_the_model_does_not_take() {
    let server = server().await;
    check!(
        server,
        "nope",
        "{}",
        expect![[r#"404 {"error":"model 'nope' is not in the repository: its index lists what is"}"#]]
    );
    check!(
        server,
        "cancer/x",
        "{}",
        expect![[
            r#"404 {"error":"model 'cancer' has no version 'x': expected a number or one of its labels (none)"}"#
        ]]
    );
    check!(
        server,
        "cancer",
        "{}",
        expect![[
            r#"400 {"error":"the request has neither 'features' (one row or a list of rows) nor 'instances' (a list)"}"#
        ]]
    );
    check!(
        server,
        "cancer",
        r#"{"features":[1,2],"instances":[]}"#,
        expect![[r#"400 {"error":"model 'cancer' takes 3 features per row, got 2"}"#]]
    );
    check!(
        server,
        "cancer",
        r#"{"features":[1,2]}"#,
        expect![[r#"400 {"error":"model 'cancer' takes 3 features per row, got 2"}"#]]
    );
    check!(
        server,
        "cancer",
        r#"{"features":[[1,2,3],[1,2,3],[1,2]]}"#,
        expect![[r#"400 {"error":"model 'cancer' takes 3 features per row, row 2 has 2"}"#]]
    );
    check!(
        server,
        "cancer",
        r#"{"features":[[1,2,3],[1,null,3]]}"#,
        expect![[r#"400 {"error":"row 1, feature 'mean area': expected a number, got null"}"#]]
    );
    check!(
        server,
        "cancer",
        r#"{"features":[[1,2,3],4]}"#,
        expect![[r#"400 {"error":"row 1 must be a list, got 4"}"#]]
    );
    check!(
        server,
        "cancer",
        r#"{"instances":[1,2,3]}"#,
        expect![[
            r#"400 {"error":"model 'cancer' takes 3 features per row: each of 'instances' must be a list or an object"}"#
        ]]
    );
    check!(
        server,
        "cancer",
        r#"{"features":{"texture":1,"mean radius":1}}"#,
        expect![[r#"400 {"error":"model 'cancer': the row has no 'mean area'"}"#]]
    );
    check!(
        server,
        "cancer",
        r#"{"features":{"texture":1,"color":1}}"#,
        expect![[
            r#"400 {"error":"model 'cancer' has no feature 'color': it takes 'mean radius', 'mean area', 'texture'"}"#
        ]]
    );
    check!(
        server,
        "cancer",
        r#"{"features":{"texture":1,"texture":1}}"#,
        expect![[r#"400 {"error":"the row: feature 'texture' is given twice"}"#]]
    );
    check!(
        server,
        "cancer",
        r#"{"features":{"texture":[1,2],"mean radius":1,"mean area":1}}"#,
        expect![[r#"400 {"error":"model 'cancer': feature 'texture': expected 1 value, got 2"}"#]]
    );
    check!(
        server,
        "cancer",
        r#"{"features":"abc"}"#,
        expect![[r#"400 {"error":"'features' must be a list or an object, got \"abc\""}"#]]
    );
    check!(
        server,
        "cancer",
        r#"{"features":[]}"#,
        expect![[r#"400 {"error":"model 'cancer' takes 3 features per row, got 0"}"#]]
    );
    check!(
        server,
        "cancer",
        r#"{"instances":[]}"#,
        expect![[r#"400 {"error":"'instances' is empty: expected a list of rows"}"#]]
    );
    check!(
        server,
        "regression",
        r#"{"features":[1,2,3]}"#,
        expect![[r#"400 {"error":"model 'regression' takes 2 features per row, got 3"}"#]]
    );
    check!(
        server,
        "regression",
        r#"{"features":[[1,2],[1,2],[1]]}"#,
        expect![[r#"400 {"error":"model 'regression' takes 2 features per row, row 2 has 1"}"#]]
    );
    check!(
        server,
        "regression",
        r#"{"features":[[1],[1,2]]}"#,
        expect![[r#"400 {"error":"model 'regression' takes 2 features per row, row 0 has 1"}"#]]
    );
    check!(
        server,
        "regression",
        r#"{"features":[[1,2],[1,"2"]]}"#,
        expect![[r#"400 {"error":"model 'regression': row 1: expected a number, got \"2\""}"#]]
    );
    check!(
        server,
        "regression",
        r#"{"features":[[1,2],3]}"#,
        expect![[r#"400 {"error":"model 'regression': entry 1 mixes lists and values at one depth"}"#]]
    );
    check!(
        server,
        "regression",
        r#"{"features":[[1,2],[3,4"#,
        expect![[
            r#"400 {"error":"malformed JSON at byte 23 (line 1, column 24): expected ',' or ']', found the end of the text"}"#
        ]]
    );
    check!(
        server,
        "regression",
        r#"{"instances":[]}"#,
        expect![[r#"400 {"error":"'instances' is empty: expected a list of rows"}"#]]
    );
    check!(
        server,
        "animals",
        r#"{"features":[[[1,2],[3]]]}"#,
        expect![[
            r#"400 {"error":"model 'animals': lists at depth 2 differ in length: entry 0 has one of 1, the first had 2"}"#
        ]]
    );
    check!(
        server,
        "animals",
        r#"{"features":[[[1,2,3],[3,4,5]]]}"#,
        expect![[
            r#"400 {"error":"model 'animals' takes rows of 4 features flat or nested as [1, 2, 2], got lists nested as [1, 2, 3]"}"#
        ]]
    );
    check!(
        server,
        "echo",
        r#"{"instances":[["a"],["b"]]}"#,
        expect![[
            r#"400 {"error":"model 'echo' has no batch axis (axis 0 is fixed), so its outputs cannot be told apart by row, and 2 rows came: ask for whole outputs, at /v1/models with 'inputs' in place of 'instances', or at /v2/models"}"#
        ]]
    );
    check!(
        server,
        "bytes",
        r#"{"features":[1,256]}"#,
        expect![[r#"400 {"error":"model 'bytes': feature 1: 256 is out of range for UINT8 (0 to 255)"}"#]]
    );
}

#[tokio::test]
async fn many_rows_stay_in_order() {
    let server = server().await;
    let rows: Vec<[usize; 2]> = (0..500).map(|row| [row, 1]).collect();
    let reply = server.post("/predict/regression", &serde_json::json!({"instances": rows}).to_string()).await;
    let predicted: Vec<f64> = serde_json::from_value(reply.json()["prediction"].clone()).unwrap();
    assert_eq!(predicted, (0..500).map(f64::from).collect::<Vec<_>>());
}
