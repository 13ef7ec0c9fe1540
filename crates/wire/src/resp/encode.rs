//! Requests as a client writes them: an array of bulk strings, which every version of the protocol takes. Inline commands
//! are for people at a terminal and are not written here.

/// Appends one request: the command's name and its arguments, as they are.
pub fn request(out: &mut Vec<u8>, arguments: &[&[u8]]) {
    head(out, b'*', arguments.len());
    for argument in arguments {
        head(out, b'$', argument.len());
        out.extend_from_slice(argument);
        out.extend_from_slice(b"\r\n");
    }
}

/// A type and a length on a line of their own.
fn head(out: &mut Vec<u8>, kind: u8, len: usize) {
    // The digits of u64::MAX, and the type before them; by hand, as `write!` costs as much as the rest of a short request.
    let mut line = [0; 21];
    let mut at = line.len();
    let mut rest = len;
    loop {
        at -= 1;
        line[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    at -= 1;
    line[at] = kind;
    out.extend_from_slice(&line[at..]);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_arrays_of_bulk_strings() {
        // (arguments, bytes)
        type Case<'a> = (&'a [&'a [u8]], &'a [u8]);
        let table: &[Case] = &[
            (&[b"PING"], b"*1\r\n$4\r\nPING\r\n"),
            (
                &[b"SET", b"k", b""],
                b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\n",
            ),
            (
                &[b"GET", b"a\r\n\0\xff"],
                b"*2\r\n$3\r\nGET\r\n$5\r\na\r\n\0\xff\r\n",
            ),
            (&[b"0123456789"], b"*1\r\n$10\r\n0123456789\r\n"),
        ];
        let mut all = Vec::new();
        for (arguments, bytes) in table {
            let mut out = Vec::new();
            request(&mut out, arguments);
            assert_eq!(out, *bytes);
            request(&mut all, arguments);
        }
        let joined: Vec<u8> = table.iter().flat_map(|(_, bytes)| bytes.to_vec()).collect();
        assert_eq!(all, joined, "requests follow each other");
    }

    #[test]
    fn lengths_are_decimal() {
        for len in [0, 9, 10, 99, 100, 1_234_567_890, usize::MAX] {
            let mut out = Vec::new();
            head(&mut out, b'$', len);
            assert_eq!(out, format!("${len}\r\n").into_bytes());
        }
    }
}
