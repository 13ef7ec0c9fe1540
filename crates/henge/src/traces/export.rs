//! Sends spans to a collector, on a thread that nobody waits for: one batch at a time, each over a connection of its own, which has
//! a time-out. A collector that is away, slow or hostile costs a line in the log once in a while, and the spans.

use std::borrow::Cow;
use std::error::Error;
use std::future::Future;
use std::iter;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{HOST, HeaderName, HeaderValue};
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use opentelemetry::KeyValue;
use opentelemetry_http::{HttpClient, HttpError, ResponseBodyTooLarge};
use opentelemetry_otlp::{OTEL_EXPORTER_OTLP_HEADERS, OTEL_EXPORTER_OTLP_TRACES_HEADERS};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanExporter as _;
use parking_lot::Mutex;
use prost::Message;
use tokio::net::TcpStream;

use super::Traces;
use crate::config::CollectorUrl;
use crate::http::query::path_decoded;

/// How long a batch may take, however often it is tried: spans that come meanwhile have room for longer than that where few are taken.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one try may take, so that there is time for another.
const TRY_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest answer of a collector. It says which spans it has not taken, in a sentence.
const ANSWER_BYTES: usize = 64 * 1024;
/// Where the SDK takes headers from: the first that is there.
const HEADER_VARIABLES: [&str; 2] = [
    OTEL_EXPORTER_OTLP_TRACES_HEADERS,
    OTEL_EXPORTER_OTLP_HEADERS,
];
/// How often it is told that a collector takes nothing.
const TOLD_EVERY: Duration = Duration::from_mins(1);

/// What sends spans.
#[derive(Debug)]
pub(crate) struct Exporter {
    sdk: SpanExporter,
    url: CollectorUrl,
    said: Arc<Said>,
}

/// What came of the batch that is out, as the SDK tells that by its kind alone.
#[derive(Default, Debug)]
struct Said {
    /// Spans that the collector has said it has not taken.
    rejected: AtomicUsize,
    /// Why the last try has failed.
    failure: Mutex<Option<String>>,
}

impl Exporter {
    /// To this collector, of a node of this name.
    ///
    /// # Errors
    /// The environment says something of exporters (`OTEL_EXPORTER_OTLP_…`) that cannot be.
    pub(crate) fn new(url: &CollectorUrl, node: &str) -> Result<Self, String> {
        let given = HEADER_VARIABLES.into_iter();
        let mut given = given.filter_map(|name| Some((name, std::env::var_os(name)?)));
        if let Some((variable, headers)) = given.next() {
            let headers = headers.to_str().ok_or("is not UTF-8".to_owned());
            let checked = headers.and_then(check_headers);
            checked.map_err(|what| format!("{variable}: {what}"))?;
        }
        let (host, port) = url.host_and_port();
        let said = Arc::<Said>::default();
        let client = Client {
            host: host.to_owned(),
            port,
            said: Arc::clone(&said),
        };
        let built = SpanExporter::builder()
            .with_http()
            .with_endpoint(url.to_string())
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(EXPORT_TIMEOUT)
            .with_http_client(client)
            .build();
        let mut sdk = built.map_err(|error| error.to_string())?;
        let resource = Resource::builder_empty()
            .with_service_name("henge")
            .with_attributes([
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                KeyValue::new("service.instance.id", node.to_owned()),
            ])
            .build();
        sdk.set_resource(&resource);
        Ok(Self {
            sdk,
            url: url.clone(),
            said,
        })
    }
}

/// Whether these are headers as the variables have them. The SDK passes over one that is none, and a token that was mistyped is then
/// missing for good. What is wrong is told without a value, which may be a secret.
fn check_headers(given: &str) -> Result<(), String> {
    for (place, header) in (1..).zip(given.split_terminator(',')) {
        let (name, value) = header.split_once('=').unwrap_or_default();
        let has_name = HeaderName::try_from(name.trim()).is_ok();
        // What is no escape stands for itself.
        let value = value.trim();
        let sent = path_decoded(value).unwrap_or(Cow::Borrowed(value.as_bytes()));
        if !has_name || sent.is_empty() || HeaderValue::from_bytes(&sent).is_err() {
            return Err(format!(
                "number {place} of its headers is none; expected name=value, and a comma before the next"
            ));
        }
    }
    Ok(())
}

/// Sends what comes, until no more does.
pub(crate) async fn run(traces: Arc<Traces>, exporter: Exporter) {
    let (queue, url, said) = (&traces.queue, exporter.url.for_a_log(), &exporter.said);
    let mut told: Option<Instant> = None;
    let (mut has_failed, mut unsent) = (false, 0);
    while let Some(batch) = queue.next().await {
        let count = batch.len();
        *said.failure.lock() = None;
        let taken = tokio::select! {
            biased;
            taken = exporter.sdk.export(batch) => taken.map_err(|error| error.to_string()),
            // For long only where the collector has taken the batch before.
            () = queue.is_over(has_failed) => {
                unsent = count;
                break;
            }
        };
        has_failed = taken.is_err();
        match taken {
            Ok(()) => {
                let rejected = said.rejected.swap(0, Ordering::Relaxed).min(count);
                queue.note_exported(count - rejected);
                queue.note_dropped(rejected);
            }
            Err(error) => {
                queue.note_dropped(count);
                if told.is_none_or(|told| told.elapsed() >= TOLD_EVERY) {
                    told = Some(Instant::now());
                    let error = said.failure.lock().take().unwrap_or(error);
                    let dropped = queue.dropped();
                    tracing::warn!(url, error, dropped, "the collector of traces takes none");
                }
            }
        }
    }
    queue.note_dropped(unsent);
    unsent += queue.give_up();
    if unsent > 0 {
        let dropped = queue.dropped();
        tracing::warn!(
            url,
            unsent,
            dropped,
            "the node ended before the collector had all traces"
        );
    }
}

/// HTTP to the collector.
#[derive(Debug)]
struct Client {
    host: String,
    port: u16,
    said: Arc<Said>,
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
            let answered = tokio::time::timeout(TRY_TIMEOUT, self.send(request)).await;
            let failure = match &answered {
                Err(_) => Some(format!("no answer within {} s", TRY_TIMEOUT.as_secs())),
                Ok(Err(error)) => Some(with_sources(&**error)),
                Ok(Ok(answer)) => {
                    let status = answer.status();
                    (!status.is_success()).then(|| format!("it answers {status}"))
                }
            };
            *self.said.failure.lock() = failure;
            answered?
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
                self.said.rejected.store(rejected, Ordering::Relaxed);
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

/// An error and what is behind it, in one line.
fn with_sources(error: &(dyn Error + 'static)) -> String {
    let sources = iter::successors(Some(error), |error| (**error).source());
    let all: Vec<String> = sources.map(ToString::to_string).collect();
    all.join(": ")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_names_and_values() {
        for (given, wrong) in [
            ("", None),
            ("api-key=abc", None),
            ("api-key=a=b, authorization=Basic%20x,", None),
            ("api-key", Some(1)),
            ("api-key=abc,=x", Some(2)),
            ("api-key=", Some(1)),
            ("a=1,,b=2", Some(2)),
            ("api key=abc", Some(1)),
            ("a=1;b:2,secret word", Some(2)),
            ("a=1\n", None),
            ("a=1\nb", Some(1)),
            ("api-key=abc%0A", Some(1)),
            ("api-key=50%", None),
        ] {
            let checked = check_headers(given);
            let expected = wrong.map(|place| format!("number {place} of its headers is none"));
            match (&checked, &expected) {
                (Ok(()), None) => {}
                (Err(found), Some(expected)) => {
                    assert!(found.starts_with(expected), "{given:?}: {found}");
                    assert!(!found.contains("secret"), "{found}");
                }
                _ => panic!("{given:?}: {checked:?}"),
            }
        }
    }
}
