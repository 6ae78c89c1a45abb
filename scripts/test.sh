#!/usr/bin/env bash
# Installs what the tests need, runs every test, and runs the behaviours once more without optional kernel features.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/packages.sh
source scripts/packages.sh

usage() {
  cat <<'TEXT'
Usage: scripts/test.sh [--no-install] [FILTER...]

Runs all tests, then the behaviours of the real program again with BALANCER_DISABLE=all, which is how older kernels are
tested, then, as root on Debian, the Debian package (scripts/package-test.sh, scripts/vm-test.sh). FILTERs go to the test
programs, and select tests by a part of their name.

On Debian and Ubuntu the real servers and tools that the tests drive are installed first where they are missing (as root
or through sudo); none of them is started or enabled as a service. --no-install leaves that out.

What failed is shown again at the end, with its messages. The last line says how many tests passed and failed, all runs
together. Exits with 0 only if none failed.
TEXT
}

install=yes filters=()
for argument in "$@"; do
  case $argument in
    --no-install) install='' ;;
    --help | -h) usage; exit 0 ;;
    -*) say "${0##*/}: unknown option '$argument'; try: scripts/test.sh --help"; exit 2 ;;
    *) filters+=("$argument") ;;
  esac
done

command -v cargo >/dev/null || die "needs Rust (cargo); https://rustup.rs installs it"

results=$(mktemp "${TMPDIR:-/tmp}/balancer-test.XXXXXX")
kept=$(mktemp -d "${TMPDIR:-/tmp}/balancer-test.XXXXXX")
# shellcheck disable=SC2046
trap 'kill $(jobs -p) 2>/dev/null || true; rm -f "$results"; rm -rf --one-file-system "$kept"' EXIT
broken=0

# shellcheck source=/dev/null
distribution=$(. /etc/os-release 2>/dev/null && printf '%s' "${ID:-}")
package_too=''
if ((EUID == 0 && ${#filters[@]} == 0)) && [[ -n $install && $distribution == debian ]]; then package_too=yes; fi

# Everything is compiled once: to prepare for the next change would cost more than it spares.
export CARGO_INCREMENTAL=${CARGO_INCREMENTAL:-0}

if [[ -n $install ]]; then
  install_missing cc:gcc '/usr/include/stdlib.h:libc6-dev'
  # Compiled while the rest is installed. What is wrong with it is said again where the tests run.
  cargo test --locked --no-run >&2 </dev/null &
  compiling=$!
  needs=(ip:iproute2 nft:nftables ethtool:ethtool setpriv:util-linux ps:procps curl:curl python3:python3
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
  wait "$compiling" || true
fi

# run TITLE CARGO-ARGUMENTS...: one cargo test, shown as it goes and kept for the sum. A test program that crashes prints
# no result: it counts as one failure, unless others of the run have failed anyway.
run() {
  local title=$1 before after
  shift
  say "== $title"
  printf '== %s\n' "$title" >>"$results"
  before=$(failures)
  if cargo test --locked --no-fail-fast "$@" -- "${filters[@]}" 2>&1 </dev/null | tee -a "$results"; then return; fi
  after=$(failures)
  if ((after == before)); then broken=$((broken + 1)); fi
}

# sum WORD: how many tests passed or failed so far, as the test programs say it.
sum() { awk -v word="$1;" '/^test result: / { for (i = 2; i <= NF; i++) if ($i == word) n += $(i - 1) } END { print n + 0 }' "$results"; }
failures() { sum failed; }

# what_failed: the messages of the tests that failed, under the title of their run.
what_failed() {
  awk '/^== / { title = $0 } /^failures:$/ && !shown { shown = 1; print title } /^test result: / { shown = 0 } shown' "$results"
}

run "all tests"
BALANCER_DISABLE=all run "the behaviours again, without optional kernel features" --test behaviours

package_tests=0
# counts_as COMMAND...: one more test, by the command's exit.
counts_as() { if "$@"; then package_tests=$((package_tests + 1)); else broken=$((broken + 1)); fi; }

# test_package: both roots are made while the package is built. Where that fails, the test itself tries again and says why.
test_package() {
  local package in_clean_root
  say "== the Debian package, in a clean root and in a virtual machine"
  scripts/package-test.sh --keep "$kept" --prepare >/dev/null 2>&1 &
  scripts/vm-test.sh --keep "$kept" --prepare >/dev/null 2>&1 &
  package=$(scripts/package.sh) || { broken=$((broken + 1)); return; }
  wait
  TMPDIR=$kept scripts/package-test.sh --keep "$kept" --package "$package" >"$kept/package-test" 2>&1 &
  in_clean_root=$!
  counts_as scripts/vm-test.sh --keep "$kept" --package "$package"
  counts_as wait "$in_clean_root"
  cat "$kept/package-test" >&2
}

if [[ -n $package_too ]]; then
  test_package
else
  say "the Debian package is tested only as root, without filters, on Debian: scripts/package-test.sh, scripts/vm-test.sh"
fi

failed=$(($(failures) + broken))
if ((failed)); then what_failed >&2; fi
if ((broken)); then say "$broken of the runs ended without a result for every test; why stands above"; fi
printf '%s passed, %s failed\n' "$(($(sum passed) + package_tests))" "$failed"
((failed == 0))
