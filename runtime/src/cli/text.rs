//! Text for people: what a terminal may be shown, sizes, times and counts. Pure.

use std::time::Duration;

const SECONDS_PER_DAY: u64 = 86_400;

/// The text with everything escaped that could drive a terminal or disguise what is written: control characters
/// (C0, DEL and C1) and the ones that turn the direction of writing. Tenants' data passes here before it is shown.
pub(super) fn escaped(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut shown, character| {
        match character {
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            _ if is_dangerous(character) => shown.extend(character.escape_unicode()),
            _ => shown.push(character),
        }
        shown
    })
}

/// The same, but lines stay lines.
pub(super) fn escaped_lines(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(escaped).collect();
    lines.join("\n")
}

/// A JSON text, safe for a terminal and still the same JSON: what JSON leaves bare is written as `\uXXXX`.
pub(super) fn escaped_json(value: &serde_json::Value) -> String {
    let text = value.to_string();
    text.chars().fold(String::with_capacity(text.len()), |mut shown, character| {
        // All dangerous characters are in the basic plane, so one escape is enough.
        if is_dangerous(character) {
            shown.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            shown.push(character);
        }
        shown
    })
}

fn is_dangerous(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}')
}

/// How many columns of a terminal the text takes: East Asian wide characters and emoji take two.
pub(super) fn width(text: &str) -> usize {
    text.chars().map(character_width).sum()
}

fn character_width(character: char) -> usize {
    match u32::from(character) {
        0x0300..=0x036f | 0xfe00..=0xfe0f => 0,
        0x1100..=0x115f
        | 0x2e80..=0xa4cf
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f
        | 0xff00..=0xff60
        | 0xffe0..=0xffe6
        | 0x1f300..=0x1faff
        | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

/// `1 row`, `2 rows`.
pub(super) fn count(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// A size in the largest unit that leaves at least one: `512 B`, `9.4 KB`, `120 MB`. A KB is 1,024 bytes.
pub(super) fn size(bytes: u64) -> String {
    let mut rest = bytes as f64;
    if bytes < 1_024 {
        return format!("{bytes} B");
    }
    for unit in ["KB", "MB"] {
        rest /= 1_024.0;
        if rest < 1_023.5 {
            return with_unit(rest, unit);
        }
    }
    with_unit(rest / 1_024.0, "GB")
}

/// A time span: `412 µs`, `3.2 ms`, `1.4 s`.
pub(super) fn span(time: Duration) -> String {
    let micros = time.as_micros() as f64;
    if micros < 999.5 {
        format!("{micros:.0} µs")
    } else if micros < 999_500.0 {
        with_unit(micros / 1e3, "ms")
    } else {
        with_unit(micros / 1e6, "s")
    }
}

fn with_unit(number: f64, unit: &str) -> String {
    if number < 9.95 { format!("{number:.1} {unit}") } else { format!("{number:.0} {unit}") }
}

/// Unix seconds as RFC 3339 in UTC: `2026-11-22T00:44:00Z`.
///
/// The days are counted in years that begin in March, as in Howard Hinnant's `civil_from_days`
/// (<https://howardhinnant.github.io/date_algorithms.html>).
pub(super) fn date(unix_seconds: u64) -> String {
    let days = unix_seconds / SECONDS_PER_DAY + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let second = unix_seconds % SECONDS_PER_DAY;
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3_600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nothing_that_drives_a_terminal_is_left() {
        assert_eq!(escaped("a\tb\r\n\u{1b}[31m\0\u{7f}"), "a\\tb\\r\\n\\u{1b}[31m\\u{0}\\u{7f}");
        assert_eq!(escaped("\u{9b}2J"), "\\u{9b}2J");
        assert_eq!(escaped("user\u{202e}gpj.exe"), "user\\u{202e}gpj.exe");
        assert_eq!(escaped("Zoë 漢字 🐭 C:\\dir"), "Zoë 漢字 🐭 C:\\dir");
        assert_eq!(escaped_lines("one\ntwo\u{7}"), "one\ntwo\\u{7}");
    }

    #[test]
    fn escaped_json_is_the_same_json() -> serde_json::Result<()> {
        let value = json!({"a": "\u{1b}[0m \u{9b}2J \u{202e} \u{7f} \"ë\""});
        let text = escaped_json(&value);
        assert!(!text.chars().any(is_dangerous), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text)?, value);
        Ok(())
    }

    #[test]
    fn wide_characters_take_two_columns() {
        assert_eq!(width("abc"), 3);
        assert_eq!(width("漢字"), 4);
        assert_eq!(width("e\u{301}"), 1);
    }

    #[test]
    fn sizes_and_spans_have_fitting_units() {
        assert_eq!([0, 1_023, 1_024, 1_048_575].map(size), ["0 B", "1023 B", "1.0 KB", "1.0 MB"]);
        assert_eq!([9_999, 128 << 20, 3 << 30].map(size), ["9.8 KB", "128 MB", "3.0 GB"]);
        let spans =
            [412, 999, 1_000, 3_240, 45_600, 999_700, 61_000_000].map(Duration::from_micros).map(span);
        assert_eq!(spans, ["412 µs", "999 µs", "1.0 ms", "3.2 ms", "46 ms", "1.0 s", "61 s"]);
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01T00:00:00Z");
        assert_eq!(date(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(date(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(date(1_795_307_040), "2026-11-22T00:24:00Z");
        assert_eq!(date(4_107_542_400), "2100-03-01T00:00:00Z");
    }

    #[test]
    fn one_is_singular() {
        assert_eq!([0, 1, 2].map(|number| count(number, "row")), ["0 rows", "1 row", "2 rows"]);
    }
}
