//! The `http` check: one GET, and the status of its final answer.

use std::net::SocketAddr;
use std::ops::RangeInclusive;

use tokio::net::TcpStream;
use tokio::time::Instant;

use super::check::{self, ENOUGH, Reading, Verdict, failed, shown};
use crate::observe::counters::Probed;

/// How much is read until the status of the final answer has come, in bytes: interim answers may be many.
const MOST: usize = 64 << 10;
/// How a status line begins.
const HTTP: &[u8] = b"HTTP/1.";

pub(super) fn request(path: &str, host: Option<&str>, address: SocketAddr) -> String {
    let host = host.map_or_else(|| address.to_string(), str::to_owned);
    let agent = concat!("balancer/", env!("CARGO_PKG_VERSION"));
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {agent}\r\nAccept: */*\r\nConnection: close\r\n\r\n")
}

/// Sends the request, and judges the status of the final answer.
pub(super) async fn ask(stream: &TcpStream, request: &str, due: &RangeInclusive<u16>, deadline: Instant) -> Verdict {
    let mut answer = Answer::default();
    let reading = check::ask(stream, request.as_bytes(), MOST, deadline, |news| answer.read(news)).await;
    let wrong = |detail: String| Verdict::new(Probed::WrongStatus, detail);
    match (reading, answer.interim) {
        (Reading::Failed(error), _) => failed(&error, "connection"),
        (Reading::TimedOut, None) => Verdict::new(Probed::TimedOut, ""),
        (Reading::TimedOut, Some(interim)) => {
            Verdict::new(Probed::TimedOut, format!("no final answer in time after the interim status {interim}"))
        }
        (Reading::Full, _) => wrong(format!("no final answer in the first {} KiB", MOST >> 10)),
        (Reading::Ended, None) if answer.line.is_empty() => wrong("closed the connection without an answer".to_owned()),
        (Reading::Ended, Some(interim)) if answer.line.is_empty() => {
            wrong(format!("closed the connection after the interim status {interim}"))
        }
        (Reading::Enough | Reading::Ended, _) => match status(&answer.line) {
            Some(status) if due.contains(&status) => Verdict::new(Probed::Passed, format!("status {status}")),
            Some(status) => wrong(format!("status {status}")),
            None => wrong(format!("no HTTP status line: {}", shown(&answer.line))),
        },
    }
}

/// What has come of an answer. It may begin with any number of interim answers, each a status line, fields and an empty line
/// (RFC 9110, 15.2); nginx and HAProxy send 103, and some servers 100 or 102.
#[derive(Default)]
struct Answer {
    /// The status line that is being read, with its end; empty while an interim answer's fields are.
    line: Vec<u8>,
    /// The last interim answer's status.
    interim: Option<u16>,
    /// While an interim answer's fields are passed over: whether the line of now is empty so far.
    fields: Option<bool>,
}

impl Answer {
    /// Takes the next piece, and answers whether the rest makes no difference.
    fn read(&mut self, news: &[u8]) -> bool {
        for (at, &byte) in news.iter().enumerate() {
            if let Some(empty) = self.fields {
                self.fields = match byte {
                    b'\n' if empty => None,
                    b'\n' => Some(true),
                    b'\r' => Some(empty),
                    _ => Some(false),
                };
                continue;
            }
            self.line.push(byte);
            let foreign = HTTP.get(self.line.len() - 1).is_some_and(|&due| due != byte);
            if foreign || byte == b'\n' || self.line.len() == ENOUGH {
                match status(&self.line).filter(|&status| is_interim(status)) {
                    Some(status) => {
                        self.line.clear();
                        (self.interim, self.fields) = (Some(status), Some(true));
                    }
                    None => {
                        // For whoever is shown what it was instead.
                        self.line.extend_from_slice(&news[at + 1..]);
                        return true;
                    }
                }
            }
        }
        false
    }
}

/// Whether another answer follows. After 101 another protocol would, which nobody has asked for.
fn is_interim(status: u16) -> bool {
    (100..200).contains(&status) && status != 101
}

/// The status of an answer's first line, `HTTP/1.1 200 OK`; RFC 9112, 4.
fn status(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|&byte| byte == b'\n').next()?;
    // Cut short by the end of the stream: what looks like 200 may have been meant as something else.
    if line.len() == answer.len() {
        return None;
    }
    let rest = line.strip_prefix(HTTP)?;
    let (minor, rest) = rest.split_first()?;
    let digits = rest.strip_prefix(b" ")?;
    let (digits, after) = digits.split_at_checked(3)?;
    let ends = matches!(after.first(), None | Some(b' ' | b'\r'));
    if !minor.is_ascii_digit() || !ends || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(digits).ok()?.parse().ok()
}
