//! The status page: one document that a browser shows without asking anybody but this process, and that changes nothing.

use std::sync::LazyLock;

use hyper::header::HeaderValue;
use sha2::{Digest, Sha256};

macro_rules! style {
    () => {
        include_str!("page/style.css")
    };
}

/// In the order in which they use one another.
macro_rules! script {
    () => {
        concat!(
            "'use strict';\n",
            include_str!("page/format.js"),
            include_str!("page/history.js"),
            include_str!("page/nodes.js"),
            include_str!("page/services.js"),
            include_str!("page/lists.js"),
            include_str!("page/live.js"),
        )
    };
}

/// The content type of [`DOCUMENT`].
pub(super) const CONTENT_TYPE: &str = "text/html; charset=utf-8";

/// All of it.
pub(super) const DOCUMENT: &str = concat!(
    include_str!("page/head.html"),
    "<style>",
    style!(),
    "</style>\n",
    include_str!("page/body.html"),
    "<script>",
    script!(),
    "</script>\n</body>\n</html>\n",
);

/// What a browser may do with it: run this script, use this style, ask where it came from, and nothing else.
pub(super) fn policy() -> HeaderValue {
    static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
        let policy = format!(
            "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; img-src data:; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            hash(script!()),
            hash(style!()),
        );
        policy.try_into().unwrap_or_else(|_| HeaderValue::from_static("default-src 'none'"))
    });
    POLICY.clone()
}

/// A source expression that allows exactly this text.
fn hash(text: &str) -> String {
    format!("sha256-{}", base64(&Sha256::digest(text)))
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0, |bits, &byte| bits << 8 | u32::from(byte)) << (8 * (3 - chunk.len()));
        for index in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * index) & 63) as usize];
            text.push(if index <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_standard() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn the_document_names_no_other_place_and_makes_no_markup_of_data() {
        let without_namespace = DOCUMENT.replace("http://www.w3.org/2000/svg", "");
        for word in
            ["http:", "https:", "//cdn", "@import", "url(", "innerHTML", "outerHTML", "insertAdjacentHTML", "eval("]
        {
            assert!(!without_namespace.contains(word), "{word}");
        }
        for word in ["POST", "PUT", "DELETE", "method:", "WebSocket", "sendBeacon", "<form"] {
            assert!(!DOCUMENT.contains(word), "{word}");
        }
        assert!(DOCUMENT.len() < 64 << 10, "{}", DOCUMENT.len());
    }
}
