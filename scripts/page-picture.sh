#!/usr/bin/env bash
# Takes the picture of the status page that the documentation shows: a real balancer, real load, a server that dies.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/packages.sh
source scripts/packages.sh

usage() {
  cat <<'TEXT'
Usage: scripts/page-picture.sh [--program FILE] [--output FILE] [--width PIXELS] [--height PIXELS] [--dark]

Plays an incident on this machine's own loopback addresses and photographs the page: clients come, a server is drained, another
one is killed, and a backup takes what the survivor cannot carry. Takes half a minute.

  --program  the balancer; target/release/balancer unless said otherwise
  --output   docs/page.png unless said otherwise
  --width, --height  of the window; 1440 and 960 unless said otherwise
  --dark     as it looks to those who have asked for dark pages
TEXT
}

program=target/release/balancer output=docs/page.png width=1440 height=960 dark=''
while (($#)); do
  case $1 in
    --program) program=${2:?$1 needs a file}; shift ;;
    --output) output=${2:?$1 needs a file}; shift ;;
    --width) width=${2:?$1 needs a number}; shift ;;
    --height) height=${2:?$1 needs a number}; shift ;;
    --dark) dark=yes ;;
    --help | -h) usage; exit 0 ;;
    *) say "${0##*/}: unknown argument '$1'; try: scripts/page-picture.sh --help"; exit 2 ;;
  esac
  shift
done
[[ -x $program ]] || die "there is no $program: cargo build --release makes it"
program=$(realpath "$program")
install_missing nginx:nginx wrk:wrk python3:python3 curl:curl chromium-headless-shell:chromium-headless-shell pngquant:pngquant \
  '/usr/share/fonts/*/*/*.ttf:fonts-dejavu-core'

work=$(mktemp -d "${TMPDIR:-/tmp}/balancer-picture.XXXXXX")
pids=()
cleanup() {
  ((${#pids[@]} == 0)) || kill "${pids[@]}" 2>/dev/null || true
  wait 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT

# A server of its own for each address, so that one can be killed.
server() {
  mkdir "$work/$1"
  cat >"$work/$1/nginx.conf" <<TEXT
daemon off; worker_processes 1; pid $work/$1/pid; error_log $work/$1/log;
events { worker_connections 512; }
http { access_log off; server { listen $1:8080; location / { return 200 "$(printf '%0600d' 0)"; } } }
TEXT
  nginx -p "$work/$1" -c nginx.conf -e "$work/$1/log" &
  pids+=($!)
  last=$!
}
for host in 11 13 21 22 23; do server "127.0.10.$host"; done
server 127.0.10.12
doomed=$last

cat >"$work/balancer.yaml" <<TEXT
admin: { socket: $work/admin.sock, http: 127.0.10.1:9900 }
state: $work/state
services:
  web:
    listen: 127.0.10.1:8080
    backends: { web-01: { address: 127.0.10.11:8080, max_connections: 3 }, web-02: { address: 127.0.10.12:8080, max_connections: 3 } }
    backups: { web-03: 127.0.10.13:8080 }
    health: { interval: 500ms, timeout: 300ms }
  api:
    listen: 127.0.10.1:8081
    balance: least_connections
    backends: { api-01: 127.0.10.21:8080, api-02: 127.0.10.22:8080, api-03: 127.0.10.23:8080 }
    health: { probe: { http: { path: / } }, interval: 500ms, timeout: 300ms }
TEXT
# A program that has no such key yet refuses it.
"$program" check --config "$work/balancer.yaml" >/dev/null 2>&1 || sed -i '/^state:/d' "$work/balancer.yaml"
# From its directory, so that the page shows no path of this moment.
(cd "$work" && exec "$program" run --config balancer.yaml 2>log) &
pids+=($!)
for _ in {1..100}; do curl -sf 127.0.10.1:9900/readyz >/dev/null && break; sleep 0.1; done

load() {
  while :; do wrk -t1 "-c$2" -d2s -H 'Connection: close' "http://127.0.10.1:$1/" >/dev/null || true; done
}
load 8080 6 & pids+=($!)
load 8081 3 & pids+=($!)
(
  sleep 6
  kill "$doomed"
  "$program" drain api/api-03 --for 30m --reason "kernel upgrade" --socket "$work/admin.sock" >/dev/null 2>&1 || true
) &
pids+=($!)
scripts/page-picture.py http://127.0.10.1:9900/ "$work/page.png" --width "$width" --height "$height" --seconds 24 ${dark:+--dark}
pngquant --force --speed 1 --output "$output" 64 "$work/page.png"
say "$output: $(stat -c %s "$output") bytes"
