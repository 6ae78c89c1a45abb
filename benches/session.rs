//! What one request and its answer cost in the session's state machine alone, without ring and kernel.
//!
//! ```text
//! cargo bench --bench session
//! ```

use balancer::forward::flow::Direction;
use balancer::forward::session::{Event, Limits, Operation, Session};
use divan::Bencher;
use divan::counter::ItemsCount;

fn main() {
    divan::main();
}

/// Hands an event in and takes operations out until the session waits.
fn step(session: &mut Session, event: Event) {
    let mut operation = session.on(event, 1);
    while operation != Operation::Wait {
        operation = match operation {
            Operation::Send(direction) => return step(session, Event::Sent { direction, bytes: 100, rest: false }),
            _ => session.then(),
        };
    }
}

/// One exchange: received and sent in, received and sent out.
#[divan::bench]
fn exchange(bencher: Bencher<'_, '_>) {
    let limits = Limits { connect: 3000, attempts: 3, idle: 3_600_000, half_closed: 60_000, unresponsive: 30_000 };
    let mut session = Session::new(limits, 0);
    step(&mut session, Event::Begin);
    step(&mut session, Event::Connected);
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
        for direction in Direction::BOTH {
            step(&mut session, Event::Received { direction, length: 100, size: 16384, more: false, goes_on: true });
        }
        divan::black_box(session.due())
    });
}
