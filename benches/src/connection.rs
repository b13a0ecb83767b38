//! One gRPC connection that keeps a number of equal calls in flight, and times each.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use gristmill_proto::inference::{ModelInferRequest, ModelInferResponse};
use prost::Message;

use crate::frames::{self, ACK, END_STREAM, FRAME_BYTES_MAX, GRPC_HEADER_BYTES, HEADER_BYTES, Header, Kind};

/// Calls whose streams may be open at the same time, at most. A power of two.
const CALLS_MAX: usize = 1 << 12;
/// The servers' windows for a call have this many bytes.
const CALL_BYTES_MAX: usize = 4 << 20;
/// How many answer bytes go by before the server is told that it may send more.
const WINDOW_STEP_BYTES: u32 = 1 << 20;
/// A server that says nothing for this long has failed.
const SILENCE_MAX: Duration = Duration::from_secs(20);

pub struct Connection {
    socket: TcpStream,
    authority: SocketAddr,
    message: Vec<u8>,
    received: Vec<u8>,
    to_send: Vec<u8>,
    /// Of the next call.
    stream: u32,
    /// How much the server lets us send on this connection.
    send_window: i64,
    /// Answer bytes that the server does not yet know to be read.
    unacknowledged: u32,
    calls: Vec<Call>,
    open: usize,
    /// Calls that are due and wait for the window.
    due: usize,
    /// Every answer has this many bytes; known after the first.
    answer_bytes: Option<usize>,
    latencies: Vec<Duration>,
}

/// An open call, at its stream's place.
#[derive(Clone, Copy)]
struct Call {
    sent: Instant,
    answer_bytes: usize,
}

// === impl Connection ===

impl Connection {
    /// Connects and makes one call, whose answer is given back for the caller to check.
    ///
    /// # Errors
    /// The server is not there, does not speak gRPC, or refuses the request.
    pub fn open(
        address: SocketAddr,
        request: &ModelInferRequest,
    ) -> anyhow::Result<(Connection, ModelInferResponse)> {
        let message = encode(request)?;
        let socket = TcpStream::connect(address).with_context(|| format!("no server at {address}"))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(SILENCE_MAX))?;
        let mut connection = Connection {
            socket,
            authority: address,
            message,
            received: Vec::with_capacity(1 << 18),
            to_send: Vec::new(),
            stream: 1,
            send_window: frames::INITIAL_WINDOW_BYTES.into(),
            unacknowledged: 0,
            calls: vec![Call { sent: Instant::now(), answer_bytes: 0 }; CALLS_MAX],
            open: 0,
            due: 1,
            answer_bytes: None,
            latencies: Vec::new(),
        };
        frames::write_opening(&mut connection.to_send);
        let mut answer = Vec::new();
        connection.send_due()?;
        while connection.open + connection.due > 0 {
            connection.receive(|data| answer.extend_from_slice(data))?;
            connection.send_due()?;
        }
        ensure!(answer.len() >= 5, "the server refused the request: look at its log, or ask it with grpcurl");
        connection.answer_bytes = Some(answer.len());
        let answer =
            ModelInferResponse::decode(&answer[5..]).context("the answer is no ModelInferResponse")?;
        Ok((connection, answer))
    }

    /// Keeps `in_flight` calls open until `end`, then waits for those that are. Gives the latency of each
    /// call, from before its bytes are written until the bytes of its answer are read.
    ///
    /// # Errors
    /// A call fails or the connection breaks.
    pub fn run(&mut self, in_flight: usize, end: Instant) -> anyhow::Result<Vec<Duration>> {
        ensure!(in_flight <= CALLS_MAX / 2, "at most {} calls in flight on a connection", CALLS_MAX / 2);
        self.latencies = Vec::with_capacity(1 << 20);
        self.due = in_flight;
        self.send_due()?;
        while self.open > 0 {
            let answered = self.receive(|_| {})?;
            if Instant::now() < end {
                self.due += answered;
            } else {
                self.due = 0;
            }
            self.send_due()?;
        }
        Ok(std::mem::take(&mut self.latencies))
    }

    /// Makes one call and waits for its answer.
    ///
    /// # Errors
    /// The call fails or the connection breaks.
    pub fn call(&mut self) -> anyhow::Result<()> {
        self.send()?;
        self.wait()
    }

    /// Makes one call and does not wait.
    ///
    /// # Errors
    /// The connection breaks.
    pub fn send(&mut self) -> anyhow::Result<()> {
        self.due += 1;
        self.send_due()
    }

    /// Makes one call with another message and does not wait: nobody may look at its answer.
    ///
    /// # Errors
    /// The connection breaks, or the message is too long for one call.
    pub fn send_other(&mut self, request: &ModelInferRequest) -> anyhow::Result<()> {
        let own = std::mem::replace(&mut self.message, encode(request)?);
        let sent = self.send();
        self.message = own;
        sent
    }

    /// Waits for the answers of all open calls.
    ///
    /// # Errors
    /// A call fails or the connection breaks.
    pub fn wait(&mut self) -> anyhow::Result<()> {
        while self.open > 0 {
            self.receive(|_| {})?;
            self.send_due()?;
        }
        self.latencies.clear();
        Ok(())
    }

    /// Whether a call waits for its answer, as far as is known without waiting.
    ///
    /// # Errors
    /// The connection breaks.
    pub fn is_waiting(&self) -> anyhow::Result<bool> {
        self.socket.set_nonblocking(true)?;
        let has_bytes = self.socket.peek(&mut [0]).is_ok();
        self.socket.set_nonblocking(false)?;
        Ok(self.open > 0 && !has_bytes)
    }

    /// Takes the latest call back, which nobody waits for from then on.
    ///
    /// # Errors
    /// The connection breaks.
    pub fn cancel(&mut self) -> anyhow::Result<()> {
        frames::write_cancel(self.stream - 2, &mut self.to_send);
        self.open -= 1;
        self.flush()
    }

    /// Writes the calls that are due, as far as the window allows, and whatever else waits to be sent.
    fn send_due(&mut self) -> anyhow::Result<()> {
        let data_bytes = (self.message.len() + GRPC_HEADER_BYTES) as i64;
        while self.due > 0 && self.send_window >= data_bytes {
            frames::write_call(self.stream, self.authority, &self.message, &mut self.to_send);
            self.calls[place(self.stream)] = Call { sent: Instant::now(), answer_bytes: 0 };
            self.send_window -= data_bytes;
            self.stream += 2;
            self.due -= 1;
            self.open += 1;
        }
        self.flush()
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        if !self.to_send.is_empty() {
            self.socket.write_all(&self.to_send)?;
            self.to_send.clear();
        }
        Ok(())
    }

    /// Waits for bytes and reads all frames in them; gives the number of calls that were answered.
    fn receive(&mut self, mut on_data: impl FnMut(&[u8])) -> anyhow::Result<usize> {
        let kept = self.received.len();
        self.received.resize(self.received.capacity(), 0);
        let count = self.socket.read(&mut self.received[kept..]).context("waiting for an answer")?;
        ensure!(count > 0, "the server closed the connection");
        let now = Instant::now();
        let received = std::mem::take(&mut self.received);
        let mut rest = &received[..kept + count];
        let mut answered = 0;
        while let Some((header, after)) = rest.split_first_chunk::<HEADER_BYTES>() {
            let header = Header::read(header);
            ensure!(
                header.length <= FRAME_BYTES_MAX,
                "a frame of {} bytes, 16384 are allowed",
                header.length
            );
            let Some((payload, after)) = after.split_at_checked(header.length) else { break };
            answered += usize::from(self.frame(header, payload, now, &mut on_data)?);
            rest = after;
        }
        let left = rest.len();
        self.received = received;
        self.received.copy_within(kept + count - left..kept + count, 0);
        self.received.truncate(left);
        Ok(answered)
    }

    /// Acts on one frame; true when it ends a call.
    fn frame(
        &mut self,
        header: Header,
        payload: &[u8],
        now: Instant,
        on_data: &mut impl FnMut(&[u8]),
    ) -> anyhow::Result<bool> {
        match header.kind {
            Kind::Data => {
                on_data(payload);
                self.calls[place(header.stream)].answer_bytes += payload.len();
                self.unacknowledged += payload.len() as u32;
                if self.unacknowledged >= WINDOW_STEP_BYTES {
                    frames::write_window_update(self.unacknowledged, &mut self.to_send);
                    self.unacknowledged = 0;
                }
                ensure!(header.flags & END_STREAM == 0, "an answer without a status");
            }
            // An answer ends with its trailers. One that was refused has no data before them.
            Kind::Headers if header.flags & END_STREAM != 0 => {
                let call = self.calls[place(header.stream)];
                if let Some(expected) = self.answer_bytes {
                    ensure!(
                        call.answer_bytes == expected,
                        "an answer has {} bytes, the first had {expected}",
                        call.answer_bytes
                    );
                }
                self.latencies.push(now - call.sent);
                self.open -= 1;
                return Ok(true);
            }
            Kind::Headers | Kind::Other => {}
            Kind::Settings if header.flags & ACK != 0 => {}
            Kind::Settings => frames::write_settings_ack(&mut self.to_send),
            Kind::Ping if header.flags & ACK != 0 => {}
            Kind::Ping => frames::write_pong(payload, &mut self.to_send),
            Kind::WindowUpdate if header.stream != 0 => {}
            Kind::WindowUpdate => {
                let increment: [u8; 4] = payload.try_into().context("a window update has four bytes")?;
                self.send_window += i64::from(u32::from_be_bytes(increment));
            }
            Kind::ResetStream => bail!("the server reset a call"),
            Kind::GoAway => bail!("the server is going away"),
        }
        Ok(false)
    }
}

fn encode(request: &ModelInferRequest) -> anyhow::Result<Vec<u8>> {
    let message = request.encode_to_vec();
    ensure!(
        message.len() + GRPC_HEADER_BYTES <= CALL_BYTES_MAX,
        "a request of {} bytes does not fit the window of one call",
        message.len()
    );
    Ok(message)
}

/// Streams of a client have odd numbers; the open ones are near each other.
fn place(stream: u32) -> usize {
    (stream as usize >> 1) % CALLS_MAX
}

#[cfg(test)]
mod tests {
    use gristmill_engine::tensor::DType;
    use gristmill_engine::testing::{FakeBackend, engine};
    use gristmill_engine::tuning::Tuning;

    use super::*;
    use crate::model::CONVOLUTIONS;

    /// A real server, and messages so large that the connection's window runs out.
    #[test]
    fn calls_are_answered() {
        let backend = FakeBackend::identity(DType::Fp32, CONVOLUTIONS.row);
        let (engine, reconciler) = engine([(CONVOLUTIONS.name, 1, backend, Tuning::default())]);
        let tokio = tokio::runtime::Runtime::new().unwrap();
        let listener = tokio.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let options = gristmill::oip_grpc::GrpcOptions::default();
        let forever = std::future::pending();
        let gateway = gristmill::gateway::Gateway::new(engine.into());
        tokio.spawn(gristmill::oip_grpc::serve(listener, gateway.into(), None, options, forever));

        let request = CONVOLUTIONS.request();
        let (mut connection, answer) = Connection::open(address, &request).unwrap();
        assert_eq!(answer.raw_output_contents, request.raw_input_contents);
        let latencies = connection.run(64, Instant::now() + Duration::from_millis(50)).unwrap();
        assert!(latencies.len() >= 64, "{} answers", latencies.len());
        assert_eq!((connection.open, connection.due), (0, 0));
        connection.call().unwrap();
        assert_eq!((connection.open, connection.due, connection.latencies.len()), (0, 0, 0));

        let unknown = ModelInferRequest { model_name: "unknown".into(), ..request };
        let error = Connection::open(address, &unknown).err().unwrap().to_string();
        assert!(error.contains("refused the request"), "{error}");
        drop(tokio);
        reconciler.shut_down();
    }
}
