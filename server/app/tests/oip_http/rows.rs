//! A model that gives more or fewer rows than came: answered as it is where outputs go whole, and never row by row.

use expect_test::{Expect, expect};
use gristmill_engine::tensor::DType;
use gristmill_engine::testing::FakeBackend;

use crate::server::{Server, batched, fp32, spec};

/// Gives a row of 99 twice and a row of -1 not at all.
fn unsteady() -> FakeBackend {
    let signature =
        batched(vec![spec("x", DType::Fp32, &[-1, 1], &[])], vec![spec("y", DType::Fp32, &[-1, 1], &[])]);
    FakeBackend::new(signature, |inputs| {
        let rows = inputs[0].as_ref().unwrap().data.as_chunks().0.iter();
        let rows = rows.map(|&bytes| f32::from_le_bytes(bytes));
        let kept: Vec<f32> = rows
            .flat_map(|row| match row {
                99.0 => vec![row, row],
                -1.0 => vec![],
                _ => vec![row],
            })
            .collect();
        Ok(vec![fp32(&[kept.len(), 1], kept)])
    })
}

#[tokio::test]
async fn rows_go_back_with_their_own_or_not_at_all() {
    let server = Server::start([("m", unsteady())]).await;
    let check = async |path: &str, body: &str, expected: Expect| {
        let line = server.post(path, body).await.line();
        let timeless = line.split(",\"model\":").next().unwrap_or_default();
        expected.assert_eq(timeless);
    };
    let tensor = r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[3,1],"data":[1,99,3]}],"outputs":[{"name":"y"}]}"#;
    check("/v2/models/m/infer", tensor, expect![[r#"200 {"model_name":"m","model_version":"1","outputs":[{"name":"y","datatype":"FP32","shape":[4,1],"data":[1.0,99.0,99.0,3.0]}]}"#]]).await;
    check(
        "/v1/models/m:predict",
        r#"{"inputs":[[1],[99],[3]]}"#,
        expect![[r#"200 {"outputs":[[1.0],[99.0],[99.0],[3.0]]}"#]],
    )
    .await;
    check("/v1/models/m:predict", r#"{"inputs":[]}"#, expect![[r#"200 {"outputs":[]}"#]]).await;
    check("/v1/models/m:predict", r#"{"inputs":[[-1]]}"#, expect![[r#"200 {"outputs":[]}"#]]).await;
    check(
        "/v1/models/m:predict",
        r#"{"instances":[[1],[2],[3]]}"#,
        expect![[r#"200 {"predictions":[[1.0],[2.0],[3.0]]}"#]],
    )
    .await;
    check("/v1/models/m:predict", r#"{"instances":[[1],[99],[3]]}"#, expect![[r#"400 {"error":"output 'y' has 4 rows for 3 that came, so it cannot be told apart by row: ask for whole outputs, at /v1/models with 'inputs' in place of 'instances', or at /v2/models"}"#]]).await;
    check("/v1/models/m:regress", r#"{"examples":[{"x":1},{"x":99}]}"#, expect![[r#"400 {"error":"output 'y' has 3 rows for 2 that came, so it cannot be told apart by row: ask for whole outputs, at /v1/models with 'inputs' in place of 'instances', or at /v2/models"}"#]]).await;
    check(
        "/v1/models/m:regress",
        r#"{"examples":[{"x":1},{"x":2}]}"#,
        expect![[r#"200 {"results":[1.0,2.0]}"#]],
    )
    .await;
    check(
        "/predict/m",
        r#"{"features":[99]}"#,
        expect![[r#"200 {"prediction":[99.0,99.0],"probability":null"#]],
    )
    .await;
    check("/predict/m", r#"{"features":[-1]}"#, expect![[r#"200 {"prediction":[],"probability":null"#]])
        .await;
    check("/predict/m", r#"{"features":[[1],[99]]}"#, expect![[r#"400 {"error":"output 'y' has 3 rows for 2 that came, so it cannot be told apart by row: ask for whole outputs, at /v1/models with 'inputs' in place of 'instances', or at /v2/models"}"#]]).await;
    check("/predictions/m", "[99]", expect!["200 [[99.0],[99.0]]"]).await;
    check("/predictions/m", "[-1]", expect!["200 []"]).await;
    check("/predictions/m", "[[1],[99]]", expect![[r#"400 {"code":400,"type":"BadRequestException","message":"output 'y' has 3 rows for 2 that came, so it cannot be told apart by row: ask for whole outputs, at /v1/models with 'inputs' in place of 'instances', or at /v2/models"}"#]]).await;
}
