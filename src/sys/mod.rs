//! The kernel's side: ring, buffers, sockets, pipes and the process's limits. The only room where `unsafe` may stand.
#![expect(unsafe_code, reason = "the kernel's interfaces are made safe here, once, for every other room")]

pub mod address;
pub mod buffers;
pub mod channel;
mod enter;
pub mod features;
pub mod pipe;
pub mod process;
mod receive;
pub mod ring;
pub mod shortage;
pub mod socket;
pub mod unix;

pub use rustix::io::Errno;
