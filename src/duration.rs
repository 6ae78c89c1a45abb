//! Durations as people write them: `500ms`, `2s`, `1m30s`, `1h`.

use std::time::Duration;

/// The units, from the largest, in milliseconds.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads a duration; the error says what is wrong with the text.
///
/// # Errors
/// In words for people.
pub fn parse(text: &str) -> Result<Duration, String> {
    let form = "write it like 500ms, 2s, 1m30s or 1h";
    let mut rest = text;
    let mut millis = 0_u64;
    let mut units = UNITS.iter();
    if rest.is_empty() {
        return Err(form.to_owned());
    }
    while !rest.is_empty() {
        let (digits, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()));
        let (unit, after) = after.split_at(after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len()));
        if digits.is_empty() {
            return Err(form.to_owned());
        }
        if unit.is_empty() {
            return Err(if after.is_empty() {
                format!("its unit is missing, such as {digits}s")
            } else {
                form.to_owned()
            });
        }
        let Some((_, factor)) = units.find(|(name, _)| *name == unit) else {
            return Err(if UNITS.iter().any(|(name, _)| *name == unit) {
                "each unit stands once, from the largest to the smallest: 1h30m".to_owned()
            } else {
                "the units are h, m, s and ms".to_owned()
            });
        };
        millis = digits
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(*factor))
            .and_then(|part| millis.checked_add(part))
            .ok_or_else(|| "this is longer than can be counted".to_owned())?;
        rest = after;
    }
    Ok(Duration::from_millis(millis))
}

/// Writes a duration the same way, to the millisecond.
pub fn format(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, factor) in UNITS {
        if rest >= factor {
            text.push_str(&format!("{}{unit}", rest / factor));
            rest %= factor;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_and_written_back() {
        for (text, millis) in
            [("500ms", 500), ("2s", 2_000), ("1m30s", 90_000), ("1h", 3_600_000), ("1h1ms", 3_600_001)]
        {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse(text), Ok(duration));
            assert_eq!(format(duration), text);
        }
        assert_eq!(parse("0s"), Ok(Duration::ZERO));
        assert_eq!(format(Duration::ZERO), "0s");
        assert_eq!(parse("90s"), Ok(Duration::from_secs(90)));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "s",
            "30",
            "1.5s",
            "-1s",
            "+1s",
            "1 s",
            "30s1m",
            "1s1s",
            "1d",
            "1S",
            "٣s",
            "1m30",
            "99999999999999999999h",
        ] {
            assert!(parse(text).is_err(), "{text:?} was accepted");
        }
        assert!(parse(&format!("{}h", u64::MAX)).is_err());
    }
}
