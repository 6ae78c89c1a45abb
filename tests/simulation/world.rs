//! One history: a virtual clock, and what happens when.

use balancer::forward::flow::Direction;
use balancer::forward::session::{Event, InFlight, Limits, Millis, NEVER, Operation, Session, Side};
use balancer::observe::counters::Closed;
use fastrand::Rng;

use crate::conditions::{Conditions, some_limits};
use crate::connection::Connection;
use crate::coverage::Coverage;
use crate::kernel::Kernel;
use crate::peer::Peer;
use crate::record::Record;

pub(crate) const SIDES: [Side; 2] = [Side::Client, Side::Backend];

/// More than any history needs: one that is longer never ends.
const STEPS: u32 = 200_000;
/// A window probe follows the one before after twice the time, at most this.
const LONGEST_PROBE: Millis = 30_000;

/// OperationKind happens at some time.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Happening {
    /// The peer does what is next in its script.
    Act(Side),
    /// The peer reads.
    Read(Side),
    /// Bytes arrive at the peer's kernel and are acknowledged.
    Acknowledge(Side),
    /// A window probe goes out, so long after the one before.
    Probe(Side, Millis),
    /// The peer's kernel answers a probe.
    Answer(Side),
    /// The kernel tries an operation; the number tells a stale one.
    Execute(InFlight, u32),
    /// The worker takes completions.
    Reap,
    BufferFree(Direction),
    Stop(Closed),
    /// The backend is to be left.
    BackendDrained,
    /// There may be a backend now.
    Retry,
    /// Somebody may go on.
    Wake,
}

pub(crate) struct World {
    pub(crate) now: Millis,
    pub(crate) random: Rng,
    pub(crate) conditions: Conditions,
    pub(crate) limits: Limits,
    pub(crate) connections: [Connection; 2],
    pub(crate) peers: [Peer; 2],
    pub(crate) kernel: Kernel,
    pub(crate) session: Session,
    pub(crate) record: Record,
    pub(crate) coverage: Coverage,
    agenda: Vec<(Millis, u32, Happening)>,
    /// Which happenings of a side are on the agenda: act, read, acknowledge, probe.
    planned: [[bool; 4]; 2],
    /// When the worker delivers the deadline.
    deadline: Millis,
    history: Option<Vec<String>>,
}

impl World {
    pub(crate) fn new(seed: u64, coverage: Coverage, history: Option<Vec<String>>) -> Self {
        let mut random = Rng::with_seed(seed);
        let r = &mut random;
        let conditions = Conditions::some(r);
        let limits = some_limits(r);
        let buffer = conditions.buffer;
        let connections = SIDES.map(|_| conditions.connection(r, 0));
        let peers = SIDES.map(|_| Peer::new(r, &limits, buffer, 0));
        let mut world = Self {
            now: 0,
            conditions,
            limits,
            connections,
            peers,
            kernel: Kernel::default(),
            session: Session::new(limits, 0),
            record: Record::default(),
            coverage,
            agenda: Vec::with_capacity(32),
            planned: [[false; 4]; 2],
            deadline: NEVER,
            history,
            random,
        };
        world.connections[0].mute = world.one_in(8);
        if world.one_in(16) {
            let reason = if world.one_in(2) { Closed::Drain } else { Closed::Error };
            let after = world.random.u64(0..2000);
            world.plan(after, Happening::Stop(reason));
        }
        // Of its own, so that all other histories stay what they were: some are rare finds.
        let mut aside = Rng::with_seed(!seed);
        if aside.u32(0..16) == 0 {
            let after = aside.u64(0..2000);
            world.agenda.push((after, aside.u32(..), Happening::BackendDrained));
        }
        world
    }

    /// Runs to the end.
    pub(crate) fn run(&mut self) {
        self.note(|world| format!("{:?} {:?} {:?}", world.limits, world.conditions, world.peers));
        self.tell(Event::Begin);
        for _ in 0..STEPS {
            if self.record.closed {
                return;
            }
            self.stir();
            self.step();
        }
        panic!("the session never ends");
    }

    /// Hands the session an event and carries out all that it asks for.
    pub(crate) fn tell(&mut self, event: Event) {
        self.note(|_| format!("    {event:?}"));
        self.learn(event);
        let mut operation = self.session.on(event, self.now);
        while operation != Operation::Wait {
            self.note(|_| format!("        {operation:?}"));
            self.permit(operation);
            operation = match self.carry_out(operation) {
                Some(event) => {
                    self.note(|_| format!("    {event:?}"));
                    self.learn(event);
                    self.session.on(event, self.now)
                }
                None if self.record.closed => return,
                None => self.session.then(),
            };
        }
        self.settled();
        let due = self.session.due();
        assert!(event != Event::Deadline || due > self.now, "due again at once");
        if due < self.deadline {
            self.deadline = due + self.random.u64(0..=self.conditions.lateness);
        }
    }

    /// Puts on the agenda what has become possible.
    fn stir(&mut self) {
        for side in SIDES {
            let index = side as usize;
            if side == Side::Backend && !self.kernel.established {
                continue;
            }
            let (connection, peer) = (&self.connections[index], &self.peers[index]);
            let possible = [
                peer.ready(connection, self.now),
                peer.hungry(connection, self.now),
                connection.deliverable(),
                connection.blocked(),
            ];
            for (kind, possible) in possible.into_iter().enumerate() {
                if !possible || self.planned[index][kind] {
                    continue;
                }
                self.planned[index][kind] = true;
                let distance = self.random.u64(0..=self.conditions.distance);
                match kind {
                    0 => self.plan(distance, Happening::Act(side)),
                    1 => self.plan(distance, Happening::Read(side)),
                    2 => self.plan(distance, Happening::Acknowledge(side)),
                    _ => self.plan(200, Happening::Probe(side, 200)),
                }
            }
        }
        self.stir_kernel();
    }

    pub(crate) fn plan(&mut self, after: Millis, happening: Happening) {
        let order = self.random.u32(..);
        self.agenda.push((self.now.saturating_add(after), order, happening));
    }

    fn step(&mut self) {
        let next = self.agenda.iter().enumerate().min_by_key(|(_, entry)| (entry.0, entry.1)).map(|(index, _)| index);
        let at = next.map_or(NEVER, |index| self.agenda[index].0);
        assert!(at != NEVER || self.deadline != NEVER, "nothing will ever happen");
        if self.deadline <= at {
            self.now = self.deadline.max(self.now);
            self.deadline = NEVER;
            return self.deadline_passes();
        }
        let Some((at, _, happening)) = next.map(|index| self.agenda.swap_remove(index)) else { return };
        self.now = at;
        self.note(|_| format!("{happening:?}"));
        self.happen(happening);
    }

    /// The worker takes its completions before its deadlines: a look must not meet a send that the session has not heard of.
    fn deadline_passes(&mut self) {
        self.reap();
        if !self.record.closed {
            self.tell(Event::Deadline);
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Act(side) => self.act(side),
            Happening::Read(side) => {
                self.planned[side as usize][1] = false;
                let (connection, peer) = (&mut self.connections[side as usize], &self.peers[side as usize]);
                if peer.hungry(connection, self.now) {
                    connection.peer_reads(peer.appetite, self.now);
                }
            }
            Happening::Acknowledge(side) => {
                self.planned[side as usize][2] = false;
                let part = self.one_in(4).then(|| self.random.u64(1..=self.conditions.buffer));
                let connection = &mut self.connections[side as usize];
                if connection.deliverable() {
                    connection.acknowledge(part.unwrap_or(u64::MAX), self.now);
                }
            }
            Happening::Probe(side, pause) => self.probe(side, pause),
            Happening::Answer(side) => {
                let connection = &mut self.connections[side as usize];
                if !connection.vanished && !connection.dead() {
                    connection.answer(self.now);
                }
            }
            Happening::Execute(what, ticket) => self.execute(what, ticket),
            Happening::Reap => self.reap(),
            Happening::BufferFree(direction) => {
                self.kernel.starved[direction as usize] = false;
                self.tell(Event::BufferFree(direction));
            }
            Happening::Stop(reason) => self.tell(Event::Stop(reason)),
            Happening::BackendDrained => self.tell(Event::BackendDrained),
            Happening::Retry => self.tell(Event::Retry),
            Happening::Wake => {
                if self.deadline != NEVER && self.one_in(4) {
                    // The worker looks too early: its deadlines only ever move forward.
                    self.deadline_passes();
                }
            }
        }
    }

    fn act(&mut self, side: Side) {
        let index = side as usize;
        self.planned[index][0] = false;
        let (connection, peer) = (&mut self.connections[index], &mut self.peers[index]);
        if !peer.ready(connection, self.now) {
            return;
        }
        let before = [peer.acts_from, peer.reads_from];
        let act = peer.act(connection, self.now);
        let until = [peer.acts_from, peer.reads_from];
        self.note(|_| format!("  {side:?} {act:?}"));
        for (until, before) in until.into_iter().zip(before) {
            if until != before && until != NEVER {
                self.plan(until - self.now, Happening::Wake);
            }
        }
    }

    fn probe(&mut self, side: Side, pause: Millis) {
        let index = side as usize;
        if !self.connections[index].blocked() {
            self.planned[index][3] = false;
            return;
        }
        self.connections[index].probe(self.now);
        let way = self.random.u64(0..=self.conditions.distance);
        self.plan(way, Happening::Answer(side));
        let pause = (pause * 2).min(LONGEST_PROBE);
        self.plan(pause, Happening::Probe(side, pause));
    }

    /// A new backend accepts.
    pub(crate) fn establish(&mut self) {
        self.connections[1] = self.conditions.connection(&mut self.random, self.now);
        self.peers[1].acts_from = self.now;
        self.peers[1].reads_from = self.now;
        self.kernel.established = true;
    }

    pub(crate) fn one_in(&mut self, number: u32) -> bool {
        self.random.u32(0..number) == 0
    }

    pub(crate) fn note(&mut self, line: impl FnOnce(&Self) -> String) {
        if self.history.is_some() {
            let line = format!("{:>8} ms {}", self.now, line(self));
            self.history.iter_mut().for_each(|history| history.push(line.clone()));
        }
    }

    pub(crate) fn into_history(self) -> Vec<String> {
        self.history.unwrap_or_default()
    }
}
