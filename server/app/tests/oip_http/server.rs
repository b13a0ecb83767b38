//! A real server on a port of its own over made-up models, and a client that writes what it is told.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use gristmill::gateway::Gateway;
use gristmill::oip_http::{HttpOptions, router, serve};
use gristmill_engine::engine::Engine;
use gristmill_engine::reconcile::Reconciler;
use gristmill_engine::tensor::{BatchAxis, DType, Dim, Signature, Tensor, TensorSpec};
use gristmill_engine::testing::{self, FakeBackend, Gate};
use gristmill_engine::tuning::Tuning;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) engine: Arc<Engine>,
    pub(crate) stop: CancellationToken,
    pub(crate) served: JoinHandle<std::io::Result<()>>,
    /// Ends its workers when it is dropped.
    _reconciler: Reconciler,
}

/// A response as it came.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// The body limit that tests run with.
pub(crate) const BODY_BYTES_MAX: usize = 100_000;

impl Server {
    pub(crate) async fn start(models: impl IntoIterator<Item = (&'static str, FakeBackend)>) -> Server {
        let tuning =
            || Tuning { instances: Some(1), threads: Some(1), batch_rows_max: Some(8), ..Tuning::default() };
        Server::start_tuned(models.into_iter().map(|(name, backend)| (name, 1, backend, tuning()))).await
    }

    pub(crate) async fn start_tuned(
        models: impl IntoIterator<Item = (&'static str, u64, FakeBackend, Tuning)>,
    ) -> Server {
        Server::start_with(models, None, |router| router).await
    }

    /// With a default model, and what else is done to the router.
    pub(crate) async fn start_with(
        models: impl IntoIterator<Item = (&'static str, u64, FakeBackend, Tuning)>,
        default_model: Option<&str>,
        extend: impl Fn(Router) -> Router,
    ) -> Server {
        let (engine, reconciler) = testing::engine(models);
        let engine = Arc::new(engine);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let gateway = Arc::new(Gateway::new(Arc::clone(&engine)));
        let options = HttpOptions {
            body_bytes_max: BODY_BYTES_MAX,
            default_model: default_model.map(str::to_owned),
            ..HttpOptions::default()
        };
        let router = extend(router(gateway, None, options));
        let served = tokio::spawn(serve(listener, router, stop.clone().cancelled_owned()));
        Server { address, engine, stop, served, _reconciler: reconciler }
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends `request` on a connection of its own and reads until the server closes it.
    pub(crate) async fn exchange(&self, request: &[u8]) -> Vec<u8> {
        let mut stream = self.connect().await;
        stream.write_all(request).await.unwrap();
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).await.unwrap();
        reply
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Reply {
        Reply::parse(&self.exchange(&request(method, path, headers, body)).await)
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], b"").await
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> Reply {
        self.send("POST", path, &[], body.as_bytes()).await
    }
}

/// A request that asks for its connection to be closed.
pub(crate) fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n");
    for (name, value) in headers {
        write!(head, "{name}: {value}\r\n").unwrap();
    }
    write!(head, "content-length: {}\r\n\r\n", body.len()).unwrap();
    [head.as_bytes(), body].concat()
}

impl Reply {
    /// The one response in `bytes`, whose `Content-Length` must be right.
    pub(crate) fn parse(bytes: &[u8]) -> Reply {
        let (reply, rest) = Reply::parse_first(bytes);
        assert!(rest.is_empty(), "bytes behind the response: {:?}", String::from_utf8_lossy(rest));
        reply
    }

    pub(crate) fn parse_first(bytes: &[u8]) -> (Reply, &[u8]) {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a whole head");
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let reply = Reply { status, headers, body: Vec::new() };
        let length: usize = reply.header("content-length").expect("a length").parse().unwrap();
        let (body, rest) = bytes[end + 4..].split_at(length);
        (Reply { body: body.to_vec(), ..reply }, rest)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// Status and body in one line, for snapshots.
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.status, self.text())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// A tensor of a made-up model; −1 is a dynamic dimension.
pub(crate) fn spec(name: &str, dtype: DType, shape: &[i64], labels: &[&str]) -> TensorSpec {
    let dim = |&size: &i64| usize::try_from(size).map_or(Dim::Dynamic(None), Dim::Fixed);
    TensorSpec {
        name: name.into(),
        dtype,
        shape: Some(shape.iter().map(dim).collect()),
        optional: false,
        labels: labels.iter().map(ToString::to_string).collect(),
    }
}

pub(crate) fn batched(inputs: Vec<TensorSpec>, outputs: Vec<TensorSpec>) -> Signature {
    Signature { inputs, outputs, batch: BatchAxis::Rows }
}

/// FP32 inputs in, with each row's values of all inputs together given to `row`.
pub(crate) fn by_row(
    signature: Signature,
    outputs: impl Fn(&[Vec<f32>]) -> Vec<Tensor> + Send + Sync + 'static,
) -> FakeBackend {
    FakeBackend::new(signature, move |inputs| {
        let rows = inputs[0].as_ref().unwrap().shape[0];
        let values = |row: usize| {
            let of_input = |input: &Option<gristmill_engine::backend::InputView<'_>>| {
                let data = input.as_ref().unwrap().data;
                let size = data.len() / rows;
                data[row * size..(row + 1) * size]
                    .as_chunks::<4>()
                    .0
                    .iter()
                    .map(|&b| f32::from_le_bytes(b))
                    .collect()
            };
            inputs.iter().map(of_input).collect::<Vec<Vec<f32>>>().concat()
        };
        Ok(outputs(&(0..rows).map(values).collect::<Vec<_>>()))
    })
}

pub(crate) fn fp32(shape: &[usize], values: impl IntoIterator<Item = f32>) -> Tensor {
    let data: Vec<u8> = values.into_iter().flat_map(f32::to_le_bytes).collect();
    Tensor::new(DType::Fp32, shape, data.into()).unwrap()
}

pub(crate) fn int64(shape: &[usize], values: impl IntoIterator<Item = i64>) -> Tensor {
    let data: Vec<u8> = values.into_iter().flat_map(i64::to_le_bytes).collect();
    Tensor::new(DType::Int64, shape, data.into()).unwrap()
}

/// An identity model on FP32 `[rows, 1]` whose runs wait at `gate`.
pub(crate) fn gated(gate: &Arc<Gate>) -> FakeBackend {
    let gate = Arc::clone(gate);
    FakeBackend::checked_identity(DType::Fp32, &[1], move |_| {
        gate.pass();
        Ok(())
    })
}
