#!/usr/bin/env bash
# Checks everything that a change must pass: format, lints, documentation, licences, all tests, and what must not grow.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/packages.sh
source scripts/packages.sh
# shellcheck source=scripts/steps.sh
source scripts/steps.sh

usage() {
  cat <<'TEXT'
Usage: scripts/check.sh [--long]

Runs each check, goes on after a failure, and ends with what failed, how long each took, and how many passed and failed: tests and
checks together. Installs cargo-deny, shellcheck and valgrind where they are missing, and what the tests need. About half an hour
on two cores.

--long runs what takes hours instead, after which a release is safer than before: a million histories of the simulation, a thousand
upgrades, and the behaviours 20 times beside two busy loops.
TEXT
}

long=''
case ${1:-} in
  '') ;;
  --long) long=yes ;;
  --help | -h) usage; exit 0 ;;
  *) say "${0##*/}: unknown argument '$1'; try: scripts/check.sh --help"; exit 2 ;;
esac
command -v cargo >/dev/null || die "needs Rust (cargo); https://rustup.rs installs it"

passed=0 failed=() unchecked=()

# check NAME COMMAND...: runs it and remembers a failure.
check() { if timed "$@"; then passed=$((passed + 1)); else failed+=("$1"); fi; }

documentation_is_clean() { RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --document-private-items; }

scripts_are_clean() { install_missing shellcheck:shellcheck && shellcheck -x scripts/*.sh scripts/*/*.sh .ci/run; }

# find_deny: cargo-deny, not optimised: it is compiled in a third of the time, and used for a second.
find_deny() { command -v cargo-deny >/dev/null || CARGO_PROFILE_DEV_DEBUG=0 cargo install --locked --debug cargo-deny; }

licences_are_right() { cargo deny --locked check --hide-inclusion-graph licenses bans sources; }

# Advisories come from a git repository that may be out of reach: that is said, and is no failure of the change.
advisories() {
  if timeout 60 cargo deny --locked fetch db; then
    check advisories cargo deny --locked check --disable-fetch advisories
  else
    unchecked+=("advisories (their database could not be fetched)")
  fi
}

# all_tests: the README's test command. Its last line counts.
tests_passed=0 tests_failed=0
all_tests() {
  local output status=0
  output=$(mktemp "${TMPDIR:-/tmp}/balancer-check.XXXXXX")
  scripts/test.sh | tee "$output" || status=$?
  read -r tests_passed tests_failed < <(sed -n '$ s/^\([0-9]*\) passed, \([0-9]*\) failed$/\1 \2/p' "$output")
  rm -f "$output"
  return "$status"
}

check_all() {
  check format cargo fmt --check
  check lints cargo clippy --locked --all-targets -- -D warnings
  check documentation documentation_is_clean
  check scripts scripts_are_clean
  check "cargo-deny is there" find_deny
  check licences licences_are_right
  advisories
  timed "all tests" all_tests || ((tests_failed > 0)) || failed+=(tests)
  # Not in scripts/test.sh: it needs a build of its own.
  check "instruction counts" scripts/instructions.sh
}

check_long() {
  BALANCER_HISTORIES=1000000 check "a million histories" cargo test --locked --test simulation
  BALANCER_UPGRADES=1000 check "a thousand upgrades" cargo test --locked --test behaviours -- upgrade::a_client_who_comes_alone
  check "the behaviours on a busy machine" scripts/repeat.sh --runs 20 --load 2 --kernel-features
}

if [[ -n $long ]]; then check_long; else check_all; fi

say_times
for name in "${unchecked[@]}"; do say "NOT CHECKED: $name"; done
for name in "${failed[@]}"; do say "FAILED: $name"; done
printf '%s passed, %s failed\n' "$((tests_passed + passed))" "$((tests_failed + ${#failed[@]}))"
((tests_failed + ${#failed[@]} == 0))
