//! The floor that `bench http` measures against: the plainest good hyper server, which answers every request with one
//! given answer. It reads the answer from its input, listens on a free port, prints its address, and serves on one thread
//! until it is killed. No routing, no time-outs, no state.

use super::Result;
use super::client::{Head, headers};
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_LENGTH, DATE, HeaderMap, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::io::{Read, Write, stdin, stdout};
use std::rc::Rc;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};

/// What to answer.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    /// hyper writes the date itself, once a second; so it does in the server that is compared.
    with_date: bool,
}

impl Answer {
    fn parse(raw: &[u8]) -> Result<Self> {
        let head = Head::parse(raw)?.ok_or("the answer to give has no end of its head")?;
        let mut map = HeaderMap::new();
        for (name, value) in headers(&raw[..head.len]) {
            map.append(
                HeaderName::from_bytes(name)?,
                HeaderValue::from_bytes(value)?,
            );
        }
        // hyper knows the length of the body.
        map.remove(CONTENT_LENGTH);
        let with_date = map.remove(DATE).is_some();
        Ok(Self {
            status: StatusCode::from_u16(head.status)?,
            headers: map,
            body: Bytes::copy_from_slice(&raw[head.len..]),
            with_date,
        })
    }

    fn response(&self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(self.body.clone()));
        *response.status_mut() = self.status;
        // Inserted one by one, as a handler would: cloning the map is no cheaper.
        for (name, value) in &self.headers {
            response.headers_mut().append(name, value.clone());
        }
        response
    }
}

pub(super) fn serve() -> Result<()> {
    let mut raw = Vec::new();
    stdin().read_to_end(&mut raw)?;
    let answer = Rc::new(Answer::parse(&raw)?);
    let runtime = Builder::new_current_thread()
        .enable_io()
        .build_local(LocalOptions::default())?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        stdout().flush()?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let answer = Rc::clone(&answer);
            tokio::task::spawn_local(async move {
                let service = service_fn(|_| {
                    let response = answer.response();
                    async { Ok::<_, Infallible>(response) }
                });
                // An error is the load's end of the connection: there is nobody to tell.
                let _ = http1::Builder::new()
                    .auto_date_header(answer.with_date)
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_the_one_that_was_given() {
        let raw =
            b"HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\nx-a: 1\r\nx-a: 2\r\n\
            content-length: 2\r\ndate: Mon, 23 Nov 2026 00:00:00 GMT\r\n\r\n{}";
        let answer = Answer::parse(raw).expect("it is whole");
        assert!(answer.with_date);
        let response = answer.response();
        assert_eq!(response.status(), 404);
        assert_eq!(response.headers().get_all("x-a").iter().count(), 2);
        assert_eq!(response.headers().len(), 3);
        assert_eq!(&answer.body[..], b"{}");
        assert!(Answer::parse(b"HTTP/1.1 200 OK\r\n").is_err());
    }
}
