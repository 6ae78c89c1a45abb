#!/usr/bin/env bash
# Runs balancer, HAProxy and nginx (stream) under the same loads, one worker each, and prints what each costs.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/packages.sh
source "$root/scripts/packages.sh"
# shellcheck source=scripts/usage.sh
source "$root/scripts/usage.sh"
# shellcheck source=scripts/compare/network.sh
source "$root/scripts/compare/network.sh"
# shellcheck source=scripts/compare/peers.sh
source "$root/scripts/compare/peers.sh"
# shellcheck source=scripts/compare/loads.sh
source "$root/scripts/compare/loads.sh"

usage() {
  cat <<'TEXT'
Usage: scripts/compare.sh [OPTIONS]

Compares balancer with the distribution's HAProxy and nginx on this machine: a client, one of the three, and a server,
each in a network namespace of its own, joined by veth. Every measurement starts with new namespaces and new processes.
The table goes to standard output as Markdown, progress to standard error. Needs root (asks sudo).

  --rounds N       rounds; each runs every load through every peer, in rotating order   [3]
  --seconds S      length of one measurement                                            [5]
  --loads A,B      some of: bulk wire requests pipelined connections idle latency       [all]
  --peers A,B      some of: balancer haproxy nginx                                      [all]
  --sessions N     sessions of the idle load                                            [4000]
  --pin            the peer on the first CPU, clients and servers on the others
  --binary PATH    the balancer to measure      [target/release/balancer; built if missing]
  --json FILE      also writes every single measurement and the summary to FILE
  --keep           keeps the logs and configurations, and says where
  --no-install     fails where a program is missing; otherwise installs it with apt-get:
                   haproxy nginx libnginx-mod-stream redis-server redis-tools wrk iperf3 sockperf ethtool iproute2
  --help           this text

Cost is the CPU time of the peer's own processes, all threads, user and system, as the kernel's scheduler counts it.
The ratio is balancer's cost against the peer with the lowest median, round by round; the table shows its median
and, in brackets, its lowest and highest. Run it on a machine that does nothing else.
TEXT
}

all_loads=bulk,wire,requests,pipelined,connections,idle,latency
rounds=3 seconds=5 sessions=4000 loads=$all_loads peers=balancer,haproxy,nginx
binary='' json='' keep='' pin='' install=yes
arguments=("$@")

wrong() { say "${0##*/}: $*"; say "try: scripts/compare.sh --help"; exit 2; }

while (($#)); do
  option=$1
  shift
  case $option in
    --rounds | --seconds | --sessions | --loads | --peers | --binary | --json)
      (($#)) || wrong "$option needs a value"
      value=$1
      shift
      ;;&
    --rounds | --seconds | --sessions) [[ $value =~ ^[1-9][0-9]*$ ]] || wrong "$option needs a number above 0, not '$value'" ;;&
    --rounds) rounds=$value ;;
    --seconds) seconds=$value ;;
    --sessions) sessions=$value ;;
    --loads) loads=$value ;;
    --peers) peers=$value ;;
    --binary) binary=$value ;;
    --json) json=$value ;;
    --keep) keep=yes ;;
    --pin) pin=yes ;;
    --install) install=yes ;;
    --no-install) install='' ;;
    --help | -h) usage; exit 0 ;;
    *) wrong "unknown option '$option'" ;;
  esac
done
[[ $loads == all ]] && loads=$all_loads
IFS=, read -ra loads <<<"$loads"
IFS=, read -ra peers <<<"$peers"
for name in "${loads[@]}"; do
  [[ ,$all_loads, == *,"$name",* ]] || wrong "unknown load '$name' (there are: ${all_loads//,/ })"
done
for name in "${peers[@]}"; do
  [[ $name =~ ^(balancer|haproxy|nginx)$ ]] || wrong "unknown peer '$name' (there are: balancer haproxy nginx)"
done
if [[ -n $pin ]] && (($(nproc) < 2)); then wrong "--pin needs two CPUs or more"; fi

# ---- What is needed ------------------------------------------------------------------------------------------------

uses() { [[ " $1 " == *" $2 "* ]]; }

# The binary is built first, as the user who called: root often has no Rust of its own.
if uses "${peers[*]}" balancer; then
  if [[ -z $binary ]]; then
    binary=$root/target/release/balancer
    if [[ ! -x $binary ]]; then
      command -v cargo >/dev/null || die "no $binary yet, and no cargo to build it; or name one with --binary"
      say "building $binary"
      (cd "$root" && cargo build --release --locked >&2) || die "the release build failed"
    elif [[ -n $(find "$root/src" "$root/Cargo.lock" -newer "$binary" -print -quit) ]]; then
      say "note: the sources are newer than $binary; cargo build --release builds it again"
    fi
  fi
  [[ -x $binary ]] || die "cannot run $binary"
  binary=$(realpath "$binary")
fi
if ((EUID != 0)); then
  command -v sudo >/dev/null || die "needs root to make network namespaces, and there is no sudo here"
  exec sudo "$root/scripts/compare.sh" "${arguments[@]}"
fi

needed=(ip:iproute2 sysctl:procps ethtool:ethtool haproxy:haproxy nginx:nginx
  '/usr/lib/nginx/modules/ngx_stream_module.so:libnginx-mod-stream'
  redis-server:redis-server redis-benchmark:redis-tools wrk:wrk iperf3:iperf3 sockperf:sockperf)
if [[ -n $install ]]; then
  install_missing "${needed[@]}"
else
  mapfile -t absent < <(missing_packages "${needed[@]}")
  ((${#absent[@]} == 0)) || die "missing: ${absent[*]}; install them, or leave out --no-install"
fi

tmp=$(mktemp -d "${TMPDIR:-/tmp}/balancer-compare.XXXXXX")
chmod 755 "$tmp"
net=balcmp$$

finish() {
  trap - EXIT
  trap '' INT TERM
  net_down
  if [[ -n $keep ]]; then say "logs and configurations: $tmp"; else rm -rf "$tmp"; fi
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# HAProxy reserves two and a half descriptors a session and refuses to start without them.
ulimit -n 65536 2>/dev/null || ulimit -n "$(ulimit -Hn)"
most_sessions=$((($(ulimit -n) - 100) * 2 / 5))
((most_sessions <= 20000)) || most_sessions=20000
((sessions <= most_sessions)) || die "$(ulimit -n) descriptors carry $most_sessions sessions, not $sessions"

# ---- The measurements ----------------------------------------------------------------------------------------------

front=10.98.1.1 client=10.98.1.2 back=10.98.2.1 server=10.98.2.2 port=7000
peer_cpus='' load_cpus=''
if [[ -n $pin ]]; then peer_cpus=0 load_cpus=1-$(($(nproc) - 1)); fi

# measure: this round's load through this round's peer, in a network of its own.
measure() {
  local target
  work=$tmp/$round-$load-$peer
  mkdir "$work"
  net_up
  if [[ $load == wire ]]; then offloads_off; fi
  target=$(server_for "$load")
  if ! listening server "$target"; then
    say "  the server does not start; it said:"
    last_words server
    return 1
  fi
  start_peer "$peer" "$target" || return 1
  "load_$load"
}

failed=0
: >"$tmp/results.tsv"
for ((round = 1; round <= rounds; round++)); do
  for load in "${loads[@]}"; do
    for ((turn = 0; turn < ${#peers[@]}; turn++)); do
      peer=${peers[(turn + round - 1) % ${#peers[@]}]}
      measure || { say "  round $round/$rounds  $load  $peer: FAILED"; failed=$((failed + 1)); }
      net_down
    done
  done
done

# ---- The report ----------------------------------------------------------------------------------------------------

{
  printf 'machine\t%s, %s CPUs, %s MiB\n' "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)" "$(nproc)" \
    "$(awk '/^MemTotal/ { print int($2 / 1024) }' /proc/meminfo)"
  printf 'system\t%s, Linux %s\n' "$(sed -n 's/^PRETTY_NAME="\(.*\)"/\1/p' /etc/os-release)" "$(uname -r)"
  for name in "${peers[@]}"; do
    case $name in
      balancer) printf 'balancer\t%s\n' "$("$binary" --version 2>/dev/null | awk '{ print $2 }')" ;;
      haproxy) printf 'haproxy\t%s\n' "$(haproxy -v | awk 'NR == 1 { print $3 }')" ;;
      nginx) printf 'nginx\t%s\n' "$(nginx -v 2>&1 | sed 's|.*/||')" ;;
    esac
  done
  printf 'redis\t%s\n' "$(redis-server --version | sed 's/.*v=\([^ ]*\).*/\1/')"
  printf 'wrk\t%s\n' "$({ wrk -v 2>&1 || true; } | awk 'NR == 1 { print $2 }')"
  printf 'iperf3\t%s\n' "$(iperf3 --version | awk 'NR == 1 { print $2 }')"
  printf 'sockperf\t%s\n' "$(sockperf --version 2>&1 | awk '/version/ { print $3; exit }')"
  printf 'settings\trounds: %s, of %s s each; one worker each%s\n' "$rounds" "$seconds" "${pin:+, the peer on a CPU of its own}"
} >"$tmp/about.tsv"

table() {
  awk -v peers="${peers[*]}" -v format="$1" -f "$root/scripts/compare/report.awk" "$tmp/about.tsv" "$tmp/results.tsv"
}
table markdown
if [[ -n $json ]]; then table json >"$json"; fi
if ((failed)); then die "$failed measurements failed and are missing above"; fi
