//! Traces of accesses from files: a number a line, big-endian integers, or CSV, packed or not. Keys are numbered in the order
//! in which they come. A file is a stranger's: what is read of it is bounded, and what cannot be right is said with its line.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use lzma_rust2::XzReader;

use crate::config::shown;

/// Accesses in a trace, at most: 64 Mi of them take 1 GiB with what Belady needs to know about them.
const MAX_ACCESSES: usize = 1 << 26;
/// Bytes of all the keys of a trace, at most.
const MAX_KEY_BYTES: usize = 1 << 30;
/// Bytes in a line, at most: above the longest key that a node takes.
const MAX_LINE: usize = 128 << 10;
/// What unpacking may take, in KiB: twice the dictionary of the strongest setting of xz.
const XZ_MEMORY_KIB: u32 = 128 << 10;
/// Bytes of what was found that a message shows.
const MAX_SHOWN: usize = 40;

/// A trace in memory.
pub(super) struct Trace {
    accesses: Vec<u32>,
    /// Of each access; empty if the trace has none.
    sizes: Vec<u32>,
    keys: Vec<Box<[u8]>>,
}

impl Trace {
    /// Reads a file, whose ending says what it is.
    pub(super) fn read(path: &Path) -> Result<Self, TraceError> {
        let file = shown(path);
        let failed = |problem| TraceError {
            file: file.clone(),
            problem,
        };
        let form = Form::of(path).ok_or_else(|| failed(Problem::Ending))?;
        let packed = File::open(path).map_err(|error| failed(Problem::Io(error)))?;
        let packed = BufReader::new(packed);
        let mut reader: Box<dyn BufRead> = match form.packing {
            Packing::None => Box::new(packed),
            Packing::Gzip => Box::new(BufReader::new(MultiGzDecoder::new(packed))),
            Packing::Xz => Box::new(BufReader::new(XzReader::new_mem_limit(
                packed,
                true,
                XZ_MEMORY_KIB,
            ))),
        };
        let mut collector = Collector::default();
        match form.content {
            Content::Numbers => numbers(&mut reader, &mut collector),
            Content::Integers => integers(&mut reader, &mut collector),
            Content::Csv => csv(&mut reader, &mut collector),
        }
        .map_err(&failed)?;
        if collector.accesses.is_empty() {
            return Err(failed(Problem::Empty));
        }
        Ok(collector.finish())
    }

    /// A trace of keys that are called by their numbers.
    #[cfg(test)]
    pub(super) fn of(numbers: &[u32]) -> Self {
        let mut collector = Collector::default();
        for number in numbers {
            let key = number.to_string();
            assert!(collector.push(key.as_bytes(), None).is_ok());
        }
        collector.finish()
    }

    /// As `of`, with the size of each access's item.
    #[cfg(test)]
    pub(super) fn with_sizes(accesses: &[(u32, u32)]) -> Self {
        let mut collector = Collector::default();
        for (number, size) in accesses {
            let key = number.to_string();
            assert!(collector.push(key.as_bytes(), Some(*size)).is_ok());
        }
        collector.finish()
    }

    /// The numbers of the keys, access by access.
    pub(super) fn accesses(&self) -> &[u32] {
        &self.accesses
    }

    /// How many keys there are.
    pub(super) fn keys(&self) -> usize {
        self.keys.len()
    }

    /// The key of an access.
    pub(super) fn key(&self, access: usize) -> &[u8] {
        &self.keys[self.accesses[access] as usize]
    }

    pub(super) fn has_sizes(&self) -> bool {
        !self.sizes.is_empty()
    }

    /// The size of an access's item in bytes, if the trace has sizes.
    pub(super) fn size(&self, access: usize) -> u64 {
        self.sizes.get(access).copied().unwrap_or_default().into()
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Packing {
    None,
    Gzip,
    Xz,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Content {
    /// A number a line, as text.
    Numbers,
    /// Big-endian, 32 bits each.
    Integers,
    /// Time, key, size.
    Csv,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Form {
    packing: Packing,
    content: Content,
}

impl Form {
    const EXPECTED: &str = ".trace (a number a line), .csv (time, key, size), either of them with .gz behind it, or \
                            .trace.xz (big-endian 32-bit integers)";

    fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_string_lossy().to_ascii_lowercase();
        let forms = [
            (".trace", Packing::None, Content::Numbers),
            (".trace.gz", Packing::Gzip, Content::Numbers),
            (".trace.xz", Packing::Xz, Content::Integers),
            (".csv", Packing::None, Content::Csv),
            (".csv.gz", Packing::Gzip, Content::Csv),
        ];
        let (_, packing, content) = forms
            .into_iter()
            .find(|(ending, ..)| name.ends_with(ending))?;
        Some(Self { packing, content })
    }
}

/// What has been read so far.
#[derive(Default)]
struct Collector {
    accesses: Vec<u32>,
    sizes: Vec<u32>,
    numbers: HashMap<Box<[u8]>, u32>,
    key_bytes: usize,
}

impl Collector {
    fn push(&mut self, key: &[u8], size: Option<u32>) -> Result<(), Problem> {
        if self.accesses.len() == MAX_ACCESSES {
            return Err(Problem::TooMany("accesses", MAX_ACCESSES));
        }
        let number = if let Some(&number) = self.numbers.get(key) {
            number
        } else {
            self.key_bytes += key.len();
            if self.key_bytes > MAX_KEY_BYTES {
                return Err(Problem::TooMany("bytes of keys", MAX_KEY_BYTES));
            }
            // No more keys than accesses.
            let number = self.numbers.len() as u32;
            self.numbers.insert(key.into(), number);
            number
        };
        self.accesses.push(number);
        self.sizes.extend(size);
        Ok(())
    }

    fn finish(self) -> Trace {
        let mut keys = vec![Box::default(); self.numbers.len()];
        for (key, number) in self.numbers {
            keys[number as usize] = key;
        }
        Trace {
            accesses: self.accesses,
            sizes: self.sizes,
            keys,
        }
    }
}

/// Lines without their ends, numbered from 1.
struct Lines<'a, R> {
    reader: &'a mut R,
    number: usize,
    line: Vec<u8>,
}

impl<'a, R: BufRead> Lines<'a, R> {
    fn new(reader: &'a mut R) -> Self {
        Self {
            reader,
            number: 0,
            line: Vec::new(),
        }
    }

    /// The next line with something in it, without blanks about it.
    fn next(&mut self) -> Result<Option<(usize, &[u8])>, Problem> {
        loop {
            self.line.clear();
            let mut bounded = (&mut *self.reader).take(MAX_LINE as u64 + 1);
            let read = bounded
                .read_until(b'\n', &mut self.line)
                .map_err(Problem::Io)?;
            if read == 0 {
                return Ok(None);
            }
            self.number += 1;
            if read > MAX_LINE {
                return Err(Problem::line(
                    self.number,
                    &self.line,
                    format!("a line of at most {MAX_LINE} bytes"),
                ));
            }
            if !self.line.trim_ascii().is_empty() {
                break;
            }
        }
        Ok(Some((self.number, self.line.trim_ascii())))
    }
}

fn numbers(reader: &mut impl BufRead, collector: &mut Collector) -> Result<(), Problem> {
    let mut lines = Lines::new(reader);
    while let Some((number, line)) = lines.next()? {
        // Some public traces end with a line of one asterisk.
        if line == b"*" {
            continue;
        }
        let Some(value) = integer::<u64>(line) else {
            let expected = "an integer from 0 to 18446744073709551615, one a line";
            return Err(Problem::line(number, line, expected.to_owned()));
        };
        // In one form, so that 7 and 007 are one key.
        collector.push(value.to_string().as_bytes(), None)?;
    }
    Ok(())
}

fn integers(reader: &mut impl BufRead, collector: &mut Collector) -> Result<(), Problem> {
    loop {
        let mut bytes = Vec::with_capacity(4);
        let mut bounded = (&mut *reader).take(4);
        bounded.read_to_end(&mut bytes).map_err(Problem::Io)?;
        let Ok(number) = <[u8; 4]>::try_from(&bytes[..]) else {
            return match bytes.len() {
                0 => Ok(()),
                len => Err(Problem::Torn(len)),
            };
        };
        let number = u32::from_be_bytes(number);
        collector.push(number.to_string().as_bytes(), None)?;
    }
}

/// The second and the third of three columns. A first line whose third column is no number names the columns.
///
/// More columns are refused: in a trace that has them the third is often not the size of the item, and a key with a comma in it
/// would be taken apart in silence.
fn csv(reader: &mut impl BufRead, collector: &mut Collector) -> Result<(), Problem> {
    const EXPECTED: &str =
        "three columns, time, key and size, without quotes, the size in bytes from 0 to 4294967295";
    let mut lines = Lines::new(reader);
    let mut first = true;
    while let Some((number, line)) = lines.next()? {
        let mut columns = line.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
        let (_time, key, size) = (columns.next(), columns.next(), columns.next());
        let is_first = std::mem::take(&mut first);
        let is_other = columns.next().is_some() || line.contains(&b'"');
        let fields = key
            .zip(size)
            .filter(|(key, _)| !key.is_empty() && !is_other);
        let Some((key, size)) = fields else {
            return Err(Problem::line(number, line, EXPECTED.to_owned()));
        };
        match integer::<u32>(size) {
            Some(size) => collector.push(key, Some(size))?,
            None if is_first && !size.first().is_some_and(u8::is_ascii_digit) => {}
            _ => return Err(Problem::line(number, line, EXPECTED.to_owned())),
        }
    }
    Ok(())
}

fn integer<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    // `parse` would take a plus sign.
    if !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Why a trace could not be read.
#[derive(Debug)]
pub struct TraceError {
    file: String,
    problem: Problem,
}

#[derive(Debug)]
enum Problem {
    Ending,
    Io(io::Error),
    Line {
        number: usize,
        found: String,
        expected: String,
    },
    /// So many bytes after the last whole integer.
    Torn(usize),
    TooMany(&'static str, usize),
    Empty,
}

impl Problem {
    fn line(number: usize, found: &[u8], expected: String) -> Self {
        let cut = if found.len() > MAX_SHOWN { "…" } else { "" };
        let shown = String::from_utf8_lossy(&found[..found.len().min(MAX_SHOWN)]);
        Self::Line {
            number,
            found: format!("\"{}{cut}\"", shown.escape_debug()),
            expected,
        }
    }
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = &self.file;
        match &self.problem {
            Problem::Ending => write!(
                f,
                "{file}: the file's ending says nothing, expected {}",
                Form::EXPECTED
            ),
            Problem::Io(error) => write!(f, "{file}: {error}"),
            Problem::Line {
                number,
                found,
                expected,
            } => write!(f, "{file}:{number}: found {found}, expected {expected}"),
            Problem::Torn(bytes) => write!(
                f,
                "{file}: {bytes} bytes at the end, expected integers of 4 bytes"
            ),
            Problem::TooMany(what, most) => {
                write!(f, "{file}: more than {most} {what}, expected at most that")
            }
            Problem::Empty => write!(f, "{file}: no accesses, expected one at least"),
        }
    }
}

impl std::error::Error for TraceError {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write;

    /// What a reader makes of a text: keys and sizes, or the problem.
    fn read(content: Content, bytes: &[u8]) -> Result<Vec<(String, u64)>, String> {
        let mut collector = Collector::default();
        let mut reader = bytes;
        match content {
            Content::Numbers => numbers(&mut reader, &mut collector),
            Content::Integers => integers(&mut reader, &mut collector),
            Content::Csv => csv(&mut reader, &mut collector),
        }
        .map_err(|problem| {
            let file = "t".to_owned();
            TraceError { file, problem }.to_string()
        })?;
        let trace = collector.finish();
        let key = |at| String::from_utf8_lossy(trace.key(at)).into_owned();
        Ok((0..trace.accesses().len())
            .map(|at| (key(at), trace.size(at)))
            .collect())
    }

    #[test]
    fn what_is_understood() {
        type Case<'a> = (Content, &'a [u8], &'a [(&'a str, u64)]);
        let cases: [Case<'_>; 8] = [
            (
                Content::Numbers,
                b"1\n2\r\n\n1\n*\n",
                &[("1", 0), ("2", 0), ("1", 0)],
            ),
            (Content::Numbers, b" 007\n7", &[("7", 0), ("7", 0)]),
            (
                Content::Integers,
                &[0, 0, 0, 1, 0, 0, 1, 0],
                &[("1", 0), ("256", 0)],
            ),
            (Content::Integers, &[], &[]),
            (Content::Csv, b"0,a,10\n1, b ,20\n", &[("a", 10), ("b", 20)]),
            (Content::Csv, b"time,key,size\n0.5,a,10", &[("a", 10)]),
            (Content::Csv, b"\n0,a b,0\r\n", &[("a b", 0)]),
            (Content::Csv, b"time,key,size\n", &[]),
        ];
        for (content, bytes, expected) in cases {
            let expected: Vec<(String, u64)> = expected
                .iter()
                .map(|&(key, size)| (key.to_owned(), size))
                .collect();
            assert_eq!(read(content, bytes), Ok(expected), "{bytes:?}");
        }
    }

    #[test]
    fn what_is_refused() {
        let long = vec![b'1'; MAX_LINE + 1];
        let number = "expected an integer from 0 to 18446744073709551615, one a line";
        let columns = "expected three columns, time, key and size, without quotes, the size in bytes from 0 to 4294967295";
        let cases: [(Content, &[u8], String); 14] = [
            (
                Content::Csv,
                b"0,a,10\n1,b,20,get\n",
                format!("t:2: found \"1,b,20,get\", {columns}"),
            ),
            (
                Content::Csv,
                b"time,key,size,operation\n",
                format!("t:1: found \"time,key,size,operation\", {columns}"),
            ),
            (
                Content::Csv,
                b"0,\"a,b\",10\n",
                format!("t:1: found \"0,\\\"a,b\\\",10\", {columns}"),
            ),
            (
                Content::Numbers,
                b"1\n\nx\n",
                format!("t:3: found \"x\", {number}"),
            ),
            (
                Content::Numbers,
                b"+1",
                format!("t:1: found \"+1\", {number}"),
            ),
            (
                Content::Numbers,
                b"1 2",
                format!("t:1: found \"1 2\", {number}"),
            ),
            (
                Content::Numbers,
                b"18446744073709551616",
                format!("t:1: found \"18446744073709551616\", {number}"),
            ),
            (
                Content::Numbers,
                b"\xff\x1b",
                format!("t:1: found \"\u{fffd}\\u{{1b}}\", {number}"),
            ),
            (
                Content::Numbers,
                &long,
                format!(
                    "t:1: found \"{}…\", expected a line of at most 131072 bytes",
                    "1".repeat(40)
                ),
            ),
            (
                Content::Integers,
                b"12345",
                "t: 1 bytes at the end, expected integers of 4 bytes".to_owned(),
            ),
            (
                Content::Csv,
                b"0,a",
                format!("t:1: found \"0,a\", {columns}"),
            ),
            (
                Content::Csv,
                b"0,a,1\ntime,key,size",
                format!("t:2: found \"time,key,size\", {columns}"),
            ),
            (
                Content::Csv,
                b"0,a,4294967296",
                format!("t:1: found \"0,a,4294967296\", {columns}"),
            ),
            (
                Content::Csv,
                b"0,\"a\",1",
                format!("t:1: found \"0,\\\"a\\\",1\", {columns}"),
            ),
        ];
        for (content, bytes, message) in cases {
            assert_eq!(read(content, bytes), Err(message));
        }
    }

    #[test]
    fn an_ending_says_what_a_file_is() {
        let form = |name: &str| Form::of(Path::new(name)).map(|form| (form.packing, form.content));
        for (name, expected) in [
            ("a.trace", Some((Packing::None, Content::Numbers))),
            ("a.b/A.TRACE.GZ", Some((Packing::Gzip, Content::Numbers))),
            ("a.csv", Some((Packing::None, Content::Csv))),
            ("a.csv.gz", Some((Packing::Gzip, Content::Csv))),
            ("a.trace.xz", Some((Packing::Xz, Content::Integers))),
            ("a.csv.xz", None),
            ("a.txt", None),
            ("a", None),
            ("..", None),
        ] {
            assert_eq!(form(name), expected, "{name}");
        }
    }

    #[test]
    fn packed_files_are_unpacked_and_damaged_ones_refused() {
        let folder = std::env::temp_dir().join(format!("henge-traces-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
        encoder.write_all(b"1\n2\n1\n").expect("packed");
        let packed = encoder.finish().expect("packed");
        // Two members, as `cat a.gz b.gz` makes them.
        let path = folder.join("two.trace.gz");
        fs::write(&path, [&packed[..], &packed].concat()).expect("written");
        let trace = Trace::read(&path).expect("a trace");
        assert_eq!(
            (trace.accesses(), trace.keys()),
            (&[0, 1, 0, 0, 1, 0][..], 2)
        );
        let problem = |name: &str, bytes: &[u8]| {
            let path = folder.join(name);
            fs::write(&path, bytes).expect("written");
            let error = Trace::read(&path).err().expect("it is refused").to_string();
            let start = format!("{}: ", shown(&path));
            let problem = error.strip_prefix(&start).expect("the file is named");
            problem.to_owned()
        };
        let torn = problem("torn.trace.gz", &packed[..packed.len() - 4]);
        assert!(!torn.is_empty());
        assert_ne!(problem("no.trace.gz", b"1\n2\n"), "");
        assert_ne!(problem("no.trace.xz", b"1\n2\n"), "");
        assert_eq!(
            problem("empty.trace", b""),
            "no accesses, expected one at least"
        );
        let ending = problem("a.txt", b"1\n");
        assert!(ending.starts_with("the file's ending says nothing, expected .trace "));
        fs::remove_dir_all(&folder).expect("removed");
    }
}
