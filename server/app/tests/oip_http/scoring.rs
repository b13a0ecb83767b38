//! MLflow's scoring protocol, SageMaker's and Vertex AI's contracts: requests without a model's name.

use expect_test::{Expect, expect};
use gristmill::vertex_http::VertexAi;
use gristmill_engine::tensor::DType;
use gristmill_engine::testing::FakeBackend;
use gristmill_engine::tuning::Tuning;

use crate::server::{Server, batched, by_row, fp32, int64, spec};

/// Three columns; a label and its probabilities. What is missing counts as nothing.
fn cancer() -> FakeBackend {
    let input = |name| spec(name, DType::Fp32, &[-1, 1], &[]);
    let signature = batched(
        vec![input("radius"), input("area"), input("texture")],
        vec![spec("label", DType::Int64, &[-1], &[]), spec("p", DType::Fp32, &[-1, 2], &[])],
    );
    by_row(signature, |rows| {
        let sum = |row: &Vec<f32>| row.iter().filter(|value| !value.is_nan()).sum::<f32>();
        vec![
            int64(&[rows.len()], rows.iter().map(|row| (sum(row) > 6.0).into())),
            fp32(
                &[rows.len(), 2],
                rows.iter().flat_map(|row| if sum(row) > 6.0 { [0.1, 0.9] } else { [0.8, 0.2] }),
            ),
        ]
    })
}

/// Two numbers a row in one tensor.
fn ratio() -> FakeBackend {
    let signature =
        batched(vec![spec("x", DType::Fp32, &[-1, 2], &[])], vec![spec("y", DType::Fp32, &[-1, 1], &[])]);
    by_row(signature, |rows| vec![fp32(&[rows.len(), 1], rows.iter().map(|row| row[0] / row[1]))])
}

/// Columns of every kind, given back.
fn kinds() -> FakeBackend {
    let column = |name, dtype| spec(name, dtype, &[-1], &[]);
    let inputs =
        || vec![column("text", DType::Bytes), column("count", DType::Int64), column("flag", DType::Bool)];
    FakeBackend::new(batched(inputs(), inputs()), |inputs| {
        Ok(inputs.iter().map(gristmill_engine::testing::copy).collect())
    })
}

fn tuned(name: &'static str, backend: FakeBackend) -> (&'static str, u64, FakeBackend, Tuning) {
    let tuning =
        Tuning { instances: Some(1), threads: Some(1), batch_rows_max: Some(8), ..Tuning::default() };
    (name, 1, backend, tuning)
}

async fn server() -> Server {
    Server::start([("cancer", cancer()), ("ratio", ratio()), ("kinds", kinds())]).await
}

macro_rules! check {
    ($server:expr, $model:expr, $body:expr, $expected:expr) => {{
        let expected: Expect = $expected;
        expected.assert_eq(&$server.post(&format!("/endpoints/{}/invocations", $model), $body).await.line());
    }};
}

macro_rules! check_csv {
    ($server:expr, $model:expr, $media_type:expr, $body:expr, $expected:expr) => {{
        let expected: Expect = $expected;
        let path = format!("/endpoints/{}/invocations", $model);
        let headers = [("content-type", $media_type)];
        expected.assert_eq(&$server.send("POST", &path, &headers, $body.as_bytes()).await.line());
    }};
}

#[tokio::test]
async fn frames_of_columns() {
    let server = server().await;
    check!(
        server,
        "cancer",
        r#"{"dataframe_split":{"index":[0,1],"columns":["texture","id","radius","area"],"data":[[3.5,"a",1,2],[null,"b",1,2]]}}"#,
        expect![[r#"200 {"predictions":[{"label":1,"p":[0.1,0.9]},{"label":0,"p":[0.8,0.2]}]}"#]]
    );
    check!(
        server,
        "cancer",
        r#"{"dataframe_split":{"data":[[1,2,3.5]],"columns":["radius","area","texture"]},"params":{"t":1}}"#,
        expect![[r#"200 {"predictions":[{"label":1,"p":[0.1,0.9]}]}"#]]
    );
    check!(
        server,
        "cancer",
        r#"{"dataframe_records":[{"radius":1,"area":2,"texture":3.5,"id":7},{"texture":NaN,"radius":1,"area":2}]}"#,
        expect![[r#"200 {"predictions":[{"label":1,"p":[0.1,0.9]},{"label":0,"p":[0.8,0.2]}]}"#]]
    );
    check!(
        server,
        "cancer",
        r#"{"inputs":{"radius":[1],"area":[2],"texture":[3.5],"id":[7]}}"#,
        expect![[r#"200 {"predictions":[{"label":1,"p":[0.1,0.9]}]}"#]]
    );
    check!(
        server,
        "cancer",
        r#"{"instances":[{"radius":1,"area":2,"texture":3.5}]}"#,
        expect![[r#"200 {"predictions":[{"label":1,"p":[0.1,0.9]}]}"#]]
    );
    check!(
        server,
        "kinds",
        r#"{"dataframe_records":[{"text":"é","count":3,"flag":true}]}"#,
        expect![[r#"200 {"predictions":[{"text":"é","count":3,"flag":true}]}"#]]
    );
}

#[tokio::test]
async fn frames_for_one_tensor() {
    let server = server().await;
    check!(
        server,
        "ratio",
        r#"{"dataframe_split":{"columns":["a","b"],"data":[[1,10],[1,4]]}}"#,
        expect![[r#"200 {"predictions":{"y":[[0.1],[0.25]]}}"#]]
    );
    check!(
        server,
        "ratio",
        r#"{"dataframe_split":{"columns":[0,1],"data":[[1,10]]}}"#,
        expect![[r#"200 {"predictions":{"y":[[0.1]]}}"#]]
    );
    check!(
        server,
        "ratio",
        r#"{"dataframe_split":{"columns":["x"],"data":[[[1,10]]]}}"#,
        expect![[r#"200 {"predictions":{"y":[[0.1]]}}"#]]
    );
    check!(
        server,
        "ratio",
        r#"{"dataframe_split":{"data":[[1,10],[0,0]]}}"#,
        expect![[r#"200 {"predictions":{"y":[[0.1],[NaN]]}}"#]]
    );
    check!(server, "ratio", r#"{"inputs":[[1,10]]}"#, expect![[r#"200 {"predictions":{"y":[[0.1]]}}"#]]);
    check!(server, "ratio", r#"{"instances":[[1,10]]}"#, expect![[r#"200 {"predictions":{"y":[[0.1]]}}"#]]);
}

#[tokio::test]
async fn records_for_one_tensor() {
    let server = server().await;
    for (body, expected) in [
        (
            r#"{"dataframe_records": [ {"a": 1, "b": 10}, {"a": 1, "b": 4} ]}"#,
            expect![[r#"200 {"predictions":{"y":[[0.1],[0.25]]}}"#]],
        ),
        (r#"{"dataframe_records":[{"x":[1,10]}]}"#, expect![[r#"200 {"predictions":{"y":[[0.1]]}}"#]]),
        (
            r#"{"dataframe_records":[{"id":"first","n":1,"x":[1,10]},{"x":[1,4]}]}"#,
            expect![[r#"200 {"predictions":{"y":[[0.1],[0.25]]}}"#]],
        ),
        (
            r#"{"dataframe_records":[{"\u0061":1,"b":10},{"a":1,"b":4}]}"#,
            expect![[r#"200 {"predictions":{"y":[[0.1],[0.25]]}}"#]],
        ),
        (
            r#"{"dataframe_records":[{"a":1,"b":2},{"b":1,"a":2}]}"#,
            expect![[
                r#"400 {"error_code":"BAD_REQUEST","message":"row 1 has 'b' where row 0 has 'a': rows of a model with one input must have the same columns in the same order"}"#
            ]],
        ),
        (
            r#"{"dataframe_records":[{"a":1,"b":2},{"a":1}]}"#,
            expect![[r#"400 {"error_code":"BAD_REQUEST","message":"row 1 has 1 values, expected 2"}"#]],
        ),
        (
            r#"{"dataframe_records":[{"a":1,"b":"2"}]}"#,
            expect![[
                r#"400 {"error_code":"BAD_REQUEST","message":"row 0, feature 'x': expected a number, got \"2\""}"#
            ]],
        ),
        (
            r#"{"dataframe_records":[{"a":1,"x":[1,2,3]}]}"#,
            expect![[
                r#"400 {"error_code":"BAD_REQUEST","message":"model 'ratio': row 0, feature 'x': expected 2 values, got 3"}"#
            ]],
        ),
        (
            r#"{"dataframe_records":[{}]}"#,
            expect![[
                r#"400 {"error_code":"BAD_REQUEST","message":"model 'ratio': row 0, feature 'x': expected 2 values, got 0"}"#
            ]],
        ),
        (
            r#"{"dataframe_records":[{"a":1,"b":2},{"a":1"#,
            expect![[
                r#"400 {"error_code":"BAD_REQUEST","message":"malformed JSON at byte 42 (line 1, column 43): expected ',' or '}', found the end of the text"}"#
            ]],
        ),
        (
            r#"{"dataframe_records":[{"x":[1,2"#,
            expect![[
                r#"400 {"error_code":"BAD_REQUEST","message":"malformed JSON at byte 31 (line 1, column 32): expected ',' or ']', found the end of the text"}"#
            ]],
        ),
        (
            r#"{"dataframe_records":[]}"#,
            expect![[
                r#"400 {"error_code":"BAD_REQUEST","message":"'dataframe_records' is empty: expected a list of rows"}"#
            ]],
        ),
        (
            r#"{"dataframe_records":{"a":[1]}}"#,
            expect![[
                r#"400 {"error_code":"BAD_REQUEST","message":"'dataframe_records' must be a list, got an object"}"#
            ]],
        ),
    ] {
        expected.assert_eq(&server.post("/endpoints/ratio/invocations", body).await.line());
    }
}

#[tokio::test]
async fn comma_separated_values() {
    let server = server().await;
    check_csv!(
        server,
        "cancer",
        "text/csv",
        "id,texture,radius,area\n7,3.5,1,2\n8,,1, 2\n",
        expect![[r#"200 {"predictions":[{"label":1,"p":[0.1,0.9]},{"label":0,"p":[0.8,0.2]}]}"#]]
    );
    check_csv!(
        server,
        "cancer",
        "text/csv; header=absent",
        "1,2,3.5\r\n1,2,nan",
        expect![[r#"200 {"predictions":[{"label":1,"p":[0.1,0.9]},{"label":0,"p":[0.8,0.2]}]}"#]]
    );
    check_csv!(
        server,
        "ratio",
        "text/csv; charset=utf-8",
        "a,b\n1,10\n1,inf\n",
        expect![[r#"200 {"predictions":{"y":[[0.1],[0.0]]}}"#]]
    );
    check_csv!(
        server,
        "ratio",
        "text/csv;header=absent",
        "1,10\n1,4\n",
        expect![[r#"200 {"predictions":{"y":[[0.1],[0.25]]}}"#]]
    );
    check_csv!(
        server,
        "kinds",
        "text/csv",
        "text,count,flag\n\"a, \"\"b\"\"\",3,True\n,4,0\n",
        expect![[
            r#"200 {"predictions":[{"text":"a, \"b\"","count":3,"flag":true},{"text":"","count":4,"flag":false}]}"#
        ]]
    );
    check_csv!(
        server,
        "kinds",
        "text/csv",
        "text,count,flag\na,3.5,True\n",
        expect![[
            r#"400 {"error_code":"BAD_REQUEST","message":"row 0, feature 'count': expected an integer, got '3.5'"}"#
        ]]
    );
    check_csv!(
        server,
        "kinds",
        "text/csv",
        "text,count,flag\na,,True\n",
        expect![[
            r#"400 {"error_code":"BAD_REQUEST","message":"row 0, feature 'count': expected an integer, got ''"}"#
        ]]
    );
    check_csv!(
        server,
        "cancer",
        "text/csv",
        "radius,area,texture\n1,2,x\n",
        expect![[
            r#"400 {"error_code":"BAD_REQUEST","message":"row 0, feature 'texture': expected a number, got 'x'"}"#
        ]]
    );
    check_csv!(
        server,
        "cancer",
        "text/csv",
        "radius,area\n1,2\n",
        expect![[
            r#"400 {"error_code":"BAD_REQUEST","message":"the frame has no column 'texture': model 'cancer' takes 'radius', 'area', 'texture'"}"#
        ]]
    );
    check_csv!(
        server,
        "cancer",
        "text/csv",
        "radius,area,texture\n1,2\n",
        expect![[r#"400 {"error_code":"BAD_REQUEST","message":"row 0 has 2 values, expected 3"}"#]]
    );
    check_csv!(
        server,
        "cancer",
        "text/csv",
        "radius,area,texture\n",
        expect![[r#"400 {"error_code":"BAD_REQUEST","message":"the frame has no rows"}"#]]
    );
    check_csv!(
        server,
        "cancer",
        "text/csv",
        "",
        expect![[r#"400 {"error_code":"BAD_REQUEST","message":"the CSV has no header: it is empty"}"#]]
    );
    check_csv!(
        server,
        "cancer",
        "text/csv",
        "radius,\"area",
        expect![[
            r#"400 {"error_code":"BAD_REQUEST","message":"malformed CSV in line 1: the text ends inside the quoted cell that begins here"}"#
        ]]
    );
    check_csv!(
        server,
        "cancer",
        "text/plain",
        "1,2",
        expect![
            "415 Content-Type 'text/plain' is not supported: send application/json or text/csv, in UTF-8; 'text/csv; header=absent' for lines without a header"
        ]
    );
}

#[tokio::test]
async fn what_is_refused() {
    let server = server().await;
    check!(
        server,
        "nope",
        r#"{"inputs":[[1,10]]}"#,
        expect![[
            r#"404 {"error_code":"RESOURCE_DOES_NOT_EXIST","message":"model 'nope' is not in the repository: its index lists what is"}"#
        ]]
    );
    check!(
        server,
        "ratio",
        "{}",
        expect![[
            r#"400 {"error_code":"BAD_REQUEST","message":"the request must have exactly one of 'dataframe_split', 'dataframe_records', 'instances' and 'inputs'"}"#
        ]]
    );
    check!(
        server,
        "ratio",
        r#"{"messages":[]}"#,
        expect![[
            r#"400 {"error_code":"BAD_REQUEST","message":"the request must have exactly one of 'dataframe_split', 'dataframe_records', 'instances' and 'inputs'"}"#
        ]]
    );
    check!(
        server,
        "ratio",
        r#"{"inputs":[[1,10]],"instances":[[1,10]]}"#,
        expect![[
            r#"400 {"error_code":"BAD_REQUEST","message":"the request must have exactly one of 'dataframe_split', 'dataframe_records', 'instances' and 'inputs': it has 'instances' besides"}"#
        ]]
    );
    check!(
        server,
        "ratio",
        "[[1,10]]",
        expect![[
            r#"400 {"error_code":"BAD_REQUEST","message":"the request must be an object, got a list"}"#
        ]]
    );
    check!(
        server,
        "ratio",
        "{\"inputs\":",
        expect![[
            r#"400 {"error_code":"BAD_REQUEST","message":"malformed JSON at byte 10 (line 1, column 11): expected a value, found the end of the text"}"#
        ]]
    );
    check!(
        server,
        "cancer",
        r#"{"dataframe_split":{"columns":["radius","area"],"data":[[1,2]]}}"#,
        expect![[
            r#"400 {"error_code":"BAD_REQUEST","message":"the frame has no column 'texture': model 'cancer' takes 'radius', 'area', 'texture'"}"#
        ]]
    );
    check!(
        server,
        "cancer",
        r#"{"dataframe_split":{"columns":["radius","area","texture","area"],"data":[[1,2,3,4]]}}"#,
        expect![[
            r#"400 {"error_code":"BAD_REQUEST","message":"the frame has more than one column 'area': model 'cancer' takes 'radius', 'area', 'texture'"}"#
        ]]
    );
    check!(
        server,
        "ratio",
        r#"{"dataframe_split":{"columns":["a","b"],"data":[[1,2],[3]]}}"#,
        expect![[r#"400 {"error_code":"BAD_REQUEST","message":"row 1 has 1 values, expected 2"}"#]]
    );
    check!(
        server,
        "ratio",
        r#"{"dataframe_split":{"columns":["a","b","c"],"data":[[1,2,3]]}}"#,
        expect![[
            r#"400 {"error_code":"BAD_REQUEST","message":"model 'ratio': row 0, feature 'x': expected 2 values, got 3"}"#
        ]]
    );
    check!(
        server,
        "ratio",
        r#"{"dataframe_split":{"columns":["a","b"]}}"#,
        expect![[
            r#"400 {"error_code":"BAD_REQUEST","message":"'dataframe_split' has no 'data': expected a list of rows"}"#
        ]]
    );
    check!(
        server,
        "ratio",
        r#"{"dataframe_split":{"columns":["a","b"],"data":[]}}"#,
        expect![[r#"400 {"error_code":"BAD_REQUEST","message":"the frame has no rows"}"#]]
    );
    check!(
        server,
        "cancer",
        r#"{"dataframe_records":[{"radius":1,"area":2}]}"#,
        expect![[
            r#"400 {"error_code":"BAD_REQUEST","message":"the frame has no column 'texture': model 'cancer' takes 'radius', 'area', 'texture'"}"#
        ]]
    );
}

#[tokio::test]
async fn the_model_is_chosen() {
    let server = server().await;
    let body = r#"{"inputs":[[1,10]]}"#;
    expect![[r#"400 {"error_code":"BAD_REQUEST","message":"several models are served (cancer, kinds, ratio): name one in the path (/endpoints/{model}/invocations) or in the header X-Amzn-SageMaker-Target-Model, or start the server with --default-model"}"#]].assert_eq(&server.post("/invocations", body).await.line());
    for name in ["ratio", "/ratio.tar.gz"] {
        let headers = [("x-amzn-sagemaker-target-model", name)];
        let reply = server.send("POST", "/invocations", &headers, body.as_bytes()).await;
        assert_eq!(reply.line(), r#"200 {"predictions":{"y":[[0.1]]}}"#);
    }
    let reply = server.post("/models/ratio/invoke", body).await;
    assert_eq!(reply.line(), r#"200 {"predictions":{"y":[[0.1]]}}"#);

    let only = Server::start([("ratio", ratio())]).await;
    assert_eq!(only.post("/invocations", body).await.line(), r#"200 {"predictions":{"y":[[0.1]]}}"#);
    let models = [tuned("cancer", cancer()), tuned("ratio", ratio())];
    let with_default = Server::start_with(models, Some("ratio"), |router| router).await;
    assert_eq!(with_default.post("/invocations", body).await.line(), r#"200 {"predictions":{"y":[[0.1]]}}"#);
    let none = Server::start([]).await;
    expect![[r#"503 {"error_code":"TEMPORARILY_UNAVAILABLE","message":"no model is served"}"#]]
        .assert_eq(&none.post("/invocations", body).await.line());
}

#[tokio::test]
async fn probes() {
    let server = server().await;
    assert_eq!(server.get("/ping").await.line(), r#"200 {"status":"Healthy"}"#);
    assert_eq!(server.get("/version").await.line(), format!("200 {}", env!("CARGO_PKG_VERSION")));
    server.engine.begin_shutdown();
    assert_eq!(server.get("/ping").await.line(), r#"503 {"status":"Unhealthy"}"#);
}

#[tokio::test]
async fn vertex_ai() {
    let (health_route, predict_route) = (Some("/is-well".into()), Some("/foretell".into()));
    let vertex = VertexAi { port: 0, health_route, predict_route };
    let models = || [tuned("cancer", cancer()), tuned("ratio", ratio())];
    let server = Server::start_with(models(), Some("ratio"), |router| vertex.extend(router)).await;
    let body = r#"{"instances":[[1,10],[1,4]],"parameters":{"threshold":0.5}}"#;
    assert_eq!(server.get("/is-well").await.line(), r#"200 {"status":"Healthy"}"#);
    assert_eq!(server.post("/foretell", body).await.line(), r#"200 {"predictions":[[0.1],[0.25]]}"#);
    assert_eq!(server.post("/vertex", body).await.line(), r#"200 {"predictions":[[0.1],[0.25]]}"#);
    expect![[r#"400 {"error":"the request has 'inputs': expected 'instances', a list of rows"}"#]]
        .assert_eq(&server.post("/foretell", r#"{"inputs":[[1,10]]}"#).await.line());
    expect![[r#"400 {"error":"model 'ratio' takes 2 features per row, row 0 has 1"}"#]]
        .assert_eq(&server.post("/foretell", r#"{"instances":[[1]]}"#).await.line());
    assert_eq!(server.get("/v2/health/ready").await.status, 200, "the other routes are there");

    let predict_route = Some("/v1/models/cancer:predict".into());
    let vertex = VertexAi { port: 0, health_route: None, predict_route };
    let server = Server::start_with(models(), None, |router| vertex.extend(router)).await;
    let body = r#"{"instances":[{"radius":1,"area":2,"texture":3.5}]}"#;
    expect![[r#"200 {"predictions":[{"label":1,"p":[0.1,0.9]}]}"#]]
        .assert_eq(&server.post("/v1/models/cancer:predict", body).await.line());
    expect![[r#"400 {"error":"several models are served (cancer, ratio): have AIP_PREDICT_ROUTE name one, such as /v1/models/{model}:predict, or start the server with --default-model"}"#]].assert_eq(&server.post("/vertex", body).await.line());
}
