//! Which optional kernel features this process uses: probed once at start, each can be switched off.

use std::fmt;
use std::str::FromStr;

use io_uring::{IoUring, Probe, opcode};
use thiserror::Error;

use super::buffers::Buffers;
use super::enter::Enter;
use super::{receive, ring};

/// The environment variable that switches features off: names separated by commas, or `all`.
pub const DISABLE: &str = "BALANCER_DISABLE";

macro_rules! features {
    ($($(#[$doc:meta])* $field:ident),+ $(,)?) => {
        /// The optional kernel features, each true where it is used. All have a fallback on Linux 5.15.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct Features { $($(#[$doc])* pub $field: bool),+ }

        impl Features {
            /// The features' names as [`DISABLE`] takes them.
            pub const NAMES: &[&str] = &[$(stringify!($field)),+];
            /// No feature at all: what every supported kernel can do.
            pub const NONE: Self = Self { $($field: false),+ };
            /// Every feature.
            pub const ALL: Self = Self { $($field: true),+ };

            fn and(self, other: Self) -> Self {
                Self { $($field: self.$field && other.$field),+ }
            }

            fn switch_off(&mut self, name: &str) -> bool {
                match name {
                    $(stringify!($field) => self.$field = false,)+
                    _ => return false,
                }
                true
            }

            fn listed(self) -> [(&'static str, bool); Self::NAMES.len()] {
                [$((stringify!($field), self.$field)),+]
            }
        }
    };
}

features! {
    /// `IORING_SETUP_SINGLE_ISSUER` and `DEFER_TASKRUN` (6.1): completions are worked off only when the worker waits.
    defer_taskrun,
    /// `IORING_SETUP_COOP_TASKRUN` (5.19): no interrupt to announce a completion. Used where `defer_taskrun` is not.
    coop_taskrun,
    /// `IORING_SETUP_SUBMIT_ALL` (5.18): one bad entry does not hold up those behind it.
    submit_all,
    /// Provided buffer rings (5.19). Without them: a poll, then `recv(2)` into a buffer of the pool.
    buffer_ring,
    /// Multishot accept (5.19). Without it: one accept at a time.
    multishot_accept,
    /// Multishot receive with a limit (6.17): a receive stays armed from one small message to the next. Without it: one at a time.
    multishot_receive,
    /// `IORING_RECVSEND_POLL_FIRST` (5.19): no attempt on a socket that was left empty.
    poll_first,
    /// `IOSQE_CQE_SKIP_SUCCESS` (5.17): descriptors are closed on the ring, unheard. Without it: `close(2)`.
    ring_close,
    /// `IORING_REGISTER_RING_FDS` (5.18): entering the ring looks no descriptor up.
    registered_ring,
    /// `IORING_ENTER_NO_IOWAIT` (6.15): a worker that waits counts as idle. Without it, monitoring sees its core waiting for a disk.
    no_iowait,
    /// `SO_INCOMING_CPU` among listeners that share an address (6.2): a connection stays on the core that received it, as long as
    /// that core's worker has not more than its share. Without it: the kernel's hash decides who gets a connection.
    incoming_cpu,
    /// `splice(2)` through pipes larger than the default 64 KiB, where the user's pipe budget allows.
    big_pipes,
}

/// A name in [`DISABLE`] that is no feature.
#[derive(Debug, Error)]
#[error("{DISABLE}: there is no feature '{0}'; the features are: all, {list}", list = Features::NAMES.join(", "))]
pub struct UnknownFeature(String);

impl FromStr for Features {
    type Err = UnknownFeature;

    /// All features but those that `disabled` names.
    fn from_str(disabled: &str) -> Result<Self, UnknownFeature> {
        let mut allowed = Self::ALL;
        for name in disabled.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            if name == "all" {
                allowed = Self::NONE;
            } else if !allowed.switch_off(name) {
                return Err(UnknownFeature(name.to_owned()));
            }
        }
        Ok(allowed)
    }
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |used| {
            let names: Vec<_> = self.listed().into_iter().filter(|(_, on)| *on == used).map(|(name, _)| name).collect();
            if names.is_empty() { "none".to_owned() } else { names.join(" ") }
        };
        write!(f, "used: {}; not used: {}", names(true), names(false))
    }
}

impl Features {
    /// The features among `allowed` that this kernel has, found out with a small ring of its own.
    ///
    /// # Errors
    /// [`ring::Refused`] where the kernel gives no ring at all, or lacks what the program cannot do without.
    pub fn probe(allowed: Self) -> Result<Self, ring::Refused> {
        let setup = |set: fn(&mut io_uring::Builder)| {
            let mut builder = IoUring::builder();
            set(&mut builder);
            builder.build(4).is_ok()
        };
        let mut plain = IoUring::new(4).map_err(ring::Refused::new)?;
        let mut probe = Probe::new();
        plain.submitter().register_probe(&mut probe).map_err(ring::Refused::new)?;
        if !plain.params().is_feature_ext_arg() || !plain.params().is_feature_nodrop() {
            return Err(ring::Refused::too_old());
        }
        // No bit tells of multishot accept or POLL_FIRST; they came with 5.19, as the socket operation did.
        let linux_5_19 = probe.is_supported(opcode::Socket::CODE);
        let buffer_ring = Buffers::new(&plain, true).is_ok();
        let found = Self {
            defer_taskrun: setup(|builder| {
                builder.setup_single_issuer().setup_defer_taskrun();
            }),
            coop_taskrun: setup(|builder| {
                builder.setup_coop_taskrun();
            }),
            submit_all: setup(|builder| {
                builder.setup_submit_all();
            }),
            buffer_ring,
            multishot_accept: linux_5_19,
            multishot_receive: buffer_ring && allowed.buffer_ring && receive::knows_multishot(&mut plain),
            poll_first: linux_5_19,
            ring_close: plain.params().is_feature_skip_cqe_on_success(),
            registered_ring: Enter::registers(&plain),
            no_iowait: Enter::waits_idle(&plain),
            // No bit tells of it; the next operation that is newer came with 6.7.
            incoming_cpu: probe.is_supported(opcode::FutexWait::CODE),
            big_pipes: true,
        };
        Ok(found.and(allowed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_switched_off_by_name() {
        let allowed: Features = "buffer_ring, poll_first".parse().unwrap();
        assert_eq!(allowed, Features { buffer_ring: false, poll_first: false, ..Features::ALL });
        assert_eq!("all".parse::<Features>().unwrap(), Features::NONE);
        assert_eq!("".parse::<Features>().unwrap(), Features::ALL);
    }

    #[test]
    fn a_misspelt_feature_is_an_error_that_lists_them() {
        let error = "bufer_ring".parse::<Features>().unwrap_err().to_string();
        assert!(error.contains("'bufer_ring'") && error.contains("multishot_accept"), "{error}");
    }
}
