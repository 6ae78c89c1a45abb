//! OperationKind a request and its answer, a turn of bulk and a deadline cost in the worker's own code, without ring and kernel.
//!
//! ```text
//! cargo bench --bench session
//! ```

use balancer::forward::deadlines::Deadlines;
use balancer::forward::flow::{Direction, SpliceEnd};
use balancer::forward::session::{Event, Limits, Operation, Session};
use divan::Bencher;
use divan::counter::ItemsCount;

/// Sessions whose deadlines a worker keeps.
const SESSIONS: u32 = 9000;
/// Bytes of a receive buffer.
const SIZE: usize = 16384;

fn main() {
    divan::main();
}

/// Hands an event in and takes operations out until the session waits.
fn step(session: &mut Session, event: Event) {
    let mut operation = session.on(event, 1);
    while operation != Operation::Wait {
        operation = match operation {
            Operation::Send(direction) => {
                return step(session, Event::Sent { direction, bytes: 100, left_over: false });
            }
            Operation::Move(direction) => {
                return step(session, Event::Moved { direction, bytes: 1 << 20, size: SIZE, turn: SpliceEnd::Drained });
            }
            _ => session.then(),
        };
    }
}

fn open() -> Session {
    let limits = Limits { connect: 3000, attempts: 3, idle: 3_600_000, half_closed: 60_000, unresponsive: 30_000 };
    let mut session = Session::new(limits, 0);
    step(&mut session, Event::Begin);
    step(&mut session, Event::Connected);
    session
}

/// One exchange: received and sent in, received and sent out.
#[divan::bench]
fn exchange(bencher: Bencher<'_, '_>) {
    let mut session = open();
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
        for direction in Direction::BOTH {
            step(&mut session, Event::Received { direction, length: 100, size: SIZE, more: false, goes_on: true });
        }
        divan::black_box(session.due())
    });
}

/// One turn of a direction in which bulk flows: readable, moved, empty again.
#[divan::bench]
fn relay_turn(bencher: Bencher<'_, '_>) {
    let (mut session, direction) = (open(), Direction::Out);
    for _ in 0..3 {
        step(&mut session, Event::Received { direction, length: SIZE, size: SIZE, more: true, goes_on: false });
    }
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
        step(&mut session, Event::Ready(direction));
        divan::black_box(session.due())
    });
}

/// One timer: the deadline of one of many sessions comes, and it gets the next one.
#[divan::bench]
fn deadline(bencher: Bencher<'_, '_>) {
    let mut deadlines = Deadlines::default();
    let mut now = 0;
    for slot in 0..SESSIONS {
        deadlines.no_later(slot, u64::from(slot.wrapping_mul(2_654_435_761) % SESSIONS));
    }
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
        now = deadlines.next().unwrap_or(now);
        if let Some(slot) = deadlines.pop(now) {
            deadlines.no_later(slot, now + u64::from(SESSIONS));
        }
    });
    divan::black_box(now);
}
