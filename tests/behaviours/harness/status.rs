//! What the program says of itself: status and metrics over the admin socket.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

/// One answer of `/v1/status`.
#[derive(Debug)]
pub(crate) struct Status(Value);

impl Status {
    pub(super) fn of(socket: &Path) -> io::Result<Self> {
        serde_json::from_str(&get(socket, "/v1/status")?).map(Self).map_err(io::Error::other)
    }

    /// The number at a JSON pointer; it must be there and not be negative.
    #[track_caller]
    pub(crate) fn number(&self, pointer: &str) -> u64 {
        let found = self.0.pointer(pointer).unwrap_or_else(|| panic!("no {pointer} in the status: {:#}", self.0));
        found.as_u64().unwrap_or_else(|| panic!("{pointer} is {found}, not a count"))
    }

    /// The text at a JSON pointer; it must be there.
    #[track_caller]
    pub(crate) fn text(&self, pointer: &str) -> String {
        let found = self.0.pointer(pointer).and_then(Value::as_str);
        found.unwrap_or_else(|| panic!("no text {pointer} in the status: {:#}", self.0)).into()
    }

    /// The sum of all numbers of the object at a JSON pointer.
    #[track_caller]
    pub(crate) fn sum(&self, pointer: &str) -> u64 {
        let members = self.0.pointer(pointer).and_then(Value::as_object);
        let members = members.unwrap_or_else(|| panic!("no object {pointer} in the status: {:#}", self.0));
        members.keys().map(|key| self.number(&format!("{pointer}/{key}"))).sum()
    }

    /// Where a service listens; empty before it does.
    pub(crate) fn listen(&self, service: &str) -> Vec<String> {
        let listen = self.0["services"][service]["listen"].as_array();
        listen.into_iter().flatten().filter_map(|address| address.as_str().map(Into::into)).collect()
    }
}

/// The sum over all labels of one metric of a Prometheus text, if it is there.
pub(crate) fn metric(text: &str, name: &str) -> Option<f64> {
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        rest.starts_with([' ', '{']).then(|| rest.rsplit(' ').next()?.parse::<f64>().ok()).flatten()
    });
    values.reduce(|sum, value| sum + value)
}

/// The body of a GET over a Unix socket.
pub(super) fn get(socket: &Path, path: &str) -> io::Result<String> {
    ask(socket, &format!("GET {path} HTTP/1.1\r\nHost: balancer\r\nConnection: close\r\n\r\n"), path)
}

/// What a POST of a JSON document over a Unix socket is answered, where that is 200.
pub(crate) fn post(socket: &Path, path: &str, body: &str) -> io::Result<String> {
    let length = body.len();
    ask(
        socket,
        &format!(
            "POST {path} HTTP/1.1\r\nHost: balancer\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        ),
        path,
    )
}

fn ask(socket: &Path, request: &str, path: &str) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| io::Error::other("no HTTP answer"))?;
    if !head.starts_with("HTTP/1.1 200") {
        return Err(io::Error::other(format!("{path} answered {answer}")));
    }
    if head.to_ascii_lowercase().contains("transfer-encoding: chunked") { unchunk(body) } else { Ok(body.into()) }
}

fn unchunk(mut body: &str) -> io::Result<String> {
    let mut whole = String::new();
    let broken = || io::Error::other("a broken chunk");
    loop {
        let (size, rest) = body.split_once("\r\n").ok_or_else(broken)?;
        let size = usize::from_str_radix(size.trim(), 16).map_err(|_| broken())?;
        if size == 0 {
            return Ok(whole);
        }
        whole.push_str(rest.get(..size).ok_or_else(broken)?);
        body = rest.get(size + 2..).ok_or_else(broken)?;
    }
}
