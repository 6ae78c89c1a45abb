//! What is told of a session, and its line.

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use jiff::Timestamp;

use crate::observe::counters::{Closed, Refused};

/// A session that has ended, or a client that was refused. Plain data: building it formats nothing.
#[derive(Debug, Clone)]
pub struct Record {
    /// When it ended, by the wall clock.
    pub at: SystemTime,
    /// Whose client it was.
    pub service: Arc<str>,
    /// The client; none on a Unix socket.
    pub client: Option<SocketAddr>,
    /// The backend that served it, or the last one tried.
    pub backend: Option<Arc<str>>,
    /// How long the successful connect took, in microseconds.
    pub connect_micros: Option<u64>,
    /// From the accept to the end, in microseconds.
    pub duration_micros: u64,
    /// Bytes from client to backend.
    pub bytes_in: u64,
    /// Bytes from backend to client.
    pub bytes_out: u64,
    /// How it ended.
    pub end: End,
}

/// How a client's visit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It was served.
    Closed(Closed),
    /// It was not.
    Refused(Refused),
}

impl Record {
    /// A client that was refused before anything was done for it.
    pub fn refused_at_once(service: Arc<str>, client: Option<SocketAddr>, reason: Refused) -> Self {
        Self {
            at: SystemTime::now(),
            service,
            client,
            backend: None,
            connect_micros: None,
            duration_micros: 0,
            bytes_in: 0,
            bytes_out: 0,
            end: End::Refused(reason),
        }
    }

    /// Appends the line and its end. Writing into a `String` cannot fail, so the results are dropped.
    pub(super) fn write(&self, line: &mut String) {
        match Timestamp::try_from(self.at) {
            Ok(at) => drop(write!(line, "{at:.3}")),
            // Only a clock set to the year 10000 comes here.
            Err(_) => line.push('-'),
        }
        line.push_str(" service=");
        name(line, &self.service);
        let _ = match self.client {
            Some(client) => write!(line, " client={client}"),
            None => write!(line, " client=-"),
        };
        line.push_str(" backend=");
        match &self.backend {
            Some(backend) => name(line, backend),
            None => line.push('-'),
        }
        line.push_str(" connect_ms=");
        match self.connect_micros {
            Some(micros) => millis(line, micros),
            None => line.push('-'),
        }
        line.push_str(" duration_ms=");
        millis(line, self.duration_micros);
        let _ = write!(line, " in={} out={}", self.bytes_in, self.bytes_out);
        let _ = match self.end {
            End::Closed(reason) => writeln!(line, " end={}", reason.label()),
            End::Refused(reason) => writeln!(line, " refused={}", reason.label()),
        };
    }
}

fn millis(line: &mut String, micros: u64) {
    let _ = write!(line, "{}.{:03}", micros / 1000, micros % 1000);
}

/// A name that breaks no line and no field.
fn name(line: &mut String, name: &str) {
    for character in name.chars() {
        if character.is_whitespace() || character.is_control() || matches!(character, '=' | '%' | '"') {
            for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                let _ = write!(line, "%{byte:02X}");
            }
        } else {
            line.push(character);
        }
    }
}
