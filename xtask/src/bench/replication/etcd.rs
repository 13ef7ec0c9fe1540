//! A load on etcd: `Put` of its gRPC interface over HTTP/2, as many at a time on each connection as a pipeline has. Its client crate
//! would bring a compiler of protocol buffers to whoever builds this workspace; one message of two fields needs none. It knows
//! nothing else of etcd.

use super::super::Result;
use super::super::random::Random;
use super::load::{self, KEYS, Tally, Turn, VALUE_BYTES};
use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderValue, Method, Request, Uri, header};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;
use tokio::net::TcpStream;

/// Puts for some seconds over connections that are spread over these servers.
pub(super) fn put(
    servers: &[SocketAddr],
    connections: usize,
    pipeline: usize,
    seconds: f64,
) -> Result<Turn> {
    let tally = Tally::begin(seconds);
    load::run(|| {
        let servers = servers.iter().cycle().take(connections).enumerate();
        let tasks = servers.map(|(n, &at)| connection(at, n, pipeline, Rc::clone(&tally)));
        tasks.collect::<Vec<_>>()
    })?;
    Ok(tally.turn())
}

async fn connection(at: SocketAddr, n: usize, pipeline: usize, tally: Rc<Tally>) -> Result<()> {
    let stream = TcpStream::connect(at).await?;
    stream.set_nodelay(true)?;
    let (sender, driver) = h2::client::handshake(stream).await?;
    let driver = tokio::task::spawn_local(driver);
    let uri: Uri = format!("http://{at}/etcdserverpb.KV/Put").parse()?;
    let mut asking = tokio::task::JoinSet::new();
    for nth in 0..pipeline {
        let mut random = Random::new((n * pipeline + nth) as u64);
        let (sender, uri, tally) = (sender.clone(), uri.clone(), Rc::clone(&tally));
        asking.spawn_local(async move {
            loop {
                let asked = Instant::now();
                put_one(sender.clone(), &uri, random.below(KEYS)).await?;
                if !tally.count(asked, 1) {
                    return Result::Ok(());
                }
            }
        });
    }
    while let Some(ended) = asking.join_next().await {
        ended??;
    }
    driver.abort();
    Ok(())
}

async fn put_one(sender: SendRequest<Bytes>, uri: &Uri, key: usize) -> Result<()> {
    let mut sender = sender.ready().await?;
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri.clone();
    let headers = request.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    let (response, mut body) = sender.send_request(request, false)?;
    body.send_data(message(&load::key(key)), true)?;
    let mut answer = response.await?.into_body();
    while let Some(data) = answer.data().await {
        let len = data?.len();
        answer.flow_control().release_capacity(len)?;
    }
    let trailers = answer.trailers().await?;
    let status = trailers.as_ref().and_then(|all| all.get("grpc-status"));
    if status.is_some_and(|status| status == "0") {
        return Ok(());
    }
    Err(format!("etcd answered {trailers:?}").into())
}

/// A `PutRequest` as a message of gRPC: not compressed, its length, then key (field 1) and value (field 2).
fn message(key: &str) -> Bytes {
    const KEY: u8 = 0x0a;
    const VALUE: u8 = 0x12;
    let len = 2 + key.len() + 2 + VALUE_BYTES;
    // Below that a length takes one byte.
    assert!(key.len() < 128 && VALUE_BYTES < 128 && len < 256);
    let mut bytes = vec![0, 0, 0, 0, len as u8, KEY, key.len() as u8];
    bytes.extend_from_slice(key.as_bytes());
    bytes.extend_from_slice(&[VALUE, VALUE_BYTES as u8]);
    bytes.extend_from_slice(&[b'x'; VALUE_BYTES]);
    Bytes::from(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_put_is_two_fields_behind_its_length() {
        let bytes = message("k");
        assert_eq!(bytes[..9], [0, 0, 0, 0, 69, 0x0a, 1, b'k', 0x12]);
        assert_eq!(bytes[9], 64);
        assert_eq!(bytes.len(), 5 + 69);
    }
}
