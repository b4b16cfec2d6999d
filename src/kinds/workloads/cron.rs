//! The schedules of cron jobs, and the names of time zones.

use std::ops::RangeInclusive;

use crate::field::go_quote;
use crate::time::parse_duration;

/// The fields of a schedule: what numbers each takes, and their names, which begin with the first number.
const FIELDS: [(RangeInclusive<u64>, &[&str]); 5] = [
    (0..=59, &[]),
    (0..=23, &[]),
    (1..=31, &[]),
    (1..=12, &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]),
    (0..=6, &["sun", "mon", "tue", "wed", "thu", "fri", "sat"]),
];

const DESCRIPTORS: &[&str] = &["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];

/// Whether a schedule can be read: five fields, or one of the names for them.
pub fn check_schedule(schedule: &str) -> Result<(), String> {
    let mut schedule = schedule;
    if schedule.starts_with("TZ=") || schedule.starts_with("CRON_TZ=") {
        let zone = schedule.split_once('=').map_or("", |(_, rest)| rest);
        let Some((zone, rest)) = zone.split_once(' ') else {
            return Err("invalid schedule format: runtime error: slice bounds out of range [:-1]".to_owned());
        };
        if !is_time_zone(zone) {
            return Err(format!("provided bad location {zone}: unknown time zone {zone}"));
        }
        schedule = rest.trim();
    }
    if schedule.starts_with('@') {
        return check_descriptor(schedule);
    }
    let fields: Vec<&str> = schedule.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        let found = fields.len();
        return Err(format!("expected exactly {} fields, found {found}: [{}]", FIELDS.len(), fields.join(" ")));
    }
    for (field, (bounds, names)) in fields.into_iter().zip(&FIELDS) {
        for range in field.split(',').filter(|range| !range.is_empty()) {
            check_range(range, bounds, names)?;
        }
    }
    Ok(())
}

fn check_descriptor(schedule: &str) -> Result<(), String> {
    if DESCRIPTORS.contains(&schedule) {
        return Ok(());
    }
    match schedule.strip_prefix("@every ").map(parse_duration) {
        Some(Ok(_)) => Ok(()),
        Some(Err(why)) => Err(format!("failed to parse duration {schedule}: {why}")),
        None => Err(format!("unrecognized descriptor: {schedule}")),
    }
}

/// `*`, `N`, `N-M`, each with `/STEP` after it.
fn check_range(text: &str, bounds: &RangeInclusive<u64>, names: &[&str]) -> Result<(), String> {
    let parts: Vec<&str> = text.split('/').collect();
    let ends: Vec<&str> = parts[0].split('-').collect();
    let (start, mut end) = match ends[..] {
        ["*" | "?", ..] => (*bounds.start(), *bounds.end()),
        [only] => {
            let only = number_or_name(only, bounds, names)?;
            (only, only)
        }
        [start, end] => (number_or_name(start, bounds, names)?, number_or_name(end, bounds, names)?),
        _ => return Err(format!("too many hyphens: {text}")),
    };
    let step = match parts[..] {
        [_] => 1,
        [_, step] => {
            if ends.len() == 1 {
                end = *bounds.end();
            }
            number(step)?
        }
        _ => return Err(format!("too many slashes: {text}")),
    };
    let (low, high) = (bounds.start(), bounds.end());
    if start < *low {
        return Err(format!("beginning of range ({start}) below minimum ({low}): {text}"));
    }
    if end > *high {
        return Err(format!("end of range ({end}) above maximum ({high}): {text}"));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {text}"));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    Ok(())
}

fn number_or_name(text: &str, bounds: &RangeInclusive<u64>, names: &[&str]) -> Result<u64, String> {
    match (*bounds.start()..).zip(names).find(|(_, name)| name.eq_ignore_ascii_case(text)) {
        Some((number, _)) => Ok(number),
        None => number(text),
    }
}

/// A number as Go's `strconv.Atoi` reads it.
fn number(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let failed =
        |why: &str| format!("failed to parse int from {text}: strconv.Atoi: parsing {}: {why}", go_quote(text));
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(failed("invalid syntax"));
    }
    let number: i64 = text.parse().map_err(|_| failed("value out of range"))?;
    u64::try_from(number).map_err(|_| format!("negative number ({number}) not allowed: {text}"))
}

/// Whether the time zone database has this name, in this spelling.
pub fn is_time_zone(name: &str) -> bool {
    matches!(name, "" | "UTC" | "Local")
        || jiff::tz::TimeZone::get(name).is_ok_and(|zone| zone.iana_name() == Some(name))
}

/// Whether a name is made as the database makes them.
pub fn is_time_zone_form(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'+');
    name.split('/').all(|part| {
        !matches!(part, "." | "..")
            && !part.starts_with('-')
            && (1..=14).contains(&part.len())
            && part.bytes().all(fits)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_read() {
        for fine in [
            "* * * * *",
            "*/15 0-6/2 1,15 JAN-mar mon",
            "@hourly",
            "@every 1h30m",
            "TZ=Europe/Berlin 0 0 ? * 0",
            "5/10 * * * *",
            "+5 * * * *",
            ", * * * *",
        ] {
            assert_eq!(check_schedule(fine), Ok(()), "{fine}");
        }
        for (wrong, why) in [
            ("bad", "expected exactly 5 fields, found 1: [bad]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("* * * * 7", "end of range (7) above maximum (6): 7"),
            ("5-3 * * * *", "beginning of range (5) beyond end of range (3): 5-3"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("*/2/3 * * * *", "too many slashes: */2/3"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
            ("*/-1 * * * *", "negative number (-1) not allowed: -1"),
            ("@hourlyx", "unrecognized descriptor: @hourlyx"),
            ("@every x", "failed to parse duration @every x: time: invalid duration \"x\""),
            ("TZ=Nowhere * * * * *", "provided bad location Nowhere: unknown time zone Nowhere"),
        ] {
            assert_eq!(check_schedule(wrong), Err(why.to_owned()), "{wrong}");
        }
    }

    #[test]
    fn time_zones_are_known_by_their_exact_names() {
        for name in ["Etc/UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "UTC", "Asia/Calcutta"] {
            assert!(is_time_zone_form(name) && is_time_zone(name), "{name}");
        }
        for name in ["europe/berlin", "Etc/UTCx", "Mars/X"] {
            assert!(is_time_zone_form(name) && !is_time_zone(name), "{name}");
        }
        for name in ["Bad Value!", "a//b", "../x", "-a"] {
            assert!(!is_time_zone_form(name), "{name}");
        }
    }
}
