//! What the service manager (systemd) sees, played by the test: notifications, the watchdog, sockets that it passes.
//!
//! covers: src/control/systemd, src/control/mod, src/messages

use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{Backend, Balancer, Machine, PATIENCE, Setup, connect, exchange, wait_until};

/// The manager's end: what it was told so far.
struct Manager {
    socket: UnixDatagram,
    told: Vec<String>,
}

impl Manager {
    fn new(setup: &Setup) -> Self {
        let socket = UnixDatagram::bind(setup.directory().join("notify")).expect("a notification socket");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
        Self { socket, told: Vec::new() }
    }

    /// Takes in what has been said since.
    fn listen(&mut self) {
        let mut buffer = [0; 4096];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            self.told.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
    }

    /// Waits until a message has this line.
    #[track_caller]
    fn hears(&mut self, line: &str) -> String {
        let mut found = None;
        wait_until(&format!("the manager hears {line}"), PATIENCE, || {
            self.listen();
            found = self.told.iter().find(|message| message.lines().any(|own| own.starts_with(line))).cloned();
            found.is_some()
        });
        found.expect("it was heard")
    }
}

fn start(machine: &Machine, setup: Setup) -> (Manager, Balancer) {
    let manager = Manager::new(&setup);
    let path = setup.directory().join("notify");
    (manager, machine.start(setup.variable("NOTIFY_SOCKET", path.display())))
}

#[test]
fn it_hears_of_the_start_of_reloads_of_states_and_of_the_stop() {
    let machine = Machine::shared();
    let a = Backend::echo();
    let (mut manager, mut balancer) = start(&machine, Setup::new().backend("a", a.address));
    let ready = manager.hears("READY=1");
    assert!(ready.contains("STATUS=1 services, 1 of 1 backends up; generation 1"), "{ready}");
    manager.told.clear();
    balancer.reload();
    manager.hears("RELOADING=1");
    assert!(manager.hears("MONOTONIC_USEC=").contains("RELOADING=1"));
    manager.hears("READY=1");
    manager.hears("STATUS=1 services, 1 of 1 backends up; generation 2");
    manager.told.clear();
    balancer.edit("listen:", "lisetn:");
    balancer.reload_refused();
    manager.hears("RELOADING=1");
    manager.hears("READY=1");
    let client = connect(balancer.address());
    exchange(&client);
    balancer.signal(Signal::TERM);
    manager.hears("STOPPING=1");
    drop(client);
    assert_eq!(balancer.wait(PATIENCE).0, Some(0));
}

#[test]
fn it_hears_which_process_takes_over() {
    let machine = Machine::shared();
    let a = Backend::echo();
    let (mut manager, mut balancer) = start(&machine, Setup::new().backend("a", a.address));
    manager.hears("READY=1");
    manager.told.clear();
    balancer.upgrade();
    manager.hears(&format!("MAINPID={}", balancer.number("/pid")));
    manager.hears("READY=1");
    let order: Vec<_> = manager.told.iter().map(|message| message.split('=').next().unwrap_or_default()).collect();
    assert_eq!(order[..2], ["MAINPID", "READY"], "who is not the main process is not listened to: {:?}", manager.told);
    balancer.stop();
}

#[test]
fn the_watchdog_is_fed_while_every_worker_makes_progress_and_no_longer() {
    let machine = Machine::shared();
    let a = Backend::echo();
    let setup = Setup::new().backend("a", a.address).variable("WATCHDOG_USEC", 600_000);
    let (mut manager, balancer) = start(&machine, setup);
    let feedings = |manager: &Manager| manager.told.iter().filter(|message| message.contains("WATCHDOG=1")).count();
    let fed = |manager: &mut Manager, time: Duration| {
        manager.told.clear();
        let start = Instant::now();
        while start.elapsed() < time {
            manager.listen();
        }
        feedings(manager)
    };
    manager.hears("WATCHDOG=1");
    manager.told.clear();
    // Three in each 600 ms are due.
    let mut watch = balancer.stopwatch();
    wait_until("it is fed ten times", PATIENCE, || {
        manager.listen();
        feedings(&manager) >= 10
    });
    let took = watch.took();
    let right = took.whole >= Duration::from_millis(1700) && took.own() <= Duration::from_secs(4);
    assert!(right, "ten times in {took:?}, where 2 s are due");
    let holder = balancer.process().hold("worker-1");
    // One feeding may be due for what was done before.
    fed(&mut manager, Duration::from_millis(500));
    assert_eq!(fed(&mut manager, Duration::from_secs(2)), 0, "it is fed while a worker hangs");
    balancer.await_logged("1] makes no progress");
    drop(holder);
    manager.told.clear();
    manager.hears("WATCHDOG=1");
    balancer.stop();
}

#[test]
fn sockets_that_it_passes_are_used_also_where_the_balancer_could_not_bind_them() {
    let machine = Machine::shared();
    let a = Backend::named("a");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let setup = Setup::new().listen(address).backend("a", a.address).passed(listener);
    let mut balancer = machine.start(setup);
    let names: Vec<_> = (0..20).map(|_| crate::harness::served_by(address)).collect();
    assert_eq!(names, ["a"; 20]);
    // They outlive a reload and an upgrade as all others do.
    balancer.reload();
    balancer.upgrade();
    assert_eq!(crate::harness::served_by(address), "a");
    balancer.await_no_session();
    balancer.stop();
}

#[test]
fn the_file_of_a_socket_that_it_passes_stays_where_it_is_also_after_an_upgrade() {
    let machine = Machine::shared();
    let a = Backend::named("a");
    for dropped_by_a_reload in [false, true] {
        let setup = Setup::new();
        let path = setup.directory().join("front.sock");
        let listen = format!("unix:{}", path.display());
        let listener = UnixListener::bind(&path).expect("a path");
        let setup = setup.listen_on(&[&listen, "127.0.0.1:0"]).backend("a", a.address);
        // The manager keeps it open, for whom it starts next.
        let mut balancer = machine.start(setup.passed(listener.try_clone().expect("a second descriptor")));
        let before = balancer.upgrade();
        drop(UnixStream::connect(&path).expect("it is served"));
        balancer.await_no_session();
        wait_until("the process before has ended", PATIENCE, || !before.is_alive());
        if dropped_by_a_reload {
            balancer.edit(&format!("{listen:?}, "), "");
            balancer.reload();
        } else {
            let successor = balancer.process();
            successor.signal(Signal::TERM);
            wait_until("it has ended", PATIENCE, || !successor.is_alive());
        }
        assert!(path.exists(), "what the manager has made is removed (by a reload: {dropped_by_a_reload})");
        UnixStream::connect(&path).expect("whom the manager starts next will find the client");
        if dropped_by_a_reload {
            balancer.stop();
        }
    }
}
