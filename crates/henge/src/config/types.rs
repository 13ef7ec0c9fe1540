//! The types of the settings: what a listen address, a size or the name of a policy is, and how each is written.
//!
//! Parsing here is of one value; which setting has which type, and its bounds, is [`settings`](super::settings).

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use henge_engine::PolicyKind;
use henge_engine::compress::Algorithm;

use super::literal::{Literal, SettingValue, quoted};

/// A text that is not a value of the type it was parsed as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidValue {
    found: String,
    expected: String,
}

impl InvalidValue {
    pub(super) fn new(found: &str, expected: String) -> Self {
        Self {
            found: quoted(found),
            expected,
        }
    }
}

impl fmt::Display for InvalidValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "found {}, expected {}", self.found, self.expected)
    }
}

impl std::error::Error for InvalidValue {}

/// An address to listen on, not yet resolved: a port, and a host if one was named.
///
/// Written `:8080` or `8080` for all interfaces, else `127.0.0.1:8080`, `[::1]:8080` or `localhost:8080`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenAddress {
    /// A host name or an IP address without brackets; none for all interfaces, over IPv6 and IPv4.
    pub host: Option<String>,
    /// The port; 0 takes any that is free.
    pub port: u16,
}

impl ListenAddress {
    const EXPECTED: &str = "an address such as :8080, 127.0.0.1:8080, [::1]:8080 or localhost:8080";

    /// All interfaces, on one port.
    pub const fn all_interfaces(port: u16) -> Self {
        Self { host: None, port }
    }

    fn parse(text: &str) -> Option<Self> {
        let (host, port) = match text.rsplit_once(':') {
            None | Some(("", _)) => (None, text.trim_start_matches(':')),
            Some((host, port)) => (Some(parse_host(host)?), port),
        };
        // `u16::from_str` takes "+80"; `trim_start_matches` took any number of colons.
        let digits_only = port.bytes().all(|byte| byte.is_ascii_digit());
        if !digits_only || text.starts_with("::") {
            return None;
        }
        Some(Self {
            host,
            port: port.parse().ok()?,
        })
    }
}

/// The host of an address, or none when it can be neither an IP address nor a name.
pub(super) fn parse_host(host: &str) -> Option<String> {
    if let Some(bracketed) = host.strip_prefix('[') {
        let address: Ipv6Addr = bracketed.strip_suffix(']')?.parse().ok()?;
        return Some(address.to_string());
    }
    let last_label = host.rsplit('.').next()?;
    // A name whose last label is all digits is an IPv4 address to every resolver (WHATWG URL, 3.5), so 300.1.1.1 is
    // a slip and not a name. This also refuses "::1:8080", whose host would be "::1".
    if last_label.bytes().all(|byte| byte.is_ascii_digit()) {
        return host
            .parse::<Ipv4Addr>()
            .ok()
            .map(|address| address.to_string());
    }
    // RFC 1035 bounds a name at 253 characters and a label at 63; underscores occur in container names.
    let label_is_sound = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    (host.len() <= 253 && host.split('.').all(label_is_sound)).then(|| host.to_owned())
}

impl FromStr for ListenAddress {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        Self::parse(text).ok_or_else(|| InvalidValue::new(text, Self::EXPECTED.to_owned()))
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            None => write!(f, ":{}", self.port),
            Some(host) if host.contains(':') => write!(f, "[{host}]:{}", self.port),
            Some(host) => write!(f, "{host}:{}", self.port),
        }
    }
}

impl SettingValue for ListenAddress {
    type Bounds = ();

    fn expected((): &()) -> String {
        Self::EXPECTED.to_owned()
    }

    fn read(literal: &Literal, (): &()) -> Option<Self> {
        match literal {
            Literal::Integer(port) => Some(Self::all_interfaces(u16::try_from(*port).ok()?)),
            _ => Self::parse(literal.text()?),
        }
    }

    fn literal(&self) -> Literal {
        Literal::Text(self.to_string())
    }
}

/// The name of a node, unique in its cluster: up to 64 letters, digits, `-`, `_` and `.`, beginning with a letter or a
/// digit. Safe in a URL, a file name, a log line and a metric's label without quoting. The word `none` is taken: it
/// says that there is no name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(String);

impl NodeId {
    /// Room for a UUID or a pod's name with a prefix; short enough for a line of a log.
    const CHARS_MAX: usize = 64;

    const EXPECTED: &str =
        "up to 64 letters, digits, \"-\", \"_\" and \".\", beginning with a letter or a digit";

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn parse(text: &str) -> Option<Self> {
        let sound = text.starts_with(|first: char| first.is_ascii_alphanumeric())
            && text.len() <= Self::CHARS_MAX
            && !text.eq_ignore_ascii_case("none")
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
        sound.then(|| Self(text.to_owned()))
    }
}

impl FromStr for NodeId {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        Self::parse(text).ok_or_else(|| InvalidValue::new(text, Self::EXPECTED.to_owned()))
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl SettingValue for NodeId {
    type Bounds = ();

    fn expected((): &()) -> String {
        Self::EXPECTED.to_owned()
    }

    fn read(literal: &Literal, (): &()) -> Option<Self> {
        Self::parse(literal.text()?)
    }

    fn literal(&self) -> Literal {
        Literal::Text(self.0.clone())
    }
}

/// A number of bytes.
///
/// Written as an integer, or as a number with a unit in any case: `KiB`, `MiB`, `GiB`, `TiB` and the bare letters `k`,
/// `m`, `g`, `t` count in 1024s; `kB`, `MB`, `GB`, `TB` in 1000s. Fractions round down to the byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

impl ByteSize {
    /// Names of the units that sizes are shown in, largest first, with their power of two.
    const SHOWN_UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];

    /// That many bytes.
    pub const fn bytes(count: u64) -> Self {
        Self(count)
    }

    /// That many KiB (1024 bytes). Here and below, what passes a `u64` is the largest there is, which every bound refuses.
    pub const fn kib(count: u64) -> Self {
        Self(count.saturating_mul(1 << 10))
    }

    /// That many MiB.
    pub const fn mib(count: u64) -> Self {
        Self(count.saturating_mul(1 << 20))
    }

    /// That many GiB.
    pub const fn gib(count: u64) -> Self {
        Self(count.saturating_mul(1 << 30))
    }

    /// That many TiB.
    pub const fn tib(count: u64) -> Self {
        Self(count.saturating_mul(1 << 40))
    }

    /// The number of bytes.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The number of bytes as a length in memory; on a machine of 32 bits, at most what it can address.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    fn parse(text: &str) -> Option<Self> {
        let unit_at = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(unit_at);
        let unit_bytes: u128 = match unit.trim_start().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kib" => 1 << 10,
            "m" | "mib" => 1 << 20,
            "g" | "gib" => 1 << 30,
            "t" | "tib" => 1 << 40,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "tb" => 1_000_000_000_000,
            _ => return None,
        };
        let Some((whole, fraction)) = number.split_once('.') else {
            let bytes = u128::from(number.parse::<u64>().ok()?) * unit_bytes;
            return Some(Self(u64::try_from(bytes).ok()?));
        };
        // Nine digits keep the product below far inside a u128, and nobody means a billionth of a terabyte.
        if unit_bytes == 1 || fraction.is_empty() || fraction.len() > 9 {
            return None;
        }
        let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
        let scaled = u128::from(whole.parse::<u64>().ok()?) * scale
            + u128::from(fraction.parse::<u64>().ok()?);
        // A u64 times 10^9 is below 2^94, and a unit is at most 2^40: their product may pass 2^128.
        let bytes = scaled.checked_mul(unit_bytes)? / scale;
        Some(Self(u64::try_from(bytes).ok()?))
    }
}

impl FromStr for ByteSize {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        Self::parse(text)
            .ok_or_else(|| InvalidValue::new(text, "bytes, or a size such as 512MiB".to_owned()))
    }
}

/// Exact: the largest unit of which the size is a whole number, so that what is shown reads back as the same size.
impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, power) in Self::SHOWN_UNITS {
            if self.0 != 0 && self.0.trailing_zeros() >= power {
                return write!(f, "{}{unit}", self.0 >> power);
            }
        }
        write!(f, "{}", self.0)
    }
}

impl SettingValue for ByteSize {
    type Bounds = RangeInclusive<Self>;

    fn expected(bounds: &Self::Bounds) -> String {
        format!(
            "bytes, or a size such as 512MiB, from {} to {}",
            bounds.start(),
            bounds.end()
        )
    }

    fn read(literal: &Literal, bounds: &Self::Bounds) -> Option<Self> {
        let size = match literal {
            Literal::Integer(bytes) => Self(u64::try_from(*bytes).ok()?),
            _ => Self::parse(literal.text()?)?,
        };
        bounds.contains(&size).then_some(size)
    }

    fn literal(&self) -> Literal {
        // Below a unit the plain number is shorter and needs no quotes.
        match i128::from(self.0) {
            bytes if self.0.trailing_zeros() < 10 || bytes == 0 => Literal::Integer(bytes),
            _ => Literal::Text(self.to_string()),
        }
    }
}

/// How much memory the cache may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheSize {
    /// A quarter of the memory of the machine or of the cgroup, found out at the start.
    Auto,
    /// That much.
    Bytes(ByteSize),
}

impl fmt::Display for CacheSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Bytes(size) => size.fmt(f),
        }
    }
}

impl SettingValue for CacheSize {
    type Bounds = RangeInclusive<ByteSize>;

    fn expected(bounds: &Self::Bounds) -> String {
        format!("{}, or \"auto\"", ByteSize::expected(bounds))
    }

    fn read(literal: &Literal, bounds: &Self::Bounds) -> Option<Self> {
        match literal.text() {
            Some(text) if text.eq_ignore_ascii_case("auto") => Some(Self::Auto),
            _ => ByteSize::read(literal, bounds).map(Self::Bytes),
        }
    }

    fn literal(&self) -> Literal {
        match self {
            Self::Auto => Literal::Text("auto".to_owned()),
            Self::Bytes(size) => size.literal(),
        }
    }
}

/// Path types: what a path is of, and the words for it.
macro_rules! path_settings {
    ($( $(#[doc = $doc:literal])+ $type:ident = $expected:literal; )+) => { $(
        $(#[doc = $doc])+
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $type(PathBuf);

        impl $type {
            /// What comes to it in the end is for the system to say.
            pub fn new(path: impl Into<PathBuf>) -> Self {
                Self(path.into())
            }

            /// The path.
            pub fn as_path(&self) -> &Path {
                &self.0
            }
        }

        impl SettingValue for $type {
            type Bounds = ();

            fn expected((): &()) -> String {
                $expected.to_owned()
            }

            fn read(literal: &Literal, (): &()) -> Option<Self> {
                let text = literal.text()?;
                let is_path = !text.is_empty() && !text.contains('\0');
                is_path.then(|| Self::new(text))
            }

            fn literal(&self) -> Literal {
                // It was read from a text.
                Literal::Text(self.0.to_string_lossy().into_owned())
            }
        }
    )+ };
}

path_settings! {
    /// A directory, as a path.
    DirectoryPath = "the path of a directory";
    /// The path of a file.
    FilePath = "the path of a file";
}

/// A length of time: `30s`, `15m`, `1h`; a number without a unit is seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interval(Duration);

impl Interval {
    /// So many seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// The time.
    pub const fn as_duration(self) -> Duration {
        self.0
    }

    fn parse(text: &str) -> Option<Self> {
        let units = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)];
        let (number, seconds) = units
            .iter()
            .find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, *seconds)))
            .unwrap_or((text, 1));
        let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        let number: u64 = number.parse().ok().filter(|_| is_number)?;
        number.checked_mul(seconds).map(Self::seconds)
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let units = [("d", 86_400), ("h", 3600), ("m", 60)];
        let unit = units
            .iter()
            .find(|(_, length)| seconds > 0 && seconds.is_multiple_of(*length));
        match unit {
            Some((unit, length)) => write!(f, "{}{unit}", seconds / length),
            None => write!(f, "{seconds}s"),
        }
    }
}

impl SettingValue for Interval {
    type Bounds = RangeInclusive<Self>;

    fn expected(bounds: &Self::Bounds) -> String {
        format!(
            "a time from {} to {}, such as 90s, 15m or 1h",
            bounds.start(),
            bounds.end()
        )
    }

    fn read(literal: &Literal, bounds: &Self::Bounds) -> Option<Self> {
        let interval = match literal {
            Literal::Integer(seconds) => Self::seconds(u64::try_from(*seconds).ok()?),
            literal => Self::parse(literal.text()?)?,
        };
        bounds.contains(&interval).then_some(interval)
    }

    fn literal(&self) -> Literal {
        Literal::Text(self.to_string())
    }
}

/// Types whose values are words: enums with `ALL` and `name`, matched in any case and shown in lower case.
macro_rules! word_settings {
    ($($type:ident)+) => { $(
        impl SettingValue for $type {
            type Bounds = ();

            fn expected((): &()) -> String {
                format!("one of {}", Self::words().join(", "))
            }

            fn words() -> &'static [&'static str] {
                const WORDS: [&str; $type::ALL.len()] = {
                    let mut words = [""; $type::ALL.len()];
                    let mut at = 0;
                    while at < words.len() {
                        words[at] = $type::ALL[at].name();
                        at += 1;
                    }
                    words
                };
                &WORDS
            }

            fn read(literal: &Literal, (): &()) -> Option<Self> {
                let text = literal.text()?;
                Self::ALL.iter().copied().find(|value| text.eq_ignore_ascii_case(value.name()))
            }

            fn literal(&self) -> Literal {
                Literal::Text(self.name().to_owned())
            }
        }
    )+ };
}

word_settings! { PolicyKind Algorithm ConsistencyLevel LogLevel LogFormat SyncPolicy EncryptionCipher }

/// The enums of words that only the configuration has.
macro_rules! word_enums {
    ($(
        $(#[doc = $doc:literal])+
        $type:ident { $( $(#[doc = $variant_doc:literal])+ $variant:ident = $word:literal, )+ }
    )+) => { $(
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $type { $( $(#[doc = $variant_doc])+ $variant, )+ }

        impl $type {
            /// Every value, in the order of their definition.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The word for it, in lower case.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }
    )+ };
}

word_enums! {
    /// How many replicas must have a write, or agree on a read, before it is answered.
    ConsistencyLevel {
        /// One: asynchronous replication.
        One = "one",
        /// More than half.
        Quorum = "quorum",
        /// Every one.
        All = "all",
    }

    /// When what was written to the log has to be on the disk.
    SyncPolicy {
        /// Before the write is answered.
        Always = "always",
        /// Some time after it.
        Interval = "interval",
        /// When the system likes.
        Never = "never",
    }

    /// How files are encrypted.
    EncryptionCipher {
        /// AES with keys of 256 bits, in Galois/Counter Mode: fast where the processor has instructions for it.
        Aes256Gcm = "aes-256-gcm",
        /// `ChaCha20` with Poly1305: the faster one where it has none.
        ChaCha20Poly1305 = "chacha20-poly1305",
    }

    /// The least severe of the events that are logged.
    LogLevel {
        /// What needs a person.
        Error = "error",
        /// What may need one soon.
        Warn = "warn",
        /// The life of the node.
        Info = "info",
        /// What helps to find a fault.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }

    /// How log lines are written.
    LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object a line, for machines.
        Json = "json",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals() {
        // Input, and how it is shown; none where it is refused.
        for (input, expected) in [
            ("90", Some("90s")),
            ("90s", Some("90s")),
            ("60s", Some("1m")),
            ("15m", Some("15m")),
            ("36h", Some("36h")),
            ("48h", Some("2d")),
            ("0s", Some("0s")),
            ("", None),
            ("m", None),
            ("+1s", None),
            ("1.5h", None),
            ("1 h", None),
            ("99999999999999999999d", None),
            ("9999999999999999999d", None),
        ] {
            let shown = Interval::parse(input).map(|interval| interval.to_string());
            assert_eq!(shown.as_deref(), expected, "{input:?}");
        }
    }

    #[test]
    fn listen_addresses() {
        // Input, and how it is shown; none where it is refused.
        let cases = [
            (":8080", Some(":8080")),
            ("8080", Some(":8080")),
            (":0", Some(":0")),
            ("0", Some(":0")),
            ("127.0.0.1:8080", Some("127.0.0.1:8080")),
            ("0.0.0.0:1", Some("0.0.0.0:1")),
            ("[::1]:8080", Some("[::1]:8080")),
            ("[0:0::1]:8080", Some("[::1]:8080")),
            ("localhost:65535", Some("localhost:65535")),
            ("cache-1.example.org:80", Some("cache-1.example.org:80")),
            ("my_service:80", Some("my_service:80")),
            ("", None),
            (":", None),
            ("::", None),
            ("::8080", None),
            ("::1:8080", None),
            ("fe80::a:8080", None),
            (":65536", None),
            (":+80", None),
            (":-1", None),
            ("+80", None),
            (" :8080", None),
            ("localhost", None),
            ("localhost:", None),
            ("127.0.0.1", None),
            ("127.0.0:80", None),
            ("300.1.1.1:80", None),
            ("[::1]", None),
            ("[::1:80", None),
            ("[127.0.0.1]:80", None),
            ("-a:80", None),
            ("a..b:80", None),
            ("http://a:80", None),
        ];
        for (text, shown) in cases {
            let parsed = text.parse::<ListenAddress>().ok();
            assert_eq!(
                parsed.as_ref().map(ToString::to_string).as_deref(),
                shown,
                "{text:?}"
            );
            if let Some(address) = parsed {
                assert_eq!(address.to_string().parse(), Ok(address));
            }
        }
    }

    #[test]
    fn byte_sizes() {
        let cases = [
            ("0", Some(0), "0"),
            ("1000", Some(1000), "1000"),
            ("1024", Some(1024), "1KiB"),
            ("100B", Some(100), "100"),
            ("512MiB", Some(512 << 20), "512MiB"),
            ("512 mib", Some(512 << 20), "512MiB"),
            ("64k", Some(64 << 10), "64KiB"),
            ("1M", Some(1 << 20), "1MiB"),
            ("1g", Some(1 << 30), "1GiB"),
            ("2T", Some(2 << 40), "2TiB"),
            ("1kB", Some(1000), "1000"),
            ("1GB", Some(1_000_000_000), "1000000000"),
            ("16TB", Some(16_000_000_000_000), "15625000000KiB"),
            ("1.5GiB", Some(3 << 29), "1536MiB"),
            ("0.1KiB", Some(102), "102"),
            ("0.5kb", Some(500), "500"),
            (
                "18446744073709551615",
                Some(u64::MAX),
                "18446744073709551615",
            ),
            ("18446744073709551616", None, ""),
            ("16777216TiB", None, ""),
            ("18446744073709551615.999999999TiB", None, ""),
            ("", None, ""),
            ("MiB", None, ""),
            ("-1", None, ""),
            ("+1", None, ""),
            ("1.5", None, ""),
            ("1.5B", None, ""),
            ("1.", None, ""),
            ("1.MiB", None, ""),
            (".5MiB", None, ""),
            ("1.2.3MiB", None, ""),
            ("1.0000000001MiB", None, ""),
            ("1 Mi B", None, ""),
            ("1Mb/s", None, ""),
            ("1PiB", None, ""),
            ("0x10", None, ""),
            ("1e6", None, ""),
        ];
        for (text, bytes, shown) in cases {
            let parsed = text.parse::<ByteSize>().ok();
            assert_eq!(parsed.map(ByteSize::as_u64), bytes, "{text:?}");
            if let Some(size) = parsed {
                assert_eq!(size.to_string(), shown);
                assert_eq!(size.to_string().parse(), Ok(size));
            }
        }
    }

    #[test]
    fn node_ids() {
        let longest = "n".repeat(64);
        for id in ["a", "node-1", "7", "rack.2_b", "None1", &longest] {
            assert_eq!(
                id.parse::<NodeId>().map(|id| id.to_string()),
                Ok(id.to_owned())
            );
        }
        let too_long = "n".repeat(65);
        for id in ["", "-a", ".a", "a b", "a/b", "é", "none", "NONE", &too_long] {
            assert!(id.parse::<NodeId>().is_err(), "{id:?}");
        }
    }

    #[test]
    fn words_in_any_case() {
        fn read<T: SettingValue<Bounds = ()>>(text: &str) -> Option<T> {
            T::read(&Literal::Untyped(text.to_owned()), &())
        }
        assert_eq!(read("LRU"), Some(PolicyKind::Lru));
        assert_eq!(read("Quorum"), Some(ConsistencyLevel::Quorum));
        assert_eq!(read("none"), Some(None::<Algorithm>));
        for level in LogLevel::ALL {
            assert_eq!(read(level.name()), Some(*level));
        }
        assert_eq!(read::<PolicyKind>("clock"), None);
        assert_eq!(
            PolicyKind::expected(&()),
            "one of lru, lfu, ttl, random, s3fifo, sieve, wtinylfu"
        );
    }
}
