# shellcheck shell=bash disable=SC2154
# The loads: what answers each, what drives it, and how its cost is taken. Sourced by compare.sh.

# record METRIC VALUE RATE: one measurement of this round's load and peer; worth nothing where the peer has died.
record() {
  if [[ -z $(ip netns pids "$net-peer") ]]; then
    say "  $peer has died; it said:"
    last_words "$peer"
    return 1
  fi
  printf '%s\t%s\t%s\t%s\t%s\n' "$round" "$peer" "$1" "$2" "$3" >>"$tmp/results.tsv"
  say "  round $round/$rounds  $1  $peer: $(printf '%.2f' "$2")${3:+  at $(printf '%.2f' "$3")/s}"
}

# server_for LOAD: starts what answers that load and prints its port.
server_for() {
  case $1 in
    bulk | wire)
      start server server iperf3 -s -p 5201
      echo 5201
      ;;
    requests | pipelined | idle)
      start server server redis-server --bind "$server" --port 6379 --protected-mode no --save '' --appendonly no \
        --maxclients "$most_sessions" --tcp-backlog 4096 --dir "$work"
      echo 6379
      ;;
    connections)
      cat >"$work/web.conf" <<CFG
daemon off;
worker_processes 1;
worker_rlimit_nofile $(ulimit -n);
pid $work/web.pid;
error_log stderr warn;
events { worker_connections $most_sessions; }
http {
  access_log off;
  server {
    listen $server:8080 backlog=4096;
    location / { return 200 "ok\n"; }
  }
}
CFG
      start server server nginx -e stderr -p "$work" -c "$work/web.conf"
      echo 8080
      ;;
    latency)
      start server server sockperf server --tcp -i "$server" -p 11111
      echo 11111
      ;;
  esac
}

# CPU in milliseconds a GiB.
load_bulk() {
  local before after sum bytes length
  before=$(peer_cpu)
  drive iperf3 -c "$front" -p "$port" -t "$seconds" -J || return 1
  after=$(peer_cpu)
  sum=$(awk '/"sum_received"/ { inside = 1 } inside && /"(bytes|seconds)"/ { print } /}/ { inside = 0 }' "$work/client.log")
  bytes=$(awk -F'[:,]' '/"bytes"/ { print $2 + 0 }' <<<"$sum")
  length=$(awk -F'[:,]' '/"seconds"/ { print $2 + 0 }' <<<"$sum")
  [[ -n $bytes && $bytes != 0 ]] || return 1
  record "$load" "$(calc "($after - $before) / 1e6 / ($bytes / 2^30)")" "$(calc "$bytes / 2^30 / $length")"
}

load_wire() { load_bulk; }

# CPU in microseconds a request, with PIPELINE requests under way on each of 50 connections.
load_requests() {
  local pipeline=${1:-1} count before after rate
  drive redis-benchmark -h "$front" -p "$port" -t set -n 1 -q || return 1
  # A first short run warms everything up and tells how many requests fill the time.
  redis_get "$pipeline" $((20000 * pipeline)) || return 1
  count=$(awk -v rate="$(redis_rate)" -v seconds="$seconds" 'BEGIN { printf "%d", rate * seconds }')
  before=$(peer_cpu)
  redis_get "$pipeline" "$count" || return 1
  after=$(peer_cpu)
  rate=$(redis_rate)
  record "$load" "$(calc "($after - $before) / 1e3 / $count")" "$rate"
}

load_pipelined() { load_requests 16; }

redis_get() { drive redis-benchmark -h "$front" -p "$port" -t get -c 50 -P "$1" -n "$2" --csv; }
redis_rate() { awk -F'"' '$2 == "GET" { print $4 }' "$work/client.log"; }

# CPU in microseconds a connection.
load_connections() {
  local before after count rate
  drive wrk -t 1 -c 50 -d 1s -H 'Connection: close' "http://$front:$port/" || return 1
  before=$(peer_cpu)
  drive wrk -t 1 -c 50 -d "${seconds}s" -H 'Connection: close' "http://$front:$port/" || return 1
  after=$(peer_cpu)
  count=$(awk '/ requests in / { print $1 }' "$work/client.log")
  rate=$(awk '/^Requests\/sec:/ { print $2 }' "$work/client.log")
  grep -E 'Socket errors|Non-2xx' "$work/client.log" >&2 || true
  [[ -n $count && $count != 0 ]] || return 1
  record connections "$(calc "($after - $before) / 1e3 / $count")" "$rate"
}

# Resident bytes a session. Each session has carried one exchange, so it is established through to the server.
load_idle() {
  local before after opener deadline=$((SECONDS + 60))
  before=$(peer_resident)
  # The client is this shell: one descriptor a session, opened, used once, and held until the namespace goes.
  # shellcheck disable=SC2016
  start client idle bash -c '
    for ((n = 0; n < $3; n++)); do
      exec {session}<>"/dev/tcp/$1/$2" || exit 1
      printf "PING\r\n" >&"$session"
      read -r -t 10 answer <&"$session" && [[ $answer == +PONG* ]] || exit 1
    done
    echo open
    exec sleep 3600
  ' idle "$front" "$port" "$sessions"
  opener=$!
  until grep -qsx open "$work/idle.log"; do
    if ((SECONDS >= deadline)) || ! kill -0 "$opener" 2>/dev/null; then
      say "  could not open $sessions sessions; the client said:"
      last_words idle
      return 1
    fi
    sleep 0.1
  done
  # Time to give back what a session holds only while bytes flow.
  sleep 2
  after=$(peer_resident)
  record idle "$(calc "($after - $before) / $sessions")" ''
}

# Round trips in microseconds.
load_latency() {
  local p50 p99 rate
  drive sockperf ping-pong --tcp -i "$front" -p "$port" -t "$seconds" -m 64 --full-rtt || return 1
  p50=$(awk '/percentile 50\.000/ { print $NF }' "$work/client.log")
  p99=$(awk '/percentile 99\.000/ { print $NF }' "$work/client.log")
  rate=$(sed -n 's/.*\[Valid Duration\] RunTime=\([0-9.]*\) sec;.*ReceivedMessages=\([0-9]*\).*/\2 \/ \1/p' "$work/client.log")
  [[ -n $p50 && -n $p99 && -n $rate ]] || return 1
  record 'latency p50' "$p50" "$(calc "$rate")"
  record 'latency p99' "$p99" "$(calc "$rate")"
}
