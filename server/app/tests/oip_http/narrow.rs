//! Element types that only raw bytes carry: in binary data, with their names in the metadata, and nowhere else.

use expect_test::{Expect, expect};
use gristmill_engine::narrow::Narrow;
use gristmill_engine::tensor::DType;
use gristmill_engine::testing::FakeBackend;

use crate::server::Server;

async fn server() -> Server {
    let backend = FakeBackend::identity(DType::Narrow(Narrow::Float8E4m3fn), &[2]);
    Server::start([("m", backend)]).await
}

#[tokio::test]
async fn binary_data_carries_them() {
    let server = server().await;
    let json = r#"{"inputs":[{"name":"x","datatype":"FLOAT8E4M3FN","shape":[1,2],"parameters":{"binary_data_size":2}}],"parameters":{"binary_data_output":true}}"#;
    let length = json.len().to_string();
    let headers = [("inference-header-content-length", length.as_str())];
    let body = [json.as_bytes(), &[0x38, 0x40]].concat();
    let reply = server.send("POST", "/v2/models/m/infer", &headers, &body).await;
    assert_eq!((reply.status, &reply.body[reply.body.len() - 2..]), (200, &[0x38, 0x40][..]));
    let about = server.get("/v2/models/m").await.line();
    assert!(about.contains(r#""datatype":"FLOAT8E4M3FN""#), "{about}");
}

#[tokio::test]
async fn other_dialects_say_that_they_do_not() {
    let server = server().await;
    let check = async |path: &str, body: &str, expected: Expect| {
        expected.assert_eq(&server.post(path, body).await.line());
    };
    let tensor = r#"{"inputs":[{"name":"x","datatype":"FLOAT8E4M3FN","shape":[1,2],"data":[1,2]}]}"#;
    check("/v2/models/m/infer", tensor, expect![[r#"400 {"error":"input 'x': FLOAT8E4M3FN is not representable in JSON: send it with the binary tensor extension (parameter 'binary_data_size' and header Inference-Header-Content-Length)"}"#]]).await;
    check("/v2/models/m/generate", r#"{"x":[1,2]}"#, expect![[r#"400 {"error":"'x' of model 'm' is FLOAT8E4M3FN, which Triton's generate extension does not carry: ask by the Open Inference Protocol, with binary data over HTTP or raw contents over gRPC"}"#]]).await;
    check("/v1/models/m:predict", r#"{"instances":[[1,2]]}"#, expect![[r#"400 {"error":"'x' of model 'm' is FLOAT8E4M3FN, which TensorFlow Serving's REST API does not carry: ask by the Open Inference Protocol, with binary data over HTTP or raw contents over gRPC"}"#]]).await;
    check("/predict/m", r#"{"features":[1,2]}"#, expect![[r#"400 {"error":"'x' of model 'm' is FLOAT8E4M3FN, which /predict does not carry: ask by the Open Inference Protocol, with binary data over HTTP or raw contents over gRPC"}"#]]).await;
    check("/predictions/m", "[1,2]", expect![[r#"400 {"code":400,"type":"BadRequestException","message":"'x' of model 'm' is FLOAT8E4M3FN, which TorchServe's inference API does not carry: ask by the Open Inference Protocol, with binary data over HTTP or raw contents over gRPC"}"#]]).await;
    check("/endpoints/m/invocations", r#"{"inputs":[[1,2]]}"#, expect![[r#"400 {"error_code":"BAD_REQUEST","message":"'x' of model 'm' is FLOAT8E4M3FN, which MLflow's scoring protocol does not carry: ask by the Open Inference Protocol, with binary data over HTTP or raw contents over gRPC"}"#]]).await;
}
