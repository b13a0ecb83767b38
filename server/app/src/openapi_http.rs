//! What the server says of itself: an OpenAPI document, a page to try calls, and at `/` what is served and how to ask.

mod bodies;
mod document;
mod front_page;
mod operations;
mod page;
mod tensors;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::{ACCEPT, HOST, VARY};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::get;
use gristmill_engine::engine::Engine;
use gristmill_engine::request::{ModelInfo, VersionSelector};

use crate::oip_http::{Door, reply};

/// Where the page to try calls is, and the document that it reads.
const DOCS: &str = "/docs";
const DOCUMENT: &str = "/openapi.json";

/// A model as it is described: the version that serves by default, and all that serve.
struct Described {
    model: Arc<ModelInfo>,
    versions: Vec<u64>,
}

pub(crate) fn routes() -> Router<Arc<Door>> {
    Router::new().route("/", get(front_page)).route(DOCUMENT, get(document)).route(DOCS, get(docs))
}

/// HTML for those who accept it, as browsers do, and JSON for everybody else.
async fn front_page(State(door): State<Arc<Door>>, headers: HeaderMap) -> Response {
    let models = described(&door.engine);
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut response = match accepted.flat_map(|value| value.split(',')).any(is_html) {
        true => {
            let host = headers.get(HOST).and_then(|host| host.to_str().ok());
            page::respond(front_page::html(&models, host))
        }
        false => reply::json(StatusCode::OK, &front_page::json(&models)),
    };
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    response
}

async fn document(State(door): State<Arc<Door>>) -> Response {
    reply::json(StatusCode::OK, &document::document(&described(&door.engine)))
}

async fn docs() -> Response {
    page::respond(page::DOCS.to_owned())
}

/// The models that serve, by name.
fn described(engine: &Engine) -> Vec<Described> {
    let mut described: Vec<Described> = Vec::new();
    for model in engine.models() {
        match described.last_mut() {
            Some(last) if last.model.name == model.name => last.versions.push(model.version),
            _ => {
                // The default one; between two looks it may have gone, and then any will do.
                let default = engine.model(&model.name, &VersionSelector::Default);
                let versions = vec![model.version];
                described.push(Described { model: default.unwrap_or(model), versions });
            }
        }
    }
    described
}

/// Whether a media range of `Accept` asks for HTML by name.
fn is_html(range: &str) -> bool {
    let mut parts = range.split(';').map(str::trim);
    let is_html = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("text/html"));
    is_html && !parts.any(|parameter| matches!(parameter, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
}

/// `text` as one segment of a path (RFC 3986: all but unreserved characters as `%XX`).
fn path_segment(text: &str) -> String {
    let mut segment = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                segment.push(char::from(byte));
            }
            _ => segment.push_str(&format!("%{byte:02X}")),
        }
    }
    segment
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_accepts_html() {
        assert!(is_html("text/html") && is_html(" Text/HTML;level=1;q=0.7"));
        for other in ["*/*", "application/json", "text/*", "text/html;q=0", "text/html; q=0.0", ""] {
            assert!(!is_html(other), "{other}");
        }
    }

    #[test]
    fn names_in_paths() {
        assert_eq!(path_segment("a-b_c.d~9"), "a-b_c.d~9");
        assert_eq!(path_segment("a b{c}?é"), "a%20b%7Bc%7D%3F%C3%A9");
    }
}
