#!/usr/bin/env bash
# Checks everything that a change must pass: format, lints, documentation, licences, all tests, and what must not grow.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/packages.sh
source scripts/packages.sh

if (($#)); then
  say "Usage: scripts/check.sh"
  say "Runs each check, goes on after a failure, and ends with what failed. Installs cargo-deny and valgrind where they are missing."
  if [[ $1 == --help || $1 == -h ]]; then exit 0; else exit 2; fi
fi
command -v cargo >/dev/null || die "needs Rust (cargo); https://rustup.rs installs it"

failed=() unchecked=()

# check NAME COMMAND...: runs it and remembers a failure.
check() {
  local name=$1
  shift
  say "== $name"
  "$@" || failed+=("$name")
}

scripts_are_clean() { shellcheck -x scripts/*.sh scripts/*/*.sh .ci/run; }

# Advisories come from a git repository that may be out of reach: that is said, and is no failure of the change.
advisories() {
  if cargo deny --locked fetch db; then
    check advisories cargo deny --locked check --disable-fetch advisories
  else
    unchecked+=("advisories (their database could not be fetched)")
  fi
}

check format cargo fmt --check
check lints cargo clippy --locked --all-targets -- -D warnings
RUSTDOCFLAGS='-D warnings' check documentation cargo doc --locked --no-deps --document-private-items
if command -v shellcheck >/dev/null; then
  check scripts scripts_are_clean
else
  unchecked+=("scripts (shellcheck is not installed)")
fi
if command -v cargo-deny >/dev/null || cargo install --locked cargo-deny; then
  check licences cargo deny --locked check --hide-inclusion-graph licenses bans sources
  advisories
else
  failed+=("licences (cargo-deny could not be installed)")
fi
check tests scripts/test.sh
# Not in scripts/test.sh: it needs a release build of its own, a minute after a change and two or three from nothing.
check instructions scripts/instructions.sh

for name in "${unchecked[@]}"; do say "NOT CHECKED: $name"; done
for name in "${failed[@]}"; do say "FAILED: $name"; done
if ((${#failed[@]})); then exit 1; fi
say "all checks passed"
