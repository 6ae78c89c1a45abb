//! The client side of the administration socket: finds the running balancer and asks it one thing.

use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::http::request::Builder;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::admin;
use crate::admin::status::Status;

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
    pub(super) fn at(socket: &Path) -> Self {
        Self { socket: Some(socket.into()) }
    }

    /// The socket that a person names: by the option, or by the environment.
    pub(super) fn named(&self) -> Option<PathBuf> {
        let variable = env::var_os("BALANCER_SOCKET").filter(|path| !path.is_empty());
        self.socket.clone().or_else(|| variable.map(PathBuf::from))
    }

    fn socket(&self) -> PathBuf {
        self.named().unwrap_or_else(|| {
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
        self.reach(path)?
    }

    /// The same, with an answer that is not OK apart from no answer at all.
    ///
    /// # Errors
    /// Where nobody can be reached, or does not answer in so long: why, and what to do.
    pub(super) fn reach(&self, path: &str) -> anyhow::Result<anyhow::Result<Bytes>> {
        let (status, body) = self.ask(Request::get(path), Bytes::new(), PATIENCE)?;
        let refused = || anyhow!("the balancer at {} answers {path} with {status}", self.socket().display());
        Ok(if status == StatusCode::OK { Ok(body) } else { Err(refused()) })
    }

    /// The balancer's status.
    ///
    /// # Errors
    /// As [`Self::get`], or the answer is not understood.
    pub(super) fn status(&self) -> anyhow::Result<Status> {
        serde_json::from_slice(&self.get("/v1/status")?).context(
            "this status is of another version of balancer: use the program that is running, or `balancer status --json`",
        )
    }

    /// What the balancer answers to an order, a POST of a JSON document to `path`: done or refused.
    ///
    /// # Errors
    /// Where nobody can be reached, or does not answer in so long, or with something else: why, and what to do.
    pub(super) fn order<A: DeserializeOwned>(
        &self,
        path: &str,
        document: &impl Serialize,
        patience: Duration,
    ) -> anyhow::Result<A> {
        let (status, body) = self.ask(Request::post(path), serde_json::to_vec(document)?.into(), patience)?;
        serde_json::from_slice(&body)
            .with_context(|| format!("the balancer answers with {status}: {}", String::from_utf8_lossy(&body).trim()))
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
            "no balancer at {socket}: start it with `balancer run`, or say where it is with --socket or $BALANCER_SOCKET; one with `admin: {{ socket: none }}` takes signals alone"
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
pub(super) mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixListener;
    use std::thread::JoinHandle;

    use super::*;
    use crate::admin::Said;

    /// Gives one client after the other its answer.
    pub(in crate::cli) fn answering(socket: &Path, answers: &'static [(&str, &str)]) -> JoinHandle<()> {
        let listener = UnixListener::bind(socket).unwrap();
        std::thread::spawn(move || {
            for (status, body) in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 4096]).unwrap();
                let length = body.len();
                write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
            }
        })
    }

    #[test]
    fn an_answer_of_another_version_is_told_from_a_refusal() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        let answers =
            &[("200 OK", "{}"), ("404 Not Found", "nothing here"), ("409 Conflict", r#"{ "error": "not now" }"#)];
        let serving = answering(&path, answers);
        let target = Target::at(&path);
        let said = target.status().unwrap_err().to_string();
        assert!(said.contains("another version") && said.contains("status --json"), "{said}");
        let order = || target.order::<Said>("/v1/drain", &(), PATIENCE);
        let said = order().unwrap_err().to_string();
        assert_eq!(said, "the balancer answers with 404 Not Found: nothing here");
        assert_eq!(order().unwrap().error.as_deref(), Some("not now"));
        serving.join().unwrap();
    }

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
