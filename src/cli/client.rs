//! The client side of the administration socket: finds the running balancer and asks it one thing.

use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{anyhow, bail};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::http::request::Builder;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::UnixStream;

use crate::admin;

/// How long the balancer may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest answer that is read, in bytes.
const LONGEST_ANSWER: usize = 256 << 20;

/// Where the running balancer is to be found.
#[derive(Debug, clap::Args)]
pub(super) struct Target {
    /// The admin socket; by default $BALANCER_SOCKET, then that of the user or of the system
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

impl Target {
    /// A balancer whose socket is known.
    #[cfg(test)]
    pub(super) fn at(socket: &Path) -> Self {
        Self { socket: Some(socket.into()) }
    }

    fn socket(&self) -> PathBuf {
        let named = self.socket.clone().or_else(|| env::var_os("BALANCER_SOCKET").map(PathBuf::from));
        named.filter(|path| !path.as_os_str().is_empty()).unwrap_or_else(|| {
            // Root may run a demo, which listens where a user's would; a user may be of the group of root's balancer.
            let places = [admin::default_socket(), admin::user_socket(), admin::SYSTEM_SOCKET.into()];
            places.iter().find(|path| path.exists()).unwrap_or(&places[0]).clone()
        })
    }

    /// What the balancer answers to a GET of `path`.
    ///
    /// # Errors
    /// Where nobody can be reached or the answer is not OK: why, and what to do.
    pub(super) fn get(&self, path: &str) -> anyhow::Result<Bytes> {
        let (status, body) = self.ask(Request::get(path), Bytes::new(), PATIENCE)?;
        if status != StatusCode::OK {
            bail!("the balancer at {} answers {path} with {status}", self.socket().display());
        }
        Ok(body)
    }

    /// What the balancer answers to a POST of a JSON document to `path`, and with what status.
    ///
    /// # Errors
    /// Where nobody can be reached, or does not answer in so long: why, and what to do.
    pub(super) fn post(
        &self,
        path: &str,
        document: &impl Serialize,
        patience: Duration,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        self.ask(Request::post(path), serde_json::to_vec(document)?.into(), patience)
    }

    fn ask(&self, request: Builder, body: Bytes, patience: Duration) -> anyhow::Result<(StatusCode, Bytes)> {
        let socket = self.socket();
        admin::check_owner(&socket)?;
        let request = request.header(header::HOST, "balancer").body(Full::new(body))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let answer = tokio::time::timeout(patience, exchange(&socket, request)).await;
            answer.map_err(|_| {
                anyhow!(
                    "the balancer at {} did not answer in time: it may be stopped, or its machine overloaded; see its log, then try again",
                    socket.display()
                )
            })?
        })
    }
}

async fn exchange(socket: &Path, request: Request<Full<Bytes>>) -> anyhow::Result<(StatusCode, Bytes)> {
    let stream = UnixStream::connect(socket).await.map_err(|error| unreachable(socket, &error))?;
    let broken = |error: anyhow::Error| {
        anyhow!(
            "the conversation with the balancer at {} broke off ({error}): it has ended, or is too busy; see its log, then try again",
            socket.display()
        )
    };
    let shaken = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(|error| broken(error.into()))?;
    tokio::spawn(connection);
    let answer = sender.send_request(request).await;
    let (head, body) = answer.map_err(|error| broken(error.into()))?.into_parts();
    let body = Limited::new(body, LONGEST_ANSWER).collect().await;
    Ok((head.status, body.map_err(|error| broken(anyhow::Error::from_boxed(error)))?.to_bytes()))
}

fn unreachable(socket: &Path, error: &io::Error) -> anyhow::Error {
    let socket = socket.display();
    match error.kind() {
        io::ErrorKind::NotFound => anyhow!(
            "no balancer at {socket}: start it with `balancer run`, or say where it is with --socket or $BALANCER_SOCKET"
        ),
        io::ErrorKind::ConnectionRefused => {
            anyhow!("no balancer at {socket}: nobody answers on it any more; start it with `balancer run`")
        }
        io::ErrorKind::PermissionDenied => {
            anyhow!("may not connect to {socket}: run this as the balancer's user, as one of its group, or as root")
        }
        _ => anyhow!("cannot connect to {socket}: {error}; --socket or $BALANCER_SOCKET names another one"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn who_gets_no_answer_or_half_of_one_is_told_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let asked = |patience| {
            let error = Target::at(&path).ask(Request::get("/v1/status"), Bytes::new(), patience).unwrap_err();
            format!("{error:#}")
        };
        let said = asked(Duration::from_millis(50));
        assert!(said.contains("did not answer in time") && said.ends_with("then try again"), "{said}");
        // The first one still waits to be accepted.
        let closing = std::thread::spawn(move || (0..2).for_each(|_| drop(listener.accept())));
        let said = asked(PATIENCE);
        assert!(said.contains("broke off (") && said.ends_with("then try again"), "{said}");
        closing.join().unwrap();
    }
}
