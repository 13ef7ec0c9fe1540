//! A server that says what it is told to, over loopback, in both protocols.

use std::time::Duration;

use bytes::BytesMut;
use henge_wire::resp::reply::{Decoder, Limits, Reply};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// How long to wait for what must come. Generous: it is only ever reached when a test fails.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);

/// The protocols, by the schemes of their URLs.
pub(crate) const SCHEMES: [&str; 2] = ["redis", "http"];

/// A port that is listened on.
pub(crate) struct Server {
    scheme: &'static str,
    listener: TcpListener,
}

impl Server {
    pub(crate) async fn listen(scheme: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        Self { scheme, listener }
    }

    pub(crate) fn scheme(&self) -> &'static str {
        self.scheme
    }

    pub(crate) fn port(&self) -> u16 {
        self.listener.local_addr().expect("it is bound").port()
    }

    pub(crate) fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.port())
    }

    /// The first connection of a client, which asks for a map and is told that there is none.
    pub(crate) async fn meet(&self) -> Peer {
        self.meet_with(match self.scheme {
            "redis" => "-ERR This instance has cluster support disabled\r\n",
            _ => "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
        })
        .await
    }

    /// The first connection of a client, which asks for a map and is told this.
    pub(crate) async fn meet_with(&self, map: &str) -> Peer {
        let mut peer = self.accept().await;
        let asked = match self.scheme {
            "redis" => "CLUSTER SHARDS",
            _ => "GET /cluster/status",
        };
        assert_eq!(peer.request().await.as_deref(), Some(asked));
        peer.send(map.as_bytes()).await;
        peer
    }

    /// The next connection.
    pub(crate) async fn accept(&self) -> Peer {
        let accepted = tokio::time::timeout(DEADLINE, self.listener.accept()).await;
        let (stream, _) = accepted.expect("a connection comes").expect("accepted");
        Peer {
            scheme: self.scheme,
            stream,
            input: BytesMut::new(),
            raw: Vec::new(),
        }
    }
}

/// The server's end of a connection.
pub(crate) struct Peer {
    scheme: &'static str,
    pub(crate) stream: TcpStream,
    input: BytesMut,
    /// The last request, as it came.
    pub(crate) raw: Vec<u8>,
}

impl Peer {
    /// Reads one request: `GET k` by whatever protocol, or none if the client has closed the connection.
    pub(crate) async fn request(&mut self) -> Option<String> {
        loop {
            let mut rest = self.input.clone();
            if let Some(request) = understood(self.scheme, &mut rest) {
                self.raw = self.input[..self.input.len() - rest.len()].to_vec();
                self.input = rest;
                return Some(request);
            }
            let read = self.stream.read_buf(&mut self.input);
            let read = tokio::time::timeout(DEADLINE, read).await;
            if read.expect("a request comes").unwrap_or(0) == 0 {
                assert!(self.input.is_empty(), "half a request: {:?}", self.input);
                return None;
            }
        }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream
            .write_all(bytes)
            .await
            .expect("the client reads");
    }

    /// Answers a read of a key with this value.
    pub(crate) async fn answer_value(&mut self, value: impl AsRef<[u8]>) {
        let value = value.as_ref();
        let len = value.len();
        let (before, after) = if self.scheme == "redis" {
            (format!("${len}\r\n"), "\r\n")
        } else {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {len}\r\n\r\n");
            (head, "")
        };
        let answer = [before.as_bytes(), value, after.as_bytes()].concat();
        self.send(&answer).await;
    }

    /// Answers a write of a key.
    pub(crate) async fn answer_stored(&mut self) {
        let answer = match self.scheme {
            "redis" => "+OK\r\n",
            _ => "HTTP/1.1 204 No Content\r\n\r\n",
        };
        self.send(answer.as_bytes()).await;
    }

    /// Refuses a request.
    pub(crate) async fn answer_refusal(&mut self) {
        let body = r#"{"code":"ERR","detail":"not today"}"#;
        let answer = match self.scheme {
            "redis" => "-ERR not today\r\n".to_owned(),
            _ => format!(
                "HTTP/1.1 400 Bad Request\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            ),
        };
        self.send(answer.as_bytes()).await;
    }
}

/// A request and its key, if it has come as a whole.
fn understood(scheme: &str, input: &mut BytesMut) -> Option<String> {
    if scheme == "redis" {
        // What a client sends has the form of a reply.
        let request = Decoder::new(Limits::default()).decode(input).expect("RESP");
        let Reply::Array(words) = request? else {
            panic!("a request is an array");
        };
        let words = words.iter().take(2).map(|word| match word {
            Reply::Bulk(text) => String::from_utf8_lossy(text).into_owned(),
            other => panic!("{other:?} is no bulk string"),
        });
        return Some(words.collect::<Vec<_>>().join(" "));
    }
    let end = input.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&input[..end]).to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1);
    let length = length.and_then(|rest| rest.split("\r\n").next());
    let length: usize = length.map_or(0, |digits| digits.parse().expect("a length"));
    if input.len() < end + length {
        return None;
    }
    let head = head.replacen("put ", "SET ", 1).replacen("get ", "GET ", 1);
    let request = head.split(" http/1.1").next().expect("a first line");
    let request = request.replace("/cache/", "");
    let _ = input.split_to(end + length);
    Some(request)
}
