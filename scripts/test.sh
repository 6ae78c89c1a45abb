#!/usr/bin/env bash
# Installs what the tests need and runs them: all, a selection, or within a minute those that a change calls for.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/packages.sh
source scripts/packages.sh
# shellcheck source=scripts/steps.sh
source scripts/steps.sh

usage() {
  cat <<'TEXT'
Usage: scripts/test.sh [--no-install] [--quick | FILTER...]

Runs all tests, then with BALANCER_DISABLE=all, which is how older kernels are tested, those behaviours again to which optional
kernel features make a difference (scripts/topics.sh --kernel-features says which topics), then, as root on Debian, the Debian package (scripts/package-test.sh,
scripts/vm-test.sh). FILTERs go to the test programs, and select tests by a part of their name: queue:: is the topic queue.

--quick runs, within a minute once they are compiled, the unit tests, tests/tidy.rs, a few thousand histories of the simulation,
and the behaviours that the change calls for: scripts/topics.sh says which, and --help there by which rule. Tests that take the
machine for themselves (Machine::alone) are left out, unless their file is changed. It compiles without optimisation, in
target/quick.

On Debian and Ubuntu the real servers and tools that the tests drive are installed first where they are missing (as root
or through sudo); none of them is started or enabled as a service. --no-install leaves that out.

What failed is shown again at the end, with its messages, and how long each step took. The last line says how many tests passed
and failed, all runs together. Exits with 0 only if none failed. docs/TESTING.md says which test answers which question.
TEXT
}

install=yes quick='' filters=()
for argument in "$@"; do
  case $argument in
    --no-install) install='' ;;
    --quick) quick=yes ;;
    --help | -h) usage; exit 0 ;;
    -*) say "${0##*/}: unknown option '$argument'; try: scripts/test.sh --help"; exit 2 ;;
    *) filters+=("$argument") ;;
  esac
done
if [[ -n $quick ]] && ((${#filters[@]})); then say "${0##*/}: --quick chooses by itself; leave out ${filters[*]}"; exit 2; fi

command -v cargo >/dev/null || die "needs Rust (cargo); https://rustup.rs installs it"

results=$(mktemp "${TMPDIR:-/tmp}/balancer-test.XXXXXX")
kept=$(mktemp -d "${TMPDIR:-/tmp}/balancer-test.XXXXXX")
# shellcheck disable=SC2046
trap 'kill $(jobs -p) 2>/dev/null || true; rm -f "$results"; rm -rf --one-file-system "$kept"' EXIT
broken=0

# shellcheck source=/dev/null
distribution=$(. /etc/os-release 2>/dev/null && printf '%s' "${ID:-}")
package_too=''
if ((EUID == 0 && ${#filters[@]} == 0)) && [[ -z $quick && -n $install && $distribution == debian ]]; then package_too=yes; fi

# Everything is compiled once: to prepare for the next change would cost more than it spares.
[[ -n $quick ]] || export CARGO_INCREMENTAL=${CARGO_INCREMENTAL:-0}

# install_all: the programs that tests drive.
install_all() {
  local needs=(ip:iproute2 nft:nftables ethtool:ethtool setpriv:util-linux ps:procps curl:curl python3:python3
    systemd-analyze:systemd groff:groff-base '/usr/share/i18n/locales/de_DE:locales'
    tmux:tmux promtool:prometheus '/usr/share/fonts/*/*/*.ttf:fonts-dejavu-core'
    nginx:nginx redis-server:redis-server redis-benchmark:redis-tools wrk:wrk iperf3:iperf3
    '/usr/lib/postgresql/*/bin/initdb:postgresql' '/usr/lib/postgresql/*/bin/pgbench:postgresql-contrib')
  if [[ -n $package_too ]]; then needs+=("${package_needs[@]}" "${vm_needs[@]}"); fi
  install_missing "${needs[@]}"
  # Ubuntu has no browser as a package.
  if is_missing chromium-headless-shell && [[ -z $(apt-cache search --names-only '^chromium-headless-shell$') ]]; then
    say "no package here brings chromium-headless-shell: put one on the PATH, or the tests of the status page fail"
  else
    install_missing chromium-headless-shell:chromium-headless-shell
  fi
}

# cargo_test ARGUMENTS...: one cargo test, shown as it goes and kept for the sum. A test program that crashes prints no result: it
# counts as one failure, unless others of the run have failed anyway.
cargo_test() {
  local before after
  before=$(failures)
  if cargo test --locked --no-fail-fast "$@" 2>&1 </dev/null | tee -a "$results"; then return; fi
  after=$(failures)
  if ((after == before)); then broken=$((broken + 1)); fi
}

# run TITLE CARGO-ARGUMENTS...: the same under a title, timed.
run() {
  printf '== %s\n' "$1" >>"$results"
  timed "$1" cargo_test "${@:2}"
}

# sum WORD: how many tests passed or failed so far, as the test programs say it.
sum() { awk -v word="$1;" '/^test result: / { for (i = 2; i <= NF; i++) if ($i == word) n += $(i - 1) } END { print n + 0 }' "$results"; }
failures() { sum failed; }

# what_failed: the messages of the tests that failed, under the title of their run.
what_failed() {
  awk '/^== / { title = $0 } /^failures:$/ && !shown { shown = 1; print title } /^test result: / { shown = 0 } shown' "$results"
}

package_tests=0
# counts_as COMMAND...: one more test, by the command's exit.
counts_as() { if "$@"; then package_tests=$((package_tests + 1)); else broken=$((broken + 1)); fi; }

# test_package: both roots are made while the package is built. Where that fails, the test itself tries again and says why.
test_package() {
  local package in_clean_root start=$SECONDS
  say "== the Debian package, in a clean root and in a virtual machine"
  scripts/package-test.sh --keep "$kept" --prepare >/dev/null 2>&1 &
  scripts/vm-test.sh --keep "$kept" --prepare >/dev/null 2>&1 &
  package=$(scripts/package.sh) || { broken=$((broken + 1)); return; }
  wait
  took "the Debian package is built" "$start"
  start=$SECONDS
  TMPDIR=$kept scripts/package-test.sh --keep "$kept" --package "$package" >"$kept/package-test" 2>&1 &
  in_clean_root=$!
  counts_as scripts/vm-test.sh --keep "$kept" --package "$package"
  counts_as wait "$in_clean_root"
  cat "$kept/package-test" >&2
  took "it is tested in a clean root and in a virtual machine" "$start"
}

test_all() {
  local start=$SECONDS compiling topics
  if [[ -n $install ]]; then
    install_missing cc:gcc '/usr/include/stdlib.h:libc6-dev'
    # Compiled while the rest is installed. What is wrong with it is said again where the tests run.
    cargo test --locked --no-run >&2 </dev/null &
    compiling=$!
    install_all
    wait "$compiling" || true
  else
    cargo test --locked --no-run >&2 </dev/null || true
  fi
  took "what the tests need is installed, and they are compiled" "$start"
  run "all tests" -- "${filters[@]}"
  mapfile -t topics < <(scripts/topics.sh --kernel-features | sed 's|^behaviours/||; s|$|::|')
  # With filters: whatever of the behaviours they select.
  ((${#filters[@]} == 0)) || topics=("${filters[@]}")
  BALANCER_DISABLE=all run "behaviours again, without optional kernel features" --test behaviours -- "${topics[@]}"
  if [[ -n $package_too ]]; then
    test_package
  else
    say "the Debian package is tested only as root, without filters, on Debian: scripts/package-test.sh, scripts/vm-test.sh"
  fi
}

# alone_in FILE: the tests there that take the machine for themselves.
alone_in() { awk '/^fn / { sub(/\(.*/, ""); name = $2 } /Machine::alone\(\)/ { print name }' "$1"; }

test_quickly() {
  local start=$SECONDS programs=(--lib --test tidy) filters=() chosen topic left=0 name
  chosen=$(scripts/topics.sh)
  say "chosen by the change: ${chosen//$'\n'/ } (scripts/topics.sh --help says how)"
  for topic in $chosen; do
    case $topic in
      behaviours/*!) filters+=("$(basename "$topic" !)::") ;;
      behaviours/*)
        filters+=("${topic#behaviours/}::")
        while read -r name; do
          filters+=(--skip "${topic#behaviours/}::$name")
          left=$((left + 1))
        done < <(alone_in "tests/$topic.rs")
        ;;
      *) programs+=(--test "$topic") ;;
    esac
  done
  if [[ -n $install ]]; then
    install_missing cc:gcc '/usr/include/stdlib.h:libc6-dev'
    install_all
  fi
  cargo test --locked --profile quick --no-run "${programs[@]}" --test simulation --test behaviours >&2 </dev/null || true
  took "they are compiled" "$start"
  start=$SECONDS
  run "unit tests, and what a reader may rely on" --profile quick "${programs[@]}"
  BALANCER_HISTORIES=${BALANCER_HISTORIES:-5000} run "simulation" --profile quick --test simulation
  if ((${#filters[@]})); then run "behaviours" --profile quick --test behaviours -- "${filters[@]}"; fi
  ((left == 0)) || say "left out: $left tests that take the machine for themselves; scripts/test.sh TOPIC:: runs them"
  took "all of it, once compiled" "$start"
}

if [[ -n $quick ]]; then test_quickly; else test_all; fi

say_times
failed=$(($(failures) + broken))
if ((failed)); then what_failed >&2; fi
if ((broken)); then say "$broken of the runs ended without a result for every test; why stands above"; fi
printf '%s passed, %s failed\n' "$(($(sum passed) + package_tests))" "$failed"
((failed == 0))
