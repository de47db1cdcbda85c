//! Durations and dates as Flink and StateFun write them.

use std::time::Duration;

/// No duration is longer: a hundred years.
pub(super) const LONGEST: Duration = Duration::from_secs(100 * 365 * DAY);
const DAY: u64 = 24 * 60 * 60;

/// Units with their names, as Flink's `TimeUtils` has them, and what they are in nanoseconds.
const UNITS: [(&[&str], u128); 7] = [
    (&["d", "day", "days"], DAY as u128 * 1_000_000_000),
    (&["h", "hour", "hours"], 3_600_000_000_000),
    (&["min", "m", "minute", "minutes"], 60_000_000_000),
    (&["s", "sec", "secs", "second", "seconds"], 1_000_000_000),
    (&["ms", "milli", "millis", "millisecond", "milliseconds", ""], 1_000_000),
    // The letter mu is two characters, which look alike.
    (&["µs", "μs", "micro", "micros", "microsecond", "microseconds"], 1000),
    (&["ns", "nano", "nanos", "nanosecond", "nanoseconds"], 1),
];

/// Reads a duration, or says what is wrong with it.
pub(crate) fn duration(text: &str) -> Result<Duration, &'static str> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err("it does not begin with a number");
    }
    let unit = unit.trim().to_lowercase();
    let unit = UNITS.iter().find(|(names, _)| names.contains(&&*unit));
    let Some((_, nanoseconds)) = unit else {
        return Err("units are d, h, min, m, s, ms, µs and ns, and their names");
    };
    let too_long = "it is longer than a hundred years";
    let number: u64 = number.parse().map_err(|_| too_long)?;
    let nanoseconds = u128::from(number) * nanoseconds;
    if nanoseconds > LONGEST.as_nanos() {
        return Err(too_long);
    }
    let (seconds, rest) = (nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000);
    Ok(Duration::new(seconds as u64, rest as u32))
}

/// Reads a date of the form `yyyy-MM-dd HH:mm:ss.SSS Z`, as milliseconds since 1970.
pub(super) fn date_ms(text: &str) -> Option<i64> {
    const FORM: &[u8] = b"0000-00-00 00:00:00.000 +0000";
    let bytes = text.as_bytes();
    let fits = |(byte, form): (&u8, &u8)| match form {
        b'0' => byte.is_ascii_digit(),
        b'+' => matches!(byte, b'+' | b'-'),
        form => byte == form,
    };
    if bytes.len() != FORM.len() || !bytes.iter().zip(FORM).all(fits) {
        return None;
    }
    let number = |from: usize, to: usize| text[from..to].parse::<i64>().expect("they are digits");
    let (year, month, day) = (number(0, 4), number(5, 7), number(8, 10));
    let (hour, minute, second) = (number(11, 13), number(14, 16), number(17, 19));
    let (offset_hours, offset_minutes) = (number(25, 27), number(27, 29));
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_of_month = match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    let is_date = year > 0 && (1..=days_of_month).contains(&day);
    let is_time = hour < 24 && minute < 60 && second < 60;
    let offset = offset_hours * 60 + offset_minutes;
    // Java knows no others.
    if !is_date || !is_time || offset_minutes >= 60 || offset > 18 * 60 {
        return None;
    }
    let offset = if bytes[24] == b'-' { -offset } else { offset };
    let minutes = (days_since_1970(year, month, day) * 24 + hour) * 60 + minute - offset;
    Some((minutes * 60 + second) * 1000 + number(20, 23))
}

/// Days from the beginning of 1970, in the Gregorian calendar, which is thought to have been always.
///
/// Years begin in March here, so that the day that is there every four years is their last; 153 days are five months
/// (Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_flink() {
        let ms = |text: &str| duration(text).map(|duration| duration.as_millis());
        for (text, expected) in [
            ("1min", 60_000),
            ("20 s", 20_000),
            ("2m", 120_000),
            ("2 M", 120_000),
            ("100", 100),
            (" 7\tms ", 7),
            ("0", 0),
            ("1d", 86_400_000),
            ("2 days", 172_800_000),
            ("1 Hour", 3_600_000),
            ("3 minutes", 180_000),
            ("4 secs", 4000),
            ("5000 micros", 5),
            ("6000 µs", 6),
            ("6000 μs", 6),
            ("7000000 nanoseconds", 7),
            ("3153600000000000000 ns", 3_153_600_000_000),
            ("3153600000s", 3_153_600_000_000),
        ] {
            assert_eq!(ms(text), Ok(expected), "{text}");
        }
        for (names, nanoseconds) in UNITS {
            for name in names {
                let read = duration(&format!("3{name}")).unwrap();
                assert_eq!(read.as_nanos(), 3 * nanoseconds, "{name}");
            }
        }
        for text in ["", "s", "-1s", "1.5s", "+1", "1 week", "1 s s", "1us", "٣s"] {
            assert!(ms(text).is_err(), "{text}");
        }
        for text in [
            "3153600001s",
            "3153600000000000001ns",
            "18446744073709551616",
            "99999999999999999999999999ns",
        ] {
            assert_eq!(ms(text), Err("it is longer than a hundred years"), "{text}");
        }
    }

    #[test]
    fn dates_are_those_of_statefun() {
        for (text, expected) in [
            ("1970-01-01 00:00:00.000 +0000", 0),
            ("1970-01-01 00:00:00.001 -0100", 3_600_001),
            ("1969-12-31 23:59:59.999 +0000", -1),
            ("2020-02-01 04:15:00.000 +0000", 1_580_530_500_000),
            ("2020-02-29 12:00:00.500 +0530", 1_582_957_800_500),
            ("2000-03-01 00:00:00.000 +0000", 951_868_800_000),
            ("0001-01-01 00:00:00.000 +0000", -62_135_596_800_000),
            ("9999-12-31 23:59:59.999 +0000", 253_402_300_799_999),
        ] {
            assert_eq!(date_ms(text), Some(expected), "{text}");
        }
        for text in [
            "",
            // As StateFun's documentation has it, which StateFun does not read.
            "2020-02-01 04:15:00.00 Z",
            "2020-02-01 04:15:00.000 Z",
            "2020-02-01T04:15:00.000 +0000",
            "2021-02-29 00:00:00.000 +0000",
            "1900-02-29 00:00:00.000 +0000",
            "2020-13-01 00:00:00.000 +0000",
            "2020-00-01 00:00:00.000 +0000",
            "2020-04-31 00:00:00.000 +0000",
            "2020-04-00 00:00:00.000 +0000",
            "2020-01-01 24:00:00.000 +0000",
            "2020-01-01 00:60:00.000 +0000",
            "2020-01-01 00:00:60.000 +0000",
            "2020-01-01 00:00:00.000 +1801",
            "2020-01-01 00:00:00.000 +0060",
            "0000-01-01 00:00:00.000 +0000",
            "2020-01-01 00:00:00.000 +00000",
        ] {
            assert_eq!(date_ms(text), None, "{text}");
        }
    }
}
