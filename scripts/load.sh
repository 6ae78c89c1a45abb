#!/usr/bin/env bash
# Puts a load on a balancer that runs, or on one of its own, and says what it carried and what that cost.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/packages.sh
source "$root/scripts/packages.sh"
# shellcheck source=scripts/usage.sh
source "$root/scripts/usage.sh"
# shellcheck source=scripts/load/balancer.sh
source "$root/scripts/load/balancer.sh"
# shellcheck source=scripts/load/loads.sh
source "$root/scripts/load/loads.sh"

usage() {
  cat <<'TEXT'
Usage: scripts/load.sh LOAD [ADDRESS] [OPTIONS]

Loads:
  throughput   downloads over some connections at once         GiB/s, CPU a GiB
  requests     HTTP requests over lasting connections          requests/s, CPU a request
  connections  a new connection for each HTTP request          connections/s, CPU a connection
  latency      HTTP requests at constant rates, sent when they are due whether or not answers have come:
               percentiles at 10, 50, 80 and 95 % of the rate that the requests load reaches
  idle         sessions that have exchanged one request        resident bytes/session, CPU in µs/s of all sessions together
  soak         all of requests, connections and downloads for long; fails where anything is refused, reset or grows

ADDRESS (IP:PORT) is a service of a balancer that runs, with HTTP servers behind it. Its process is asked for over the
admin socket, if it is on this machine; of any other program name the process with --pid, or do without its costs.
Without ADDRESS this balancer, built with the profile `dist`, is started on loopback in front of two nginx servers, and ended afterwards.

  --seconds S      length of a measurement, of each rate of latency       [10; soak: 600]
  --connections N  connections at once                                    [50; throughput: 4; idle: 4000]
  --rate N,N       requests a second of latency            [shares of the highest rate, found first]
  --path PATH      what is asked for            [/; throughput: /large, which must be worth a download]
  --workers N      of the balancer that is started                        [auto]
  --binary FILE    the balancer to start                                  [target/dist/balancer; built if missing]
  --socket PATH    the admin socket of the one that runs                  [as balancer status finds it]
  --pid PID        the process that has the costs, where that is no balancer
  --json FILE      also writes the result to FILE
  --no-install     fails where a program is missing; otherwise installs it with apt-get: wrk curl nginx procps iproute2
                   bsdextrautils, and oha, for latency, with cargo (a few minutes, once; into target/tools)
  --help           this text

The result goes to standard output, progress to standard error. Client, balancer and servers share this machine unless
ADDRESS is another one, so the rates are those of all three together. Exits with 0 only if every request was answered.
TEXT
}

wrong() { say "${0##*/}: $*"; say "try: scripts/load.sh --help"; exit 2; }

all_loads='throughput requests connections latency idle soak'
load='' address='' seconds='' connections='' rates='' path='' workers=auto binary='' socket='' pid='' json='' install=yes
while (($#)); do
  option=$1
  shift
  case $option in
    --seconds | --connections | --rate | --path | --workers | --binary | --socket | --pid | --json)
      (($#)) || wrong "$option needs a value"
      value=$1
      shift
      ;;&
    --seconds | --connections | --pid) [[ $value =~ ^[1-9][0-9]*$ ]] || wrong "$option needs a number above 0, not '$value'" ;;&
    --rate) [[ $value =~ ^[1-9][0-9]*(,[1-9][0-9]*)*$ ]] || wrong "$option needs numbers above 0, not '$value'" ;;&
    --workers) [[ $value =~ ^(auto|[1-9][0-9]*)$ ]] || wrong "$option needs a number above 0 or auto, not '$value'" ;;&
    --seconds) seconds=$value ;;
    --connections) connections=$value ;;
    --rate) rates=$value ;;
    --path) path=/${value#/} ;;
    --workers) workers=$value ;;
    --binary) binary=$value ;;
    --socket) socket=$value ;;
    --pid) pid=$value ;;
    --json) json=$value ;;
    --no-install) install='' ;;
    --help | -h) usage; exit 0 ;;
    -*) wrong "unknown option '$option'" ;;
    *)
      if [[ -z $load ]]; then load=$option
      elif [[ -z $address ]]; then address=$option
      else wrong "one load and one address, not '$option' too"; fi
      ;;
  esac
done
[[ -n $load ]] || wrong "which load? There are: $all_loads"
[[ " $all_loads " == *" $load "* ]] || wrong "unknown load '$load' (there are: $all_loads)"
[[ -z $address || $address =~ ^([0-9.]+|\[[0-9a-fA-F:]+\]):[0-9]+$ ]] || wrong "ADDRESS is IP:PORT, not '$address'"
[[ -n $address || -z $socket ]] || wrong "--socket is that of a balancer that runs: of which ADDRESS?"
[[ -n $address || -z $pid ]] || wrong "--pid is that of a program that runs: at which ADDRESS?"
[[ -z $pid || -e /proc/$pid ]] || wrong "there is no process $pid"
case $load in
  throughput) : "${connections:=4}" "${path:=/large}" ;;
  idle) : "${connections:=4000}" ;;
  soak) : "${seconds:=600}" ;;
esac
: "${seconds:=10}" "${connections:=50}" "${path:=/}"

# ---- What is needed ------------------------------------------------------------------------------------------------

[[ -z $json ]] || writable "$json"
needed=(wrk:wrk curl:curl ps:procps ss:iproute2 column:bsdextrautils)
[[ -n $address ]] || needed+=(nginx:nginx)
if [[ -n $install ]]; then
  install_missing "${needed[@]}"
else
  mapfile -t absent < <(missing_packages "${needed[@]}")
  ((${#absent[@]} == 0)) || die "missing: ${absent[*]}; install them, or leave out --no-install"
fi
if [[ $load == latency ]]; then find_oha; fi

ulimit -n "$(ulimit -Hn)"
# Own servers take two descriptors a session, and some are used otherwise.
most=$((($(ulimit -n) - 200) / 2))
((connections <= most)) || die "$(ulimit -n) descriptors carry $most sessions, not $connections: raise ulimit -n, or ask for fewer"

work=$(mktemp -d "${TMPDIR:-/tmp}/balancer-load.XXXXXX")
# family PID: it and all that it has started.
family() {
  local child
  for child in $(ps -o pid= --ppid "$1"); do family "$child"; done
  echo "$1"
}
finish() {
  trap - EXIT
  trap '' INT TERM
  local child
  # shellcheck disable=SC2046
  for child in $(jobs -p); do kill $(family "$child") 2>/dev/null || true; done
  wait
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# ---- The measurement -----------------------------------------------------------------------------------------------

if [[ -z $address ]]; then start_own; else find_running; fi
url=http://$address$path
curl -sS -o /dev/null --max-time 10 --range 0-0 "$url" 2>"$work/curl.log" ||
  die "no answer from $url: $(tail -n 1 "$work/curl.log"); is the service's backend an HTTP server?"

: >"$work/results.tsv"
failed=0 note=''
"load_$load" || failed=1

about() {
  printf 'load\t%s of %s over %s connections, %s s\n' "$load" "$url" "$connections" "$seconds"
  printf 'balancer\t%s\n' "$who"
  if [[ -n $note ]]; then printf 'note\t%s\n' "$note"; fi
  printf 'machine\t%s, %s CPUs, Linux %s\n' "$(processor)" "$(nproc)" "$(uname -r)"
}
about >"$work/about.tsv"
as_table
column -t -s $'\t' "$work/about.tsv"
[[ -z $json ]] || as_json >"$json"
((failed == 0)) || die "not every request was answered, or something grew; what and when stands above"
