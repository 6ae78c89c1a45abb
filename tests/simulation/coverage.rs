//! OperationKind the histories reached: a simulation that never gets somewhere proves nothing about it.

use std::ops::AddAssign;

use balancer::forward::session::Outcome;
use balancer::observe::counters::{Closed, Refused};

/// Declares the counts once: the fields, their sum, and the list that must not hold a zero.
macro_rules! counts {
    ($($name:ident),+ $(,)?) => {
        #[derive(Debug, Default, Clone)]
        pub(crate) struct Coverage {
            pub(crate) histories: u64,
            pub(crate) closed: [u64; Closed::ALL.len()],
            pub(crate) refused: [u64; Refused::ALL.len()],
            pub(crate) watched: [u64; 2],
            $(pub(crate) $name: u64),+
        }

        impl Coverage {
            /// Every count with its name.
            pub(crate) fn counts(&self) -> Vec<(&'static str, u64)> {
                let mut counts = vec![$((stringify!($name), self.$name)),+];
                counts.extend(Closed::ALL.map(|reason| (reason.label(), self.closed[reason as usize])));
                counts.extend(Refused::ALL.map(|reason| (reason.label(), self.refused[reason as usize])));
                counts.extend([("client watched", self.watched[0]), ("backend watched", self.watched[1])]);
                counts
            }
        }

        impl AddAssign for Coverage {
            fn add_assign(&mut self, other: Self) {
                self.histories += other.histories;
                self.closed.iter_mut().zip(other.closed).for_each(|(sum, count)| *sum += count);
                self.refused.iter_mut().zip(other.refused).for_each(|(sum, count)| *sum += count);
                self.watched.iter_mut().zip(other.watched).for_each(|(sum, count)| *sum += count);
                $(self.$name += other.$name;)+
            }
        }
    };
}

counts! {
    bytes,
    retried,
    connects_given_up,
    connected_late,
    connects_left,
    queued,
    retries,
    parked,
    discarded,
    discarded_behind,
    received_behind,
    receives_stopped,
    ended_behind,
    sent_with_end,
    broken_behind,
    no_buffer,
    no_pipe,
    sink_full,
    splice_entered,
    splice_left,
    inspected,
    cancelled,
    late,
    silent,
    slow_queue,
    last_words_delivered,
    last_words_given_up,
}

impl Coverage {
    pub(crate) fn ended(&mut self, outcome: Outcome) {
        self.histories += 1;
        match outcome {
            Outcome::Closed(reason) => self.closed[reason as usize] += 1,
            Outcome::Refused(reason) => self.refused[reason as usize] += 1,
        }
    }
}
