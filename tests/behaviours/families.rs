//! Every family of addresses in front, every one behind.
//!
//! covers: src/config/address, src/control/listeners/open, src/sys/address, src/sys/socket, src/sys/unix

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use crate::harness::{
    Acceptor, Backend, Bytes, End, Machine, PATIENCE, Setup, Tool, connect, echo, receive, receive_to_end, reset, seed,
    send, wait_until,
};

const MIB: u64 = 1 << 20;

/// Echoes a megabyte through a client's socket, both ends finish cleanly.
fn echoes(client: &(impl Sync + Stream), seed: u64) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            send(client.writer(), seed, MIB).expect("sending");
            client.finish();
        });
        assert_eq!(receive_to_end(client.reader(), seed), (MIB, End::Clean));
    });
}

/// What TCP and Unix streams have in common.
trait Stream {
    fn reader(&self) -> impl Read;
    fn writer(&self) -> impl Write;
    fn finish(&self);
}

impl Stream for TcpStream {
    fn reader(&self) -> impl Read {
        self
    }
    fn writer(&self) -> impl Write {
        self
    }
    fn finish(&self) {
        self.shutdown(Shutdown::Write).expect("finishing");
    }
}

impl Stream for UnixStream {
    fn reader(&self) -> impl Read {
        self
    }
    fn writer(&self) -> impl Write {
        self
    }
    fn finish(&self) {
        self.shutdown(Shutdown::Write).expect("finishing");
    }
}

fn on_ipv6() -> TcpListener {
    TcpListener::bind("[::1]:0").expect("an IPv6 loopback address")
}

#[test]
fn an_ipv4_front_serves_from_an_ipv6_backend_and_the_other_way_round() {
    let machine = Machine::shared();
    let (four, six) = (Backend::echo(), Backend::on(on_ipv6(), echo));
    let setup = Setup::new().backend("six", six.address);
    let balancer = machine.start(setup.service("six").listen("[::1]:0").backend("four", four.address));
    let (from_four, from_six) = (balancer.address(), balancer.address_of("six"));
    assert!(from_four.is_ipv4() && from_six.is_ipv6());
    for address in [from_four, from_six] {
        echoes(&connect(address), seed());
    }
    balancer.await_no_session();
    assert_eq!((four.total(), six.total()), (1, 1));
    balancer.stop();
}

#[test]
fn an_ipv6_front_is_not_dual_stack() {
    let machine = Machine::shared();
    let backend = Backend::echo();
    let balancer = machine.start(Setup::new().listen("[::]:0").backend("a", backend.address));
    let port = balancer.address().port();
    echoes(&connect(format!("[::1]:{port}").parse().expect("an address")), seed());
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "IPv4 is not asked for, and must be refused");
    balancer.stop();
}

#[test]
fn a_service_may_listen_in_several_places() {
    let machine = Machine::shared();
    let backend = Backend::echo();
    let setup = Setup::new();
    let path = setup.directory().join("front.sock");
    let unix_address = format!("unix:{}", path.display());
    let setup = setup.listen_on(&["127.0.0.1:0", "[::1]:0", &unix_address]).backend("a", backend.address);
    let balancer = machine.start(setup);
    let listen = balancer.status().listen("web");
    assert_eq!(listen.len(), 3, "{listen:?}");
    assert_eq!(listen[2], unix_address);
    for address in &listen[..2] {
        echoes(&connect(address.parse().expect("an address")), seed());
    }
    echoes(&unix(&path), seed());
    balancer.await_no_session();
    balancer.stop();
}

fn unix(path: &std::path::Path) -> UnixStream {
    let stream = UnixStream::connect(path).expect("connecting");
    stream.set_read_timeout(Some(PATIENCE)).expect("a read timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a write timeout");
    stream
}

#[test]
fn a_unix_socket_serves_many_clients_at_once_by_all_workers() {
    let machine = Machine::shared();
    let backend = Backend::echo();
    let setup = Setup::new();
    let path = setup.directory().join("front.sock");
    let balancer = machine.start(setup.listen(format!("unix:{}", path.display())).backend("a", backend.address));
    let seed = seed();
    std::thread::scope(|scope| {
        for number in 0..40 {
            let path = &path;
            scope.spawn(move || echoes(&unix(path), seed.wrapping_add(number)));
        }
    });
    balancer.await_closed("client", 40);
    assert_eq!(backend.total(), 40);
    balancer.stop();
}

#[test]
fn a_unix_socket_that_somebody_has_removed_is_made_anew_by_a_reload_and_by_an_upgrade() {
    let machine = Machine::shared();
    let backend = Backend::echo();
    let setup = Setup::new();
    let path = setup.directory().join("front.sock");
    let mut balancer = machine.start(setup.listen(format!("unix:{}", path.display())).backend("a", backend.address));
    std::fs::remove_file(&path).expect("removing it");
    balancer.reload();
    echoes(&unix(&path), seed());
    let moved = path.with_extension("moved");
    std::fs::rename(&path, &moved).expect("moving it");
    balancer.upgrade();
    echoes(&unix(&path), seed());
    // Who still has the way to the one before is served by nobody, and told so.
    wait_until("nobody listens there", PATIENCE, || UnixStream::connect(&moved).is_err());
    assert_eq!(balancer.logged("somebody has removed the socket of unix:"), 2);
    balancer.await_no_session();
    balancer.stop();
    assert!(!path.exists());
}

#[test]
fn every_user_who_can_reach_its_directory_may_connect_to_a_unix_socket_whatever_the_umask() {
    let machine = Machine::shared();
    let backend = Backend::new(|mut stream| {
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nserved");
    });
    let setup = Setup::new().umask("0077");
    let directory = setup.directory().to_owned();
    let path = directory.join("front.sock");
    let balancer = machine.start(setup.listen(format!("unix:{}", path.display())).backend("a", backend.address));
    std::fs::set_permissions(&directory, PermissionsExt::from_mode(0o711)).expect("opening the directory");
    let client =
        Tool::new("setpriv").arguments("--reuid=65534 --regid=65534 --clear-groups curl --silent --show-error");
    let client = client.arguments(&format!("--unix-socket {} http://web/", path.display()));
    assert_eq!(client.output(PATIENCE), "served");
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn a_unix_client_learns_at_once_that_its_backend_has_reset() {
    let machine = Machine::shared();
    let backend = Acceptor::new();
    let setup = Setup::new();
    let path = setup.directory().join("front.sock");
    let balancer = machine.start(setup.listen(format!("unix:{}", path.display())).backend("a", backend.address));
    let (client, at_backend) = (unix(&path), backend.accept());
    let seed = seed();
    send(&at_backend, seed, 1000).expect("sending");
    receive(&client, &mut Bytes::new(seed), 1000);
    reset(at_backend);
    // Unix sockets know no reset; the end must come all the same.
    let _ = (&client).read(&mut [0]);
    balancer.await_closed("backend_reset", 1);

    // A client that goes away is noticed, and its backend told.
    let (client, at_backend) = (unix(&path), backend.accept());
    send(&at_backend, seed, 1000).expect("sending");
    receive(&client, &mut Bytes::new(seed), 1000);
    drop(client);
    let (bytes, _) = crate::harness::read_to_end(&at_backend);
    assert!(bytes.is_empty());
    drop(at_backend);
    balancer.await_no_session();
    balancer.stop();
}
