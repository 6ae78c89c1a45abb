# shellcheck shell=bash disable=SC2154,SC2034
# The loads: what drives each, and what is measured. Sourced by load.sh.

# row NAME VALUE UNIT: one line of the result.
row() { printf '%s\t%s\t%s\n' "$1" "$(awk -v value="$2" 'BEGIN { printf (value >= 1000 ? "%.0f" : "%.3g"), value }')" "$3" >>"$work/results.tsv"; }

# as_table: the result; of latency a line for each rate.
as_table() {
  if [[ $load == latency ]]; then
    awk -F'\t' '
      split($1, part, " at ") == 2 {
        if (!(part[2] in at)) { at[part[2]] = ++rates; rate[rates] = part[2] }
        if (!(part[1] in column)) { column[part[1]] = ++columns; head = head "\t" part[1] }
        line[part[2]] = line[part[2]] "\t" $2
      }
      $1 == "highest rate" { print "highest rate: " $2 " " $3 }
      END { print "µs at" head; for (n = 1; n <= rates; n++) print rate[n] line[rate[n]] }
    ' "$work/results.tsv"
  else
    cat "$work/results.tsv"
  fi | column -t -s $'\t'
}

# as_json: the result, its facts first.
as_json() {
  awk -F'\t' '
    function quoted(text) { gsub(/["\\]/, "\\\\&", text); return "\"" text "\"" }
    BEGIN { print "{" }
    FNR == NR { printf "  %s: %s,\n", quoted($1), quoted($2); next }
    { lines = lines (lines == "" ? "" : ",\n") sprintf("    { \"name\": %s, \"value\": %s, \"unit\": %s }", quoted($1), $2, quoted($3)) }
    END { printf "  \"results\": [\n%s\n  ]\n}\n", lines }
  ' "$work/about.tsv" "$work/results.tsv"
}

# drive NAME SECONDS COMMAND...: runs a client to its end, its output in NAME.log, and says how far it is.
drive() {
  local name=$1 length=$2 begun=$SECONDS
  shift 2
  "$@" >"$work/$name.log" 2>"$work/$name.err" </dev/null &
  local client=$!
  while kill -0 "$client" 2>/dev/null; do
    if [[ -t 2 ]]; then printf '\r%s: %s of %s s ' "$name" "$((SECONDS - begun))" "$length" >&2; fi
    sleep 0.2
  done
  if [[ -t 2 ]]; then printf '\r\033[K' >&2; fi
  wait "$client" && return
  say "$1 failed; it said:"
  tail -n 5 "$work/$name.log" "$work/$name.err" >&2
  return 1
}

# rest SECONDS: an interrupt does not wait for it.
rest() {
  sleep "$1" &
  wait $!
}

# usage_begin, usage_end COUNT THING [UNIT NANOSECONDS]: what the balancer and the machine have spent on each of COUNT things
# in between, in microseconds or what is said.
usage_begin() {
  machine_before=$(machine_cpu)
  [[ -z $pid ]] || cpu_before=$(cpu_of "$pid")
}
usage_end() {
  local cpu_after machine_after unit=${3:-µs} nanoseconds=${4:-1e3}
  [[ -z $pid ]] || cpu_after=$(cpu_of "$pid")
  machine_after=$(machine_cpu)
  [[ -z $pid ]] || row "CPU of the balancer" "$(calc "($cpu_after - $cpu_before) / $nanoseconds / $1")" "$unit/$2"
  row "CPU of the whole machine" "$(calc "($machine_after - $machine_before) / $nanoseconds / $1")" "$unit/$2"
}

# wrk_run NAME SECONDS CONNECTIONS [ARGUMENTS]: fails where a request got no answer, or a wrong one.
wrk_run() {
  local name=$1 length=$2 threads=$(($3 < $(nproc) ? $3 : $(nproc)))
  shift 2
  drive "$name" "$length" wrk -t "$threads" -c "$1" -d "${length}s" --timeout 10s "${@:2}" "$url" || return 1
  ! grep -E 'Socket errors|Non-2xx' "$work/$name.log" >&2
}
wrk_count() { awk '/ requests in / { print $1 }' "$work/$1.log"; }
wrk_rate() { awk '/^Requests\/sec:/ { print $2 }' "$work/$1.log"; }

load_requests() {
  local outcome=0
  usage_begin
  wrk_run requests "$seconds" "$connections" || outcome=1
  row requests "$(wrk_rate requests)" requests/s
  usage_end "$(wrk_count requests)" request
  return $outcome
}

load_connections() {
  local outcome=0
  usage_begin
  wrk_run connections "$seconds" "$connections" -H 'Connection: close' || outcome=1
  row connections "$(wrk_rate connections)" connections/s
  usage_end "$(wrk_count connections)" connection
  return $outcome
}

# downloads SECONDS CONNECTIONS URL: again and again until the time is over; prints a line for each, its bytes.
downloads() {
  local number
  for ((number = 0; number < $2; number++)); do
    (
      end=$((SECONDS + $1))
      while ((SECONDS < end)); do
        outcome=0
        curl -fsS -o /dev/null -w '%{size_download}\n' --max-time $((end - SECONDS)) "$3" || outcome=$?
        # 28: the time was over.
        ((outcome == 0 || outcome == 28)) || exit 1
      done
    ) &
  done
  local outcome=0
  for ((number = 0; number < $2; number++)); do wait -n || outcome=1; done
  return $outcome
}

load_throughput() {
  local outcome=0 bytes begun
  usage_begin
  begun=$EPOCHREALTIME
  drive throughput "$seconds" downloads "$seconds" "$connections" "$url" || outcome=1
  bytes=$(awk '{ sum += $1 } END { printf "%.0f\n", sum }' "$work/throughput.log")
  ((bytes > 0)) || return 1
  row throughput "$(calc "$bytes / 2^30 / ($EPOCHREALTIME - $begun)")" GiB/s
  usage_end "$(calc "$bytes / 2^30")" GiB ms 1e6
  return $outcome
}

load_latency() {
  local outcome=0 rate peak part
  if [[ -z $rates ]]; then
    # By the client that makes the load: another one may be faster or slower.
    drive peak 5 "$oha" -z 5s -c "$connections" --no-tui --output-format json "$url" || return 1
    peak=$(awk -F'[:,]' '/"requestsPerSec"/ { print $2 + 0; exit }' "$work/peak.log")
    row 'highest rate' "$peak" requests/s
    for part in 10 50 80 95; do rates+=,$(awk -v peak="$peak" -v part=$part 'BEGIN { printf "%d", peak * part / 100 }'); done
  fi
  for rate in ${rates//,/ }; do
    # So many that each is sent and waited for: an end by the clock would leave out those that are latest.
    drive "latency-$rate" "$seconds" "$oha" -n "$((rate * seconds))" -q "$rate" --latency-correction -c "$connections" --no-tui \
      --output-format json "$url" || return 1
    # Seconds, in the order of the percentiles.
    awk -F'[:,]' -v rate="$rate" '
      { gsub(/[ "]/, "") }
      $1 == "latencyPercentiles" { inside = 1 }
      inside && $1 ~ /^p[0-9.]+$/ && $2 + 0 > 0 { printf "%s at %s/s\t%.0f\tµs\n", $1, rate, $2 * 1e6 }
      inside && /}/ { inside = 0 }
      $1 == "requestsPerSec" && !told++ { printf "carried/s at %s/s\t%.0f\trequests/s\n", rate, $2 }
      $1 == "successRate" && $2 < 1 { print "successRate " $2 >"/dev/stderr"; exit 1 }
    ' "$work/latency-$rate.log" >>"$work/results.tsv" || outcome=1
  done
  return $outcome
}

# open_sessions COUNT: each has had one answer; held until the process ends.
open_sessions() {
  local number session line host=${address%:*} port=${address##*:}
  host=${host#[} host=${host%]}
  for ((number = 0; number < $1; number++)); do
    exec {session}<>"/dev/tcp/$host/$port" || return 1
    printf 'HEAD %s HTTP/1.1\r\nHost: load\r\n\r\n' "$path" >&"$session"
    # The head of the answer, whole.
    while read -r -t 10 line <&"$session" && [[ $line != $'\r' ]]; do :; done
    [[ $line == $'\r' ]] || return 1
  done
  echo open
  exec sleep 3600
}

load_idle() {
  [[ -n $pid ]] || die "the idle load needs the balancer's process: --socket or --pid"
  local before after begun=$SECONDS
  before=$(resident_of "$pid")
  open_sessions "$connections" >"$work/idle.log" 2>&1 &
  local opener=$!
  until grep -qsx open "$work/idle.log"; do
    kill -0 "$opener" 2>/dev/null || { say "could not open $connections sessions: $(tail -n 2 "$work/idle.log")"; return 1; }
    ((SECONDS < begun + 120)) || { say "could not open $connections sessions in two minutes"; return 1; }
    sleep 0.2
  done
  say "$connections sessions are open; they rest for $seconds s"
  # Time to give back what a session holds only while bytes flow.
  rest 2
  local cpu_before cpu_after
  cpu_before=$(cpu_of "$pid")
  rest "$seconds"
  cpu_after=$(cpu_of "$pid")
  after=$(resident_of "$pid")
  row memory "$(calc "($after - $before) / $connections")" 'resident bytes/session'
  # A session takes some hundred.
  if ((after - before < connections * 100)); then
    note='memory that the balancer had from earlier sessions was used again; one just started tells what a session takes'
  fi
  row 'CPU of the balancer' "$(calc "($cpu_after - $cpu_before) / 1e3 / $seconds")" 'µs/s of all sessions together'
}

# What must not grow, and what must not happen.
soak_sample() {
  local descriptors=- resident=- sessions=- refused=-
  if [[ -n $pid ]]; then
    resident=$(resident_of "$pid")
    descriptors=$(find "/proc/$pid/fd" -mindepth 1 2>/dev/null | wc -l)
  fi
  if [[ -n $status_binary && $who != unknown ]]; then sessions=$(counter connections) refused=$(counter refused); fi
  printf '%s\t%s\t%s\t%s\n' "$resident" "$descriptors" "$sessions" "$refused"
}

load_soak() {
  local outcome=0 begun=$SECONDS settled='' refused_before resident descriptors sessions refused clients=()
  read -r _ _ _ refused_before < <(soak_sample)
  if curl -sfI -o /dev/null --max-time 5 "http://$address/large"; then
    downloads "$seconds" 2 "http://$address/large" >"$work/downloads.log" 2>"$work/downloads.err" &
    clients+=($!)
  else
    say "there is nothing to download at /large: soaking without downloads"
  fi
  wrk -t 1 -c "$connections" -d "${seconds}s" --timeout 10s "$url" >"$work/requests.log" 2>&1 &
  clients+=($!)
  wrk -t 1 -c "$connections" -d "${seconds}s" --timeout 10s -H 'Connection: close' "$url" >"$work/connections.log" 2>&1 &
  clients+=($!)
  local pause=$((seconds < 60 ? seconds / 6 + 1 : 10))
  while ((SECONDS < begun + seconds - 1)); do
    rest "$pause"
    IFS=$'\t' read -r resident descriptors sessions refused < <(soak_sample)
    say "soak: $((SECONDS - begun)) of $seconds s; ${resident} resident bytes, $descriptors descriptors, $sessions sessions, $refused refused"
    # After a third of the time everything that is kept for reuse is there.
    if [[ -z $settled && $resident != - ]] && ((SECONDS - begun >= seconds / 3)); then settled=$resident; fi
  done
  local client
  for client in "${clients[@]}"; do wait "$client" || { say "a client failed: $(tail -qn 1 "$work"/*.err)"; outcome=1; }; done
  ! grep -HE 'Socket errors|Non-2xx' "$work/requests.log" "$work/connections.log" >&2 || outcome=1
  row requests "$(wrk_rate requests)" requests/s
  row connections "$(wrk_rate connections)" connections/s
  if [[ -s $work/downloads.log ]]; then row downloads "$(awk '{ sum += $1 } END { print sum / 2^30 }' "$work/downloads.log")" GiB; fi
  IFS=$'\t' read -r resident descriptors sessions refused < <(soak_sample)
  if [[ $refused != - ]]; then
    row refused "$((refused - refused_before))" clients
    ((refused == refused_before)) || outcome=1
  fi
  if [[ -n $settled ]]; then
    row 'memory grown' "$(((resident - settled) / 1024))" KiB
    # A mebibyte is noise of the allocator; a leak of a byte a session is seen after a million.
    ((resident - settled < 1 << 20)) || { say "resident memory has grown by $((resident - settled)) bytes"; outcome=1; }
  fi
  return $outcome
}
