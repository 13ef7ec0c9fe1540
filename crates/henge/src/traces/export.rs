//! Sends spans to a collector, on a thread that nobody waits for: one batch at a time, each over a connection of its own, which has
//! a time-out. A collector that is away, slow or hostile costs a line in the log once in a while, and the spans.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{HOST, HeaderValue};
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use opentelemetry::KeyValue;
use opentelemetry_http::{HttpClient, HttpError, ResponseBodyTooLarge};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanExporter as _;
use prost::Message;
use tokio::net::TcpStream;

use super::Traces;
use crate::config::CollectorUrl;

/// How long a batch may take, however often it is tried: spans that come meanwhile have room for longer than that where few are taken.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one try may take, so that there is time for another.
const TRY_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest answer of a collector. It says which spans it has not taken, in a sentence.
const ANSWER_BYTES: usize = 64 * 1024;
/// How often it is told that a collector takes nothing.
const TOLD_EVERY: Duration = Duration::from_mins(1);

/// What sends spans.
#[derive(Debug)]
pub(crate) struct Exporter {
    exporter: SpanExporter,
    /// Spans that the collector has said it has not taken, of the batch that is out.
    rejected: Arc<AtomicUsize>,
}

impl Exporter {
    /// To this collector, of a node of this name.
    ///
    /// # Errors
    /// The environment says something of exporters (`OTEL_EXPORTER_OTLP_…`) that cannot be.
    pub(crate) fn new(url: &CollectorUrl, node: &str) -> Result<Self, String> {
        let (host, port) = url.host_and_port();
        let rejected = Arc::<AtomicUsize>::default();
        let client = Client {
            host: host.to_owned(),
            port,
            rejected: Arc::clone(&rejected),
        };
        let built = SpanExporter::builder()
            .with_http()
            .with_endpoint(url.to_string())
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(EXPORT_TIMEOUT)
            .with_http_client(client)
            .build();
        let mut exporter = built.map_err(|error| error.to_string())?;
        let resource = Resource::builder_empty()
            .with_service_name("henge")
            .with_attributes([
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                KeyValue::new("service.instance.id", node.to_owned()),
            ])
            .build();
        exporter.set_resource(&resource);
        Ok(Self { exporter, rejected })
    }
}

/// Sends what comes, until no more does.
pub(crate) async fn run(traces: Arc<Traces>, exporter: Exporter) {
    let queue = &traces.queue;
    let mut told: Option<Instant> = None;
    while let Some(batch) = queue.next().await {
        let count = batch.len();
        let taken = tokio::select! {
            taken = exporter.exporter.export(batch) => taken.map_err(|error| error.to_string()),
            () = queue.is_over() => Err("the node ends".to_owned()),
        };
        match taken {
            Ok(()) => {
                let rejected = exporter.rejected.swap(0, Ordering::Relaxed).min(count);
                queue.note_exported(count - rejected);
                queue.note_dropped(rejected);
            }
            Err(error) => {
                queue.note_dropped(count);
                if told.is_none_or(|told| told.elapsed() >= TOLD_EVERY) {
                    told = Some(Instant::now());
                    let dropped = queue.dropped();
                    tracing::warn!(error, dropped, "traces were not taken by tracing.endpoint");
                }
            }
        }
    }
    queue.give_up();
}

/// HTTP to the collector.
#[derive(Debug)]
struct Client {
    host: String,
    port: u16,
    rejected: Arc<AtomicUsize>,
}

impl HttpClient for Client {
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let answered = tokio::time::timeout(TRY_TIMEOUT, self.send(request));
            answered.await?
        })
    }
}

impl Client {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let socket = TcpStream::connect((&*self.host, self.port)).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
        let request = relative(request)?;
        let answer = async {
            let (head, body) = sender.send_request(request).await?.into_parts();
            let body = Limited::new(body, ANSWER_BYTES).collect().await;
            let body = body.map_err(|error| -> HttpError {
                if error.is::<LengthLimitError>() {
                    // It is not tried again.
                    return ResponseBodyTooLarge::new().into();
                }
                error
            })?;
            let body = body.to_bytes();
            if head.status.is_success() {
                let rejected = rejected(&body);
                self.rejected.store(rejected, Ordering::Relaxed);
            }
            Ok(Response::from_parts(head, body))
        };
        let mut answer = pin!(answer);
        tokio::select! {
            answer = &mut answer => answer,
            // Closed by the other side: the answer may have come before that, and says itself if it has not.
            _ = connection => answer.await,
        }
    }
}

/// How many spans a collector has not taken, by its answer. What is no answer of OTLP says nothing of that.
fn rejected(answer: &[u8]) -> usize {
    let answer = ExportTraceServiceResponse::decode(answer).unwrap_or_default();
    let partial = answer.partial_success.unwrap_or_default();
    usize::try_from(partial.rejected_spans).unwrap_or(0)
}

/// The request as it is sent to a server, and not to a proxy.
fn relative(request: Request<Bytes>) -> Result<Request<Full<Bytes>>, HttpError> {
    let (mut head, body) = request.into_parts();
    if let Some(authority) = head.uri.authority() {
        let host = HeaderValue::from_str(authority.as_str())?;
        head.headers.insert(HOST, host);
    }
    let path = head.uri.path_and_query().cloned();
    head.uri = path.map_or_else(|| Uri::from_static("/"), Uri::from);
    Ok(Request::from_parts(head, Full::new(body)))
}
