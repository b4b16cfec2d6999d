//! `resource.Quantity`: exact amounts with a suffix (`500m`, `1Gi`, `2e3`), in billionths, and the one text that each is
//! printed as.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

/// Which suffixes an amount is printed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    DecimalSi,
    BinarySi,
    DecimalExponent,
}

/// An amount in billionths; what is finer is rounded away from zero, as upstream does when it reads.
#[derive(Debug, Clone, Copy)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Form,
    #[error("unable to parse quantity's suffix")]
    Suffix,
    #[error("unable to parse numeric part of quantity")]
    Number,
}

const NANO: i128 = 1_000_000_000;

/// Suffixes in steps of a thousand, from billionths.
const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

/// The parts of a quantity's text.
struct Parts<'t> {
    negative: bool,
    /// Without leading zeros.
    whole: &'t str,
    fraction: &'t str,
    suffix: &'t str,
}

fn split(text: &str) -> Result<Parts<'_>, ParseError> {
    let bytes = text.as_bytes();
    let digits = |from: usize| bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count() + from;
    let negative = bytes.first() == Some(&b'-');
    let mut at = usize::from(matches!(bytes.first(), Some(b'-' | b'+')));
    at += bytes[at..].iter().take_while(|b| **b == b'0').count();
    let end = digits(at);
    let whole = &text[at..end];
    at = end;
    let mut fraction = "";
    if bytes.get(at) == Some(&b'.') {
        let end = digits(at + 1);
        fraction = &text[at + 1..end];
        at = end;
    }
    let suffix = &text[at..];
    at += bytes[at..].iter().take_while(|b| b"eEinumkKMGTP".contains(b)).count();
    at += usize::from(matches!(bytes.get(at), Some(b'-' | b'+')));
    if digits(at) != bytes.len() {
        return Err(ParseError::Form);
    }
    Ok(Parts { negative, whole, fraction, suffix })
}

/// What a suffix multiplies by: a power of ten or of two.
enum Scale {
    Ten(i32),
    Two(u32),
}

fn scale(suffix: &str) -> Result<(Scale, Format), ParseError> {
    if let Some(index) = DECIMAL.iter().position(|name| *name == suffix) {
        return Ok((Scale::Ten(index as i32 * 3 - 9), Format::DecimalSi));
    }
    if let Some(index) = BINARY.iter().position(|name| *name == suffix) {
        return Ok((Scale::Two(index as u32 * 10), Format::BinarySi));
    }
    let exponent = suffix.strip_prefix(['e', 'E']).ok_or(ParseError::Suffix)?;
    let exponent = exponent.parse().map_err(|_| ParseError::Suffix)?;
    Ok((Scale::Ten(exponent), Format::DecimalExponent))
}

fn power(exponent: u32) -> i128 {
    10i128.checked_pow(exponent).unwrap_or(i128::MAX)
}

/// All the digits as one number; the largest there is when they are too many.
fn number(parts: &Parts<'_>) -> i128 {
    let digits = parts.whole.bytes().chain(parts.fraction.bytes());
    digits.fold(0i128, |n, digit| n.saturating_mul(10).saturating_add(i128::from(digit - b'0')))
}

fn divide_up(value: i128, by: i128) -> i128 {
    value / by + i128::from(value % by != 0)
}

impl Quantity {
    pub fn parse(text: &str) -> Result<Quantity, ParseError> {
        if text.is_empty() {
            return Err(ParseError::Form);
        }
        let parts = split(text)?;
        let (scale, mut format) = scale(parts.suffix)?;
        let digits = number(&parts);
        let places = parts.fraction.len() as i32;
        let magnitude = match scale {
            Scale::Ten(exponent) => {
                let shift = exponent.saturating_sub(places).saturating_add(9);
                match shift {
                    0.. => digits.saturating_mul(power(shift.unsigned_abs())),
                    _ => divide_up(digits, power(shift.unsigned_abs())),
                }
            }
            Scale::Two(exponent) => {
                let scaled = digits.saturating_mul(1 << exponent);
                let nanos = match 9 - places {
                    shift @ 0.. => scaled.saturating_mul(power(shift.unsigned_abs())),
                    shift => divide_up(scaled, power(shift.unsigned_abs())),
                };
                // Less than one can't be told in binary suffixes, and more than an int64 is cut off there.
                if nanos > 0 && nanos < NANO {
                    format = Format::DecimalSi;
                }
                nanos.min(i128::from(i64::MAX) * NANO)
            }
        };
        Ok(Quantity { nanos: if parts.negative { -magnitude } else { magnitude }, format })
    }

    pub fn new(units: i64, format: Format) -> Quantity {
        Quantity { nanos: i128::from(units) * NANO, format }
    }

    pub fn nanos(&self) -> i128 {
        self.nanos
    }

    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    pub fn signum(&self) -> i32 {
        self.nanos.signum() as i32
    }

    /// The sum, in the format of this one.
    pub fn plus(&self, other: &Quantity) -> Quantity {
        Quantity { nanos: self.nanos.saturating_add(other.nanos), format: self.format }
    }

    /// In whole units, rounded away from zero.
    pub fn value(&self) -> i64 {
        self.rounded(NANO)
    }

    /// In thousandths, rounded away from zero.
    pub fn milli_value(&self) -> i64 {
        self.rounded(NANO / 1000)
    }

    fn rounded(&self, unit: i128) -> i64 {
        let rounded = divide_up(self.nanos.abs(), unit) * self.nanos.signum();
        i64::try_from(rounded).unwrap_or(if rounded < 0 { i64::MIN } else { i64::MAX })
    }

    /// Rounded away from zero to thousandths.
    pub fn round_up_milli(self) -> Quantity {
        let unit = NANO / 1000;
        let nanos = (divide_up(self.nanos.abs(), unit) * self.nanos.signum()).saturating_mul(unit);
        Quantity { nanos, ..self }
    }
}

impl std::ops::Add for Quantity {
    type Output = Quantity;

    /// The sum is printed as the first is, unless that is zero.
    fn add(self, other: Quantity) -> Quantity {
        let format = if self.nanos == 0 { other.format } else { self.format };
        Quantity { nanos: self.nanos.saturating_add(other.nanos), format }
    }
}

impl std::ops::Sub for Quantity {
    type Output = Quantity;

    fn sub(self, other: Quantity) -> Quantity {
        self + Quantity { nanos: -other.nanos, ..other }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Quantity) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Quantity) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Quantity) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl std::str::FromStr for Quantity {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Quantity, ParseError> {
        Quantity::parse(text)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let binary = self.format == Format::BinarySi && self.nanos.abs() >= 1024 * NANO && self.nanos % NANO == 0;
        if binary {
            let mut units = self.nanos / NANO;
            let mut step = 0;
            while units % 1024 == 0 && step + 1 < BINARY.len() {
                units /= 1024;
                step += 1;
            }
            return write!(f, "{units}{}", BINARY[step]);
        }
        let mut amount = self.nanos;
        let mut step = 0;
        while amount % 1000 == 0 && (step + 1 < DECIMAL.len() || self.format == Format::DecimalExponent) {
            amount /= 1000;
            step += 1;
        }
        let exponent = step as i32 * 3 - 9;
        match self.format {
            Format::DecimalExponent if exponent == 0 => write!(f, "{amount}"),
            Format::DecimalExponent => write!(f, "{amount}e{exponent}"),
            _ => write!(f, "{amount}{}", DECIMAL[step]),
        }
    }
}

/// The text that a quantity read from `text` is printed as. Short texts that need no rounding stay as they were written,
/// even when another form is canonical (`1.234`, `01Ki`): upstream keeps them beside the number.
pub fn canonical(text: &str) -> Result<Cow<'_, str>, ParseError> {
    if text == "0" {
        return Ok(Cow::Borrowed(text));
    }
    if text.is_empty() {
        return Err(ParseError::Form);
    }
    let parts = split(text)?;
    let (scale, _) = scale(parts.suffix)?;
    // Without digits before the point, a zero stands there.
    let count = parts.whole.len().max(1) as i32 + parts.fraction.len() as i32;
    let kept = match scale {
        Scale::Ten(exponent) => {
            let places = exponent.saturating_sub(parts.fraction.len() as i32);
            let last = if parts.fraction.is_empty() { parts.whole } else { parts.fraction };
            let round = match parts.fraction.len() {
                1 | 2 => last.bytes().all(|b| b == b'0') && parts.whole.ends_with(&"00"[..3 - parts.fraction.len()]),
                _ => last.ends_with("000"),
            };
            count <= 18 && places >= -9 && places % 3 == 0 && !round && !parts.whole.is_empty()
        }
        Scale::Two(exponent) => {
            let fits = parts.whole.len().max(1) as i32 + (exponent as i32 * 3 / 10) < 15;
            let odd = parts.whole.parse::<i64>().is_ok_and(|n| n & 7 != 0);
            parts.fraction.is_empty() && fits && odd
        }
    };
    if kept {
        return Ok(Cow::Borrowed(text));
    }
    let canonical = Quantity::parse(text)?.to_string();
    Ok(if canonical == text { Cow::Borrowed(text) } else { Cow::Owned(canonical) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_canonical_text_is_upstreams() {
        for (text, expected) in [
            ("0", "0"),
            ("0m", "0"),
            ("1024Mi", "1Gi"),
            ("0.5", "500m"),
            (".5", "500m"),
            ("1.5Gi", "1536Mi"),
            ("1000", "1k"),
            ("1500", "1500"),
            ("1000m", "1"),
            ("1e3", "1e3"),
            ("12e6", "12e6"),
            ("1000e3", "1e6"),
            ("100Mi", "100Mi"),
            ("1023", "1023"),
            ("512Ki", "512Ki"),
            ("0.5Ki", "512"),
            ("0.0001Ki", "102400u"),
            ("-1.5", "-1500m"),
            ("1.234", "1.234"),
            ("1.0", "1"),
            ("0.1n", "1n"),
            ("1Ei", "1Ei"),
            ("100Ei", "9223372036854775807"),
            ("1.", "1."),
        ] {
            assert_eq!(canonical(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_told() {
        for (text, error) in [
            ("", ParseError::Form),
            ("abc", ParseError::Form),
            ("1 Gi", ParseError::Form),
            ("1Gii", ParseError::Suffix),
            ("1mm", ParseError::Suffix),
            ("1e", ParseError::Suffix),
            ("{}", ParseError::Form),
        ] {
            assert_eq!(Quantity::parse(text).err(), Some(error), "{text}");
            assert_eq!(canonical(text).err(), Some(error), "{text}");
        }
    }

    #[test]
    fn amounts_are_compared_added_and_rounded_up() {
        let of = |text: &str| Quantity::parse(text).expect(text);
        assert!(of("1Gi") > of("1G"));
        assert_eq!(of("1000m"), of("1"));
        assert_eq!((of("1Gi") + of("512Mi")).to_string(), "1536Mi");
        assert_eq!((of("1") - of("1500m")).to_string(), "-500m");
        assert_eq!(of("1500m").value(), 2);
        assert_eq!(of("-1500m").value(), -2);
        assert_eq!(of("1u").milli_value(), 1);
        assert_eq!(of("1u").round_up_milli().to_string(), "1m");
    }

    proptest! {
        #[test]
        fn printing_keeps_the_amount(units in -10i64.pow(15)..10i64.pow(15), suffix in 0usize..17) {
            let names = ["", "m", "k", "M", "n", "u", "Ki", "Mi", "Gi", "e3", "E-2", "G", "T", ".5", ".25Ki", ".001", "Ti"];
            let text = format!("{units}{}", names[suffix]);
            let quantity = Quantity::parse(&text).expect("well-formed");
            let printed = canonical(&text).expect("well-formed");
            prop_assert_eq!(Quantity::parse(&printed).ok(), Some(quantity));
            // A binary amount that is no multiple of 1024 has no suffix to say that it is binary, so it is decimal next time.
            if !names[suffix].ends_with('i') || printed.ends_with('i') {
                prop_assert_eq!(canonical(&printed).expect("well-formed"), &*printed);
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[-+0-9.eEinumkKMGTPx]{0,12}") {
            prop_assert_eq!(Quantity::parse(&text).is_ok(), canonical(&text).is_ok());
        }
    }
}
