//! What is counted, noted and logged.

/// A closed set of values: an enum, all of them, and their names, which are also what serde writes and reads.
macro_rules! named {
    ($(#[$about:meta])* $set:ident { $($(#[$doc:meta])* $value:ident = $name:literal),+ $(,)? }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $set { $($(#[$doc])* #[serde(rename = $name)] $value),+ }

        impl $set {
            /// Every value, in the order of their indices.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$value),+];

            /// The value's name as logs, metrics, files and the interface have it.
            pub fn label(self) -> &'static str {
                match self { $(Self::$value => $name),+ }
            }
        }
    };
}

pub mod access_log;
pub mod condition;
pub mod counters;
mod line_writer;
pub mod redundancy;
pub(crate) mod regular_file;
pub mod running;
pub mod stderr;
pub mod timeline;
pub(crate) mod writer_thread;
