//! Hides HTTP/1.1: a pool of connections, one request at a time on each, and the REST surface's paths.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::body::{Body, Payload};
use crate::error::{Error, Result};
use crate::model::Metadata;
use crate::record::{Answer, Outcome};
use crate::transmit::{ModelName, Transmit, give_up};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");
const INFERENCE_HEADER_CONTENT_LENGTH: HeaderName =
    HeaderName::from_static("inference-header-content-length");
const X_REQUEST_TIMEOUT: HeaderName = HeaderName::from_static("x-request-timeout");
/// An error answer's text is kept up to this length.
const MESSAGE_BYTES_MAX: usize = 500;

/// Connections to one server, made as they are needed up to a limit.
#[derive(Clone)]
pub(crate) struct HttpSender {
    pool: Arc<Pool>,
    body: Body,
}

/// Where requests for a model go, with their fixed headers, and the timeout in them.
#[derive(Clone)]
pub(crate) struct HttpHead {
    path: Uri,
    headers: HeaderMap,
    timeout: Option<Duration>,
}

struct Pool {
    address: String,
    host: HeaderValue,
    idle: Mutex<Vec<http1::SendRequest<Full<Bytes>>>>,
    free: Semaphore,
}

// === impl HttpSender ===

impl HttpSender {
    /// Makes the first of at most `connections` connections to `address` (`host:port`).
    pub(crate) async fn connect(address: &str, connections: usize, body: Body) -> Result<HttpSender> {
        let error = |why: String| Error::Connect { address: address.to_owned(), protocol: "HTTP", why };
        let pool = Pool {
            address: address.to_owned(),
            host: HeaderValue::from_str(address).map_err(|_| error("expected host:port".to_owned()))?,
            idle: Mutex::default(),
            free: Semaphore::new(connections),
        };
        let line = pool.open().await.map_err(error)?;
        pool.put_back(line);
        Ok(HttpSender { pool: Arc::new(pool), body })
    }
}

impl Transmit for HttpSender {
    type Head = HttpHead;

    fn head(&self, model: &ModelName, timeout: Option<Duration>) -> Result<HttpHead> {
        let ModelName { name, version } = model;
        let path = match (self.body, version.is_empty()) {
            (Body::Predict, true) => format!("/predict/{name}"),
            (Body::Predict, false) => format!("/predict/{name}/{version}"),
            (_, true) => format!("/v2/models/{name}/infer"),
            (_, false) => format!("/v2/models/{name}/versions/{version}/infer"),
        };
        let mut headers = HeaderMap::new();
        headers.insert(HOST, self.pool.host.clone());
        headers.insert(CONTENT_TYPE, if self.body == Body::Binary { OCTETS } else { JSON });
        if let Some(timeout) = timeout {
            // Whole milliseconds, and never 0, which would mean no timeout.
            let value = HeaderValue::from((timeout.as_millis() as u64).max(1));
            headers.insert(X_REQUEST_TIMEOUT, value);
        }
        Ok(HttpHead { path: uri(&path)?, headers, timeout })
    }

    async fn metadata(&self, model: &ModelName) -> Result<Metadata> {
        let ModelName { name, version } = model;
        let path = match version.as_str() {
            "" => format!("/v2/models/{name}"),
            version => format!("/v2/models/{name}/versions/{version}"),
        };
        let error =
            |why: String| Error::Metadata { model: name.clone(), address: self.pool.address.clone(), why };
        let mut request = Request::new(Full::default());
        *request.uri_mut() = uri(&path)?;
        request.headers_mut().insert(HOST, self.pool.host.clone());
        let (status, body) = self.pool.exchange(request).await.map_err(error)?;
        if !status.is_success() {
            return Err(error(format!("{status}: {}", excerpt(&body))));
        }
        serde_json::from_slice(&body).map_err(|why| error(format!("not model metadata: {why}")))
    }

    async fn transmit(&self, head: &HttpHead, payload: &Payload) -> Answer {
        let mut request = Request::new(Full::new(payload.body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = head.path.clone();
        *request.headers_mut() = head.headers.clone();
        if let Some(length) = payload.json_length {
            request.headers_mut().insert(INFERENCE_HEADER_CONTENT_LENGTH, length.into());
        }
        let exchange = async {
            match self.pool.exchange(request).await {
                Ok((status, _body)) if status.is_success() => Answer::OK,
                Ok((status, body)) => {
                    Answer::failed(outcome(status), format!("{status}: {}", excerpt(&body)))
                }
                Err(why) => Answer::failed(Outcome::Transport, why),
            }
        };
        give_up(head.timeout, exchange).await
    }
}

fn uri(path: &str) -> Result<Uri> {
    path.parse().map_err(|error| Error::Settings(format!("`{path}` is no path for a URL: {error}")))
}

fn excerpt(body: &[u8]) -> String {
    String::from_utf8_lossy(&body[..body.len().min(MESSAGE_BYTES_MAX)]).into_owned()
}

fn outcome(status: StatusCode) -> Outcome {
    match status {
        StatusCode::TOO_MANY_REQUESTS => Outcome::Overloaded,
        StatusCode::GATEWAY_TIMEOUT | StatusCode::REQUEST_TIMEOUT => Outcome::Deadline,
        StatusCode::SERVICE_UNAVAILABLE => Outcome::Unavailable,
        status if status.is_client_error() => Outcome::Invalid,
        _ => Outcome::Internal,
    }
}

// === impl Pool ===

impl Pool {
    /// Sends on a free connection, waiting for one when the limit is reached; a connection on which
    /// anything went wrong, or whose request was given up, is not used again.
    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), String> {
        let permit = self.free.acquire().await.map_err(|error| error.to_string())?;
        let mut line = match self.take_idle().await {
            Some(line) => line,
            None => self.open().await?,
        };
        let response = line.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
        self.put_back(line);
        drop(permit);
        Ok((status, body))
    }

    /// The connection used last, which is the least likely to have been closed for idleness.
    async fn take_idle(&self) -> Option<http1::SendRequest<Full<Bytes>>> {
        while let Some(mut line) = self.pop_idle() {
            // The connection's task may still need a turn to finish with the answer before.
            if line.ready().await.is_ok() {
                return Some(line);
            }
        }
        None
    }

    fn pop_idle(&self) -> Option<http1::SendRequest<Full<Bytes>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn put_back(&self, line: http1::SendRequest<Full<Bytes>>) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    async fn open(&self) -> Result<http1::SendRequest<Full<Bytes>>, String> {
        let socket = TcpStream::connect(&self.address).await.map_err(|error| error.to_string())?;
        socket.set_nodelay(true).map_err(|error| error.to_string())?;
        let (line, connection) =
            http1::handshake(TokioIo::new(socket)).await.map_err(|error| error.to_string())?;
        // The request in flight reports how the connection ended, so its own result says nothing more.
        tokio::spawn(async move { drop(connection.await) });
        Ok(line)
    }
}
