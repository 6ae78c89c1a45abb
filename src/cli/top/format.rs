//! Numbers and times in few characters, and the little diagrams in the rows.

use std::time::Duration;

use jiff::Timestamp;

use crate::cli::scaled;
use crate::cli::status::span;

/// The heights of a diagram's columns, from the lowest.
const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The steps of a number in few characters.
const UNITS: [&str; 7] = ["", "K", "M", "G", "T", "P", "E"];

/// A whole number in at most five characters.
pub(super) fn number(n: u64) -> String {
    if n < 100_000 { n.to_string() } else { scaled(n as f64, 1000.0, &UNITS) }
}

/// Events a second in at most five characters; `-` where it is not known.
pub(super) fn rate(rate: Option<f64>) -> String {
    match rate {
        None => "-".into(),
        Some(rate) if rate <= 0.0 => "0".into(),
        Some(rate) if rate < 9.95 => format!("{rate:.1}"),
        Some(rate) if rate < 99_999.5 => format!("{rate:.0}"),
        Some(rate) => scaled(rate, 1000.0, &UNITS),
    }
}

/// Bytes a second in at most five characters, in steps of 1024; `-` where it is not known.
pub(super) fn byte_rate(rate: Option<f64>) -> String {
    rate.map_or_else(|| "-".into(), |rate| scaled(rate, 1024.0, &UNITS))
}

/// A number of bytes, in steps of 1024.
pub(super) fn bytes(n: u64) -> String {
    scaled(n as f64, 1024.0, &UNITS)
}

/// Milliseconds in at most four characters.
pub(super) fn millis(ms: f64) -> String {
    match ms {
        _ if ms < 0.995 => format!("{ms:.2}"),
        _ if ms < 99.95 => format!("{ms:.1}"),
        _ if ms < 9999.5 => format!("{ms:.0}"),
        _ => format!("{:.0}s", (ms / 1000.0).min(999.0)),
    }
}

/// A time that has passed.
pub(super) fn passed(time: Duration) -> String {
    span(i64::try_from(time.as_secs()).unwrap_or(i64::MAX))
}

/// How long still until a time.
pub(super) fn until(time: &str, now: Timestamp) -> String {
    time.parse::<Timestamp>().map_or_else(|_| "?".into(), |time| span(time.duration_since(now).as_secs()))
}

/// The time of day of a time in UTC, with the date where that is not today's.
pub(super) fn clock(time: &str, now: Timestamp) -> String {
    let today = now.to_string();
    match (time.split_once('T'), today.split_once('T')) {
        (Some((date, time)), Some((today, _))) => {
            let time = time.get(..8).unwrap_or(time);
            if date == today { time.into() } else { format!("{} {time}", date.get(5..).unwrap_or(date)) }
        }
        _ => time.into(),
    }
}

/// A diagram of the last samples, `width` characters, the newest to the right; the highest of them fills its column. Where
/// there was no sample, there is none.
pub(super) fn spark(samples: impl DoubleEndedIterator<Item = Option<f64>>, width: usize) -> String {
    let mut shown: Vec<_> = samples.rev().take(width).collect();
    shown.resize(width, None);
    let highest = shown.iter().flatten().copied().fold(0.0, f64::max);
    let column = |sample: &Option<f64>| match sample {
        None => ' ',
        Some(sample) if highest <= 0.0 || *sample <= 0.0 => LEVELS[0],
        Some(sample) => LEVELS[((sample / highest * LEVELS.len() as f64).ceil() as usize).clamp(1, LEVELS.len()) - 1],
    };
    shown.iter().rev().map(column).collect()
}

/// The same character for a terminal that knows ASCII alone.
pub(super) fn ascii(symbol: &str) -> &'static str {
    const STEPS: [&str; 8] = ["_", ".", "-", "=", "+", "*", "%", "#"];
    let Some(symbol) = symbol.chars().next() else { return " " };
    if let Some(level) = LEVELS.iter().position(|&level| level == symbol) {
        return STEPS[level];
    }
    match symbol {
        '─' => "-",
        '│' => "|",
        '┌' | '┐' | '└' | '┘' => "+",
        '…' => "~",
        '→' => ">",
        _ => "?",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_to_their_columns() {
        assert_eq!([0, 99_999, 100_000, 999_600, u64::MAX].map(number), ["0", "99999", "100K", "1.0M", "18.4E"]);
        let rates = [0.0, 0.04, 9.94, 9.96, 99_999.4, 1e9].map(|n| rate(Some(n)));
        assert_eq!(rates, ["0", "0.0", "9.9", "10", "99999", "1.0G"]);
        assert_eq!(rate(None), "-");
        let bytes = [0.0, 1023.4, 1023.6, 102_348.0, 1_048_000.0, 1e12].map(|n| byte_rate(Some(n)));
        assert_eq!(bytes, ["0", "1023", "1.0K", "99.9K", "1023K", "931G"]);
        assert_eq!(
            [0.0, 0.994, 0.999, 99.9, 150.4, 9999.4, 3e4].map(millis),
            ["0.00", "0.99", "1.0", "99.9", "150", "9999", "30s"]
        );
    }

    #[test]
    fn a_diagram_ends_with_the_newest_sample_and_leaves_gaps() {
        let samples = [Some(9.0), Some(8.0), None, Some(4.0), Some(0.0), Some(1.0)];
        assert_eq!(spark(samples.into_iter(), 5), "█ ▄▁▁");
        assert_eq!(spark(samples.into_iter(), 8), "  ██ ▄▁▁");
        assert_eq!(spark([None, Some(0.0)].into_iter(), 3), "  ▁");
    }

    #[test]
    fn times_are_told_from_now() {
        let now = "2026-03-01T12:00:00Z".parse().unwrap();
        assert_eq!(until("2026-03-01T12:30:05Z", now), "30m05s");
        assert_eq!(until("2026-03-01T11:00:00Z", now), "0s", "it is over");
        assert_eq!(clock("2026-03-01T09:08:07.123Z", now), "09:08:07");
        assert_eq!(clock("2026-02-28T09:08:07Z", now), "02-28 09:08:07");
    }
}
