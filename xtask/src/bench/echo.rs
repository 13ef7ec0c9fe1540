//! The floor that the Redis protocol is measured against: a loop on the runtime that the node has, which reads, counts the
//! requests by their lines, and sends a fixed reply for each. It looks nothing up and understands nothing, so what it costs
//! is what the system calls and the runtime cost. It prints its address, and serves on one thread until it is killed.

use super::Result;
use std::io::{Write, stdout};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};

/// As much as the node reads at once.
const INPUT_BYTES: usize = 32 * 1024;

/// The bytes of the value that a GET is answered with.
pub(super) const VALUE_BYTES: usize = 64;

pub(super) fn serve() -> Result<()> {
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
            tokio::task::spawn_local(async move {
                // An error is the load's end of the connection: there is nobody to tell.
                let _ = echo(stream).await;
            });
        }
    })
}

async fn echo(mut stream: TcpStream) -> Result<()> {
    let got = [
        format!("${VALUE_BYTES}\r\n").as_bytes(),
        &[b'x'; VALUE_BYTES],
        b"\r\n",
    ]
    .concat();
    let mut input = vec![0; INPUT_BYTES];
    let mut output = Vec::new();
    let mut counter = Counter::default();
    loop {
        let read = stream.read(&mut input).await?;
        if read == 0 {
            return Ok(());
        }
        let (requests, words) = counter.count(&input[..read]);
        output.clear();
        for _ in 0..requests {
            output.extend_from_slice(match words {
                2 => &got,
                3 => b"+OK\r\n",
                // What redis-benchmark asks before it begins: CONFIG GET, of which it takes an error for an answer.
                _ => b"-ERR unknown\r\n",
            });
        }
        stream.write_all(&output).await?;
    }
}

/// Counts requests without understanding them: one of `n` words has `2n + 1` lines, and all of a run are alike.
#[derive(Default)]
struct Counter {
    words: usize,
    /// Lines of a request whose rest has not come.
    lines: usize,
}

impl Counter {
    /// How many requests end in these bytes, and of how many words they are.
    fn count(&mut self, bytes: &[u8]) -> (usize, usize) {
        if self.lines == 0 {
            self.words = match bytes {
                [b'*', digit @ b'1'..=b'9', ..] => usize::from(digit - b'0'),
                _ => 1,
            };
        }
        #[expect(
            clippy::naive_bytecount,
            reason = "the compiler makes vectors of it, and a crate for one line is too much"
        )]
        let lines = self.lines + bytes.iter().filter(|&&byte| byte == b'\n').count();
        let each = 2 * self.words + 1;
        self.lines = lines % each;
        (lines / each, self.words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_however_they_come() {
        let request = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n";
        let input = request.repeat(5);
        for cut in 0..input.len() {
            let mut counter = Counter::default();
            let first = counter.count(&input[..cut]).0;
            // A cut within the first line of a request would be another number of words; no bench sends such.
            if input.get(cut) == Some(&b'*') || counter.lines > 0 {
                assert_eq!(first + counter.count(&input[cut..]).0, 5, "{cut}");
            }
        }
    }
}
