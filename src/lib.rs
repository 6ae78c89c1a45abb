//! balancer: a layer-4 TCP load balancer on Linux io_uring.
//!
//! The rooms, and what each may use:
//!
//! | room | what it is | may use |
//! | --- | --- | --- |
//! | [`config`] | the YAML file, read and validated | `duration`, `visible` |
//! | [`table`] | the immutable backend table and the pick | `observe` |
//! | [`forward`] | the data path: workers, sessions, flows | `table` (reads), `observe` (writes), `messages`, `sys` |
//! | [`control`] | the one loop that decides: health, reload, drains, upgrade, stop | `config`, `table` (sole publisher), `observe`, `messages`, `sys` |
//! | [`messages`] | bounded queues between workers, control and admin | `observe`, `sys` |
//! | [`observe`] | counters, the timeline, the access log | nothing of the others |
//! | [`admin`] | the HTTP interface on the Unix socket | `observe` and `table` (reads), `messages` (requests), `sys`, `duration` |
//! | [`cli`] | one file a subcommand | everything that a user may ask for |
//! | [`app`] | the composition root | everything; it has no logic |
//! | [`duration`] | `1m30s`, read and written | nothing of the others |
//! | [`visible`] | texts from outside, shown so that nothing in them is hidden | nothing of the others |
//! | [`sys`] | ring, sockets, pipes, limits: the only `unsafe` | nothing of the others |

pub mod admin;
pub mod app;
pub mod cli;
pub mod config;
pub mod control;
pub mod duration;
pub mod forward;
pub mod messages;
pub mod observe;
pub mod sys;
pub mod table;
pub mod visible;
