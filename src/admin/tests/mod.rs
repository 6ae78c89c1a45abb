//! The interface from outside: real requests over a real Unix socket.

mod answers;
mod hostile;
mod http;
mod socket;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::fixture::view;
use super::{Server, Serving, View};

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(10);

struct Running {
    view: Arc<View>,
    path: PathBuf,
    serving: Serving,
    /// What was ordered; nobody does it.
    requests: tokio::sync::mpsc::Receiver<crate::messages::AdminRequest>,
    _directory: tempfile::TempDir,
}

fn start(view: Arc<View>) -> Running {
    start_with(view, |_| {})
}

fn start_with(view: Arc<View>, change: impl FnOnce(&mut Server)) -> Running {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run/admin.sock");
    let mut server = Server::bind(&path).unwrap();
    change(&mut server);
    let (sender, requests) = crate::messages::admin_requests();
    let mut serving = server.serve(Arc::clone(&view), sender).unwrap();
    serving.begin();
    Running { view, path, serving, requests, _directory: directory }
}

/// Everything that comes back for these bytes until the server closes.
fn exchange(path: &Path, request: &[u8]) -> String {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // A server that refuses early may close before it has read everything.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "the server must end the connection");
    }
    String::from_utf8(answer).unwrap()
}

fn request(path: &Path, method: &str, target: &str) -> (u16, String, String) {
    let answer = exchange(path, format!("{method} {target} HTTP/1.1\r\nHost: balancer\r\n\r\n").as_bytes());
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_ascii_lowercase(), body.into())
}

fn still_works(path: &Path) {
    assert_eq!(request(path, "GET", "/healthz").0, 200, "the next request works");
}
