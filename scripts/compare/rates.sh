# shellcheck shell=bash disable=SC2154,SC2034
# Latency at constant rates: requests are sent when they are due, whether or not answers have come, and their time counts
# from then on, so that a stall is paid by all that it made wait (no coordinated omission). Sourced by compare.sh.

# The shares, in percent, of the highest rate of the best peer.
parts=(10 50 80 95)

# ask ARGUMENTS...: HTTP requests over 50 lasting connections.
ask() {
  drive "$oha" "$@" -c 50 --no-tui --output-format json "http://$front:$port/" || return 1
  awk -F'[:,]' '/"successRate"/ { if ($2 < 1) { print "  successRate " $2; exit 1 } }' "$work/client.log" >&2
}
asked_rate() { awk -F'[:,]' '/"requestsPerSec"/ { print $2 + 0; exit }' "$work/client.log"; }

# find_peak: sets peak and peak_of: the highest rate of HAProxy and nginx, or of the named peers where neither is measured,
# and whose it is. Found by the client that then makes the load: another one may be faster or slower.
find_peak() {
  local peer rate candidates=()
  peak='' peak_of=''
  for peer in haproxy nginx; do
    if uses "${peers[*]}" "$peer"; then candidates+=("$peer"); fi
  done
  if ((${#candidates[@]} == 0)); then candidates=("${named[@]:-${peers[0]}}"); fi
  for peer in "${candidates[@]}"; do
    rate=''
    if stage "peak-$peer" rates "$peer" && ask -z 1s && ask -z "${seconds}s"; then rate=$(asked_rate); fi
    net_down
    if [[ -z $rate ]]; then say "  highest rate of $peer: FAILED"; continue; fi
    say "  highest rate of $peer: $(printf '%.0f' "$rate") requests/s"
    if [[ -z $peak || $(calc "($rate > $peak)") == 1 ]]; then peak=$rate peak_of=$peer; fi
  done
  [[ -n $peak ]]
}

# Percentiles in microseconds at each rate. Every request is sent and waited for, so that none that is late is left out.
load_rates() {
  local part rate count achieved p50 p99 cost machine
  ask -z 1s || return 1
  for part in "${parts[@]}"; do
    rate=$(awk -v peak="$peak" -v part="$part" 'BEGIN { printf "%d", peak * part / 100 }')
    ((rate > 0)) || return 1
    count=$((rate * seconds))
    begin
    ask -n "$count" -q "$rate" --latency-correction || return 1
    finished
    # In the order of the percentiles; in seconds.
    awk -F'[:,]' -v head="$round"$'\t'"$peer"$'\t'"$part"$'\t'"$rate" '
      { gsub(/[ "]/, "") }
      $1 == "latencyPercentiles" { inside = 1 }
      inside && $1 ~ /^p[0-9.]+$/ && $2 + 0 > 0 { printf "%s\t%s\t%.1f\n", head, substr($1, 2), $2 * 1e6 }
      inside && /}/ { inside = 0 }
    ' "$work/client.log" >"$work/percentiles"
    cat "$work/percentiles" >>"$tmp/percentiles.tsv"
    achieved=$(asked_rate)
    shares "$count" 1e3
    p50=$(awk -F'\t' '$5 == 50 { print $6 }' "$work/percentiles")
    p99=$(awk -F'\t' '$5 == 99 { print $6 }' "$work/percentiles")
    [[ -n $p50 && -n $p99 ]] || return 1
    record "rates p50 at $part %" "$p50" "$achieved" "$machine" || return 1
    record "rates p99 at $part %" "$p99" "$achieved" "$machine" || return 1
  done
}
