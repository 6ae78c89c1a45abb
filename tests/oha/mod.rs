//! A stand-in for oha, the client that sends HTTP requests when they are due.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// What oha 1.16 says, as far as it is read; beside it, how it was called.
const OHA: &str = r#"#!/bin/sh
echo "$*" >>"${0%/*}/called"
cat <<'JSON'
{
  "summary": {
    "successRate": 1.0,
    "requestsPerSec": 2000.5
  },
  "latencyPercentiles": {
    "p10": 0.000050,
    "p50": 0.000100,
    "p99": 0.0012,
    "p99.99": 0.5
  },
  "firstBytePercentiles": {
    "p50": 0.9
  }
}
JSON
"#;

/// Puts it into the directory; the PATH on which it is found first.
pub(crate) fn stand_in(directory: &Path) -> String {
    let program = directory.join("oha");
    fs::write(&program, OHA).unwrap();
    fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    format!("{}:{}", directory.display(), std::env::var("PATH").unwrap())
}

/// That it was asked for each of these rates, and to wait for every request of so many seconds.
#[track_caller]
pub(crate) fn assert_asked(directory: &Path, rates: &[u32], seconds: u32, connections: u32) {
    let called = fs::read_to_string(directory.join("called")).unwrap();
    for rate in rates {
        let asked = format!("-n {} -q {rate} --latency-correction -c {connections} ", rate * seconds);
        assert!(called.contains(&asked), "no {asked:?} in {called}");
    }
}
