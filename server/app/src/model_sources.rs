//! From where models may be registered besides the repository: a directory, and URLs that begin as the operator allows.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, HOST, LOCATION};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// Largest file that is downloaded. It is held in memory until the model is loaded.
const DOWNLOAD_BYTES_MAX: usize = 1 << 30;
/// Longest time that a registration waits for its turn and its file.
const DOWNLOAD_TIME_MAX: Duration = Duration::from_secs(300);
/// Downloads at the same time, whoever asks for them; more wait.
const DOWNLOADS_MAX: usize = 2;
static DOWNLOADS: Semaphore = Semaphore::const_new(DOWNLOADS_MAX);

/// What an operator allows; by default nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelSources {
    /// A directory, in which paths are.
    pub store: Option<PathBuf>,
    /// URLs that begin like one of these.
    pub urls: Vec<Url>,
}

/// A place that the server can read from, or, where the operator names it, the beginning of such.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// In lower case.
    host: String,
    port: u16,
    path: String,
    query: Option<String>,
}

/// Why there is no file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum DownloadError {
    /// It is not to be asked for.
    NotAllowed(String),
    Failed(String),
}

// === impl ModelSources ===

impl ModelSources {
    /// The file at `url`, if that is one of those that are allowed.
    ///
    /// # Errors
    /// It is not, or the file cannot be had within the bounds.
    pub(crate) async fn download(&self, url: &str) -> Result<Bytes, DownloadError> {
        let place: Url = url.parse().map_err(|why| DownloadError::NotAllowed(format!("'{url}' {why}")))?;
        if !self.urls.iter().any(|allowed| allowed.is_beginning_of(&place)) {
            return Err(DownloadError::NotAllowed(format!(
                "Given URL {url} does not match any allowed URL(s): the server's --model-url-allow says what they \
                 begin with"
            )));
        }
        let turn_and_file = async {
            let _turn = DOWNLOADS.acquire().await.map_err(|error| error.to_string())?;
            place.get(DOWNLOAD_BYTES_MAX).await
        };
        let why = match tokio::time::timeout(DOWNLOAD_TIME_MAX, turn_and_file).await {
            Ok(Ok(file)) => return Ok(file),
            Ok(Err(why)) => why,
            Err(_elapsed) => format!("it took longer than {} s", DOWNLOAD_TIME_MAX.as_secs()),
        };
        Err(DownloadError::Failed(format!("Failed to download archive from: {url}: {why}")))
    }
}

// === impl Url ===

impl FromStr for Url {
    type Err = String;

    /// # Errors
    /// What it is not, as the end of a sentence that begins with it.
    fn from_str(text: &str) -> Result<Url, String> {
        let uri: Uri = text.parse().map_err(|error| format!("is not a URL: {error}"))?;
        if uri.scheme_str() == Some("https") {
            return Err(
                "is fetched with TLS, which this server cannot: expected http://, or copy the file into the \
                        directory of --model-store"
                    .into(),
            );
        }
        let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http"));
        let authority = authority.ok_or("is not a URL of a file: expected http://HOST/PATH")?;
        if authority.as_str().contains('@') {
            return Err("has a user in it: expected http://HOST/PATH".into());
        }
        // Servers may take each of these for a way up, out of what is allowed.
        let path = uri.path().to_ascii_lowercase();
        let leads_up = path.split('/').any(|segment| segment == "." || segment == "..");
        if leads_up || ["%2e", "%2f", "%5c", "\\"].iter().any(|hidden| path.contains(hidden)) {
            return Err(
                "has a path that is not plain: expected one without '.', '..' and encoded slashes".into()
            );
        }
        Ok(Url {
            host: authority.host().to_ascii_lowercase(),
            port: authority.port_u16().unwrap_or(80),
            path: uri.path().to_owned(),
            query: uri.query().map(str::to_owned),
        })
    }
}

impl Url {
    /// The same server, and a path that goes on behind a whole segment of this one.
    fn is_beginning_of(&self, other: &Url) -> bool {
        let rest = other.path.strip_prefix(&self.path);
        let at_segment = |rest: &str| self.path.ends_with('/') || rest.is_empty() || rest.starts_with('/');
        self.host == other.host && self.port == other.port && rest.is_some_and(at_segment)
    }

    /// Redirects are not followed: they lead elsewhere than the operator allows.
    async fn get(&self, bytes_max: usize) -> Result<Bytes, String> {
        let address = format!("{}:{}", self.host, self.port);
        let stream = TcpStream::connect(&address).await;
        let stream = stream.map_err(|error| format!("cannot connect to {address}: {error}"))?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
        // Ends when the response is read or dropped.
        tokio::spawn(connection);
        let target = match &self.query {
            Some(query) => format!("{}?{query}", self.path),
            None => self.path.clone(),
        };
        let request = Request::get(target).header(HOST, &address).body(Empty::<Bytes>::new());
        let request = request.map_err(|error| error.to_string())?;
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let (head, body) = response.into_parts();
        if head.status != StatusCode::OK {
            return Err(match head.headers.get(LOCATION) {
                Some(place) => {
                    format!("the answer is {} to {place:?}, redirects are not followed", head.status)
                }
                None => format!("the answer is {}", head.status),
            });
        }
        let declared = head.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        read(body, declared.unwrap_or(0), bytes_max).await
    }
}

async fn read(mut body: Incoming, declared: usize, bytes_max: usize) -> Result<Bytes, String> {
    let too_large = || format!("the file has more than {bytes_max} bytes, which is the most");
    if declared > bytes_max {
        return Err(too_large());
    }
    let mut file = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| format!("the answer is cut short: {error}"))?;
        let Ok(data) = frame.into_data() else { continue };
        if file.len() + data.len() > bytes_max {
            return Err(too_large());
        }
        file.extend_from_slice(&data);
    }
    Ok(file.freeze())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    fn is_allowed(beginning: &str, url: &str) -> bool {
        let beginning: Url = beginning.parse().unwrap();
        url.parse().is_ok_and(|url| beginning.is_beginning_of(&url))
    }

    #[test]
    fn only_what_begins_so_is_allowed() {
        let models = "http://models.example/prod/";
        assert!(is_allowed(models, "http://models.example/prod/a.onnx"));
        assert!(is_allowed(models, "http://MODELS.example:80/prod/b/a.onnx?token=../x"));
        for elsewhere in [
            "http://models.example/prod",
            "http://models.example/test/a.onnx",
            "http://models.example:8080/prod/a.onnx",
            "http://models.example.evil.example/prod/a.onnx",
            "http://models.example@evil.example/prod/a.onnx",
            "http://evil.example/http://models.example/prod/a.onnx",
            "http://models.example/prod/../test/a.onnx",
            "http://models.example/prod/%2E%2e/test/a.onnx",
            "http://models.example/prod/..%2ftest/a.onnx",
            "http://models.example/prod/..\\test/a.onnx",
            "https://models.example/prod/a.onnx",
            "ftp://models.example/prod/a.onnx",
            "/prod/a.onnx",
            "models.example",
        ] {
            assert!(!is_allowed(models, elsewhere), "{elsewhere}");
        }
        assert!(is_allowed("http://h/a", "http://h/a/b.onnx") && is_allowed("http://h", "http://h/b.onnx"));
        assert!(!is_allowed("http://h/a", "http://h/ab.onnx"), "a segment is whole");
        assert!(is_allowed("http://[::1]:81/", "http://[::1]:81/a.onnx"));
    }

    /// What comes of a server that answers so, where a file may have eight bytes.
    async fn answered(answer: &'static str) -> Result<Bytes, String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: Url = format!("http://{}/a.onnx", listener.local_addr().unwrap()).parse().unwrap();
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let length = stream.read(&mut request).await.unwrap();
            assert!(request[..length].starts_with(b"GET /a.onnx HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).await.unwrap();
        };
        tokio::join!(url.get(8), serve).0
    }

    #[tokio::test]
    async fn a_file_is_whole_and_no_larger_than_it_may_be() {
        let file = answered("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n12345678").await.unwrap();
        assert_eq!(&file[..], b"12345678");
        let too_large = Err("the file has more than 8 bytes, which is the most".to_owned());
        assert_eq!(answered("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n123456789").await, too_large);
        let chunks =
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n12345\r\n5\r\n12345\r\n0\r\n\r\n";
        assert_eq!(answered(chunks).await, too_large);
        let short = answered("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n1234").await.unwrap_err();
        assert!(short.starts_with("the answer is cut short"), "{short}");
        let moved = "HTTP/1.1 302 Found\r\nlocation: http://elsewhere/\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(
            answered(moved).await.unwrap_err(),
            "the answer is 302 Found to \"http://elsewhere/\", redirects are not followed"
        );
        let absent = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(answered(absent).await.unwrap_err(), "the answer is 404 Not Found");
    }
}
