//! The least HTTP/1.1 client that a load needs: one connection, one request at a time, answers with a Content-Length.
//! It must cost less than the server that it loads, so it builds no header map and copies nothing. It refuses what it
//! does not know, chunked answers above all.

use super::Result;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer longer than this is none of ours.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// A keep-alive connection.
pub(super) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// An answer, in the buffer of its connection.
pub(super) struct Answer<'a> {
    pub(super) status: u16,
    /// The whole of it, with its head.
    pub(super) raw: &'a [u8],
    pub(super) body: &'a [u8],
}

impl Connection {
    pub(super) async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: Vec::new(),
        })
    }

    /// Sends a request and waits for its answer.
    pub(super) async fn exchange(&mut self, request: &[u8]) -> Result<Answer<'_>> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        let mut head: Option<Head> = None;
        loop {
            self.buffer.reserve(4096);
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err("the server closed the connection".into());
            }
            if head.is_none() {
                head = Head::parse(&self.buffer)?;
            }
            let Some(head) = &head else { continue };
            let end = head.len + head.body_len;
            if self.buffer.len() > end || end > MAX_ANSWER_BYTES {
                return Err("the server sent more than one answer".into());
            }
            if self.buffer.len() == end {
                return Ok(Answer {
                    status: head.status,
                    raw: &self.buffer,
                    body: &self.buffer[head.len..],
                });
            }
        }
    }

    /// As `exchange`, and anything but a 2xx is an error that shows the answer.
    pub(super) async fn expect_ok(&mut self, request: &[u8]) -> Result<Answer<'_>> {
        let answer = self.exchange(request).await?;
        if (200..300).contains(&answer.status) {
            return Ok(answer);
        }
        let first_line = request
            .split(|byte| *byte == b'\r')
            .next()
            .unwrap_or_default();
        let (line, body) = (
            String::from_utf8_lossy(first_line),
            String::from_utf8_lossy(answer.body),
        );
        Err(format!("{line} was answered {}: {body}", answer.status).into())
    }
}

/// What there is to know of an answer's head.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Head {
    pub(super) status: u16,
    /// With the empty line, in bytes.
    pub(super) len: usize,
    pub(super) body_len: usize,
}

impl Head {
    /// None while the head is not whole yet.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<Self>> {
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            return Ok(None);
        };
        let status = bytes
            .strip_prefix(b"HTTP/1.1 ")
            .and_then(|rest| number(rest.get(..3)?))
            .ok_or("the answer is not HTTP/1.1")?;
        let body_len = headers(&bytes[..end])
            .find(|(name, _)| name.eq_ignore_ascii_case(b"content-length"))
            .and_then(|(_, value)| number(value))
            // These have no body, and may say nothing of its length.
            .or(matches!(status, 204 | 304).then_some(0))
            .ok_or("the answer has no Content-Length")?;
        Ok(Some(Self {
            status: status as u16,
            len: end + 4,
            body_len,
        }))
    }
}

/// The headers of a head: each name and value.
pub(super) fn headers(head: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    head.split(|byte| *byte == b'\n')
        .skip(1)
        .filter_map(|line| {
            let colon = line.iter().position(|byte| *byte == b':')?;
            Some((&line[..colon], line[colon + 1..].trim_ascii()))
        })
}

fn number(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// A request without a body.
pub(super) fn request(method: &str, target: &str) -> Vec<u8> {
    format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes()
}

/// A request with a body.
pub(super) fn request_with(method: &str, target: &str, media_type: &str, body: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {media_type}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_parsed_once_they_are_whole() {
        let whole = "HTTP/1.1 200 OK\r\nContent-Type: a\r\ncontent-LENGTH:  12 \r\n\r\n";
        for cut in 0..whole.len() {
            let head = Head::parse(&whole.as_bytes()[..cut]).expect("nothing is wrong yet");
            assert_eq!(head, None);
        }
        for (text, expected) in [
            (whole, Some((200, whole.len(), 12))),
            (
                "HTTP/1.1 204 No Content\r\nx: y\r\n\r\n",
                Some((204, 33, 0)),
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                None,
            ),
            ("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", None),
            ("nonsense\r\n\r\n", None),
        ] {
            let head = Head::parse(text.as_bytes()).ok().flatten();
            let expected = expected.map(|(status, len, body_len)| Head {
                status,
                len,
                body_len,
            });
            assert_eq!(head, expected, "{text}");
        }
    }
}
