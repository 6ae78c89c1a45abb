//! What the topic files share: the program under test, its peers, and ways to look at both.

mod backend;
mod balancer;
mod browser;
mod disk;
mod load;
mod machine;
mod namespace;
mod pipe;
mod process;
mod setup;
mod socket;
mod status;
mod stream;
mod terminal;
mod tools;
mod wait;

pub(crate) use self::backend::{Acceptor, Backend, Blackhole, Port, echo};
pub(crate) use self::balancer::Balancer;
pub(crate) use self::browser::Browser;
pub(crate) use self::disk::Disk;
pub(crate) use self::load::Load;
pub(crate) use self::machine::{Machine, raise_descriptor_limit};
pub(crate) use self::namespace::{NEAR, Namespaces, Side};
pub(crate) use self::pipe::full_pipe;
pub(crate) use self::process::{Kills, Process};
pub(crate) use self::setup::Setup;
pub(crate) use self::socket::{
    End, admitted, all_acknowledged, assert_ends_with_reset, await_reset, connect, exchange, exchange_bytes, is_reset,
    patient, read_to_end, reset, served_by,
};
pub(crate) use self::status::{metric, post};
pub(crate) use self::stream::{Bytes, receive, receive_to_end, seed, send, send_in};
pub(crate) use self::terminal::Terminal;
pub(crate) use self::tools::{Server, Tool, free_port, program, run};
pub(crate) use self::wait::{
    PATIENCE, PUNCTUAL, SLACK, Stopwatch, Took, assert_between, assert_punctual, assert_took, assert_within,
    percentile, wait_until,
};
