#!/usr/bin/env bash
# Runs one HAProxy, of any version, as a plain TCP balancer in front of one server: a peer of compare.sh.
set -euo pipefail

if (($# < 4 || $# > 5)) || [[ $1 == -* ]]; then
  echo "Usage: scripts/compare/haproxy.sh BINARY LISTEN TARGET DIR [SESSIONS]" >&2
  echo "One thread, splice-auto, at most SESSIONS (default 4096); its configuration goes to DIR." >&2
  if [[ ${1-} == --help ]]; then exit 0; else exit 2; fi
fi
binary=$1 listen=$2 target=$3 dir=$4 sessions=${5:-4096}

cat >"$dir/haproxy.cfg" <<CFG
global
  nbthread 1
  maxconn $sessions
defaults
  mode tcp
  maxconn $sessions
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  option splice-auto
frontend load
  bind $listen
  default_backend servers
backend servers
  server server $target
CFG
exec "$binary" -db -f "$dir/haproxy.cfg"
