# The report of scripts/compare.sh: what was read, and the table. Reads about.tsv (name, text), results.tsv (round, peer,
# load, cost, rate, whole machine), percentiles.tsv and scaling.tsv. peers: the columns in order; named: those among them
# that were given by a command; format: markdown or json. Beside it: scaling.awk, json.awk.

BEGIN {
  FS = "\t"
  columns = split(peers, peer, " ")
  others = split(named, other, " ")
  for (i = 1; i <= others; i++) is_other[other[i]] = 1
  # Load; unit of its cost, of the whole machine's, of its rate; highest ratio of the cost and of the whole machine ("": none).
  define("bulk", "ms CPU/GiB", "ms/GiB", "GiB/s", 0.35, 1.35)
  define("wire", "ms CPU/GiB", "ms/GiB", "GiB/s", 0.35, 1.05)
  define("requests", "µs CPU/request", "µs/request", "requests/s", 0.75, 1.20)
  define("pipelined", "µs CPU/request", "µs/request", "requests/s", 0.85, "")
  define("connections", "µs CPU/connection", "µs/connection", "connections/s", 0.85, 1.25)
  define("idle", "resident bytes/session", "", "", 0.20, "")
  define("latency p50", "µs", "µs/exchange", "exchanges/s", 1.0, "")
  define("latency p99", "µs", "µs/exchange", "exchanges/s", 1.0, "")
  parts = split("10 50 80 95", part, " ")
  for (i = 1; i <= parts; i++) {
    define("rates p50 at " part[i] " %", "µs", "µs/request", "requests/s", "", "")
    define("rates p99 at " part[i] " %", "µs", "µs/request", "requests/s", part[i] == 80 ? 0.8 : "", "")
  }
  most_idle_bytes = 900
}

function define(name, cost_unit, machine_unit, rate_unit, most, most_machine) {
  load[++loads] = name
  unit[name] = cost_unit
  unit_of_machine[name] = machine_unit
  per[name] = rate_unit
  target[name] = most
  machine_target[name] = most_machine
}

FILENAME ~ /about\.tsv$/ {
  about[++abouts] = $1
  text[$1] = $2
}

FILENAME ~ /results\.tsv$/ {
  cost[$3, $2, $1] = $4
  rate[$3, $2, $1] = $5
  machine[$3, $2, $1] = $6
  measured[$3] = 1
  if ($1 > rounds) rounds = $1
  line[++lines] = $0
}

# The median of the rounds in which TABLE has a value for the load and the peer; "" without any. Sets low and high.
function median(table, name, who,    round, n, i, value, sorted) {
  n = 0
  low = high = ""
  for (round = 1; round <= rounds; round++) {
    if (!((name, who, round) in table) || table[name, who, round] == "") continue
    value = table[name, who, round] + 0
    for (i = n++; i > 0 && sorted[i] > value; i--) sorted[i + 1] = sorted[i]
    sorted[i + 1] = value
  }
  if (n == 0) return ""
  low = sorted[1]
  high = sorted[n]
  return n % 2 ? sorted[(n + 1) / 2] : (sorted[n / 2] + sorted[n / 2 + 1]) / 2
}

# The median over the rounds of WHO's value in TABLE against that of BASE; "" where either is missing. Sets low and high.
function ratio_of(table, name, who, base,    round, quotients) {
  for (round = 1; round <= rounds; round++) {
    if (!((name, who, round) in table) || table[name, who, round] == "") continue
    if (!((name, base, round) in table) || table[name, base, round] <= 0) continue
    quotients[name, "ratio", round] = table[name, who, round] / table[name, base, round]
  }
  return median(quotients, name, "ratio")
}

# HAProxy or nginx, whichever has the lower median cost, or of the named peers where neither was measured; "" without any.
function best_peer(name,    i, value, best, lowest, pass) {
  for (pass = 1; pass <= 2 && best == ""; pass++) {
    for (i = 1; i <= columns; i++) {
      if (peer[i] == "balancer" || peer[i] == "nat" || (pass == 1 && peer[i] in is_other)) continue
      value = median(cost, name, peer[i])
      if (value != "" && (best == "" || value < lowest)) {
        best = peer[i]
        lowest = value
      }
    }
  }
  return best
}

# Sets for a load: best, ratio with ratio_low and ratio_high, machine_ratio with machine_low and machine_high.
function compare(name) {
  best = best_peer(name)
  ratio = low = high = ""
  if (best != "") ratio = ratio_of(cost, name, "balancer", best)
  ratio_low = low
  ratio_high = high
  machine_ratio = ratio_of(machine, name, "balancer", "nat")
  machine_low = low
  machine_high = high
}

# What is said of a ratio: yes or no, "-" where it or its target is missing.
function met(name) {
  if (ratio == "" || target[name] == "") return "-"
  return ratio <= target[name] && !(name == "idle" && median(cost, name, "balancer") >= most_idle_bytes) ? "yes" : "no"
}

function machine_met(name) {
  if (machine_ratio == "" || machine_target[name] == "") return "-"
  return machine_ratio <= machine_target[name] ? "yes" : "no"
}

# Three digits that mean something, and no exponent.
function figure(value) {
  if (value == "") return "-"
  if (value >= 100) return sprintf("%.0f", value)
  if (value >= 10) return sprintf("%.1f", value)
  return sprintf("%.2f", value)
}

function ranged(middle, lowest, highest) {
  return middle == "" ? "-" : sprintf("**%.3f** (%.3f to %.3f)", middle, lowest, highest)
}

function at_most(value) { return value == "" ? "-" : sprintf("at most %.2f", value) }

function per_peer(table, name,    j, all) {
  for (j = 1; j <= columns; j++) all = all (j > 1 ? " / " : "") figure(median(table, name, peer[j]))
  return all
}

function peers_text(    j, all) {
  for (j = 1; j <= columns; j++) all = all (j > 1 ? " / " : "") peer[j]
  return all
}

function has_peer(name) { return (" " peers " ") ~ (" " name " ") }

function markdown(    i, j, name, row, rule) {
  if (lines == 0) return
  row = "| load | unit |"
  rule = "| --- | --- |"
  for (j = 1; j <= columns; j++) {
    if (peer[j] == "nat" && !any_cost("nat")) continue
    row = row " " peer[j] " |"
    rule = rule " ---: |"
  }
  row = row " ratio to the best | target | met |"
  rule = rule " --- | --- | --- |"
  for (j = 1; j <= others; j++) {
    row = row " ratio to " other[j] " |"
    rule = rule " --- |"
  }
  if (has_peer("nat")) {
    row = row " whole machine against kernel address translation | target | met |"
    rule = rule " --- | --- | --- |"
  }
  print row " rate: " peers_text() " |"
  print rule " --- |"
  for (i = 1; i <= loads; i++) if (load[i] in measured) markdown_row(load[i])
  markdown_machine()
}

function markdown_row(name,    j, row) {
  row = "| " name " | " unit[name] " |"
  for (j = 1; j <= columns; j++) {
    if (peer[j] == "nat" && !any_cost("nat")) continue
    row = row " " figure(median(cost, name, peer[j])) " |"
  }
  compare(name)
  row = row " " ranged(ratio, ratio_low, ratio_high) (ratio == "" ? "" : " of " best) " |"
  row = row " " at_most(target[name]) (name == "idle" ? ", under " most_idle_bytes " bytes" : "") " | " met(name) " |"
  for (j = 1; j <= others; j++) {
    ratio = ratio_of(cost, name, "balancer", other[j])
    row = row " " ranged(ratio, low, high) " |"
  }
  if (has_peer("nat")) {
    row = row " " ranged(machine_ratio, machine_low, machine_high) " | " at_most(machine_target[name])
    row = row " | " machine_met(name) " |"
  }
  print row (per[name] == "" ? " - |" : " " per_peer(rate, name) " " per[name] " |")
}

# Whether a peer has costs at all.
function any_cost(who,    i) {
  for (i = 1; i <= loads; i++) if (median(cost, load[i], who) != "") return 1
  return 0
}

# Without the percentile: "rates p50 at 10 %" is "rates at 10 %".
function machine_name(name) {
  sub(/ p50/, "", name)
  return name
}

# The figures behind the last ratio.
function markdown_machine(    i, name, row, j, rule, head) {
  head = "\n| CPU of the whole machine | unit |"
  rule = "| --- | --- |"
  for (j = 1; j <= columns; j++) {
    head = head " " peer[j] " |"
    rule = rule " ---: |"
  }
  for (i = 1; i <= loads; i++) {
    name = load[i]
    # Both percentiles of a run come from the same span.
    if (!(name in measured) || unit_of_machine[name] == "" || name ~ /p99/) continue
    if (head != "") print head "\n" rule
    head = ""
    row = "| " machine_name(name) " | " unit_of_machine[name] " |"
    for (j = 1; j <= columns; j++) row = row " " figure(median(machine, name, peer[j])) " |"
    print row
  }
}

END {
  if (format == "json") {
    json()
  } else {
    markdown()
    scaling_markdown()
    print ""
    for (i = 1; i <= abouts; i++) print "- " about[i] ": " text[about[i]]
  }
}
