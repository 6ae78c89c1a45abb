# shellcheck shell=bash disable=SC2154,SC2034
# How the cost of balancer alone grows: over workers, open sessions and backends; and what a reload costs. Sourced by
# compare.sh. Each point has new namespaces and new processes.

all_scales=workers,sessions,backends,memory,reload

# scaled SERIES AT VALUE: one point of a curve.
scaled() {
  [[ -n $3 ]] || return 1
  if ! alive; then
    say "  balancer has died; it said:"
    last_words balancer
    return 1
  fi
  printf '%s\t%s\t%s\t%s\n' "$round" "$1" "$2" "$3" >>"$tmp/scaling.tsv"
  say "  round $round/$rounds  $1  at $2: $(printf '%.2f' "$3")"
}

# point NAME LOAD: balancer in front of what answers LOAD, everything new.
point() {
  net_down
  stage "$round-$1" "$2" balancer || return 1
  # What the loads record is a point of a curve here, not a result of the comparison.
  results=$work/results.tsv
}

# recorded COLUMN: of what the load has recorded.
recorded() { tail -n 1 "$results" | cut -f "$1"; }

scale_workers() {
  # Workers are pinned by themselves.
  local workers cores load streams peer_cpus='' load_cpus=''
  cores=$(nproc)
  # A session stays on its worker: enough of them for all.
  streams=$((cores * 2))
  for ((workers = 1; workers <= cores; workers++)); do
    for load in bulk requests connections; do
      point "workers-$workers-$load" "$load" || return 1
      "load_$load" || return 1
      scaled "workers $load" "$workers" "$(recorded 4)" || return 1
    done
  done
}

# session_counts: those of the usual steps that the descriptors carry.
session_counts() {
  local count
  for count in "$@"; do
    if ((count <= most_open)); then echo "$count"; else say "  left out: $count sessions, for want of descriptors (ulimit -n)"; fi
  done
}

scale_sessions() {
  local count cost machine
  for count in $(session_counts 1 10 100 1000 9000); do
    session_cost "$count" "$count" || return 1
    scaled "sessions all-busy" "$count" "$cost" || return 1
    if ((count > 50)); then session_cost "$count" 50 || return 1; fi
    scaled "sessions 50-busy" "$count" "$cost" || return 1
  done
}

# session_cost COUNT BUSY: sets cost: of a request on BUSY sessions while COUNT are open, between two looks at the server's count.
session_cost() {
  local before after
  point "sessions-$1-$2" requests || return 1
  if (($1 > $2)); then hold $(($1 - $2)) || return 1; fi
  occupy "$2" || return 1
  before=$(redis_info total_commands_processed)
  begin
  rest "$seconds"
  finished
  after=$(redis_info total_commands_processed)
  ((after > before)) || return 1
  shares $((after - before)) 1e3
}

# occupy COUNT: sessions that send one request after the other until the namespace goes; returns once all of them do.
occupy() {
  local deadline=$((SECONDS + 60)) open
  drive redis-benchmark -h "$front" -p "$port" -t set -n 1 -q || return 1
  open=$(redis_info connected_clients)
  start client busy redis-benchmark -h "$front" -p "$port" -t get -c "$1" -n 1000000000 -q
  until (($(redis_info connected_clients) >= open + $1)); do
    if ((SECONDS >= deadline)) || ! alive; then
      say "  could not keep $1 sessions busy; the client said:"
      last_words busy
      return 1
    fi
    sleep 0.2
  done
  rest 1
}

# redis_info NAME: a figure of the server's own, asked for without the balancer. This one connection is in it.
redis_info() { inside server redis-cli -h "$server" info | sed -n "s/^$1:\([0-9]*\).*/\1/p"; }

scale_memory() {
  local count before streams=100 flowing
  for count in $(session_counts 100 1000 9000); do
    point "memory-idle-$count" requests || return 1
    before=$(peer_resident)
    hold "$count" || return 1
    rest 2
    scaled "memory idle" "$count" "$(calc "($(peer_resident) - $before) / $count")" || return 1
    point "memory-busy-$count" requests || return 1
    before=$(peer_resident)
    occupy "$count" || return 1
    scaled "memory busy" "$count" "$(calc "($(peer_resident) - $before) / $count")" || return 1
  done
  # As many streams as iperf3 carries at once, nearly.
  point memory-bulk bulk || return 1
  before=$(peer_resident)
  start client bulk iperf3 -c "$front" -p "$port" -P "$streams" -t 3600
  flowing=$!
  rest 3
  if [[ ! -e /proc/$flowing ]]; then
    say "  could not keep $streams streams flowing; the client said:"
    last_words bulk
    return 1
  fi
  scaled "memory bulk" "$streams" "$(calc "($(peer_resident) - $before) / $streams")"
}

scale_backends() {
  # Without probes, whose number grows with the backends: what a connection costs.
  local backends balance load=connections probe=none
  for balance in round_robin random_two source_hash; do
    for backends in 1 2 10 100 1000; do
      point "backends-$balance-$backends" connections || return 1
      load_connections || return 1
      scaled "backends $balance" "$backends" "$(recorded 4)" || return 1
    done
  done
}

# The rate of connections with and without ten reloads a second, each of which takes a backend out or brings it back.
scale_reload() {
  local backends=3 load=connections reloads errors
  for reloads in none continuous; do
    point "reload-$reloads" connections || return 1
    if [[ $reloads == continuous ]]; then
      cp "$work/balancer.yaml" "$work/all.yaml"
      sed '$d' "$work/all.yaml" >"$work/fewer.yaml"
      keep_reloading &
      disown
      reloading+=($!)
    fi
    load_connections || return 1
    errors=$(grep -E 'Socket errors|Non-2xx' "$work/client.log" || true)
    if [[ $reloads == continuous ]]; then
      kill "${reloading[@]}" 2>/dev/null
      reloading=()
      if [[ -s $work/reload.failed ]]; then
        say "  a reload failed: $(head -n 1 "$work/reload.failed")"
        return 1
      fi
      say "  $(wc -l <"$work/reload.log") reloads while it was measured"
    fi
    if [[ -n $errors ]]; then return 1; fi
    scaled reload "$reloads" "$(recorded 5)" || return 1
  done
}

# keep_reloading: until it is killed.
keep_reloading() {
  local file
  while true; do
    for file in fewer all; do
      # Whole at once: the balancer may read at any moment.
      cp "$work/$file.yaml" "$work/next.yaml"
      mv "$work/next.yaml" "$work/balancer.yaml"
      "$binary" reload --socket "$work/admin.sock" >"$work/reload.said" 2>&1 || cat "$work/reload.said" >>"$work/reload.failed"
      echo >>"$work/reload.log"
      sleep 0.1
    done
  done
}
