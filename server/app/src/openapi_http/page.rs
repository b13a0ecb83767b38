//! Pages that load nothing from elsewhere and run no script but their own: the headers say so, by its hash.

use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

/// The page that reads the OpenAPI document and tries calls.
pub(super) const DOCS: &str = include_str!("docs.html");

/// The response whose body is `html`.
pub(super) fn respond(html: String) -> Response {
    let policy =
        HeaderValue::from_str(&policy(&html)).expect("hashes in base64 are visible ASCII; this is a bug");
    let mut response = Response::new(Body::from(html));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CONTENT_SECURITY_POLICY, policy);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// `text` in HTML, between tags or in a quoted attribute.
pub(super) fn escape(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            _ => html.push(character),
        }
    }
    html
}

/// Only the script and the style that are in the page, and calls to this server (Content Security Policy, level 3).
fn policy(html: &str) -> String {
    let source = |tag: &str| match inside(html, tag) {
        Some(text) => format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text))),
        None => "'none'".to_owned(),
    };
    format!(
        "default-src 'none'; script-src {}; style-src {}; connect-src 'self'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'",
        source("script"),
        source("style")
    )
}

/// What stands in the first element called `tag`.
fn inside<'a>(html: &'a str, tag: &str) -> Option<&'a str> {
    let (_, rest) = html.split_once(&format!("<{tag}>"))?;
    Some(rest.split_once(&format!("</{tag}>"))?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped() {
        assert_eq!(escape(r#"<b a="1">&'"#), "&lt;b a=&quot;1&quot;&gt;&amp;&#39;");
    }

    #[test]
    fn the_docs_load_nothing() {
        for foreign in
            ["http:", "https:", "src=", "<link", "@import", "url(", "innerHTML", "eval(", " style="]
        {
            assert!(!DOCS.contains(foreign), "{foreign}");
        }
        assert!(inside(DOCS, "script").is_some() && inside(DOCS, "style").is_some());
        assert_eq!(DOCS.matches("<script").count(), 1);
    }

    #[test]
    fn only_what_is_in_the_page_may_run() {
        // echo -n 'x' | openssl dgst -sha256 -binary | base64
        let policy = policy("<script>x</script>");
        assert!(
            policy.contains("script-src 'sha256-LXEWQrcmsEQBYnyp+6wy9chTD7GQPMTbAiWHF5IaSIE='"),
            "{policy}"
        );
        assert!(policy.contains("style-src 'none'"), "{policy}");
    }
}
