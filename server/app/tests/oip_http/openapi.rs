//! What the server says of itself: the document, the first page and the page to try calls.

use std::cell::RefCell;
use std::collections::BTreeSet;

use expect_test::expect;
use gristmill_engine::tensor::DType;
use gristmill_engine::testing::FakeBackend;
use gristmill_engine::tuning::Tuning;
use serde_json::Value;

use crate::server::{Server, batched, by_row, fp32, spec};

/// A name that would be a script where nobody looks.
const HOSTILE: &str = "<script>alert('1')&\"{model}";

fn tuning() -> Tuning {
    Tuning { instances: Some(1), threads: Some(1), batch_rows_max: Some(8), ..Tuning::default() }
}

async fn server() -> Server {
    Server::start_tuned([
        ("classes", 1, classes(), tuning()),
        ("classes", 2, classes(), tuning()),
        ("text", 1, FakeBackend::identity(DType::Bytes, &[1]), tuning()),
        (HOSTILE, 1, FakeBackend::identity(DType::Fp32, &[2]), tuning()),
    ])
    .await
}

/// Two inputs, of one and of two values a row, and scores of two classes.
fn classes() -> FakeBackend {
    let inputs = vec![spec("age", DType::Fp32, &[-1, 1], &[]), spec("sizes", DType::Fp32, &[-1, 2], &[])];
    let outputs = vec![spec("probabilities", DType::Fp32, &[-1, 2], &["no", "yes"])];
    by_row(batched(inputs, outputs), |rows| {
        vec![fp32(&[rows.len(), 2], rows.iter().flat_map(|_| [0.25, 0.75]))]
    })
}

async fn document(server: &Server) -> Value {
    let reply = server.get("/openapi.json").await;
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")));
    reply.json()
}

/// Every path of the router with each method that it takes is in the document, and nothing else is but `/metrics`,
/// which is wired in beside it.
#[tokio::test]
async fn every_route_is_described() {
    let printed = RefCell::new(String::new());
    let extend = |router: axum::Router| {
        *printed.borrow_mut() = format!("{router:?}");
        router
    };
    let models = [("text", 1, FakeBackend::identity(DType::Bytes, &[1]), tuning())];
    let server = Server::start_with(models, None, extend).await;
    // The paths are the only texts in a router that begin so.
    let printed = printed.into_inner();
    let paths: BTreeSet<&str> = printed
        .split('"')
        .skip(1)
        .step_by(2)
        .filter(|text| text.starts_with('/') && !text.contains("__"))
        .collect();
    assert!(paths.len() > 40 && paths.contains("/v2/models/{model}/infer"), "{printed}");

    let mut served = BTreeSet::new();
    for path in paths {
        let concrete = path.replace(['{', '}'], "");
        let reply = server.send("BREW", &concrete, &[], b"").await;
        let allowed = reply.header("allow").unwrap_or_else(|| panic!("{path}: {}", reply.line()));
        let methods = allowed.split(',').filter(|method| *method != "HEAD");
        served.extend(methods.map(|method| format!("{method} {path}")));
    }
    let document = document(&server).await;
    let mut described = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        // What is said of one model is said of all of them too; a verb is no part of a route.
        let template = path.replace("/text", "/{model}");
        let route = template.rsplit_once(':').map_or(template.as_str(), |(route, _)| route);
        let methods = methods.as_object().unwrap().keys();
        described.extend(methods.map(|method| format!("{} {route}", method.to_uppercase())));
    }
    assert!(described.remove("GET /metrics"));
    assert_eq!(served, described, "left: what the router has; right: openapi_http/operations.rs");
}

/// Each example in the document is answered by the server that wrote it.
#[tokio::test]
async fn every_example_is_answered() {
    let server = server().await;
    let document = document(&server).await;
    let mut calls = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let Some(body) = methods["post"]["requestBody"]["content"]["application/json"].get("example") else {
            continue;
        };
        let reply = server
            .send("POST", path, &[("content-type", "application/json")], body.to_string().as_bytes())
            .await;
        assert_eq!(reply.status, 200, "{path} {body}: {}", reply.text());
        calls.push(format!("{path} {body}"));
    }
    expect![[r#"
        /predict/%3Cscript%3Ealert%28%271%27%29%26%22%7Bmodel%7D {"features":[0.5,0.5]}
        /v2/models/%3Cscript%3Ealert%28%271%27%29%26%22%7Bmodel%7D/infer {"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[[0.5,0.5]]}]}
        /v1/models/%3Cscript%3Ealert%28%271%27%29%26%22%7Bmodel%7D:predict {"instances":[[0.5,0.5]]}
        /predictions/%3Cscript%3Ealert%28%271%27%29%26%22%7Bmodel%7D [[0.5,0.5]]
        /endpoints/%3Cscript%3Ealert%28%271%27%29%26%22%7Bmodel%7D/invocations {"instances":[[0.5,0.5]]}
        /models/%3Cscript%3Ealert%28%271%27%29%26%22%7Bmodel%7D/invoke {"instances":[[0.5,0.5]]}
        /predict/classes {"features":{"age":0.5,"sizes":[0.5,0.5]}}
        /v2/models/classes/infer {"inputs":[{"name":"age","datatype":"FP32","shape":[1,1],"data":[[0.5]]},{"name":"sizes","datatype":"FP32","shape":[1,2],"data":[[0.5,0.5]]}]}
        /v1/models/classes:predict {"instances":[{"age":0.5,"sizes":[0.5,0.5]}]}
        /v1/models/classes:classify {"examples":[{"age":0.5,"sizes":[0.5,0.5]}]}
        /predictions/classes [{"age":0.5,"sizes":[0.5,0.5]}]
        /endpoints/classes/invocations {"instances":[{"age":0.5,"sizes":[0.5,0.5]}]}
        /models/classes/invoke {"instances":[{"age":0.5,"sizes":[0.5,0.5]}]}
        /predict/text {"features":["text"]}
        /v2/models/text/infer {"inputs":[{"name":"x","datatype":"BYTES","shape":[1,1],"data":[["text"]]}]}
        /v1/models/text:predict {"instances":[["text"]]}
        /predictions/text [["text"]]
        /endpoints/text/invocations {"instances":[["text"]]}
        /models/text/invoke {"instances":[["text"]]}"#]].assert_eq(&calls.join("\n"));
}

#[tokio::test]
async fn a_model_is_described_with_its_own_tensors() {
    let server = server().await;
    let document = document(&server).await;
    let infer = &document["paths"]["/v2/models/classes/infer"]["post"];
    expect!["Version 2 of model classes. Inputs: age FP32 [?, 1], sizes FP32 [?, 2]. Outputs: probabilities FP32 [?, 2]."].assert_eq(infer["description"].as_str().unwrap());
    let schema = &document["paths"]["/predict/classes"]["post"]["requestBody"]["content"]["application/json"]
        ["schema"];
    expect![[r#"{"type":"array","items":{"type":"object","properties":{"age":{"anyOf":[{"type":"number"},{"type":"array","items":{"type":"number"},"minItems":1,"maxItems":1}]},"sizes":{"type":"array","items":{"type":"number"},"minItems":2,"maxItems":2}},"required":["age","sizes"]},"minItems":1}"#]].assert_eq(&schema["anyOf"][1]["properties"]["instances"].to_string());
    let models = &document["paths"]["/v2/models/{model}"]["get"]["parameters"][0]["schema"]["examples"];
    assert_eq!(models, &serde_json::json!([HOSTILE, "classes", "text"]));
}

/// `/` for programs.
#[tokio::test]
async fn the_first_page_as_json() {
    let server = server().await;
    let reply = server.get("/").await;
    assert_eq!((reply.status, reply.header("vary")), (200, Some("accept")));
    let page = reply.json();
    assert_eq!(
        (&page["name"], &page["docs"], &page["openapi"]),
        (&"gristmill".into(), &"/docs".into(), &"/openapi.json".into())
    );
    expect![[r#"{"name":"classes","default_version":"2","versions":["1","2"],"platform":"fake","inputs":[{"name":"age","datatype":"FP32","shape":[-1,1]},{"name":"sizes","datatype":"FP32","shape":[-1,2]}],"outputs":[{"name":"probabilities","datatype":"FP32","shape":[-1,2]}],"call":{"method":"POST","path":"/v2/models/classes/infer","body":{"inputs":[{"name":"age","datatype":"FP32","shape":[1,1],"data":[[0.5]]},{"name":"sizes","datatype":"FP32","shape":[1,2],"data":[[0.5,0.5]]}]}}}"#]].assert_eq(&page["models"][1].to_string());
    expect![[r#"{"method":"GET","path":"/","dialect":"About this server","summary":"What is served and how to ask it, as HTML for people and JSON for programs"}"#]].assert_eq(&page["routes"][0].to_string());
    let call = &page["models"][0]["call"];
    let reply = server.post(call["path"].as_str().unwrap(), &call["body"].to_string()).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
}

/// `/` for people: nothing that a model is called becomes markup, nor does what a client says of its host.
#[tokio::test]
async fn the_first_page_as_html() {
    let server = server().await;
    let accept = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");
    let reply = server.send("GET", "/", &[accept], b"").await;
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let policy = reply.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'none'; style-src 'sha256-"), "{policy}");
    let html = reply.text();
    assert!(!html.contains("<script"), "{html}");
    assert!(html.contains("<h3>&lt;script&gt;alert(&#39;1&#39;)&amp;&quot;{model}</h3>"), "{html}");
    assert!(html.contains("curl -s test/predict/classes -d "), "{html}");
    assert!(html.contains("<code>/v1/models/{model}:predict</code>"), "{html}");

    let request = b"GET / HTTP/1.1\r\nhost: a$(b)\r\naccept: text/html\r\nconnection: close\r\n\r\n";
    let reply = String::from_utf8(server.exchange(request).await).unwrap();
    assert!(
        reply.contains("curl -s 127.0.0.1:8000/predict/classes") || reply.starts_with("HTTP/1.1 400"),
        "{reply}"
    );
}

#[tokio::test]
async fn the_page_to_try_calls() {
    let server = server().await;
    let reply = server.get("/docs").await;
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let policy = reply.header("content-security-policy").unwrap();
    assert!(policy.contains("script-src 'sha256-") && policy.contains("connect-src 'self'"), "{policy}");
    assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
}
