//! OperationKind must not grow, as a program that does one thing so many times: `scripts/instructions.sh` counts the instructions of one.
//!
//! ```text
//! instructions WHAT TIMES
//! ```

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use balancer::forward::deadlines::Deadlines;
use balancer::forward::flow::{Direction, SpliceEnd};
use balancer::forward::session::{Event, Limits, Operation, Session};
use balancer::observe::condition::{Condition, State};
use balancer::table::{Algorithm, Backend, Member, Pool, Service, ServiceState, Settings};

/// Sessions whose deadlines a worker keeps.
const SESSIONS: u32 = 9000;
/// Bytes of a receive buffer.
const SIZE: usize = 16384;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (Some(what), Some(times)) = (arguments.next(), arguments.next().and_then(|times| times.parse().ok())) else {
        eprintln!("usage: instructions WHAT TIMES; scripts/instructions.sh knows what there is");
        std::process::exit(2);
    };
    match what.as_str() {
        "exchange" => exchange(times),
        "splice-turn" => splice_turn(times),
        "deadline" => deadline(times),
        other => {
            match other.strip_prefix("pick-").and_then(|name| Algorithm::ALL.into_iter().find(|a| a.name() == name)) {
                Some(algorithm) => pick(algorithm, times),
                None => {
                    eprintln!("there is no {other}");
                    std::process::exit(2);
                }
            }
        }
    }
}

fn open() -> Session {
    let limits = Limits { connect: 3000, attempts: 3, idle: 3_600_000, half_closed: 60_000, unresponsive: 30_000 };
    let mut session = Session::new(limits, 0);
    step(&mut session, Event::Begin);
    step(&mut session, Event::Connected);
    session
}

/// Hands an event in and takes operations out until the session waits. OperationKind is answered at once is answered.
fn step(session: &mut Session, event: Event) {
    let mut operation = session.on(event, 1);
    while operation != Operation::Wait {
        operation = match operation {
            Operation::Send(direction) => session.on(Event::Sent { direction, bytes: SIZE, left_over: false }, 1),
            Operation::Move(direction) => {
                session.on(Event::Moved { direction, bytes: 1 << 20, size: SIZE, turn: SpliceEnd::Drained }, 1)
            }
            _ => session.then(),
        };
    }
}

/// A request and its answer, both small.
fn exchange(times: u64) {
    let mut session = open();
    for _ in 0..times {
        for direction in Direction::BOTH {
            step(&mut session, Event::Received { direction, length: 100, size: SIZE, more: false, goes_on: true });
        }
        black_box(session.due());
    }
}

/// A turn of a direction in which bulk flows.
fn splice_turn(times: u64) {
    let mut session = open();
    let direction = Direction::Out;
    for _ in 0..3 {
        step(&mut session, Event::Received { direction, length: SIZE, size: SIZE, more: true, goes_on: false });
    }
    for _ in 0..times {
        step(&mut session, Event::Ready(direction));
        black_box(session.due());
    }
}

/// A session's deadline comes, and it gets the next one, among many.
fn deadline(times: u64) {
    let mut deadlines = Deadlines::default();
    let mut now = 0;
    for slot in 0..SESSIONS {
        deadlines.no_later(slot, u64::from(slot.wrapping_mul(2_654_435_761) % SESSIONS));
    }
    for _ in 0..times {
        now = deadlines.next().unwrap_or(now);
        if let Some(slot) = deadlines.pop(now) {
            deadlines.no_later(slot, now + u64::from(SESSIONS));
        }
    }
    black_box(now);
}

/// A pick among a thousand backends, and the permit given back.
fn pick(algorithm: Algorithm, times: u64) {
    let member = |number: u16| {
        let (address, up) = (SocketAddr::from(([127, 0, 0, 1], number)), Condition::new(State::Up, "not probed"));
        let backend = Arc::new(Backend::new(format!("b-{number}").into(), address, None, up, 1));
        Member { backend, weight: 1, share: Member::WHOLE, drained: false }
    };
    let pool = Pool {
        algorithm,
        members: (1..=1000).map(member).collect(),
        backups: Vec::new(),
        leaving: Vec::new(),
        past_sessions: 0,
        starting: false,
        try_all: false,
    };
    let state = Arc::new(ServiceState::new("bench".into(), 0, None, 0, 1));
    let service = Service::new(state, pool, Settings::default());
    let mut client = 0_u32;
    for _ in 0..times {
        client = client.wrapping_add(0x9e37_79b9);
        let client = service.needs_client().then(|| IpAddr::from(Ipv4Addr::from_bits(client)));
        let _ = black_box(service.pick(&[], client));
    }
}
