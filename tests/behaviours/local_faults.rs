//! When this machine itself runs out of ports or descriptors, that is said, no backend is blamed, and it passes.
//!
//! covers: src/forward/resources, src/sys/shortage
//! kernel features: multishot_accept, ring_close

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crate::harness::{Backend, Machine, NEAR, Namespaces, Setup, admitted, exchange, reset, wait_until};

#[test]
fn without_a_local_port_clients_are_refused_no_backend_is_blamed_and_a_freed_port_serves_again() {
    let machine = Machine::shared();
    let namespaces = Namespaces::new();
    let listener = namespaces.near().run(|| TcpListener::bind("127.0.0.1:9000").expect("the backend's port"));
    let backend = Backend::named_on(listener, "a");
    let front = SocketAddr::from((NEAR, 8080));
    let setup = Setup::new().inside(&namespaces).listen(front).backend("a", backend.address);
    let balancer = machine.start(setup);
    namespaces.near().local_ports(40_000, 40_009);

    let arrive = || namespaces.far().run(|| admitted(front));
    let mut held: Vec<_> = (0..10).map(|n| arrive().unwrap_or_else(|| panic!("there is a port for {n}"))).collect();
    for refused in 1..=5 {
        assert!(arrive().is_none(), "there is no port left");
        balancer.await_refused("descriptors", refused);
    }
    assert_eq!(balancer.of_backend("a", "failures"), 0, "a local fault is not the backend's");
    balancer.await_logged("port");
    held.iter().for_each(|(client, _)| exchange(client));

    // A reset leaves no port behind in TIME_WAIT.
    for (client, _) in held.drain(..3) {
        reset(client);
    }
    balancer.await_number("/sessions", 7);
    let again: Vec<_> = (0..3).map(|_| arrive().expect("a port is free again")).collect();
    again.iter().for_each(|(client, _)| exchange(client));
    assert!(arrive().is_none());
    drop((held, again));
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn without_a_descriptor_for_the_backend_nobody_is_blamed_and_service_recovers_by_itself() {
    let machine = Machine::shared();
    let backend = Backend::echo();
    let balancer = machine.start(Setup::new().backend("a", backend.address));
    let held: Vec<TcpStream> = (0..3).map(|_| balancer.connect()).collect();
    held.iter().for_each(exchange);
    let (address, served) = (balancer.address(), || is_served(balancer.address()));
    for room in 0..6 {
        // With an odd number left, the client's side of a session gets the last one and the backend's gets none.
        let limit = balancer.process().descriptors() as u64 + room;
        balancer.process().limit_descriptors(limit);
        let attempts: Vec<TcpStream> = (0..6).filter_map(|_| TcpStream::connect(address).ok()).collect();
        held.iter().for_each(exchange);
        std::thread::sleep(Duration::from_millis(100));
        balancer.process().limit_descriptors(1000);
        drop(attempts);
        wait_until("a new client is served", Duration::from_secs(2), served);
        assert_eq!(balancer.of_backend("a", "failures"), 0, "a local fault is not the backend's");
    }
    drop(held);
    balancer.await_no_session();
    balancer.stop();
}

fn is_served(address: SocketAddr) -> bool {
    let Ok(mut client) = TcpStream::connect(address) else { return false };
    client.set_read_timeout(Some(Duration::from_millis(300))).expect("a read timeout");
    client.write_all(b"x").is_ok() && client.read_exact(&mut [0]).is_ok()
}
