//! What each check says of servers that are well, ill, silent, lying or gone.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use rustix::io::Errno;
use socket2::SockRef;

use super::super::check::failed;
use super::{
    AGES, Check, Outcome, Prober, Server, Target, answer_http, http, outcome, read_out, serve, serve_at, target,
};
use crate::observe::counters::Probed;

async fn ask_within(address: SocketAddr, check: Check, timeout: Duration) -> Outcome {
    let mut prober = Prober::new();
    prober.watch(1, Target { timeout, ..target(address, check) });
    outcome(&mut prober).await
}

async fn asks(address: SocketAddr, check: Check, result: Probed, detail: &str) {
    let outcome = ask_within(address, check, AGES).await;
    assert_eq!((outcome.result, outcome.detail.as_str()), (result, detail));
}

fn expect(send: &str, receive: &str) -> Check {
    Check::Expect { send: send.into(), receive: receive.into() }
}

fn answering(answer: &'static [u8]) -> Server {
    serve(move |stream| answer_http(stream, answer))
}

/// Says something unasked, then waits for the end.
fn saying(words: &'static [u8]) -> Server {
    serve(move |mut stream| {
        let _ = stream.write_all(words);
        let _ = read_out(stream);
    })
}

/// Resets each connection, after the first bytes if so wished.
fn resetting(after_question: bool) -> Server {
    serve(move |mut stream| {
        if after_question {
            let _ = stream.read(&mut [0; 1024]);
        }
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    })
}

#[tokio::test]
async fn connects_pass_over_both_address_families() {
    asks(serve(drop).address, Check::Tcp, Probed::Passed, "connected").await;
    let six = serve_at("[::1]:0".parse().unwrap(), |stream| answer_http(stream, b"HTTP/1.1 302 Found\r\n\r\n"));
    asks(six.address, Check::Tcp, Probed::Passed, "connected").await;
    asks(six.address, http(), Probed::Passed, "status 302").await;
}

#[tokio::test]
async fn nobody_there_is_refused_whatever_the_check() {
    let address = serve(drop).address;
    for check in [Check::Tcp, http(), expect("", "hello")] {
        asks(address, check, Probed::Refused, "connect refused").await;
    }
}

#[tokio::test]
async fn no_way_there_is_unreachable() {
    // TCP has no broadcast: the kernel says ENETUNREACH.
    asks("127.255.255.255:9".parse().unwrap(), Check::Tcp, Probed::Unreachable, "network unreachable").await;
}

#[tokio::test]
async fn a_connect_check_ends_in_order_even_where_the_server_speaks_first() {
    let (tell, ended) = mpsc::channel();
    let server = serve(move |mut stream: TcpStream| {
        // Waits for the end first, so that the greeting meets a connection that has finished sending.
        let read = stream.read(&mut [0; 16]);
        let wrote = stream.write_all(b"SSH-2.0-late\r\n");
        SockRef::from(&stream).shutdown(std::net::Shutdown::Write).unwrap();
        tell.send((read, wrote, stream.take_error())).unwrap();
    });
    let mut prober = Prober::new();
    prober.watch(1, Target { interval: 10 * AGES, ..target(server.address, Check::Tcp) });
    assert_eq!(outcome(&mut prober).await.result, Probed::Passed);
    // The rest happens while the owner goes on awaiting the next outcome.
    let (read, wrote, error) = tokio::task::spawn_blocking(move || ended.recv_timeout(AGES)).await.unwrap().unwrap();
    assert_eq!(read.unwrap(), 0);
    wrote.unwrap();
    assert!(error.unwrap().is_none());
}

#[tokio::test]
async fn the_request_is_plain_http_with_host_and_agent() {
    let (tell, asked) = mpsc::channel();
    let server = serve(move |mut stream: TcpStream| {
        let mut room = [0; 1024];
        let bytes = stream.read(&mut room).unwrap();
        tell.send(String::from_utf8(room[..bytes].to_vec()).unwrap()).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
    });
    let named = Check::Http { path: "/up?full=1".to_owned(), host: Some("web".to_owned()), status: 200..=200 };
    asks(server.address, named, Probed::Passed, "status 200").await;
    let agent = format!("User-Agent: balancer/{}", env!("CARGO_PKG_VERSION"));
    let lines = ["GET /up?full=1 HTTP/1.1", "Host: web", &agent, "Accept: */*", "Connection: close", "", ""];
    assert_eq!(asked.recv_timeout(AGES).unwrap(), lines.join("\r\n"));
    asks(server.address, http(), Probed::Passed, "status 200").await;
    assert!(asked.recv_timeout(AGES).unwrap().contains(&format!("\r\nHost: {}\r\n", server.address)));
}

#[tokio::test]
async fn a_status_outside_of_the_range_is_wrong() {
    let wrong = Probed::WrongStatus;
    asks(answering(b"HTTP/1.1 500 Internal Server Error\r\n\r\n").address, http(), wrong, "status 500").await;
    let interim = "closed the connection after the interim status 199";
    asks(answering(b"HTTP/1.1 199 \r\n\r\n").address, http(), wrong, interim).await;
    asks(answering(b"HTTP/1.1 400\r\n\r\n").address, http(), wrong, "status 400").await;
    asks(answering(b"HTTP/1.1 399 Edge\r\n\r\n").address, http(), Probed::Passed, "status 399").await;
}

#[tokio::test]
async fn what_is_not_http_is_wrong() {
    let wrong = Probed::WrongStatus;
    let foreign = saying(b"220 mail.example ESMTP\r\n");
    asks(foreign.address, http(), wrong, r#"no HTTP status line: "220 mail.example ESMTP\r\n""#).await;
    for (answer, shown) in [
        (&b"HTTP/1.1 20 OK\r\n"[..], r#""HTTP/1.1 20 OK\r\n""#),
        (b"HTTP/1.1 2000 OK\r\n", r#""HTTP/1.1 2000 OK\r\n""#),
        (b"HTTP/1.1 200", r#""HTTP/1.1 200""#),
        (b"HTTP/2 200\r\n", r#""HTTP/2 200\r\n""#),
        (b"\0\xff\n", r#""\x00\xff\n""#),
    ] {
        asks(answering(answer).address, http(), wrong, &format!("no HTTP status line: {shown}")).await;
    }
    asks(answering(b"").address, http(), wrong, "closed the connection without an answer").await;
    // A line without end is not read for ever.
    let endless: &'static [u8] = Box::leak([b"HTTP/1.1 200 ", [b'x'; 5000].as_slice()].concat().into_boxed_slice());
    let outcome = ask_within(answering(endless).address, http(), AGES).await;
    assert_eq!(outcome.result, wrong);
    assert_eq!(outcome.detail, format!("no HTTP status line: \"HTTP/1.1 200 {}\"…", "x".repeat(27)));
}

#[tokio::test]
async fn a_status_line_that_comes_in_pieces_is_read_whole() {
    let server = serve(|mut stream: TcpStream| {
        stream.set_nodelay(true).unwrap();
        for byte in b"HTTP/1.1 200 OK\r\n" {
            stream.write_all(&[*byte]).unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    asks(server.address, http(), Probed::Passed, "status 200").await;
}

#[tokio::test]
async fn interim_answers_are_passed_over_and_the_final_one_decides() {
    let any = || Check::Http { path: "/".to_owned(), host: None, status: 100..=399 };
    let hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n";
    for (interim, rest, result, detail) in [
        (&hints[..], &b"HTTP/1.1 503 Unavailable\r\n\r\n"[..], Probed::WrongStatus, "status 503"),
        (hints, b"HTTP/1.1 200 OK\r\n\r\n", Probed::Passed, "status 200"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 404 \r\n\r\n", Probed::WrongStatus, "status 404"),
        // Bare line ends, and a field that looks like a status line.
        (
            b"HTTP/1.1 102 Processing\nX: y\n HTTP/1.1 200 OK\n\n",
            b"HTTP/1.1 500\r\n",
            Probed::WrongStatus,
            "status 500",
        ),
        // Another protocol follows, and no other answer.
        (b"", b"HTTP/1.1 101 Switching Protocols\r\n\r\n", Probed::Passed, "status 101"),
        (hints, b"", Probed::WrongStatus, "closed the connection after the interim status 103"),
        (hints, b"x", Probed::WrongStatus, r#"no HTTP status line: "x""#),
    ] {
        let answer: &'static [u8] = Box::leak([interim, interim, rest].concat().into_boxed_slice());
        asks(answering(answer).address, any(), result, detail).await;
        // In two packets, wherever the first one ends.
        for cut in (1..answer.len()).step_by(7) {
            let server = serve(move |mut stream: TcpStream| {
                stream.set_nodelay(true).unwrap();
                let _ = stream.read(&mut [0; 1024]);
                stream.write_all(&answer[..cut]).unwrap();
                std::thread::sleep(Duration::from_millis(2));
                let _ = stream.write_all(&answer[cut..]);
            });
            asks(server.address, any(), result, detail).await;
        }
    }
}

#[tokio::test]
async fn interim_answers_without_end_end_a_probe_by_their_size_or_by_its_timeout() {
    let any = || Check::Http { path: "/".to_owned(), host: None, status: 100..=399 };
    let pouring =
        serve(
            |mut stream: TcpStream| {
                while stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n").is_ok() {}
            },
        );
    asks(pouring.address, any(), Probed::WrongStatus, "no final answer in the first 64 KiB").await;
    let field = serve(|mut stream: TcpStream| {
        let _ = stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: ");
        while stream.write_all(&[b'x'; 1024]).is_ok() {}
    });
    asks(field.address, any(), Probed::WrongStatus, "no final answer in the first 64 KiB").await;
    let silent = saying(b"HTTP/1.1 100 Continue\r\n\r\n");
    let outcome = ask_within(silent.address, any(), Duration::from_millis(300)).await;
    let due = "no final answer in time after the interim status 100";
    assert_eq!((outcome.result, outcome.detail.as_str()), (Probed::TimedOut, due));
}

#[tokio::test]
async fn an_answer_is_searched_for_the_bytes_that_are_due() {
    let redis = serve(|mut stream: TcpStream| {
        let mut room = [0; 6];
        stream.read_exact(&mut room).unwrap();
        assert_eq!(&room, b"PING\r\n");
        // In two pieces, so that what is sought lies across them.
        stream.write_all(b"noise +PO").unwrap();
        std::thread::sleep(Duration::from_millis(5));
        stream.write_all(b"NG\r\n").unwrap();
        let _ = read_out(stream);
    });
    asks(redis.address, expect("PING\r\n", "+PONG"), Probed::Passed, "answered as expected").await;
    asks(saying(b"220 ready\r\n").address, expect("", "220 "), Probed::Passed, "answered as expected").await;
}

#[tokio::test]
async fn a_wrong_answer_is_shown_escaped_and_cut_short() {
    let wrong = Probed::WrongBytes;
    let ended = serve(|mut stream: TcpStream| stream.write_all(b"-ERR \x01\r\n").unwrap());
    let shown = r#"answered "-ERR \x01\r\n", then closed the connection"#;
    asks(ended.address, expect("", "+PONG"), wrong, shown).await;
    asks(serve(drop).address, expect("", "+PONG"), wrong, "closed the connection without an answer").await;
    // It stays open: the timeout ends it, yet an answer there was.
    let outcome = ask_within(saying(b"-ERR").address, expect("", "+PONG"), Duration::from_secs(1)).await;
    assert_eq!((outcome.result, outcome.detail.as_str()), (wrong, r#"answered "-ERR""#));
    // Past the first 4 KiB nothing is looked at.
    let late: &'static [u8] = Box::leak([[b'a'; 4094].as_slice(), b"+PONG"].concat().into_boxed_slice());
    let outcome = ask_within(saying(late).address, expect("", "+PONG"), AGES).await;
    assert_eq!((outcome.result, outcome.detail), (wrong, format!("answered \"{}\"…", "a".repeat(40))));
    let just: &'static [u8] = Box::leak([[b'a'; 4091].as_slice(), b"+PONG"].concat().into_boxed_slice());
    asks(saying(just).address, expect("", "+PONG"), Probed::Passed, "answered as expected").await;
}

#[tokio::test]
async fn a_reset_is_told_from_an_end() {
    for check in [http(), expect("PING", "PONG")] {
        asks(resetting(true).address, check, Probed::Reset, "connection reset").await;
    }
    asks(resetting(false).address, expect("", "PONG"), Probed::Reset, "connection reset").await;
}

#[tokio::test]
async fn a_server_that_accepts_and_never_answers_times_out_and_is_let_go() {
    for check in [http(), expect("PING", "PONG"), expect("", "PONG")] {
        let (tell, ended) = mpsc::channel();
        let server = serve(move |stream| tell.send(read_out(stream)).unwrap());
        let mut prober = Prober::new();
        let timeout = Duration::from_millis(100);
        prober.watch(1, Target { timeout, interval: 10 * AGES, ..target(server.address, check) });
        let outcome = outcome(&mut prober).await;
        assert_eq!((outcome.result, outcome.detail.as_str()), (Probed::TimedOut, "no answer within 100ms"));
        assert!(outcome.took >= timeout, "{outcome:?}");
        // The prober is still there, its socket is not.
        assert_eq!(ended.recv_timeout(AGES).unwrap().unwrap(), 0);
    }
}

#[test]
fn faults_of_this_machine_are_told_from_those_of_the_backend() {
    let result = |errno: Errno| failed(&io::Error::from(errno), "connect").result;
    for errno in
        [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL, Errno::ADDRINUSE, Errno::AGAIN]
    {
        assert_eq!(result(errno), Probed::LocalFault, "{errno}");
    }
    for errno in [Errno::HOSTUNREACH, Errno::NETUNREACH, Errno::AFNOSUPPORT, Errno::PERM] {
        assert_eq!(result(errno), Probed::Unreachable, "{errno}");
    }
    assert_eq!(result(Errno::TIMEDOUT), Probed::TimedOut);
    assert_eq!(result(Errno::CONNRESET), Probed::Reset);
    assert_eq!(result(Errno::CONNREFUSED), Probed::Refused);
}
