# How balancer scales: the second part of the report. Reads scaling.tsv: round, series, at, value.

BEGIN {
  # Series; what it is; unit; what is compared: the value at one place against that at another, and the highest ratio.
  curve("workers bulk", "bulk, by workers", "ms CPU/GiB", 2, 1, 1.05)
  curve("workers requests", "request, by workers", "µs CPU/request", 2, 1, 1.05)
  curve("workers connections", "connection, by workers", "µs CPU/connection", 2, 1, 1.05)
  curve("sessions 50-busy", "request, by open sessions, up to 50 busy", "µs CPU/request", 9000, 100, 1.10)
  curve("sessions all-busy", "request, by open sessions, all busy", "µs CPU/request", 9000, 100, 1.10)
  curve("backends round_robin", "connection, by backends, round_robin", "µs CPU/connection", 1000, 2, 1.10)
  curve("backends random_two", "connection, by backends, random_two", "µs CPU/connection", 1000, 2, 1.10)
  curve("backends source_hash", "connection, by backends, source_hash", "µs CPU/connection", 1000, 2, 1.10)
  curve("memory idle", "idle session, by sessions", "resident bytes/session", "", "", "")
  curve("memory busy", "busy session, by sessions", "resident bytes/session", "", "", "")
  curve("memory bulk", "session in bulk", "resident bytes/session", "", "", "")
  curve("reload", "connections, by reloads (ten a second)", "connections/s", "continuous", "none", "")
}

function curve(name, what, its_unit, at, base, most) {
  series[++curves] = name
  title[name] = what
  series_unit[name] = its_unit
  compared[name] = at
  against[name] = base
  most_growth[name] = most
}

FILENAME ~ /scaling\.tsv$/ {
  value[$2, $3, $1] = $4
  if (!(($2, $3) in place)) {
    place[$2, $3] = 1
    places[$2] = places[$2] (places[$2] == "" ? "" : " ") $3
  }
  if ($1 > rounds) rounds = $1
  point[++points] = $0
}

function scaling_markdown(    i, j, n, name, at, row, growth) {
  if (points == 0) return
  if (lines) print ""
  print "| how balancer scales | unit | at: value | ratio | target | met |"
  print "| --- | --- | --- | --- | --- | --- |"
  for (i = 1; i <= curves; i++) {
    name = series[i]
    if (!(name in places)) continue
    row = "| " title[name] " | " series_unit[name] " | "
    n = split(places[name], at, " ")
    for (j = 1; j <= n; j++) row = row (j > 1 ? ", " : "") at[j] ": " figure(median(value, name, at[j]))
    growth = ratio_of(value, name, compared[name], against[name])
    row = row " | " ranged(growth, low, high)
    if (growth != "") row = row " of " compared[name] " to " against[name]
    print row " | " at_most(most_growth[name]) " | " growth_met(growth, most_growth[name]) " |"
  }
}

function growth_met(growth, most) { return growth == "" || most == "" ? "-" : growth <= most ? "yes" : "no" }
