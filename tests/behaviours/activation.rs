//! Sockets that the service manager passes (systemd's socket activation): matched by what they accept, kept for as long as the
//! process lives, and nobody waits on one for ever.
//!
//! covers: src/control/listeners, src/forward/listener
//! kernel features: multishot_accept

use std::io::Read;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener, UnixStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::harness::{
    Backend, Balancer, Machine, PATIENCE, Setup, admitted, connect, exchange, is_reset, patient, read_to_end,
    served_by, wait_until,
};

/// A listening socket as systemd makes it for this address; `dual_stack`: as for `ListenStream=PORT`, both families.
fn by_the_manager(address: impl Into<SocketAddr>, dual_stack: bool) -> (TcpListener, u16) {
    let address = address.into();
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
    socket.set_reuse_address(true).expect("SO_REUSEADDR");
    if address.is_ipv6() {
        socket.set_only_v6(!dual_stack).expect("IPV6_V6ONLY");
    }
    socket.bind(&address.into()).expect("a free port");
    socket.listen(128).expect("listening");
    let listener = TcpListener::from(socket);
    let port = listener.local_addr().expect("an address").port();
    (listener, port)
}

/// A dual-stack socket of the manager, and an address of either family that it answers at.
fn dual_stack() -> (TcpListener, SocketAddr, SocketAddr) {
    let (listener, port) = by_the_manager((Ipv6Addr::UNSPECIFIED, 0), true);
    (listener, (Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into())
}

fn listening(balancer: &Balancer, service: &str) -> Vec<String> {
    balancer.status().listen(service)
}

#[test]
fn a_dual_stack_socket_serves_both_families_where_both_are_listed() {
    let machine = Machine::shared();
    let a = Backend::named("a");
    let (listener, four, six) = dual_stack();
    let lists = [format!("0.0.0.0:{}", four.port()), format!("[::]:{}", six.port())];
    let setup = Setup::new().listen_on(&[&lists[0], &lists[1]]).backend("a", a.address).passed(listener);
    let log = setup.directory().join("access.log");
    let mut balancer = machine.start(setup.process(&format!("access_log: {}", log.display())));
    for upgraded in [false, true] {
        assert_eq!((served_by(four), served_by(six)), ("a".into(), "a".into()), "upgraded: {upgraded}");
        assert_eq!(listening(&balancer, "web"), lists);
        balancer.await_no_session();
        if !upgraded {
            balancer.upgrade();
        }
    }
    // A client that came by IPv4 is one, whatever socket it came through.
    wait_until("the access log has two clients of each family", PATIENCE, || {
        let log = std::fs::read_to_string(&log).unwrap_or_default();
        let came_by = |prefix: &str| log.lines().filter(|line| line.contains(&format!("client={prefix}"))).count();
        (came_by("127.0.0.1:"), came_by("[::1]:")) == (2, 2)
    });
    balancer.stop();
}

#[test]
fn each_family_of_a_dual_stack_socket_goes_to_the_service_that_lists_it() {
    let machine = Machine::shared();
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let (listener, four, six) = dual_stack();
    let setup = Setup::new().listen(format!("[::]:{}", six.port())).backend("a", a.address);
    let setup = setup.service("four").listen(format!("0.0.0.0:{}", four.port())).backend("b", b.address);
    let balancer = machine.start(setup.passed(listener));
    for _ in 0..4 {
        assert_eq!((served_by(six), served_by(four)), ("a".into(), "b".into()));
    }
    // One alone may go, and move to the other service.
    let (text, gone) = (balancer.configuration(), format!("\"0.0.0.0:{}\"", four.port()));
    balancer.edit(&gone, "\"127.0.0.1:0\"");
    balancer.reload();
    assert!(admitted(four).is_none(), "no service lists IPv4 now");
    assert_eq!(served_by(six), "a");
    balancer.configure(
        &text
            .replace(&format!("\"[::]:{}\"", six.port()), &format!("[\"[::]:{}\", {gone}]", six.port()))
            .replace(&format!("listen: {gone}"), "listen: \"127.0.0.1:0\""),
    );
    balancer.reload();
    assert_eq!((served_by(six), served_by(four)), ("a".into(), "a".into()));
    balancer.stop();
}

#[test]
fn a_family_that_no_service_lists_is_reset_and_said() {
    let machine = Machine::shared();
    let a = Backend::named("a");
    for listed in ["0.0.0.0", "[::]"] {
        let (listener, four, six) = dual_stack();
        let (served, reset) = if listed == "[::]" { (six, four) } else { (four, six) };
        let setup = Setup::new().listen(format!("{listed}:{}", four.port())).backend("a", a.address);
        let balancer = machine.start(setup.passed(listener));
        for _ in 0..4 {
            assert_eq!(served_by(served), "a");
            assert!(admitted(reset).is_none(), "only {listed} is listed");
        }
        balancer.await_logged("a socket of the service manager");
        let line = balancer.log_line("a socket of the service manager").expect("it is said");
        let other = if listed == "[::]" { "0.0.0.0" } else { "[::]" };
        for words in
            [format!("no service lists {other}:{0} of [::]:{0} (dual-stack)", four.port()), "BindIPv6Only".into()]
        {
            assert!(line.contains(&words), "{words} in {line}");
        }
        balancer.await_no_session();
        balancer.stop();
    }
}

#[test]
fn a_wildcard_socket_serves_the_addresses_of_it_that_are_listed() {
    let machine = Machine::shared();
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let (listener, port) = by_the_manager((Ipv4Addr::UNSPECIFIED, 0), false);
    let at = |last: u8| SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), port));
    let setup = Setup::new().listen(at(1)).backend("a", a.address).service("b").listen(at(2)).backend("b", b.address);
    let balancer = machine.start(setup.passed(listener));
    assert_eq!((served_by(at(1)), served_by(at(2))), ("a".into(), "b".into()));
    assert!(admitted(at(3)).is_none(), "no service lists it");
    // Where all of it is listed as well, the rest goes there.
    balancer.edit(&format!("\"{}\"", at(1)), &format!("\"0.0.0.0:{port}\""));
    balancer.reload();
    assert_eq!((served_by(at(1)), served_by(at(2)), served_by(at(3))), ("a".into(), "b".into(), "a".into()));
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn an_ipv6_socket_of_its_own_leaves_ipv4_to_the_balancer() {
    let machine = Machine::shared();
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let (listener, port) = by_the_manager((Ipv6Addr::UNSPECIFIED, 0), false);
    let (four, six) = ((Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into());
    let setup = Setup::new().listen(format!("[::]:{port}")).backend("a", a.address);
    let setup = setup.service("four").listen(format!("0.0.0.0:{port}")).backend("b", b.address);
    let balancer = machine.start(setup.passed(listener));
    assert_eq!((served_by(six), served_by(four)), ("a".into(), "b".into()));
    assert!(!balancer.has_logged("no service lists"));
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn a_part_that_is_passed_where_the_whole_is_listed_is_named_as_the_reason() {
    let machine = Machine::shared();
    let a = Backend::named("a");
    let (listener, port) = by_the_manager((Ipv4Addr::LOCALHOST, 0), false);
    let whole = format!("0.0.0.0:{port}");
    let setup = Setup::new().backend("a", a.address).passed(listener.try_clone().expect("a second descriptor"));
    let said = machine.start_fails(&setup.listen(&whole));
    let is_true = |said: &str| {
        for words in
            [&*format!("cannot listen on {whole}"), "the service manager", &format!("127.0.0.1:{port}"), ".socket"]
        {
            assert!(said.contains(words), "{words} in {said}");
        }
        assert!(!said.contains("somebody listens there"), "{said}");
    };
    is_true(&said);
    let part = format!("127.0.0.1:{port}");
    let balancer = machine.start(Setup::new().listen(&part).backend("a", a.address).passed(listener));
    balancer.edit(&part, &whole);
    is_true(&balancer.reload_refused());
    assert_eq!(served_by(part.parse().expect("an address")), "a");
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn one_that_a_reload_drops_resets_who_comes_and_serves_again_when_it_is_listed_again() {
    let machine = Machine::shared();
    let a = Backend::echo();
    let (listener, port) = by_the_manager((Ipv4Addr::LOCALHOST, 0), false);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let listed = format!("\"{address}\", ");
    let setup = Setup::new().listen_on(&[&address.to_string(), "127.0.0.1:0"]).backend("a", a.address);
    let mut balancer = machine.start(setup.passed(listener.try_clone().expect("a second descriptor")));
    let open = connect(address);
    exchange(&open);
    let resets = || {
        for _ in 0..8 {
            assert!(admitted(address).is_none(), "no service lists it");
        }
    };
    balancer.edit(&listed, "");
    balancer.reload();
    resets();
    balancer.await_logged(&format!("no service lists {address}"));
    exchange(&open);
    balancer.reload();
    resets();
    let before = balancer.upgrade();
    resets();
    let descriptors = balancer.process().descriptors();
    for _ in 0..5 {
        balancer.edit("listen: [", &format!("listen: [{listed}"));
        balancer.reload();
        exchange(&connect(address));
        balancer.edit(&listed, "");
        balancer.reload();
        resets();
    }
    balancer.await_no_session();
    wait_until("no descriptor is left over", PATIENCE, || balancer.process().descriptors() <= descriptors);
    exchange(&open);
    drop(open);
    wait_until("the process before has ended", PATIENCE, || !before.is_alive());
    balancer.stop();
    // The manager's socket is what it was: it starts a service for the next client, who waits for that.
    let waits = connect(address);
    listener.set_nonblocking(true).expect("O_NONBLOCK");
    let accepted = listener.accept().map(|(stream, _)| patient(stream)).expect("who came after the stop waits");
    assert_eq!(accepted.peer_addr().expect("an address"), waits.local_addr().expect("an address"));
}

#[test]
fn a_client_that_waits_on_one_when_a_reload_drops_it_is_served() {
    let machine = Machine::shared();
    let a = Backend::echo();
    let (listener, port) = by_the_manager((Ipv4Addr::LOCALHOST, 0), false);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let setup = Setup::new().workers(1).listen_on(&[&address.to_string(), "127.0.0.1:0"]).backend("a", a.address);
    let balancer = machine.start(setup.passed(listener));
    let holder = balancer.process().hold("worker-0");
    let waits: Vec<_> = (0..8).map(|_| connect(address)).collect();
    balancer.edit(&format!("\"{address}\", "), "");
    balancer.reload();
    drop(holder);
    waits.iter().for_each(exchange);
    drop(waits);
    wait_until("who comes later is reset", PATIENCE, || is_reset_at_once(address));
    balancer.await_no_session();
    balancer.stop();
}

/// Whether a client of a backend that does not speak first is reset.
fn is_reset_at_once(address: SocketAddr) -> bool {
    // A reset right behind the handshake can overtake the connect's own return.
    let outcome = TcpStream::connect(address).and_then(|mut stream| {
        stream.set_read_timeout(Some(Duration::from_millis(200)))?;
        stream.read(&mut [0])
    });
    outcome.is_err_and(|error| is_reset(&error))
}

#[test]
fn one_that_no_service_lists_at_the_start_is_said_reset_and_kept_for_a_reload() {
    let machine = Machine::shared();
    let a = Backend::named("a");
    let [(one, first), (two, second)] = [(); 2].map(|()| by_the_manager((Ipv4Addr::LOCALHOST, 0), false));
    let [first, second] = [first, second].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let setup = Setup::new().listen(first).backend("a", a.address).passed(one).passed(two);
    let mut balancer = machine.start(setup);
    balancer.await_logged(&format!("no service lists {second}"));
    assert!(admitted(second).is_none());
    wait_until("it is counted", PATIENCE, || balancer.metric("balancer_unlisted_clients_total") == 1.0);
    assert_eq!(served_by(first), "a");
    balancer.upgrade();
    assert!(admitted(second).is_none());
    balancer.edit(&first.to_string(), &second.to_string());
    balancer.reload();
    assert!(admitted(first).is_none());
    assert_eq!(served_by(second), "a");
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn a_unix_socket_is_found_by_its_directory_and_not_by_how_that_is_written() {
    let machine = Machine::shared();
    let a = Backend::echo();
    let setup = Setup::new();
    let (real, link) = (setup.directory().join("real"), setup.directory().join("link"));
    std::fs::create_dir(&real).expect("a directory");
    std::os::unix::fs::symlink(&real, &link).expect("a symbolic link");
    let listener = UnixListener::bind(real.join("front.sock")).expect("a path");
    let listen = format!("unix:{}", link.join("front.sock").display());
    let mut balancer = machine.start(setup.listen(&listen).backend("a", a.address).passed(listener));
    let is_served = || {
        let (stream, byte) = (UnixStream::connect(real.join("front.sock")).expect("it listens"), &mut [0]);
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        std::io::Write::write_all(&mut &stream, b"x").expect("sending");
        (&stream).read_exact(byte).expect("an echo");
    };
    is_served();
    assert_eq!(listening(&balancer, "web"), [&*listen]);
    balancer.upgrade();
    is_served();
    balancer.await_no_session();
    let successor = balancer.process();
    successor.signal(rustix::process::Signal::TERM);
    wait_until("it has ended", PATIENCE, || !successor.is_alive());
    assert!(real.join("front.sock").exists(), "it is the manager's to remove");
}

#[test]
fn a_unix_socket_without_a_file_is_kept_from_making_clients_wait() {
    let machine = Machine::shared();
    let a = Backend::echo();
    let name = UnixAddr::from_abstract_name(format!("balancer-test-{}", std::process::id())).expect("a name");
    let listener = UnixListener::bind_addr(&name).expect("a free name");
    let balancer = machine.start(Setup::new().backend("a", a.address).passed(listener));
    let client = UnixStream::connect_addr(&name).expect("it listens");
    client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    assert!(read_to_end(&client).0.is_empty());
    balancer.await_logged("no service lists unix:@balancer-test-");
    balancer.stop();
}
