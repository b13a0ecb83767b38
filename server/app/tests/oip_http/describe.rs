//! Health, metadata, configuration, statistics, index, and paths that are not there.

use expect_test::expect;
use gristmill_engine::tensor::DType;
use gristmill_engine::testing::FakeBackend;
use gristmill_engine::tuning::Tuning;

use crate::server::Server;

async fn server() -> Server {
    let tuning =
        || Tuning { instances: Some(2), threads: Some(1), batch_rows_max: Some(8), ..Tuning::default() };
    Server::start_tuned([
        ("identity", 1, FakeBackend::identity(DType::Fp32, &[3]), tuning()),
        ("identity", 2, FakeBackend::identity(DType::Fp32, &[3]), tuning()),
        ("text", 1, FakeBackend::identity(DType::Bytes, &[1]), tuning()),
    ])
    .await
}

#[tokio::test]
async fn health_and_readiness() {
    let server = server().await;
    assert_eq!(server.get("/v2/health/live").await.line(), r#"200 {"live":true}"#);
    assert_eq!(server.get("/v2/health/ready").await.line(), r#"200 {"ready":true}"#);
    assert_eq!(server.get("/v2/models/text/ready").await.line(), r#"200 {"name":"text","ready":true}"#);
    assert_eq!(
        server.get("/v2/models/text/versions/1/ready").await.line(),
        r#"200 {"name":"text","ready":true}"#
    );
    assert_eq!(server.get("/v2/models/text/versions/2/ready").await.status, 404);
    expect![[r#"200 {"status":"healthy","models":{"identity":{"ready":true,"versions":["1","2"]},"text":{"ready":true,"versions":["1"]}}}"#]]
        .assert_eq(&server.get("/health").await.line());

    server.engine.begin_shutdown();
    assert_eq!(server.get("/v2/health/live").await.line(), r#"200 {"live":true}"#);
    expect![[r#"503 {"ready":false,"reasons":["the server is shutting down"]}"#]]
        .assert_eq(&server.get("/v2/health/ready").await.line());
    expect![[r#"503 {"status":"unhealthy","models":{"identity":{"ready":true,"versions":["1","2"]},"text":{"ready":true,"versions":["1"]}},"reasons":["the server is shutting down"]}"#]]
        .assert_eq(&server.get("/health").await.line());
}

#[tokio::test]
async fn metadata() {
    let server = server().await;
    let reply = server.get("/v2").await;
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!(reply.json()["name"], "gristmill");
    assert_eq!(reply.json()["version"], env!("CARGO_PKG_VERSION"));
    assert!(reply.json()["extensions"].as_array().unwrap().contains(&"binary_tensor_data".into()));
    expect![[r#"200 {"models":["identity","text"]}"#]].assert_eq(&server.get("/v2/models").await.line());
    expect![[r#"200 {"name":"identity","versions":["1","2"],"platform":"fake","inputs":[{"name":"x","datatype":"FP32","shape":[-1,3]}],"outputs":[{"name":"y","datatype":"FP32","shape":[-1,3]}]}"#]]
        .assert_eq(&server.get("/v2/models/identity").await.line());
    let one = server.get("/v2/models/identity/versions/1").await.json();
    assert_eq!(one["versions"], serde_json::json!(["1"]));
    expect![[r#"404 {"error":"model 'nope' is not in the repository: its index lists what is"}"#]]
        .assert_eq(&server.get("/v2/models/nope").await.line());
}

#[tokio::test]
async fn configuration() {
    let server = server().await;
    let config = server.get("/v2/models/text/config").await.json();
    expect![[r#"
        {
          "name": "text",
          "platform": "fake",
          "backend": "fake",
          "max_batch_size": 8,
          "input": [
            {
              "name": "x",
              "data_type": "TYPE_STRING",
              "format": "FORMAT_NONE",
              "dims": [
                1
              ],
              "is_shape_tensor": false,
              "allow_ragged_batch": false,
              "optional": false
            }
          ],
          "output": [
            {
              "name": "y",
              "data_type": "TYPE_STRING",
              "dims": [
                1
              ],
              "label_filename": "",
              "is_shape_tensor": false
            }
          ],
          "instance_group": [
            {
              "name": "text_0",
              "kind": "KIND_AUTO",
              "count": 2,
              "gpus": []
            }
          ],
          "default_model_filename": "model.onnx",
          "parameters": {
            "intra_op_thread_count": {
              "string_value": "1"
            }
          },
          "model_transaction_policy": {
            "decoupled": false
          },
          "dynamic_batching": {
            "preferred_batch_size": [],
            "max_queue_delay_microseconds": 0
          }
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&config).unwrap());
    assert_eq!(server.get("/v2/models/text/versions/1/config").await.json(), config);
}

#[tokio::test]
async fn statistics() {
    let server = server().await;
    let request = r#"{"inputs":[{"name":"x","shape":[2,1],"datatype":"BYTES","data":["a","b"]}]}"#;
    assert_eq!(server.post("/v2/models/text/infer", request).await.status, 200);
    let all = server.get("/v2/models/stats").await.json();
    assert_eq!(all["model_stats"].as_array().unwrap().len(), 3);
    let one = server.get("/v2/models/text/versions/1/stats").await.json();
    assert_eq!(one, server.get("/v2/models/text/stats").await.json());
    let stats = &one["model_stats"][0];
    assert_eq!((&stats["name"], &stats["version"]), (&"text".into(), &"1".into()));
    assert_eq!((&stats["inference_count"], &stats["execution_count"]), (&2.into(), &1.into()));
    assert_eq!(stats["inference_stats"]["success"]["count"], 1);
    assert!(stats["inference_stats"]["compute_infer"]["ns"].as_u64().is_some());
    assert_eq!(stats["batch_stats"][0]["batch_size"], 2);
    assert!(stats["last_inference"].as_u64().unwrap() > 1_600_000_000_000);
}

#[tokio::test]
async fn latency_model() {
    let server = server().await;
    let request = r#"{"inputs":[{"name":"x","shape":[2,1],"datatype":"BYTES","data":["a","b"]}]}"#;
    assert_eq!(server.post("/v2/models/text/infer", request).await.status, 200);
    let mut model = server.get("/v2/models/text/latency-model").await.json();
    // What was measured differs from run to run; that it was is what counts.
    let is_time = |value: &serde_json::Value| value.as_f64().is_some_and(|value| value > 0.0);
    for size in model["tables"][0]["sizes"].as_array_mut().unwrap() {
        for field in ["p50_us", "p90_us", "p99_us", "typical_us", "high_us"] {
            assert!(is_time(&size[field]), "{field} of {size}");
            size.as_object_mut().unwrap().remove(field);
        }
    }
    assert!(is_time(&model["capacity"]["rows_per_s"]) && is_time(&model["margin"]), "{model}");
    for field in ["capacity", "margin", "wait_margin"] {
        model.as_object_mut().unwrap().remove(field);
    }
    expect![[r#"{"model":"text","version":1,"platform":"fake","workers":2,"batch_rows_max":8,"batch_rows_why":"as its settings say","tables":[{"shape":[],"sizes":[{"rows":1,"count":0,"source":"sweep"},{"rows":2,"count":1,"source":"runs"},{"rows":4,"count":0,"source":"sweep"},{"rows":8,"count":0,"source":"sweep"}]}],"slo_ms":null}"#]].assert_eq(&model.to_string());
    let of_version = server.get("/v2/models/text/versions/1/latency-model").await.json();
    assert_eq!(of_version["tables"][0]["sizes"][1]["count"], 1);
    expect![[r#"404 {"error":"model 'text' has no version 3: its versions are 1"}"#]]
        .assert_eq(&server.get("/v2/models/text/versions/3/latency-model").await.line());
}

#[tokio::test]
async fn promises_kept() {
    let server = server().await;
    let request = r#"{"inputs":[{"name":"x","shape":[2,1],"datatype":"BYTES","data":["a","b"]}]}"#;
    assert_eq!(server.post("/v2/models/text/infer", request).await.status, 200);
    assert_eq!(server.post("/v2/models/text/infer", "{}").await.status, 400);
    let mut slo = server.get("/v2/models/text/slo").await.json();
    for window in slo["windows"].as_array_mut().unwrap() {
        assert!(window["goodput_per_second"].take().as_f64().unwrap() > 0.0);
    }
    expect![[r#"{"model":"text","objective":0.999,"windows":[{"window":"5m","seconds":300,"good":1,"bad":0,"goodput_per_second":null,"attainment":1.0,"burn_rate":0.0},{"window":"1h","seconds":3600,"good":1,"bad":0,"goodput_per_second":null,"attainment":1.0,"burn_rate":0.0},{"window":"24h","seconds":86400,"good":1,"bad":0,"goodput_per_second":null,"attainment":1.0,"burn_rate":0.0}]}"#]]
        .assert_eq(&slo.to_string());
    expect![[r#"404 {"error":"model 'nothing' is not in the repository: its index lists what is"}"#]]
        .assert_eq(&server.get("/v2/models/nothing/slo").await.line());
}

#[tokio::test]
async fn repository_index() {
    let server = server().await;
    let whole = r#"[{"name":"identity","version":"1","state":"READY","reason":""},{"name":"identity","version":"2","state":"READY","reason":""},{"name":"text","version":"1","state":"READY","reason":""}]"#;
    for body in ["", "{}", r#"{"ready":true}"#, r#"{"ready":false}"#] {
        assert_eq!(server.post("/v2/repository/index", body).await.text(), whole);
    }
    expect![[r#"400 {"error":"expected {\"ready\": true}, {} or no body: invalid type: integer `3`, expected a boolean at line 1 column 10"}"#]]
        .assert_eq(&server.post("/v2/repository/index", r#"{"ready":3}"#).await.line());
}

#[tokio::test]
async fn wrong_paths_and_methods() {
    let server = server().await;
    expect![[r#"404 {"error":"no such path '/v2/model/text/infer': there are /v2/models/{model}/infer, /v2/models, /v2/health/ready, /v1/models/{model}:predict, /predict/{model}, /health and /metrics"}"#]]
        .assert_eq(&server.get("/v2/model/text/infer").await.line());
    let reply = server.get("/v2/models/text/infer").await;
    assert_eq!(reply.header("allow"), Some("POST"));
    expect![[
        r#"405 {"error":"GET is not allowed for '/v2/models/text/infer': the Allow header says what is"}"#
    ]]
    .assert_eq(&reply.line());
    let reply = server.post("/v2/health/live", "").await;
    assert_eq!((reply.status, reply.header("allow")), (405, Some("GET,HEAD")));
    expect![[r#"400 {"error":"Invalid URL: Invalid UTF-8 in `model`"}"#]]
        .assert_eq(&server.get("/v2/models/%ff").await.line());
}

#[tokio::test]
async fn timing_is_told_to_those_who_ask() {
    let server = server().await;
    let infer = r#"{"inputs":[{"name":"x","shape":[2,1],"datatype":"BYTES","data":["a","b"]}]}"#;
    for (path, body, rows) in
        [("/v2/models/text/infer", infer, "2"), ("/predict/identity", r#"{"features":[1,2,3]}"#, "1")]
    {
        let asked = server.send("POST", path, &[("x-gristmill-timing", "1")], body.as_bytes()).await;
        assert_eq!(asked.status, 200, "{}", asked.text());
        let timing = asked.header("server-timing").unwrap();
        let names: Vec<_> = timing.split(", ").map(|part| part.split_once(";dur=").unwrap().0).collect();
        assert_eq!(names, ["queue", "run", "total"], "{timing}");
        assert_eq!(asked.header("x-gristmill-batch-rows"), Some(rows));
        let silent = server.post(path, body).await;
        assert_eq!((silent.header("server-timing"), silent.header("x-gristmill-batch-rows")), (None, None));
    }
}
