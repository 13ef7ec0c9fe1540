//! A collector of OTLP over HTTP, as small as one can be: it reads what nodes send, decodes it, and keeps all spans. Or it takes
//! connections and never answers.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Instant;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use prost::Message;

use crate::client::DEADLINE;

/// A span, as it came.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Seen {
    /// In hexadecimal digits, as are the two that follow.
    pub(super) trace: String,
    pub(super) id: String,
    /// Empty for one that has none.
    pub(super) parent: String,
    pub(super) name: String,
    /// 1 internal, 2 of a server, 3 of a client.
    pub(super) kind: i32,
    /// 2 is a failure.
    pub(super) status: i32,
    pub(super) state: String,
    pub(super) attributes: BTreeMap<String, String>,
    /// What is said of the process.
    pub(super) resource: BTreeMap<String, String>,
    pub(super) has_lasted: bool,
}

impl Seen {
    pub(super) fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }

    pub(super) fn node(&self) -> &str {
        self.attribute("henge.node")
    }
}

#[derive(Default)]
struct Came {
    spans: Vec<Seen>,
    /// All bytes of all requests.
    bytes: Vec<u8>,
}

/// See the head of the file.
pub(super) struct Collector {
    address: SocketAddr,
    came: Arc<(Mutex<Came>, Condvar)>,
}

impl Collector {
    /// One that takes all it is sent.
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let came: Arc<(Mutex<Came>, Condvar)> = Arc::default();
        let all = Arc::clone(&came);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let all = Arc::clone(&all);
                thread::spawn(move || {
                    // Who breaks off has sent nothing.
                    let _ = serve(&stream, &all);
                });
            }
        });
        Self { address, came }
    }

    /// What `tracing.endpoint` is set to.
    pub(super) fn endpoint(&self) -> String {
        format!("http://{}/v1/traces", self.address)
    }

    /// All spans so far.
    pub(super) fn spans(&self) -> Vec<Seen> {
        self.came
            .0
            .lock()
            .expect("nobody has panicked")
            .spans
            .clone()
    }

    /// All bytes so far.
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.came
            .0
            .lock()
            .expect("nobody has panicked")
            .bytes
            .clone()
    }

    /// What a test wants of the spans, once it is there; `take` gives none before that.
    pub(super) fn wait_for<T>(&self, what: &str, take: impl Fn(&[Seen]) -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        let (came, more) = &*self.came;
        let mut came = came.lock().expect("nobody has panicked");
        loop {
            if let Some(taken) = take(&came.spans) {
                return taken;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{what} never comes: {:#?}", came.spans);
            (came, _) = more.wait_timeout(came, left).expect("nobody has panicked");
        }
    }
}

/// One that takes connections, and says nothing on them.
pub(crate) fn silent() -> (TcpListener, String) {
    // The system takes connections for whoever never asks for them.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    (listener, format!("http://{address}"))
}

/// One that says this to each request, and goes on with these bytes for as long as they are taken. Gives its URL.
pub(super) fn hostile(answer: &'static [u8], rest: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.set_read_timeout(Some(DEADLINE));
            // What is not read is a reset, and no answer.
            let _ = request(&mut BufReader::new(&stream));
            let mut said = stream.write_all(answer);
            while said.is_ok() && !rest.is_empty() {
                said = stream.write_all(rest);
            }
        }
    });
    format!("http://{address}")
}

fn serve(stream: &TcpStream, all: &(Mutex<Came>, Condvar)) -> std::io::Result<()> {
    stream.set_read_timeout(Some(DEADLINE))?;
    let mut reader = BufReader::new(stream);
    while let Some((head, body)) = request(&mut reader)? {
        assert!(head[0].starts_with("post /v1/traces "), "{head:?}");
        let is_typed = head.contains(&"content-type: application/x-protobuf\r\n".to_owned());
        assert!(is_typed, "{head:?}");
        let request = ExportTraceServiceRequest::decode(&body[..]).expect("it is of OTLP");
        let mut came = all.0.lock().expect("nobody has panicked");
        came.bytes.extend_from_slice(&body);
        came.spans.extend(seen(request));
        drop(came);
        all.1.notify_all();
        let answer =
            "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
        (&*stream).write_all(answer.as_bytes())?;
    }
    Ok(())
}

/// The lines of the next request's head, in small letters, and its body; none at the end of the connection.
fn request(reader: &mut impl BufRead) -> std::io::Result<Option<(Vec<String>, Vec<u8>)>> {
    let mut head = Vec::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        if line == "\r\n" {
            break;
        }
        line.make_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().expect("a number");
        }
        head.push(line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Some((head, body)))
}

fn seen(request: ExportTraceServiceRequest) -> Vec<Seen> {
    let mut all = Vec::new();
    for of_resource in request.resource_spans {
        let resource = of_resource.resource.unwrap_or_default();
        let resource = texts(resource.attributes);
        for span in of_resource.scope_spans.into_iter().flat_map(|s| s.spans) {
            all.push(Seen {
                trace: digits(&span.trace_id),
                id: digits(&span.span_id),
                parent: digits(&span.parent_span_id),
                name: span.name,
                kind: span.kind,
                status: span.status.map_or(0, |status| status.code),
                state: span.trace_state,
                attributes: texts(span.attributes),
                resource: resource.clone(),
                has_lasted: span.end_time_unix_nano >= span.start_time_unix_nano
                    && span.start_time_unix_nano > 0,
            });
        }
    }
    all
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut digits, byte| {
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}

fn texts(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Option<AnyValue>| match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => panic!("no attribute is {other:?}"),
    };
    let attributes = attributes.into_iter();
    attributes
        .map(|attribute| (attribute.key, text(attribute.value)))
        .collect()
}
