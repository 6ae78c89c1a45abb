# The report of scripts/compare.sh. Reads about.tsv (name, text), then results.tsv (round, peer, load, value, rate);
# peers: the columns in order; format: markdown or json.

BEGIN {
  FS = "\t"
  columns = split(peers, peer, " ")
  # Load, unit of its cost, unit of its rate, highest ratio that is good enough.
  define("bulk", "ms CPU/GiB", "GiB/s", 0.40)
  define("wire", "ms CPU/GiB", "GiB/s", 0.40)
  define("requests", "µs CPU/request", "requests/s", 0.85)
  define("pipelined", "µs CPU/request", "requests/s", 0.95)
  define("connections", "µs CPU/connection", "connections/s", 0.90)
  define("idle", "resident bytes/session", "", 0.25)
  define("latency p50", "µs", "exchanges/s", 1.0)
  define("latency p99", "µs", "exchanges/s", 1.0)
  most_idle_bytes = 1200
}

function define(name, cost_unit, rate_unit, most) {
  load[++loads] = name
  unit[name] = cost_unit
  per[name] = rate_unit
  target[name] = most
}

FNR == NR {
  about[++abouts] = $1
  text[$1] = $2
  next
}

{
  cost[$3, $2, $1] = $4
  rate[$3, $2, $1] = $5
  measured[$3] = 1
  if ($1 > rounds) rounds = $1
  line[++lines] = $0
}

# The median of the rounds in which TABLE has a value for the load and the peer; "" without any. Sets low and high.
function median(table, name, who,    round, n, i, value, sorted) {
  n = 0
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

# The peer beside balancer with the lowest median cost; "" where there is none.
function best_peer(name,    i, value, best, lowest) {
  for (i = 1; i <= columns; i++) {
    if (peer[i] == "balancer") continue
    value = median(cost, name, peer[i])
    if (value != "" && (best == "" || value < lowest)) {
      best = peer[i]
      lowest = value
    }
  }
  return best
}

# Sets ratio (the median over rounds; "" where either is missing), ratio_low, ratio_high and best for a load.
function compare(name,    round) {
  ratio = ""
  best = best_peer(name)
  if (best == "") return
  for (round = 1; round <= rounds; round++) {
    if (!((name, "balancer", round) in cost) || !((name, best, round) in cost)) continue
    if (cost[name, best, round] <= 0) continue
    ratios[name, "ratio", round] = cost[name, "balancer", round] / cost[name, best, round]
  }
  ratio = median(ratios, name, "ratio")
  ratio_low = low
  ratio_high = high
}

function met(name) {
  return ratio <= target[name] && !(name == "idle" && median(cost, name, "balancer") >= most_idle_bytes)
}

# Three digits that mean something, and no exponent.
function figure(value) {
  if (value == "") return "-"
  if (value >= 1000) return sprintf("%.0f", value)
  if (value >= 100) return sprintf("%.0f", value)
  if (value >= 10) return sprintf("%.1f", value)
  return sprintf("%.2f", value)
}

function markdown(    i, j, name, row, rates) {
  row = "| load | unit |"
  for (j = 1; j <= columns; j++) row = row " " peer[j] " |"
  print row " ratio to the best | target | met | rate: " peers_text() " |"
  row = "| --- | --- |"
  for (j = 1; j <= columns; j++) row = row " ---: |"
  print row " --- | --- | --- | --- |"
  for (i = 1; i <= loads; i++) {
    name = load[i]
    if (!(name in measured)) continue
    row = "| " name " | " unit[name] " |"
    rates = ""
    for (j = 1; j <= columns; j++) {
      row = row " " figure(median(cost, name, peer[j])) " |"
      rates = rates (j > 1 ? " / " : "") figure(median(rate, name, peer[j]))
    }
    compare(name)
    if (ratio == "") row = row " - |"
    else row = row sprintf(" **%.3f** (%.3f to %.3f) of %s |", ratio, ratio_low, ratio_high, best)
    row = row sprintf(" at most %.2f%s |", target[name], name == "idle" ? ", under " most_idle_bytes " bytes" : "")
    row = row (ratio == "" ? " - |" : met(name) ? " yes |" : " no |")
    print row (per[name] == "" ? " - |" : " " rates " " per[name] " |")
  }
  print ""
  for (i = 1; i <= abouts; i++) print "- " about[i] ": " text[about[i]]
}

function peers_text(    j, all) {
  for (j = 1; j <= columns; j++) all = all (j > 1 ? " / " : "") peer[j]
  return all
}

function quoted(value) {
  gsub(/\\/, "\\\\", value)
  gsub(/"/, "\\\"", value)
  return "\"" value "\""
}

function number(value) { return value == "" ? "null" : sprintf("%.6g", value) }

function json(    i, j, name, field, comma) {
  print "{"
  printf "  \"about\": {"
  for (i = 1; i <= abouts; i++) printf "%s%s: %s", (i > 1 ? ", " : ""), quoted(about[i]), quoted(text[about[i]])
  print "},"
  print "  \"summary\": ["
  for (i = 1; i <= loads; i++) {
    name = load[i]
    if (!(name in measured)) continue
    compare(name)
    printf "%s    {\"load\": %s, \"unit\": %s", comma, quoted(name), quoted(unit[name])
    for (j = 1; j <= columns; j++) {
      printf ", %s: {\"cost\": %s, \"rate\": %s}", quoted(peer[j]), number(median(cost, name, peer[j])), \
        number(median(rate, name, peer[j]))
    }
    printf ", \"best\": %s, \"ratio\": %s", best == "" ? "null" : quoted(best), number(ratio)
    if (ratio != "") printf ", \"ratio_low\": %s, \"ratio_high\": %s", number(ratio_low), number(ratio_high)
    printf ", \"target\": %s, \"met\": %s}", target[name], ratio == "" ? "null" : met(name) ? "true" : "false"
    comma = ",\n"
  }
  print "\n  ],"
  print "  \"measurements\": ["
  for (i = 1; i <= lines; i++) {
    split(line[i], field, "\t")
    printf "    {\"round\": %d, \"peer\": %s, \"load\": %s, \"cost\": %s, \"rate\": %s}%s\n", field[1], quoted(field[2]), \
      quoted(field[3]), number(field[4]), number(field[5]), i < lines ? "," : ""
  }
  print "  ]"
  print "}"
}

END {
  if (format == "json") json()
  else markdown()
}
