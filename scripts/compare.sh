#!/usr/bin/env bash
# Runs balancer and others under the same loads, one worker each, and prints what each costs.
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
# shellcheck source=scripts/compare/rates.sh
source "$root/scripts/compare/rates.sh"
# shellcheck source=scripts/compare/scaling.sh
source "$root/scripts/compare/scaling.sh"

usage() {
  cat <<'TEXT'
Usage: scripts/compare.sh [OPTIONS]

Compares balancer with the distribution's HAProxy and nginx, with the kernel's own address translation, and with any
other balancer named, on this machine: a client, one of them, and a server, each in a network namespace of its own,
joined by veth. Every measurement starts with new namespaces and new processes.
The table goes to standard output as Markdown, progress to standard error. Needs root (asks sudo).

  --rounds N       rounds; each runs every load through every peer, in rotating order   [3]
  --seconds S      length of one measurement                                            [5]
  --loads A,B      some of: bulk wire requests pipelined connections idle latency rates [all of these]
                   and of: workers sessions backends memory reload (how balancer scales)
  --scaling        these five too, after the others
  --peers A,B      some of: balancer haproxy nginx nat                                  [all]
  --peer NAME=COMMAND
                   one more, may be repeated: a shell's command line that stays in the foreground, in which
                   {listen} stands for the address:port to listen on, {target} for the server's address:port, and
                   {dir} for an empty directory of its own. It runs as root, without network but these two
  --sessions N     sessions of the idle load                                            [4000]
  --pin            the peer on the first CPU, clients and servers on the others
  --binary PATH    the balancer to measure      [target/dist/balancer; built if missing]
  --json FILE      also writes every single measurement and the summary to FILE
  --html FILE      also writes a report with plots to FILE, which needs no other file and no network
  --svg DIR        also writes the plots as pictures into DIR
  --keep           keeps the logs and configurations, and says where
  --no-install     fails where a program is missing; otherwise installs what the chosen loads and peers need of
                   haproxy nginx libnginx-mod-stream nftables redis-server redis-tools wrk iperf3 sockperf ethtool
                   iproute2 procps python3 with apt-get, and oha, for rates, with cargo (a few minutes, once; into target/tools)
  --help           this text

Cost is the CPU time of the peer's own processes, all threads, user and system, as the kernel's scheduler counts it.
The ratio is balancer's cost against HAProxy or nginx, whichever has the lower median, round by round; the table shows
its median and, in brackets, its lowest and highest. A peer that is named gets a ratio of its own beside it.
nat has no process: it is the floor for the CPU time of the whole machine, client, server and interrupts included.
rates are HTTP requests sent when they are due, at 10, 50, 80 and 95 % of the highest rate of HAProxy or nginx.

Peers by a command, scripts for HAProxy and Traefik of any version, and one written on the spot:
  --peer 'socat=socat TCP-LISTEN:$(echo {listen} | cut -d: -f2),fork,reuseaddr,backlog=4096,nodelay TCP:{target},nodelay'
  --peer 'haproxy-dev=scripts/compare/haproxy.sh /opt/haproxy/haproxy {listen} {target} {dir}'
  --peer 'traefik=scripts/compare/traefik.sh /usr/local/bin/traefik {listen} {target} {dir}'
  --peer 'haproxy-nosplice=printf "%s\n" "defaults" " mode tcp" " timeout connect 5s" " timeout client 1h" \
    " timeout server 1h" "listen load" " bind {listen}" " server server {target}" >{dir}/cfg; exec haproxy -db -f {dir}/cfg'

Run it on a machine that does nothing else.
TEXT
}

all_loads=bulk,wire,requests,pipelined,connections,idle,latency,rates
all_peers=balancer,haproxy,nginx,nat
# What else stands beside the peers' names in the JSON.
fields=load,unit,machine_unit,rate_unit,best,ratio,target,met,machine_ratio,machine_target,machine_met
fields+=,machine,system,redis,wrk,iperf3,sockperf,oha,rates,settings,failed,command
rounds=3 seconds=5 sessions=4000 loads=$all_loads peers=$all_peers scaling=''
binary='' json='' html='' svg='' keep='' pin='' install=yes
named=()
declare -A commands=()
arguments=("$@")

wrong() { say "${0##*/}: $*"; say "try: scripts/compare.sh --help"; exit 2; }

while (($#)); do
  option=$1
  shift
  case $option in
    --rounds | --seconds | --sessions | --loads | --peers | --peer | --binary | --json | --html | --svg)
      (($#)) || wrong "$option needs a value"
      value=$1
      shift
      ;;&
    --rounds | --seconds | --sessions) [[ $value =~ ^[1-9][0-9]*$ ]] || wrong "$option needs a number above 0, not '$value'" ;;&
    --rounds) rounds=$value ;;
    --seconds) seconds=$value ;;
    --sessions) sessions=$value ;;
    --loads) loads=$value ;;
    --scaling) scaling=yes ;;
    --peers) peers=$value ;;
    --peer)
      [[ $value =~ ^[A-Za-z0-9][A-Za-z0-9._-]*=.*[^[:space:]] ]] || wrong "--peer needs NAME=COMMAND, not '$value'"
      name=${value%%=*}
      [[ ,$all_peers, != *",$name,"* ]] || wrong "--peer $name: this name is taken; give it another"
      [[ ,$fields, != *",$name,"* && $name != *_low && $name != *_high ]] ||
        wrong "--peer $name: the report has a field of this name; give it another"
      [[ $value == *'{listen}'* && $value == *'{target}'* ]] || wrong "--peer $name: the command needs {listen} and {target}"
      [[ -n ${commands[$name]-} ]] || named+=("$name")
      commands[$name]=${value#*=}
      ;;
    --binary) binary=$value ;;
    --json) json=$value ;;
    --html) html=$value ;;
    --svg) svg=$value ;;
    --keep) keep=yes ;;
    --pin) pin=yes ;;
    --install) install=yes ;;
    --no-install) install='' ;;
    --help | -h) usage; exit 0 ;;
    *) wrong "unknown option '$option'" ;;
  esac
done
[[ $loads == all ]] && loads=$all_loads
if [[ -n $scaling ]]; then loads+=,$all_scales; fi
IFS=, read -ra loads <<<"$loads"
IFS=, read -ra peers <<<"$peers"
((${#loads[@]})) || wrong "which loads? There are: ${all_loads//,/ } ${all_scales//,/ }"
((${#peers[@]} + ${#named[@]})) || wrong "which peers? There are: ${all_peers//,/ }"
for name in "${loads[@]}"; do
  [[ ,$all_loads,$all_scales, == *,"${name:-?}",* ]] || wrong "unknown load '$name' (there are: ${all_loads//,/ } ${all_scales//,/ })"
done
declare -A seen=()
for name in "${peers[@]}"; do
  [[ ,$all_peers, == *,"${name:-?}",* || -n ${commands[${name:-?}]-} ]] ||
    wrong "unknown peer '$name' (there are: ${all_peers//,/ }; --peer names others)"
  [[ -z ${seen[$name]-} ]] || wrong "--peers has '$name' twice"
  seen[$name]=yes
done
uses() { [[ " $1 " == *" $2 "* ]]; }
scales() { [[ ,$all_scales, == *",$1,"* ]]; }
for name in "${named[@]}"; do uses "${peers[*]}" "$name" || peers+=("$name"); done
# Scaling is balancer's own.
compared=''
for name in "${loads[@]}"; do scales "$name" || compared=yes; done
[[ -n $compared ]] || peers=(balancer) named=()
if [[ -n $pin ]] && (($(nproc) < 2)); then wrong "--pin needs two CPUs or more"; fi

# ---- What is needed ------------------------------------------------------------------------------------------------

needed=(ip:iproute2 ss:iproute2 sysctl:procps)
needs_balancer=''
if uses "${peers[*]}" balancer; then needs_balancer=yes; fi
if uses "${peers[*]}" haproxy; then needed+=(haproxy:haproxy); fi
if uses "${peers[*]}" nginx; then needed+=(nginx:nginx '/usr/lib/nginx/modules/ngx_stream_module.so:libnginx-mod-stream'); fi
if uses "${peers[*]}" nat; then needed+=(nft:nftables); fi
for name in "${loads[@]}"; do
  if scales "$name"; then needs_balancer=yes; fi
  case $name in
    bulk) needed+=(iperf3:iperf3) ;;
    wire) needed+=(iperf3:iperf3 ethtool:ethtool) ;;
    requests | pipelined | sessions) needed+=(redis-server:redis-server redis-benchmark:redis-tools) ;;
    connections | backends | reload) needed+=(nginx:nginx wrk:wrk) ;;
    idle) needed+=(redis-server:redis-server) ;;
    memory) needed+=(redis-server:redis-server redis-benchmark:redis-tools iperf3:iperf3) ;;
    latency) needed+=(sockperf:sockperf) ;;
    rates) needed+=(nginx:nginx) ;;
    workers) needed+=(iperf3:iperf3 redis-server:redis-server redis-benchmark:redis-tools nginx:nginx wrk:wrk) ;;
  esac
done
if [[ -n $html$svg ]]; then needed+=(python3:python3); fi

# The binary and oha are built first, as the user who called: root often has no Rust of its own.
if [[ -n $needs_balancer ]]; then
  if [[ -z $binary ]]; then
    binary=$root/target/dist/balancer
    if [[ ! -x $binary ]]; then
      command -v cargo >/dev/null || die "no $binary yet, and no cargo to build it; or name one with --binary"
      say "building $binary"
      (cd "$root" && cargo build --profile dist --locked >&2) || die "the build failed"
    elif [[ -n $(find "$root/src" "$root/Cargo.lock" -newer "$binary" -print -quit) ]]; then
      say "note: the sources are newer than $binary; cargo build --profile dist builds it again"
    fi
  fi
  [[ -x $binary ]] || die "cannot run $binary"
  binary=$(realpath "$binary")
fi
oha=''
if uses "${loads[*]}" rates; then find_oha; fi
if ((EUID != 0)); then
  command -v sudo >/dev/null || die "needs root to make network namespaces, and there is no sudo here"
  # sudo's own PATH knows nothing of what cargo has installed for the user.
  exec sudo env "PATH=$PATH" "$root/scripts/compare.sh" "${arguments[@]}"
fi
if [[ -n $json ]]; then writable "$json"; fi
if [[ -n $html ]]; then writable "$html"; fi
if [[ -n $svg ]]; then
  mkdir -p "$svg" 2>/dev/null || die "cannot write into $svg"
  writable "$svg/cost.svg"
fi
if [[ -n $install ]]; then
  install_missing "${needed[@]}"
else
  mapfile -t absent < <(missing_packages "${needed[@]}")
  ((${#absent[@]} == 0)) || die "missing: ${absent[*]}; install them, or leave out --no-install"
fi

tmp=$(mktemp -d "${TMPDIR:-/tmp}/balancer-compare.XXXXXX")
chmod 755 "$tmp"
net=balcmp$$
measuring='' reloading=()

finish() {
  trap - EXIT
  trap '' INT TERM
  if [[ -n $measuring ]]; then
    kill -TERM -- "-$measuring" 2>/dev/null || true
    wait "$measuring" 2>/dev/null || true
  fi
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
# What balancer alone carries, with two of them a session.
most_open=$((($(ulimit -n) - 400) / 2))
if uses "${loads[*]}" idle && ((sessions > most_sessions)); then
  die "$(ulimit -n) descriptors carry $most_sessions sessions, not $sessions"
fi

# ---- The measurements ----------------------------------------------------------------------------------------------

front=10.98.1.1 client=10.98.1.2 back=10.98.2.1 server=10.98.2.2 port=7000
peer_cpus='' load_cpus=''
if [[ -n $pin ]]; then peer_cpus=0 load_cpus=1-$(($(nproc) - 1)); fi
# What the loads of scaling change, each for itself.
workers=1 backends=1 streams=1 balance=round_robin probe=tcp
results=$tmp/results.tsv
touch "$tmp/results.tsv" "$tmp/percentiles.tsv" "$tmp/scaling.tsv"

# stage NAME LOAD PEER: a network of its own, with the load's server and the peer in front of it.
stage() {
  local target
  work=$tmp/$1
  mkdir "$work"
  net_up
  if [[ $2 == wire ]]; then offloads_off; fi
  target=$(server_for "$2")
  if ! listening server "$target"; then
    say "  the server does not start; it said:"
    last_words server
    return 1
  fi
  start_peer "$3" "$target"
}

failed=0
# measure NAME COMMAND...: runs it, and goes on to what comes next where it fails.
measure() {
  local name=$1
  shift
  "$@" || { say "  round $round/$rounds  $name: FAILED"; failed=$((failed + 1)); }
  net_down
}
compare_load() { stage "$round-$load-$peer" "$load" "$peer" && "load_$load"; }
scale_load() { local results peer=balancer; "scale_$load"; }

peak='' peak_of=''
measure_all() {
  if uses "${loads[*]}" rates; then
    find_peak || die "no rate for the rates load could be found"
  fi
  for ((round = 1; round <= rounds; round++)); do
    for load in "${loads[@]}"; do
      if scales "$load"; then
        measure "$load" scale_load
        continue
      fi
      for ((turn = 0; turn < ${#peers[@]}; turn++)); do
        peer=${peers[(turn + round - 1) % ${#peers[@]}]}
        # What the kernel's table of connections takes is nobody's resident memory.
        if [[ $load == idle && $peer == nat ]]; then continue; fi
        measure "$load  $peer" compare_load
      done
    done
  done
}

# ---- The report ----------------------------------------------------------------------------------------------------

about() {
  printf 'machine\t%s, %s CPUs, %s MiB\n' "$(processor)" "$(nproc)" \
    "$(awk '/^MemTotal/ { print int($2 / 1024) }' /proc/meminfo)"
  printf 'system\t%s, Linux %s\n' "$(sed -n 's/^PRETTY_NAME="\(.*\)"/\1/p' /etc/os-release)" "$(uname -r)"
  if [[ -n $needs_balancer ]]; then printf 'balancer\t%s\n' "$("$binary" --version 2>/dev/null | awk '{ print $2 }')"; fi
  for name in "${peers[@]}"; do
    case $name in
      balancer) ;;
      haproxy) printf 'haproxy\t%s\n' "$(haproxy -v | awk 'NR == 1 { print $3 }')" ;;
      nginx) printf 'nginx\t%s\n' "$(nginx -v 2>&1 | sed 's|.*/||')" ;;
      nat) printf 'nat\tdestination and source translation by %s\n' "$(nft --version | awk '{ print $1, $2 }')" ;;
      *) printf '%s\t%s\n' "$name" "$(printf '%s' "${commands[$name]}" | tr -s '\t\n ' ' ')" ;;
    esac
  done
  if command -v redis-server >/dev/null; then printf 'redis\t%s\n' "$(redis-server --version | sed 's/.*v=\([^ ]*\).*/\1/')"; fi
  if command -v wrk >/dev/null; then printf 'wrk\t%s\n' "$({ wrk -v 2>&1 || true; } | awk 'NR == 1 { print $2 }')"; fi
  if command -v iperf3 >/dev/null; then printf 'iperf3\t%s\n' "$(iperf3 --version | awk 'NR == 1 { print $2 }')"; fi
  if command -v sockperf >/dev/null; then
    printf 'sockperf\t%s\n' "$(sockperf --version 2>&1 | awk '/version/ { print $3; exit }')"
  fi
  if [[ -n $oha ]]; then printf 'oha\t%s\n' "$("$oha" --version | awk '{ print $2 }')"; fi
  if [[ -n $peak ]]; then printf 'rates\tshares of %.0f requests/s, the highest of %s\n' "$peak" "$peak_of"; fi
  printf 'settings\trounds: %s, of %s s each; one worker each%s\n' "$rounds" "$seconds" "${pin:+, the peer on a CPU of its own}"
  if ((failed)); then printf 'failed\t%s measurements, which are missing here\n' "$failed"; fi
  printf 'command\tscripts/compare.sh%s\n' "$(as_typed "${arguments[@]}" | tr -s '\t\n ' ' ')"
}
# as_typed ARGUMENT...: as they may stand on a command line.
as_typed() {
  local argument
  for argument in "$@"; do
    if [[ $argument =~ ^[A-Za-z0-9_./,:=-]+$ ]]; then printf ' %s' "$argument"; else printf " '%s'" "${argument//\'/\'\\\'\'}"; fi
  done
}

table() {
  awk -v peers="${peers[*]}" -v named="${named[*]}" -v format="$1" -f "$root/scripts/compare/report.awk" \
    -f "$root/scripts/compare/scaling.awk" -f "$root/scripts/compare/json.awk" \
    "$tmp/about.tsv" "$tmp/results.tsv" "$tmp/percentiles.tsv" "$tmp/scaling.tsv"
}
report() {
  about >"$tmp/about.tsv"
  table markdown
  table json >"$tmp/result.json"
  if [[ -n $json ]]; then cp "$tmp/result.json" "$json"; fi
  if [[ -n $html$svg ]]; then
    python3 -B "$root/scripts/compare/plots.py" "$tmp/result.json" ${html:+--html "$html"} ${svg:+--svg "$svg"}
  fi
  if ((failed)); then die "$failed measurements failed and are missing above"; fi
}

# An interrupt that comes as a foreground command ends may be lost on bash. So this shell only waits, and hears each one;
# what measures has a process group of its own, which hears none and is ended as a whole.
all() {
  measure_all
  report
}
set -m
all </dev/null &
measuring=$!
set +m
wait "$measuring"
