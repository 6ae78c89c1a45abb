//! How the real program behaves over real sockets: one topic a file, each test named after what must hold.

mod harness;

mod access_log;
mod admin;
mod algorithms;
mod backpressure;
mod backups;
mod balancing;
mod cleanup;
mod connecting;
mod deadlines;
mod ends;
mod families;
mod health;
mod idle;
mod incident;
mod latency;
mod limits;
mod local_faults;
mod maintenance;
mod manager;
mod packets;
mod page;
mod probing;
mod queue;
mod real_servers;
mod reasons;
mod relay;
mod reload;
mod resets;
mod seeing;
mod stop;
mod storms;
mod top;
mod upgrade;
mod vanished;
