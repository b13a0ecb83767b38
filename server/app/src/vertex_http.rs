//! Vertex AI's contract with containers: where to listen and which paths to answer, by environment variables.

use std::env;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::uri::PathAndQuery;
use axum::http::{Method, Uri};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::post;
use gristmill_engine::error::InferError;
use smallvec::smallvec;

use crate::codec::json::Encoded;
use crate::gateway::Call;
use crate::oip_http::reply::{self, Refusal};
use crate::oip_http::v2::{deadline, header_timeout};
use crate::oip_http::{Door, body};
use crate::tensorflow_http::{Format, decode_predict, encode_predictions};
use crate::traces::Protocol;

/// Its name in messages.
const DIALECT: &str = "Vertex AI's protocol";

/// What Vertex AI tells a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VertexAi {
    pub port: u16,
    /// Paths that Vertex AI asks; `None` where it does not say.
    pub health_route: Option<String>,
    pub predict_route: Option<String>,
}

/// Where the routes below are without Vertex AI's own names for them.
const PREDICT: &str = "/vertex";
const PING: &str = "/ping";

/// Routes of ours that name a model and read and write `instances` and `predictions`: Vertex AI may ask them as they are.
const OF_A_MODEL: &str = "/v1/models/";

// === impl VertexAi ===

impl VertexAi {
    /// What the variables `AIP_HTTP_PORT`, `AIP_HEALTH_ROUTE` and `AIP_PREDICT_ROUTE` say; `None` without a port.
    /// An empty one is not set.
    ///
    /// # Errors
    /// A port that is none, or a route that is no path.
    pub fn from_environment() -> anyhow::Result<Option<VertexAi>> {
        VertexAi::from_variables(|name| env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> anyhow::Result<Option<VertexAi>> {
        let Some(port) = variable("AIP_HTTP_PORT") else { return Ok(None) };
        let port = port.parse().with_context(|| format!("AIP_HTTP_PORT must be a port, got '{port}'"))?;
        let route = |name: &str| match variable(name) {
            Some(path) if !path.starts_with('/') => {
                Err(anyhow::anyhow!("{name} must be a path such as /predict, got '{path}'"))
            }
            path => Ok(path),
        };
        Ok(Some(VertexAi {
            port,
            health_route: route("AIP_HEALTH_ROUTE")?,
            predict_route: route("AIP_PREDICT_ROUTE")?,
        }))
    }

    /// `router` with Vertex AI's paths besides.
    pub fn extend(&self, router: Router) -> Router {
        let rename = {
            let this = Arc::new(self.clone());
            move |request: Request, next: Next| {
                let this = Arc::clone(&this);
                async move { next.run(this.renamed(request)).await }
            }
        };
        // Around the router and not in it: its routes are matched by the new path.
        Router::new().fallback_service(router).layer(middleware::from_fn(rename))
    }

    fn renamed(&self, mut request: Request) -> Request {
        let path = request.uri().path();
        let new = match *request.method() {
            Method::GET if self.health_route.as_deref() == Some(path) => PING,
            Method::POST if self.predict_route.as_deref() == Some(path) && !path.starts_with(OF_A_MODEL) => {
                PREDICT
            }
            _ => return request,
        };
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.path_and_query = Some(PathAndQuery::from_static(new));
        *request.uri_mut() = Uri::from_parts(parts).unwrap_or_else(|_| Uri::from_static(new));
        request
    }
}

pub(crate) fn routes() -> Router<Arc<Door>> {
    Router::new().route(PREDICT, post(predict))
}

/// `{"instances": […], "parameters": …}` in, `{"predictions": […]}` with an entry for each out; asks the default
/// model.
async fn predict(State(door): State<Arc<Door>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let mut call = door.gateway.begin(&parts.headers, Protocol::Http);
    let answer = answer(&door, &parts, body, &mut call).await;
    reply::annotated(answer, &mut call)
}

async fn answer(door: &Door, parts: &Parts, body: Body, call: &mut Call<'_>) -> Result<Response, Refusal> {
    let arrival = Instant::now();
    let deadline = deadline(arrival, header_timeout(&parts.headers)?);
    let body = body::read(&parts.headers, body, &door.options).await?;
    let target =
        door.default_target("have AIP_PREDICT_ROUTE name one, such as /v1/models/{model}:predict")?;
    let read = |model: &_| match decode_predict(model, &body)? {
        (inputs, Format::Rows) => Ok((inputs, ())),
        (_, Format::Columns) => Err(InferError::InvalidInput(
            "the request has 'inputs': expected 'instances', a list of rows".into(),
        )),
    };
    let (response, ()) = call.ask(DIALECT, &target, deadline, read).await?;
    let json = encode_predictions(Format::Rows, &response)?;
    Ok(reply::encoded(&parts.headers, Encoded { parts: smallvec![json.into()], header_length: None }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> anyhow::Result<Option<VertexAi>> {
        let variable = |name: &str| variables.iter().find(|(known, _)| *known == name);
        VertexAi::from_variables(|name| variable(name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn variables() {
        assert_eq!(read(&[("AIP_PREDICT_ROUTE", "/p")]).unwrap(), None);
        let all = [("AIP_HTTP_PORT", "8080"), ("AIP_HEALTH_ROUTE", "/h"), ("AIP_PREDICT_ROUTE", "/p")];
        let (health_route, predict_route) = (Some("/h".into()), Some("/p".into()));
        assert_eq!(read(&all).unwrap(), Some(VertexAi { port: 8080, health_route, predict_route }));
        let error = |variables| read(variables).unwrap_err().to_string();
        assert_eq!(error(&[("AIP_HTTP_PORT", "http")]), "AIP_HTTP_PORT must be a port, got 'http'");
        assert_eq!(
            error(&[("AIP_HTTP_PORT", "1"), ("AIP_HEALTH_ROUTE", "health")]),
            "AIP_HEALTH_ROUTE must be a path such as /predict, got 'health'"
        );
    }

    #[test]
    fn paths_are_renamed() {
        let vertex = VertexAi { port: 1, health_route: Some("/h".into()), predict_route: Some("/p".into()) };
        let renamed = |vertex: &VertexAi, method: Method, uri: &str| {
            let request = Request::builder().method(method).uri(uri).body(Body::empty()).unwrap();
            vertex.renamed(request).uri().to_string()
        };
        assert_eq!(renamed(&vertex, Method::GET, "/h"), "/ping");
        assert_eq!(renamed(&vertex, Method::POST, "http://host/p?x=1"), "http://host/vertex");
        assert_eq!(renamed(&vertex, Method::GET, "/p"), "/p");
        assert_eq!(renamed(&vertex, Method::POST, "/predict/m"), "/predict/m");
        let path = "/v1/models/m:predict";
        let vertex = VertexAi { predict_route: Some(path.into()), ..vertex };
        assert_eq!(renamed(&vertex, Method::POST, path), path);
    }
}
