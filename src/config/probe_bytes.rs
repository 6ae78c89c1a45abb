//! The bytes of an `expect` probe: a text, which is sent as UTF-8, or any bytes in hexadecimal.

use super::ExpectProbe;
use super::file::Reader;
use super::report::Place;
use super::sections;
use super::tree::{Node, Value, quoted};

/// More bytes than this are not written out in a message.
const SHOWN: usize = 32;

impl Reader<'_> {
    pub(super) fn expect_probe(&mut self, node: &Node) -> ExpectProbe {
        let section = self.section(node, &sections::EXPECT_PROBE);
        let receive = match section.get("receive") {
            Some(node) => {
                let bytes = self.bytes(node);
                if bytes.as_ref().is_some_and(Vec::is_empty) {
                    self.problem(node.place, "`receive` is empty: every answer would pass");
                }
                bytes.unwrap_or_default()
            }
            None if matches!(node.value, Value::Map(_) | Value::Null) => {
                self.missing(node.place, "`expect` has no `receive`: what should the answer contain?")
            }
            None => Vec::new(),
        };
        let send = section.get("send").and_then(|node| self.bytes(node)).unwrap_or_default();
        ExpectProbe { send, receive }
    }

    /// A text, or `{ hex: "00 ff" }`.
    fn bytes(&mut self, node: &Node) -> Option<Vec<u8>> {
        let within = |bytes: Vec<u8>| {
            let (most, length) = (ExpectProbe::LONGEST, bytes.len());
            if length > most {
                return Err(format!("at most {most} bytes are sent or expected, these are {length}"));
            }
            Ok(bytes)
        };
        match &node.value {
            Value::Map(_) => {
                let section = self.section(node, &sections::PROBE_BYTES);
                let Some(hex) = section.get("hex") else {
                    if matches!(&node.value, Value::Map(map) if map.is_empty()) {
                        self.problem(node.place, "nothing stands here: write a text, or { hex: \"00 ff\" }");
                    }
                    return None;
                };
                self.in_quotes(hex, |text| hexadecimal(text).and_then(within))
            }
            _ => {
                let bytes = self.in_quotes(node, |text| within(text.as_bytes().to_vec()));
                self.warn_of_escapes(node);
                bytes
            }
        }
    }

    /// A text that YAML might take for something else.
    fn in_quotes(&mut self, node: &Node, parse: impl Fn(&str) -> Result<Vec<u8>, String>) -> Option<Vec<u8>> {
        if matches!(node.value, Value::Bool(_) | Value::Integer(_) | Value::Float(_)) {
            self.problem(node.place, format!("a text is due here, found {}: put it in quotes", node.value.describe()));
            return None;
        }
        self.parsed(node, "a text in quotes is due here", parse)
    }

    /// Warns where an escape looks like one byte, and is a character that UTF-8 writes as two.
    fn warn_of_escapes(&mut self, node: &Node) {
        let Value::Text(text) = &node.value else { return };
        // What is no Latin letter cannot have been meant as a byte.
        let Some((escape, character)) = first_wide_escape(self.text, node.place) else { return };
        let sent = character.encode_utf8(&mut [0; 4]).bytes().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>();
        let byte = u32::from(character);
        let bytes: Option<Vec<String>> =
            text.chars().take(SHOWN + 1).map(|c| Some(format!("{:02x}", u8::try_from(c).ok()?))).collect();
        let whole = match bytes {
            Some(bytes) if bytes.len() <= SHOWN => bytes.join(" "),
            _ => format!("… {byte:02x} …"),
        };
        let what = format!(
            "{} is the character U+{byte:04X}, which is two bytes, {}: if the byte {byte:02X} is meant, write {{ hex: \"{whole}\" }}",
            quoted(&escape),
            sent.join(" "),
        );
        self.warn(node.place, what);
    }
}

/// The bytes that pairs of hexadecimal digits mean; white space between the pairs is free.
fn hexadecimal(text: &str) -> Result<Vec<u8>, String> {
    let pair = |pair: &str| match pair.as_bytes() {
        [high, low] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => u8::from_str_radix(pair, 16).ok(),
        _ => None,
    };
    let mut bytes = Vec::new();
    for word in text.split_whitespace() {
        let digits = if word.len() == 4 { word.strip_prefix("0x").unwrap_or(word) } else { word };
        let mut rest = digits;
        while !rest.is_empty() {
            let byte = rest.split_at_checked(2).and_then(|(first, after)| Some((pair(first)?, after)));
            let Some((byte, after)) = byte else {
                return Err(format!(
                    "{} is not hexadecimal: two digits of 0-9 and a-f are a byte, such as \"00 ff\"",
                    quoted(word)
                ));
            };
            bytes.push(byte);
            rest = after;
        }
    }
    Ok(bytes)
}

/// The first escape of a scalar in double quotes that stands for a character of U+0080 to U+00FF, and that character.
fn first_wide_escape(text: &str, place: Place) -> Option<(String, char)> {
    let line = text.split_inclusive('\n').take(place.line - 1).map(str::len).sum::<usize>();
    let rest = text.get(line..)?;
    let column = rest.char_indices().nth(place.column - 1)?.0;
    let mut scalar = rest.get(column..)?.strip_prefix('"')?.chars();
    loop {
        match scalar.next()? {
            '"' => return None,
            '\\' => {
                let kind = scalar.next()?;
                let digits = match kind {
                    'x' => 2,
                    'u' => 4,
                    'U' => 8,
                    _ => continue,
                };
                let digits: String = scalar.by_ref().take(digits).collect();
                let character = char::from_u32(u32::from_str_radix(&digits, 16).ok()?)?;
                if ('\u{80}'..='\u{ff}').contains(&character) {
                    return Some((format!("\\{kind}{digits}"), character));
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_of_digits_are_bytes_however_they_are_spaced() {
        for text in ["00 ff 7A", "00ff7a", "  00\nFF\t7a ", "0x00 0xff 0x7a", "00ff 7a"] {
            assert_eq!(hexadecimal(text).as_deref(), Ok(&[0, 0xff, 0x7a][..]), "{text:?}");
        }
        assert_eq!(hexadecimal(" "), Ok(Vec::new()));
        for text in ["0", "00 f", "gg", "00 é0", "0é", "+1", "-f", "0x", "0x0", "00,ff", "\\x00"] {
            assert!(hexadecimal(text).unwrap_err().contains("not hexadecimal"), "{text:?}");
        }
    }

    #[test]
    fn only_an_escape_that_looks_like_a_byte_is_one_to_warn_of() {
        let first = |text: &str| first_wide_escape(text, Place { line: 2, column: 5 }).map(|(escape, _)| escape);
        for (scalar, escape) in [
            (r#""\xD2""#, Some("\\xD2")),
            (r#""a\r\n\x7f\xff\xfe""#, Some("\\xff")),
            (r#""\u00d2""#, Some("\\u00d2")),
            (r#""\U000000D2""#, Some("\\U000000D2")),
            (r#""\\xD2""#, None),
            (r#""ÒÄ""#, None),
            (r#""\u20ac""#, None),
            (r#""\x00" # "\xD2""#, None),
            (r"'\xD2'", None),
            (r"\xD2", None),
        ] {
            assert_eq!(first(&format!("ü: x\nä:  {scalar}\n")).as_deref(), escape, "{scalar}");
        }
        for text in ["", "a", "a\n", "a\nb: \"\\x", "a\nb: \"\\xD", "a\nb:  \"\\"] {
            assert_eq!(first(text), None, "{text:?}");
        }
    }
}
