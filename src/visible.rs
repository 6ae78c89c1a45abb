//! Texts from outside as people can read them: what cannot be seen, or would do something to a terminal, is shown as `<U+200B>`.

use std::borrow::Cow;

/// Whether a character is shown by its number: control characters, formatting (zero width, direction of writing), white space that is
/// no blank, and what no font has.
pub fn is_hidden(c: char) -> bool {
    if matches!(c, ' '..='~') {
        return false;
    }
    // Letters, marks and symbols to Unicode, of which nothing is seen: fillers and selectors of variants.
    let blank = matches!(c,
        '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{2800}'
        | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{ffa0}' | '\u{e0100}'..='\u{e01ef}');
    // The standard library knows what can be printed. Behind another character it takes combining marks for that, as they are.
    let mut text = ['\0'; 2].map(|_| 'a');
    text[1] = c;
    blank || text.iter().collect::<String>().escape_debug().nth(1) == Some('\\')
}

/// A text as one line.
pub fn line(text: &str) -> Cow<'_, str> {
    shown(text, |_| false)
}

/// A text whose line ends and tabs mean what they are.
pub fn lines(text: &str) -> Cow<'_, str> {
    shown(text, |c| matches!(c, '\n' | '\t'))
}

/// A character as it is shown.
pub fn character(c: char) -> String {
    if is_hidden(c) { format!("<U+{:04X}>", u32::from(c)) } else { c.into() }
}

/// What a character that cannot be seen is called, where people meet it.
pub fn name(c: char) -> Option<&'static str> {
    Some(match c {
        '\t' => "tab",
        '\u{1b}' => "escape",
        '\u{a0}' => "no-break space",
        '\u{ad}' => "soft hyphen",
        '\u{200b}' => "zero width space",
        '\u{200c}' => "zero width non-joiner",
        '\u{200d}' => "zero width joiner",
        '\u{200e}' => "left-to-right mark",
        '\u{200f}' => "right-to-left mark",
        '\u{2028}' => "line separator",
        '\u{2029}' => "paragraph separator",
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => "turns the direction of writing",
        '\u{202f}' => "narrow no-break space",
        '\u{2060}' => "word joiner",
        '\u{3000}' => "ideographic space",
        '\u{feff}' => "byte order mark",
        '\u{2000}'..='\u{200a}' | '\u{205f}' | '\u{1680}' => "a space that is no blank",
        c if c.is_control() => "control character",
        _ => return None,
    })
}

fn shown(text: &str, stays: impl Fn(char) -> bool) -> Cow<'_, str> {
    let hidden = |c: char| is_hidden(c) && !stays(c);
    if !text.contains(hidden) {
        return Cow::Borrowed(text);
    }
    text.chars().map(|c| if hidden(c) { character(c) } else { c.into() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_seen_stays_and_everything_else_has_its_number() {
        for text in ["web-01: [::1]:80 \"\\ '", "grüße", "gru\u{308}ße", "日本語", "→ … ×", "🙂"] {
            assert_eq!(line(text), text);
        }
        for (text, seen) in [
            ("lis\u{200b}ten", "lis<U+200B>ten"),
            ("\u{feff}a\u{a0}b", "<U+FEFF>a<U+00A0>b"),
            ("\u{1b}[31mred\u{7}", "<U+001B>[31mred<U+0007>"),
            ("\u{9b}31m", "<U+009B>31m"),
            ("a\r\n\tb", "a<U+000D><U+000A><U+0009>b"),
            ("\u{202e}gpj", "<U+202E>gpj"),
            ("\u{2028}\u{3000}\u{ad}", "<U+2028><U+3000><U+00AD>"),
            ("\u{3164}\u{fe0f}\u{e0041}", "<U+3164><U+FE0F><U+E0041>"),
        ] {
            assert_eq!(line(text), seen);
        }
        assert_eq!(lines("a\r\n\tb"), "a<U+000D>\n\tb");
    }
}
