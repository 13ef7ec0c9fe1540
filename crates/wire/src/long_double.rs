//! `LongDouble`: the extended format of the x87 (64 bits of mantissa, exponents to 2^16383), in which Redis on x86-64 reckons
//! `INCRBYFLOAT`: read from text as C's `strtold` does, added, and written with 17 decimals, each rounded to nearest, ties
//! to even. So a client reads the same digits, on every machine. It is for this one command, and can do no more than that.

use std::fmt;

/// The longest text that is read, in bytes. Redis has a buffer of 5 KiB for it, with a zero at its end; the greatest number,
/// written in full, has 4,933 digits.
const MAX_TEXT: usize = 5 * 1024 - 1;
/// The exponent of the last bit of what is too small to be normal.
const MIN_EXPONENT: i32 = -16_445;
/// The exponent of the last bit of the greatest numbers.
const MAX_EXPONENT: i32 = 16_383 - 63;
/// Digits after the point that are written.
const DECIMALS: u32 = 17;
/// An exponent beyond this, in either direction, decides alone, whatever the digits are: there are fewer than `MAX_TEXT`.
const EXPONENT_LIMIT: i64 = 100_000;

/// See the head of the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LongDouble {
    negative: bool,
    magnitude: Magnitude,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Magnitude {
    /// `mantissa * 2^exponent`. The mantissa's top bit is set, or the exponent is the least one.
    Finite {
        mantissa: u64,
        exponent: i32,
    },
    Infinite,
}

impl LongDouble {
    /// Reads a number: decimal or hexadecimal, with a sign, a point and an exponent if need be, or `inf` or `infinity`. None
    /// for anything else, spaces included, and for what is too large or so small that nothing is left of it.
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.len() > MAX_TEXT {
            return None;
        }
        let (negative, text) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            _ => (false, text),
        };
        if text.eq_ignore_ascii_case(b"inf") || text.eq_ignore_ascii_case(b"infinity") {
            let magnitude = Magnitude::Infinite;
            return Some(Self {
                negative,
                magnitude,
            });
        }
        let magnitude = match text {
            [b'0', b'x' | b'X', rest @ ..] => hexadecimal(rest)?,
            _ => decimal(text)?,
        };
        Some(Self {
            negative,
            magnitude,
        })
    }

    /// The sum; none if it is infinite, or no number.
    #[must_use]
    pub fn plus(self, other: Self) -> Option<Self> {
        let (
            Magnitude::Finite {
                mantissa: a,
                exponent: a_exponent,
            },
            Magnitude::Finite {
                mantissa: b,
                exponent: b_exponent,
            },
        ) = (self.magnitude, other.magnitude)
        else {
            return None;
        };
        if (a_exponent, a) < (b_exponent, b) {
            return other.plus(self);
        }
        // The greater one, with a bit above it for the carry and 62 below for what is shifted out.
        let base = u128::from(a) << 62;
        let apart = a_exponent.abs_diff(b_exponent);
        let low = u128::from(b) << 62;
        let shifted = low.checked_shr(apart).unwrap_or(0);
        let sticky = shifted.checked_shl(apart).unwrap_or(0) != low;
        let (sum, sticky) = if self.negative == other.negative {
            (base + shifted, sticky)
        } else {
            // What was shifted out is taken away too: a little less than the difference is left.
            (base - shifted - u128::from(sticky), sticky)
        };
        let negative = if sum == 0 {
            self.negative && other.negative
        } else {
            self.negative
        };
        let magnitude = rounded(sum, a_exponent - 62, sticky);
        (magnitude != Magnitude::Infinite).then_some(Self {
            negative,
            magnitude,
        })
    }
}

/// With up to 17 decimals, without the zeros at their end; nothing is `-0`.
impl fmt::Display for LongDouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.negative { "-" } else { "" };
        let (mantissa, exponent) = match self.magnitude {
            Magnitude::Infinite => return write!(f, "{sign}inf"),
            Magnitude::Finite { mantissa, exponent } => (mantissa, exponent),
        };
        if exponent >= 0 {
            let mut integer = Big::from(mantissa);
            integer.shift_left(exponent.unsigned_abs());
            return write!(f, "{sign}{}", integer.into_decimal());
        }
        let unit = 10u128.pow(DECIMALS);
        // Sixty-four bits and fifty-seven: it fits.
        let scaled = divided_by_power(u128::from(mantissa) * unit, exponent.unsigned_abs(), false);
        let (integer, fraction) = (scaled / unit, scaled % unit);
        if scaled == 0 {
            return f.write_str("0");
        }
        write!(f, "{sign}{integer}")?;
        if fraction == 0 {
            return Ok(());
        }
        let digits = format!("{fraction:017}");
        write!(f, ".{}", digits.trim_end_matches('0'))
    }
}

/// Reads digits, a point somewhere among them, and an exponent after one of the marks: the digits with the point left out, how
/// many of them are after it, and the exponent.
fn parts(text: &[u8], is_digit: fn(u8) -> bool, marks: [u8; 2]) -> Option<(Vec<u8>, i64, i64)> {
    let end = text.iter().position(|byte| marks.contains(byte));
    let (number, exponent) = match end {
        None => (text, 0),
        Some(end) => (&text[..end], power(&text[end + 1..])?),
    };
    let mut digits = Vec::with_capacity(number.len());
    let mut after_point = None;
    for &byte in number {
        if byte == b'.' && after_point.is_none() {
            after_point = Some(0);
        } else if is_digit(byte) {
            digits.push(byte);
            after_point = after_point.map(|count| count + 1);
        } else {
            return None;
        }
    }
    if digits.is_empty() {
        return None;
    }
    let zeros = digits.iter().take_while(|&&digit| digit == b'0').count();
    digits.drain(..zeros);
    Some((digits, after_point.unwrap_or(0), exponent))
}

/// An exponent's digits and sign; what is beyond every bound stays there.
fn power(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits.iter().fold(0, |value: i64, digit| {
        (value * 10 + i64::from(digit - b'0')).min(EXPONENT_LIMIT)
    });
    Some(if negative { -value } else { value })
}

fn decimal(text: &[u8]) -> Option<Magnitude> {
    let (digits, after_point, exponent) = parts(text, |b| b.is_ascii_digit(), [b'e', b'E'])?;
    if digits.is_empty() {
        return Some(Magnitude::ZERO);
    }
    // The number is digits * 10^ten, and its first digit counts 10^(first - 1).
    let ten = exponent - after_point;
    let first = ten + i64::try_from(digits.len()).expect("texts are short");
    // 1.2e4932 is the greatest number, and half of 3.6e-4951 is the least that is not rounded to nothing.
    if !(-4_960..=4_940).contains(&first) {
        return None;
    }
    let mut number = Big::from(0);
    for chunk in digits.chunks(9) {
        let value = chunk
            .iter()
            .fold(0, |value, digit| value * 10 + u32::from(digit - b'0'));
        number.multiply_and_add(10u32.pow(chunk.len() as u32), value);
    }
    let five = ten.unsigned_abs() as u32;
    let (bits, exponent, sticky) = if ten >= 0 {
        number.multiply_by_power_of_five(five);
        number.top()
    } else {
        let mut divisor = Big::from(1);
        divisor.multiply_by_power_of_five(five);
        number.quotient(divisor)
    };
    // Powers of ten are those of five, with as many of two.
    accepted(rounded(bits, exponent + ten as i32, sticky))
}

fn hexadecimal(text: &[u8]) -> Option<Magnitude> {
    let (digits, after_point, exponent) = parts(text, |b| b.is_ascii_hexdigit(), [b'p', b'P'])?;
    let mut number = Big::from(0);
    for chunk in digits.chunks(7) {
        let value = chunk.iter().fold(0, |value, &digit| {
            let digit = char::from(digit).to_digit(16).expect("it was looked at");
            value * 16 + digit
        });
        number.multiply_and_add(1 << (4 * chunk.len()), value);
    }
    if digits.is_empty() {
        return Some(Magnitude::ZERO);
    }
    let (bits, shift, sticky) = number.top();
    let exponent = i64::from(shift) + exponent - 4 * after_point;
    accepted(rounded(bits, exponent as i32, sticky))
}

/// What is not too large nor too small, from what was not zero.
fn accepted(magnitude: Magnitude) -> Option<Magnitude> {
    (magnitude != Magnitude::Infinite && magnitude != Magnitude::ZERO).then_some(magnitude)
}

impl Magnitude {
    const ZERO: Self = Self::Finite {
        mantissa: 0,
        exponent: MIN_EXPONENT,
    };
}

/// The number nearest to `bits * 2^exponent`, and a little more if `sticky`; there are 66 bits or more then.
fn rounded(bits: u128, exponent: i32, sticky: bool) -> Magnitude {
    if bits == 0 {
        return Magnitude::ZERO;
    }
    let most = bits.ilog2().cast_signed();
    let mut unit = (exponent + most - 63).max(MIN_EXPONENT);
    let shift = unit - exponent;
    let mut mantissa = if shift <= 0 {
        bits << -shift
    } else {
        divided_by_power(bits, shift.unsigned_abs(), sticky)
    };
    if mantissa >> 64 != 0 {
        mantissa >>= 1;
        unit += 1;
    }
    if unit > MAX_EXPONENT {
        return Magnitude::Infinite;
    }
    if mantissa == 0 {
        return Magnitude::ZERO;
    }
    Magnitude::Finite {
        mantissa: mantissa as u64,
        exponent: unit,
    }
}

/// `bits / 2^power`, of a little more than `bits` if `sticky`, to the nearest integer, ties to even. The power is not 0.
fn divided_by_power(bits: u128, power: u32, sticky: bool) -> u128 {
    // With a power of 128 the quotient is less than one half, or just above it.
    let quotient = bits.checked_shr(power).unwrap_or(0);
    let Some(half) = 1u128.checked_shl(power - 1) else {
        return 0;
    };
    let rest = bits & (half | (half - 1));
    let up = rest > half || rest == half && (sticky || quotient % 2 == 1);
    quotient + u128::from(up)
}

/// An integer of any size, the lowest limb first, without zeros at the end. What is read bounds it to 35,000 bits.
struct Big(Vec<u32>);

impl From<u64> for Big {
    fn from(value: u64) -> Self {
        let mut limbs = vec![value as u32, (value >> 32) as u32];
        trim(&mut limbs);
        Self(limbs)
    }
}

fn trim(limbs: &mut Vec<u32>) {
    while limbs.last() == Some(&0) {
        limbs.pop();
    }
}

impl Big {
    fn multiply_and_add(&mut self, factor: u32, addend: u32) {
        let mut carry = u64::from(addend);
        for limb in &mut self.0 {
            carry += u64::from(*limb) * u64::from(factor);
            *limb = carry as u32;
            carry >>= 32;
        }
        if carry > 0 {
            self.0.push(carry as u32);
        }
    }

    fn multiply_by_power_of_five(&mut self, power: u32) {
        /// The greatest power of five in a limb.
        const STEP: u32 = 13;
        for _ in 0..power / STEP {
            self.multiply_and_add(5u32.pow(STEP), 0);
        }
        self.multiply_and_add(5u32.pow(power % STEP), 0);
    }

    fn shift_left(&mut self, bits: u32) {
        self.multiply_and_add(1 << (bits % 32), 0);
        let zeros = std::iter::repeat_n(0, (bits / 32) as usize);
        self.0.splice(..0, zeros);
    }

    fn bits(&self) -> u32 {
        let top = self.0.last().map_or(32, |limb| limb.leading_zeros());
        self.0.len().max(1) as u32 * 32 - top
    }

    /// Up to 128 bits from the top, the exponent of the lowest of them, and whether there is any below.
    fn top(&self) -> (u128, i32, bool) {
        let below = self.0.len().saturating_sub(4);
        let exponent = i32::try_from(32 * below).expect("texts are short");
        let bits = self.0[below..]
            .iter()
            .rev()
            .fold(0, |bits, &limb| (bits << 32) | u128::from(limb));
        let sticky = self.0[..below].iter().any(|&limb| limb != 0);
        (bits, exponent, sticky)
    }

    /// The quotient of two numbers above zero: 68 bits or 69 of it, the exponent of the lowest of them, and whether there
    /// is a remainder.
    fn quotient(mut self, mut divisor: Self) -> (u128, i32, bool) {
        const BITS: u32 = 69;
        // Both are brought to one length, so that the quotient's first bit is its first or its second.
        let (mine, its) = (self.bits(), divisor.bits());
        self.shift_left(its.saturating_sub(mine));
        divisor.shift_left(mine.saturating_sub(its));
        let mut quotient = 0;
        for bit in 0..BITS {
            if bit > 0 {
                self.shift_left(1);
            }
            quotient <<= 1;
            if self.subtract(&divisor) {
                quotient |= 1;
            }
        }
        let exponent = mine.cast_signed() - its.cast_signed() - BITS.cast_signed() + 1;
        (quotient, exponent, !self.0.is_empty())
    }

    /// Subtracts what is not greater; false if it is.
    fn subtract(&mut self, other: &Self) -> bool {
        let less = self.0.len() < other.0.len()
            || self.0.len() == other.0.len() && self.0.iter().rev().lt(other.0.iter().rev());
        if less {
            return false;
        }
        let mut borrow = false;
        for (n, limb) in self.0.iter_mut().enumerate() {
            let (less, first) = limb.overflowing_sub(other.0.get(n).copied().unwrap_or(0));
            let (less, second) = less.overflowing_sub(u32::from(borrow));
            *limb = less;
            borrow = first || second;
        }
        trim(&mut self.0);
        true
    }

    fn into_decimal(mut self) -> String {
        const CHUNK: u64 = 1_000_000_000;
        let mut chunks = Vec::new();
        while !self.0.is_empty() {
            let mut rest = 0;
            for limb in self.0.iter_mut().rev() {
                let value = (rest << 32) | u64::from(*limb);
                *limb = (value / CHUNK) as u32;
                rest = value % CHUNK;
            }
            trim(&mut self.0);
            chunks.push(rest);
        }
        let first = chunks.pop().unwrap_or(0).to_string();
        let rest = chunks.iter().rev().map(|chunk| format!("{chunk:09}"));
        std::iter::once(first).chain(rest).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> LongDouble {
        LongDouble::parse(text.as_bytes()).unwrap_or_else(|| panic!("{text:?} is a number"))
    }

    /// What Valkey 9.1.2 on x86-64 answers to `SET k a`, `INCRBYFLOAT k b`; none where that would be infinite, or no number.
    #[test]
    fn sums_are_those_of_redis() {
        for (a, b, sum) in [
            ("0", "0", Some("0")),
            ("3.0", "1.1", Some("4.1")),
            ("0.1", "0.2", Some("0.3")),
            ("10.50", "0.1", Some("10.6")),
            ("5.0e3", "2.0e2", Some("5200")),
            ("-5", "5", Some("0")),
            ("-0", "-0", Some("0")),
            ("-0.0", "0", Some("0")),
            ("0", "-0.000000000000000004", Some("0")),
            ("0", "-0.000000000000000005", Some("0")),
            ("0", "0.000000000000000005", Some("0")),
            ("0", "0.000000000000000015", Some("0.00000000000000002")),
            ("1", "1e-17", Some("1.00000000000000001")),
            ("1", "1e-20", Some("1")),
            (
                "0.000000000000000001",
                "0.00000000000000001",
                Some("0.00000000000000001"),
            ),
            ("9223372036854775807", "1", Some("9223372036854775808")),
            ("18446744073709551615", "1", Some("18446744073709551616")),
            ("18446744073709551616", "1", Some("18446744073709551616")),
            ("18446744073709551616", "3", Some("18446744073709551620")),
            ("36893488147419103232", "1", Some("36893488147419103232")),
            ("36893488147419103232", "3", Some("36893488147419103236")),
            (
                "-18446744073709551616",
                "0.5",
                Some("-18446744073709551616"),
            ),
            (
                "3.40282346638528859812e+38",
                "1",
                Some("340282346638528859811704183484516925440"),
            ),
            (
                "1.18973149535723176502e4932",
                "1.18973149535723176502e4932",
                None,
            ),
            (
                "-1.18973149535723176502e4932",
                "-1.18973149535723176502e4932",
                None,
            ),
            ("3.6451995318824746025e-4951", "0", Some("0")),
            ("1.8225997659412373013e-4951", "0", Some("0")),
            ("0e99999999999999999999", "1", Some("1")),
            ("0x1p3", "1", Some("9")),
            ("0x1.8", "0", Some("1.5")),
            ("0x.8p1", "0", Some("1")),
            ("0XaBcDeF", "0", Some("11259375")),
            ("0x1p-16445", "0", Some("0")),
            ("0x1.8p-16446", "0", Some("0")),
            ("0x0p99999", "0", Some("0")),
            ("0x8000000000000000.8", "0", Some("9223372036854775808")),
            ("0x8000000000000001.8", "0", Some("9223372036854775810")),
            (
                "0x8000000000000000.800000000000000000000000000001",
                "0",
                Some("9223372036854775809"),
            ),
            ("inf", "1", None),
            ("-inf", "1", None),
            ("INFINITY", "-inf", None),
            ("1", "inf", None),
            ("Infinity", "0", None),
            (".5", "1", Some("1.5")),
            ("5.", "1", Some("6")),
            ("+5", "1", Some("6")),
            ("00012", "1", Some("13")),
            ("1.5e+003", "1", Some("1501")),
            (
                "123456789012345678901234567890",
                "0",
                Some("123456789012345678899921813504"),
            ),
            (
                "0.12345678901234567890123",
                "0",
                Some("0.12345678901234568"),
            ),
            (
                "1234567.12345678901234567890123",
                "0",
                Some("1234567.12345678901237989"),
            ),
            (
                "99999999999999999999.99999",
                "0.00001",
                Some("100000000000000000000"),
            ),
        ] {
            for (a, b) in [(a, b), (b, a)] {
                let found = number(a).plus(number(b)).map(|sum| sum.to_string());
                assert_eq!(found.as_deref(), sum, "{a} + {b}");
            }
        }
    }

    #[test]
    fn what_redis_takes_for_no_number_is_none() {
        for text in [
            "",
            "0x",
            "0x.",
            "0x1p",
            "0x1p+",
            "0x1p16384",
            "0x1p-16446",
            "infinit",
            "nan",
            "nan(1)",
            " 1",
            "1 ",
            "1e",
            "1e+",
            "e5",
            ".",
            "++5",
            "1.2.3",
            "1,5",
            "1e5.5",
            "1_000",
            "- 5",
            "1\0",
            "--1",
            "-",
            "0x-1",
            "1e-",
            "-inf ",
            "1.1897314953572317651e4932",
            "1.1897314953572317650857593266280070e4932",
            "1e4933",
            "1e99999999999999999999",
            "-1e4933",
            "1.8225997659412373012e-4951",
            "1e-4960",
            "1e-99999999999999999999",
        ] {
            assert_eq!(LongDouble::parse(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn a_text_is_read_up_to_the_length_that_redis_reads() {
        for (zeros, reads) in [(5118, true), (5119, false)] {
            let text = "0".repeat(zeros) + "1";
            let found = LongDouble::parse(text.as_bytes()).map(|number| number.to_string());
            assert_eq!(found, reads.then(|| "1".to_owned()));
        }
        let text = format!("0.{}{}e4901", "0".repeat(4900), "1".repeat(210));
        assert_eq!(number(&text).to_string(), "1.11111111111111111");
    }

    /// The greatest number in full reads as itself, and a bit more is too much.
    #[test]
    fn the_greatest_number_goes_there_and_back() {
        let greatest = number("0x1.fffffffffffffffep16383");
        let text = greatest.to_string();
        assert_eq!(text.len(), 4933);
        assert!(text.starts_with("118973149535723176502126385303097020516906332229"));
        assert_eq!(number(&text), greatest);
        assert_eq!(greatest.plus(number("0x1p16319")), None);
        assert_eq!(
            greatest.plus(number("0x1p16318")),
            Some(greatest),
            "it is under a half"
        );
        assert_eq!(
            greatest.plus(number(&format!("-{text}"))),
            Some(number("0"))
        );
    }

    /// Integers of 64 bits are exact, and doubles are as Rust reads and writes them.
    #[test]
    fn it_agrees_with_integers_and_with_doubles() {
        let mut random = 42u64;
        let mut next = || {
            // Knuth's generator for MMIX; the upper bits are good.
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            random >> 20
        };
        for _ in 0..20_000 {
            let [a, b] = [next(), next()].map(|n| n.cast_signed() - (1 << 43));
            let sum = number(&a.to_string()).plus(number(&b.to_string()));
            assert_eq!(sum.map(|sum| sum.to_string()), Some((a + b).to_string()));
            // Seventeen decimals of a sum of multiples of 2^-17 are all of them.
            let [x, y] = [a, b].map(|n| n as f64 / f64::from(1 << 17));
            let sum = number(&format!("{x:.17}")).plus(number(&format!("{y:.17}")));
            let exact = format!("{:.17}", x + y);
            let exact = exact.trim_end_matches('0').trim_end_matches('.');
            assert_eq!(
                sum.map(|sum| sum.to_string()).as_deref(),
                Some(exact),
                "{x} + {y}"
            );
        }
    }
}
