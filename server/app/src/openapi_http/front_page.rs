//! What `/` answers: the models with a call for each, and every route.

use std::fmt::Write as _;

use gristmill_engine::tensor::TensorSpec;
use serde_json::{Value, json};

use super::operations::{OPERATIONS, Takes};
use super::page::escape;
use super::{DOCS, DOCUMENT, Described, path_segment, tensors};

/// Where a server is that does not know better.
const HOST: &str = "127.0.0.1:8000";

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;\
    color:#222;background:#fff}pre,code{font:14px/1.5 ui-monospace,monospace}pre{background:#f3f3f1;padding:.75rem;\
    overflow-x:auto}table{border-collapse:collapse}td{padding:.15rem 1rem .15rem 0;vertical-align:top}\
    @media (prefers-color-scheme:dark){body{color:#ddd;background:#181818}pre{background:#262626}a{color:#8bf}}";

pub(super) fn json(models: &[Described]) -> Value {
    let tensor = |spec: &TensorSpec| json!({"name": spec.name, "datatype": spec.dtype.name(), "shape": spec.protocol_shape()});
    let model = |Described { model, versions }: &Described| {
        json!({
            "name": model.name,
            "default_version": model.version.to_string(),
            "versions": versions.iter().map(ToString::to_string).collect::<Value>(),
            "platform": model.platform,
            "inputs": model.signature.inputs.iter().map(tensor).collect::<Value>(),
            "outputs": model.signature.outputs.iter().map(tensor).collect::<Value>(),
            "call": tensors::example(model, Takes::Tensors).map(|body| json!({
                "method": "POST",
                "path": format!("/v2/models/{}/infer", path_segment(&model.name)),
                "body": body,
            })),
        })
    };
    let route = |operation: &super::operations::Operation| {
        json!({
            "method": operation.method,
            "path": operation.path,
            "dialect": operation.dialect,
            "summary": operation.summary,
        })
    };
    json!({
        // What KServe's client asks for, by V1, to know that a server lives.
        "status": "alive",
        "name": "gristmill",
        "version": env!("CARGO_PKG_VERSION"),
        "openapi": DOCUMENT,
        "docs": DOCS,
        "models": models.iter().map(model).collect::<Value>(),
        "routes": OPERATIONS.iter().map(route).collect::<Value>(),
    })
}

/// For a reader who asked `host`, as far as that is the name of one.
pub(super) fn html(models: &[Described], host: Option<&str>) -> String {
    let host = host.filter(|host| is_host(host)).unwrap_or(HOST);
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>Gristmill</title><style>{STYLE}</style></head>\
         <body>\n<h1>Gristmill {}</h1>\n<p><a href=\"docs\">Try calls</a> · <a href=\"openapi.json\">OpenAPI</a> · \
         <a href=\"health\">Health</a> · <a href=\"metrics\">Metrics</a></p>\n<h2>Models</h2>\n",
        env!("CARGO_PKG_VERSION")
    );
    if models.is_empty() {
        html += "<p>None serves now.</p>\n";
    }
    for described in models {
        write_model(described, host, &mut html);
    }
    html += "<h2>Routes</h2>\n";
    let mut dialect = "";
    for operation in OPERATIONS {
        if operation.dialect != dialect {
            html += if dialect.is_empty() { "" } else { "</table>\n" };
            dialect = operation.dialect;
            write(&mut html, format_args!("<h3>{}</h3>\n<table>\n", escape(dialect)));
        }
        let (path, summary) = (escape(operation.path), escape(operation.summary));
        let method = operation.method;
        write(
            &mut html,
            format_args!("<tr><td>{method}</td><td><code>{path}</code></td><td>{summary}</td></tr>\n"),
        );
    }
    html += "</table>\n</body></html>\n";
    html
}

fn write_model(Described { model, versions }: &Described, host: &str, html: &mut String) {
    let list = |specs: &[TensorSpec]| {
        let specs: Vec<String> =
            specs.iter().map(|spec| format!("<code>{}</code>", escape(&spec.to_string()))).collect();
        specs.join(", ")
    };
    let versions: Vec<String> = versions.iter().map(ToString::to_string).collect();
    write(
        html,
        format_args!(
            "<h3>{}</h3>\n<p>Serves {} by default, of {}. Takes {}; gives {}.</p>\n",
            escape(&model.name),
            model.version,
            versions.join(", "),
            list(&model.signature.inputs),
            list(&model.signature.outputs)
        ),
    );
    if let Some(body) = tensors::example(model, Takes::Features) {
        // Neither a quote nor anything else that a shell looks at is in an encoded path; in JSON there may be quotes.
        let body = body.to_string().replace('\'', "'\\''");
        let path = path_segment(&model.name);
        let call = format!("curl -s {host}/predict/{path} -d '{body}'");
        write(html, format_args!("<pre>{}</pre>\n", escape(&call)));
    }
}

fn write(html: &mut String, text: std::fmt::Arguments<'_>) {
    html.write_fmt(text).expect("writing to a string does not fail; this is a bug");
}

/// A client can claim any; what is shown as a command must be nothing but a host and a port.
fn is_host(host: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
    !host.is_empty() && host.bytes().all(is_plain)
}
