//! `metav1.Time`, `MicroTime` and `Duration`: read and printed as Go does, with its errors.

use std::borrow::Cow;
use std::time::{SystemTime, UNIX_EPOCH};

const TIME: &str = "2006-01-02T15:04:05Z07:00";
const MICRO_TIME: &str = "2006-01-02T15:04:05.000000Z07:00";

/// A point in time, to the microsecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    pub seconds: i64,
    pub micros: u32,
}

/// Now, as `metav1.Time` prints it.
pub fn now() -> String {
    Time::now().to_string()
}

/// Now, as `metav1.MicroTime` prints it.
pub fn now_micro() -> String {
    Time::now().to_micro_string()
}

/// Reads a `metav1.Time`.
pub fn parse(text: &str) -> Result<Time, String> {
    read(text, TIME)
}

/// Reads a `metav1.MicroTime`.
pub fn parse_micro(text: &str) -> Result<Time, String> {
    read(text, MICRO_TIME)
}

/// The text that a `metav1.Time` read from `text` is printed as.
pub fn canonical(text: &str) -> Result<Cow<'_, str>, String> {
    let printed = parse(text)?;
    // Already in UTC and without a fraction.
    Ok(if text.len() == 20 && text.ends_with('Z') { Cow::Borrowed(text) } else { Cow::Owned(printed.to_string()) })
}

/// The text that a `metav1.MicroTime` read from `text` is printed as.
pub fn canonical_micro(text: &str) -> Result<Cow<'_, str>, String> {
    let printed = parse_micro(text)?;
    // Six digits and no offset.
    Ok(if text.len() == 27 { Cow::Borrowed(text) } else { Cow::Owned(printed.to_micro_string()) })
}

impl Time {
    pub fn now() -> Time {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Time { seconds: since.as_secs() as i64, micros: since.subsec_micros() }
    }

    /// Without the fraction of a second.
    pub fn from_unix(seconds: i64) -> Time {
        Time { seconds, micros: 0 }
    }

    pub fn unix(&self) -> i64 {
        self.seconds
    }

    fn civil(&self) -> String {
        let (days, second) = (self.seconds.div_euclid(86_400), self.seconds.rem_euclid(86_400));
        let (year, month, day) = civil_of(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
    }

    pub fn to_micro_string(&self) -> String {
        format!("{}.{:06}Z", self.civil(), self.micros)
    }
}

impl std::fmt::Display for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}Z", self.civil())
    }
}

/// The day's number counted from 1970, in the proleptic Gregorian calendar (years start in March here).
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn civil_of(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Reads a text from left to right against a layout; an error quotes what was left and what was expected there.
struct Scan<'t> {
    text: &'t str,
    rest: &'t str,
    layout: &'static str,
}

impl<'t> Scan<'t> {
    fn mismatch<T>(&self, at: &str, expected: &str) -> Result<T, String> {
        Err(format!(
            "parsing time {} as {}: cannot parse {} as {}",
            quote(self.text),
            quote(self.layout),
            quote(at),
            quote(expected)
        ))
    }

    fn problem<T>(&self, what: &str) -> Result<T, String> {
        Err(format!("parsing time {}: {what}", quote(self.text)))
    }

    fn literal(&mut self, expected: &'static str) -> Result<(), String> {
        match self.rest.strip_prefix(expected) {
            Some(rest) => {
                self.rest = rest;
                Ok(())
            }
            None => self.mismatch(self.rest, expected),
        }
    }

    /// `least` to `most` digits, as many as there are.
    fn number(&mut self, least: usize, most: usize, name: &'static str) -> Result<i64, String> {
        let count = self.rest.bytes().take(most).take_while(u8::is_ascii_digit).count();
        if count < least {
            return self.mismatch(self.rest, name);
        }
        let (digits, rest) = self.rest.split_at(count);
        self.rest = rest;
        Ok(digits.bytes().fold(0, |n, digit| n * 10 + i64::from(digit - b'0')))
    }

    fn bounded(
        &mut self,
        least: usize,
        name: &'static str,
        range: std::ops::Range<i64>,
        what: &str,
    ) -> Result<i64, String> {
        let number = self.number(least, 2, name)?;
        if range.contains(&number) { Ok(number) } else { self.problem(&format!("{what} out of range")) }
    }

    /// Microseconds after a point (or comma) that a digit follows; none elsewhere.
    fn fraction(&mut self) -> u32 {
        let bytes = self.rest.as_bytes();
        if !matches!(bytes, [b'.' | b',', digit, ..] if digit.is_ascii_digit()) {
            return 0;
        }
        let count = bytes[1..].iter().take_while(|b| b.is_ascii_digit()).count();
        let digits = bytes[1..=count].iter().map(|b| u32::from(b - b'0')).chain(std::iter::repeat(0));
        let micros = digits.take(6).fold(0, |n, digit| n * 10 + digit);
        self.rest = &self.rest[1 + count..];
        micros
    }

    /// Seconds to the east.
    fn zone(&mut self) -> Result<i64, String> {
        const NAME: &str = "Z07:00";
        if let Some(rest) = self.rest.strip_prefix('Z') {
            self.rest = rest;
            return Ok(0);
        }
        let held = self.rest;
        let digit = |b: u8| i64::from(b.wrapping_sub(b'0'));
        let &[sign, h1, h2, b':', m1, m2, ..] = held.as_bytes() else { return self.mismatch(held, NAME) };
        if !matches!(sign, b'+' | b'-') || ![h1, h2, m1, m2].iter().all(u8::is_ascii_digit) {
            return self.mismatch(held, NAME);
        }
        let (hours, minutes) = (digit(h1) * 10 + digit(h2), digit(m1) * 10 + digit(m2));
        self.rest = &held[6..];
        if hours > 24 {
            return self.problem("time zone offset hour out of range");
        }
        if minutes > 60 {
            return self.problem("time zone offset minute out of range");
        }
        Ok((hours * 3600 + minutes * 60) * if sign == b'-' { -1 } else { 1 })
    }
}

fn read(text: &str, layout: &'static str) -> Result<Time, String> {
    let mut scan = Scan { text, rest: text, layout };
    let year = scan.number(4, 4, "2006")?;
    scan.literal("-")?;
    let month = scan.bounded(2, "01", 1..13, "month")?;
    scan.literal("-")?;
    let day = scan.number(2, 2, "02")?;
    scan.literal("T")?;
    let hour = scan.bounded(1, "15", 0..24, "hour")?;
    scan.literal(":")?;
    let minute = scan.bounded(2, "04", 0..60, "minute")?;
    scan.literal(":")?;
    let second = scan.bounded(2, "05", 0..60, "second")?;
    let micros = if layout == TIME {
        scan.fraction()
    } else {
        let held = scan.rest;
        let exact = held.len() >= 7 && held.starts_with('.') && held.as_bytes()[1..7].iter().all(u8::is_ascii_digit);
        if !exact {
            return scan.mismatch(held, ".000000");
        }
        scan.rest = &held[1..];
        scan.number(6, 6, ".000000")? as u32
    };
    let offset = scan.zone()?;
    if !scan.rest.is_empty() {
        return scan.problem(&format!("extra text: {}", quote(scan.rest)));
    }
    if day < 1 || day > days_in(year, month) {
        return scan.problem("day out of range");
    }
    let seconds = days_of(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    Ok(Time { seconds, micros })
}

/// In double quotes, as the `time` package of Go quotes.
fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            ' '..='~' => quoted.push(c),
            _ => {
                let mut buffer = [0; 4];
                c.encode_utf8(&mut buffer).bytes().for_each(|byte| quoted.push_str(&format!("\\x{byte:02x}")));
            }
        }
    }
    quoted.push('"');
    quoted
}

/// A `metav1.Duration` in nanoseconds.
pub fn parse_duration(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {}", quote(text));
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (whole, after) = rest.split_at(digits);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => after.split_at(after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len())),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let scale: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "" => return Err(format!("time: missing unit in duration {}", quote(text))),
            _ => return Err(format!("time: unknown unit {} in duration {}", quote(unit), quote(text))),
        };
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
        let part =
            fraction.bytes().take(15).fold((0i128, 1i128), |(n, by), d| (n * 10 + i128::from(d - b'0'), by * 10));
        total = total.saturating_add(whole.saturating_mul(scale)).saturating_add(part.0 * scale / part.1);
        rest = after;
    }
    i64::try_from(if negative { -total } else { total }).map_err(|_| invalid())
}

/// A duration as Go prints it: `1h30m0s`, `1.5s`, `100ms`.
pub fn print_duration(nanos: i64) -> String {
    let magnitude = nanos.unsigned_abs();
    let sign = if nanos < 0 { "-" } else { "" };
    let decimal = |amount: u64, unit: u64| {
        let fraction = format!("{:0width$}", amount % unit, width = unit.ilog10() as usize);
        let fraction = fraction.trim_end_matches('0');
        let point = if fraction.is_empty() || unit == 1 { "" } else { "." };
        format!("{}{point}{}", amount / unit, if unit == 1 { "" } else { fraction })
    };
    match magnitude {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{magnitude}ns"),
        1_000..1_000_000 => format!("{sign}{}µs", decimal(magnitude, 1_000)),
        1_000_000..1_000_000_000 => format!("{sign}{}ms", decimal(magnitude, 1_000_000)),
        _ => {
            let (minutes, rest) = (magnitude / 60_000_000_000, magnitude % 60_000_000_000);
            let seconds = decimal(rest, 1_000_000_000);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{sign}{seconds}s"),
                (0, minutes) => format!("{sign}{minutes}m{seconds}s"),
                (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_printed_in_utc() {
        for (text, expected) in [
            ("2020-01-02T03:04:05Z", "2020-01-02T03:04:05Z"),
            ("2020-01-02T03:04:05.999Z", "2020-01-02T03:04:05Z"),
            ("2020-02-29T23:30:00-01:00", "2020-03-01T00:30:00Z"),
            ("1969-12-31T23:59:59+00:00", "1969-12-31T23:59:59Z"),
            ("2020-01-02T3:04:05Z", "2020-01-02T03:04:05Z"),
        ] {
            assert_eq!(canonical(text).as_deref(), Ok(expected), "{text}");
        }
        let micro = canonical_micro("2020-01-02T03:04:05.000006+01:00");
        assert_eq!(micro.as_deref(), Ok("2020-01-02T02:04:05.000006Z"));
    }

    #[test]
    fn errors_are_gos() {
        let layout = r#" as "2006-01-02T15:04:05Z07:00": cannot parse"#;
        for (text, expected) in [
            ("junk", format!(r#"parsing time "junk"{layout} "junk" as "2006""#)),
            ("", format!(r#"parsing time ""{layout} "" as "2006""#)),
            ("2020-01-02", format!(r#"parsing time "2020-01-02"{layout} "" as "T""#)),
            ("2020/01", format!(r#"parsing time "2020/01"{layout} "/01" as "-""#)),
            ("2020-01-02T03:04:05", format!(r#"parsing time "2020-01-02T03:04:05"{layout} "" as "Z07:00""#)),
            ("2020-13-02T03:04:05Z", r#"parsing time "2020-13-02T03:04:05Z": month out of range"#.to_owned()),
            ("2021-02-29T03:04:05Z", r#"parsing time "2021-02-29T03:04:05Z": day out of range"#.to_owned()),
            ("2020-01-02T03:04:05Zx", r#"parsing time "2020-01-02T03:04:05Zx": extra text: "x""#.to_owned()),
        ] {
            assert_eq!(parse(text), Err(expected));
        }
        let error = parse_micro("2020-01-02T03:04:05Z").expect_err("no fraction");
        assert!(error.ends_with(r#"cannot parse "Z" as ".000000""#), "{error}");
    }

    #[test]
    fn durations_are_gos() {
        for (text, printed) in [
            ("1h30m", "1h30m0s"),
            ("90s", "1m30s"),
            ("1.5s", "1.5s"),
            ("100ms", "100ms"),
            ("1500us", "1.5ms"),
            ("-3ns", "-3ns"),
            ("0", "0s"),
            ("24h", "24h0m0s"),
        ] {
            assert_eq!(parse_duration(text).map(print_duration).as_deref(), Ok(printed), "{text}");
        }
        assert_eq!(parse_duration("junk"), Err(r#"time: invalid duration "junk""#.to_owned()));
        assert_eq!(parse_duration("5"), Err(r#"time: missing unit in duration "5""#.to_owned()));
        assert_eq!(parse_duration("5x"), Err(r#"time: unknown unit "x" in duration "5x""#.to_owned()));
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(seconds in -62_135_596_800i64..253_402_300_800, micros in 0u32..1_000_000) {
            let time = Time { seconds, micros };
            prop_assert_eq!(parse_micro(&time.to_micro_string()), Ok(time));
            prop_assert_eq!(parse(&time.to_string()), Ok(Time { micros: 0, ..time }));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,30}", nanos: i64) {
            let _ = parse(&text);
            let _ = parse_micro(&text);
            let _ = parse_duration(&text);
            prop_assert_eq!(parse_duration(&print_duration(nanos)), Ok(nanos));
        }
    }
}
