# shellcheck shell=bash disable=SC2154
# The loads: what answers each, what drives it, and how its cost is taken. Sourced by compare.sh.

# record METRIC VALUE RATE [MACHINE]: one measurement of this round's load and peer; worth nothing where the peer has died.
record() {
  if ! alive; then
    say "  $peer has died; it said:"
    last_words "$peer"
    return 1
  fi
  printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$round" "$peer" "$1" "$2" "$3" "${4-}" >>"$results"
  # A point of a curve is said as such.
  [[ $results == "$tmp/results.tsv" ]] || return 0
  local said="round $round/$rounds  $1  $peer:"
  said+=${2:+ $(printf '%.2f' "$2")}${4:+  whole machine $(printf '%.2f' "$4")}${3:+  at $(printf '%.2f' "$3")/s}
  say "  $said"
}

# begin, finished: what peer and machine have used before and after a load; the machine's span is the narrower one.
begin() {
  peer_before=$(peer_cpu)
  machine_before=$(machine_cpu)
}
finished() {
  machine_after=$(machine_cpu)
  peer_after=$(peer_cpu)
}
# shares COUNT NANOSECONDS: sets cost and machine to what each of COUNT things has taken of the peer ('' where it has no
# process) and of the whole machine, in units of NANOSECONDS.
shares() {
  cost=$(calc "($peer_after - $peer_before) / $2 / $1")
  machine=$(calc "($machine_after - $machine_before) / $2 / $1")
  if [[ $peer == nat ]]; then cost=''; fi
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
        --maxclients "$most_open" --tcp-backlog 4096 --dir "$work"
      echo 6379
      ;;
    connections | rates)
      web_config >"$work/web.conf"
      start server server nginx -e stderr -p "$work" -c "$work/web.conf"
      echo 8080
      ;;
    latency)
      start server server sockperf server --tcp -i "$server" -p 11111
      echo 11111
      ;;
  esac
}

# web_config: an HTTP server of three bytes on as many ports as this load has backends, from 8080 on.
web_config() {
  local number
  cat <<CFG
daemon off;
worker_processes 1;
worker_rlimit_nofile $(ulimit -n);
pid $work/web.pid;
error_log stderr warn;
events { worker_connections $((most_sessions + backends)); }
http {
  access_log off;
  keepalive_timeout 1h;
  keepalive_requests 1000000000;
  server {
CFG
  for ((number = 0; number < backends; number++)); do echo "    listen $server:$((8080 + number)) backlog=4096;"; done
  printf '    location / { return 200 "ok\\n"; }\n  }\n}\n'
}

# CPU in milliseconds a GiB.
load_bulk() {
  local sum bytes length cost machine
  begin
  drive iperf3 -c "$front" -p "$port" -t "$seconds" -P "$streams" -J || return 1
  finished
  sum=$(awk '/"sum_received"/ { inside = 1 } inside && /"(bytes|seconds)"/ { print } /}/ { inside = 0 }' "$work/client.log")
  bytes=$(awk -F'[:,]' '/"bytes"/ { print $2 + 0 }' <<<"$sum")
  length=$(awk -F'[:,]' '/"seconds"/ { print $2 + 0 }' <<<"$sum")
  [[ -n $bytes && $bytes != 0 ]] || return 1
  shares "($bytes / 2^30)" 1e6
  record "$load" "$cost" "$(calc "$bytes / 2^30 / $length")" "$machine"
}

load_wire() { load_bulk; }

# CPU in microseconds a request, with PIPELINE requests under way on each of 50 connections.
load_requests() {
  local pipeline=${1:-1} count rate cost machine
  drive redis-benchmark -h "$front" -p "$port" -t set -n 1 -q || return 1
  # A first short run warms everything up and tells how many requests fill the time.
  redis_get "$pipeline" $((20000 * pipeline)) || return 1
  count=$(awk -v rate="$(redis_rate)" -v seconds="$seconds" 'BEGIN { printf "%d", rate * seconds }')
  begin
  redis_get "$pipeline" "$count" || return 1
  finished
  rate=$(redis_rate)
  shares "$count" 1e3
  record "$load" "$cost" "$rate" "$machine"
}

load_pipelined() { load_requests 16; }

redis_get() { drive redis-benchmark -h "$front" -p "$port" -t get -c 50 -P "$1" -n "$2" --csv; }
redis_rate() { awk -F'"' '$2 == "GET" { print $4 }' "$work/client.log"; }

# CPU in microseconds a connection.
load_connections() {
  local count rate cost machine
  drive wrk -t 1 -c 50 -d 1s -H 'Connection: close' "http://$front:$port/" || return 1
  begin
  drive wrk -t 1 -c 50 -d "${seconds}s" -H 'Connection: close' "http://$front:$port/" || return 1
  finished
  count=$(awk '/ requests in / { print $1 }' "$work/client.log")
  rate=$(awk '/^Requests\/sec:/ { print $2 }' "$work/client.log")
  grep -E 'Socket errors|Non-2xx' "$work/client.log" >&2 || true
  [[ -n $count && $count != 0 ]] || return 1
  shares "$count" 1e3
  record "$load" "$cost" "$rate" "$machine"
}

# Resident bytes a session. Each session has carried one exchange, so it is established through to the server.
load_idle() {
  local before after
  before=$(peer_resident)
  hold "$sessions" || return 1
  # Time to give back what a session holds only while bytes flow.
  rest 2
  after=$(peer_resident)
  record "$load" "$(calc "($after - $before) / $sessions")" ''
}

# hold COUNT: sessions that are opened, used once, and held until the namespace goes.
hold() {
  local opener deadline=$((SECONDS + 60))
  # The client is this shell: one descriptor a session.
  # shellcheck disable=SC2016
  start client idle bash -c '
    for ((n = 0; n < $3; n++)); do
      exec {session}<>"/dev/tcp/$1/$2" || exit 1
      printf "PING\r\n" >&"$session"
      read -r -t 10 answer <&"$session" && [[ $answer == +PONG* ]] || exit 1
    done
    echo open
    exec sleep 3600
  ' idle "$front" "$port" "$1"
  opener=$!
  until grep -qsx open "$work/idle.log"; do
    if ((SECONDS >= deadline)) || ! kill -0 "$opener" 2>/dev/null; then
      say "  could not open $1 sessions; the client said:"
      last_words idle
      return 1
    fi
    sleep 0.1
  done
}

# Round trips in microseconds.
load_latency() {
  local p50 p99 count length rate machine cost
  begin
  drive sockperf ping-pong --tcp -i "$front" -p "$port" -t "$seconds" -m 64 --full-rtt || return 1
  finished
  p50=$(awk '/percentile 50\.000/ { print $NF }' "$work/client.log")
  p99=$(awk '/percentile 99\.000/ { print $NF }' "$work/client.log")
  read -r count length < <(sed -n 's/.*\[Valid Duration\] RunTime=\([0-9.]*\) sec;.*ReceivedMessages=\([0-9]*\).*/\2 \1/p' \
    "$work/client.log")
  [[ -n $p50 && -n $p99 && -n $length ]] || return 1
  shares "$count" 1e3
  rate=$(calc "$count / $length")
  record 'latency p50' "$p50" "$rate" "$machine"
  record 'latency p99' "$p99" "$rate" "$machine"
}
