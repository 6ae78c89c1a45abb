# The report as JSON, every single measurement included. Reads percentiles.tsv (round, peer, share of the peak, rate,
# percentile, µs) beside what report.awk and scaling.awk have read.

FILENAME ~ /percentiles\.tsv$/ { percentile[++percentiles] = $0 }

function quoted(value) {
  gsub(/["\\]/, "\\\\&", value)
  return "\"" value "\""
}

function number(value) { return value == "" ? "null" : sprintf("%.6g", value) }

function truth(word) { return word == "-" ? "null" : word == "yes" ? "true" : "false" }

# A name, and a median with its range.
function range_field(name, middle, lowest, highest) {
  return sprintf(", \"%s\": %s, \"%s_low\": %s, \"%s_high\": %s", name, number(middle), name, number(lowest), name, \
    number(highest))
}

function json_summary(name,    j, out) {
  compare(name)
  out = sprintf("    {\"load\": %s, \"unit\": %s, \"machine_unit\": %s, \"rate_unit\": %s", quoted(name), quoted(unit[name]), \
    quoted(unit_of_machine[name]), quoted(per[name]))
  for (j = 1; j <= columns; j++) {
    out = out sprintf(", %s: {\"cost\": %s, \"rate\": %s, \"machine\": %s}", quoted(peer[j]), \
      number(median(cost, name, peer[j])), number(median(rate, name, peer[j])), number(median(machine, name, peer[j])))
  }
  out = out ", \"best\": " (best == "" ? "null" : quoted(best)) range_field("ratio", ratio, ratio_low, ratio_high)
  out = out sprintf(", \"target\": %s, \"met\": %s", number(target[name]), truth(met(name)))
  out = out range_field("machine_ratio", machine_ratio, machine_low, machine_high)
  out = out sprintf(", \"machine_target\": %s, \"machine_met\": %s", number(machine_target[name]), truth(machine_met(name)))
  for (j = 1; j <= others; j++) {
    ratio = ratio_of(cost, name, "balancer", other[j])
    out = out range_field("ratio to " other[j], ratio, low, high)
  }
  return out "}"
}

function json_scaling(name,    j, n, at, out, growth) {
  out = sprintf("    {\"series\": %s, \"title\": %s, \"unit\": %s, \"points\": [", quoted(name), quoted(title[name]), \
    quoted(series_unit[name]))
  n = split(places[name], at, " ")
  for (j = 1; j <= n; j++) {
    growth = median(value, name, at[j])
    out = out (j > 1 ? ", " : "") "{\"at\": " quoted(at[j]) range_field("value", growth, low, high) "}"
  }
  growth = ratio_of(value, name, compared[name], against[name])
  out = out "], \"compared\": " quoted(compared[name]) ", \"against\": " quoted(against[name])
  out = out range_field("ratio", growth, low, high)
  return out sprintf(", \"target\": %s, \"met\": %s}", number(most_growth[name]), truth(growth_met(growth, most_growth[name])))
}

function json(    i, field, comma) {
  printf "{\n  \"about\": {"
  for (i = 1; i <= abouts; i++) printf "%s%s: %s", (i > 1 ? ", " : ""), quoted(about[i]), quoted(text[about[i]])
  printf "},\n  \"peers\": ["
  for (i = 1; i <= columns; i++) printf "%s%s", (i > 1 ? ", " : ""), quoted(peer[i])
  print "],\n  \"summary\": ["
  for (i = 1; i <= loads; i++) {
    if (!(load[i] in measured)) continue
    printf "%s%s", comma, json_summary(load[i])
    comma = ",\n"
  }
  print "\n  ],\n  \"scaling\": ["
  comma = ""
  for (i = 1; i <= curves; i++) {
    if (!(series[i] in places)) continue
    printf "%s%s", comma, json_scaling(series[i])
    comma = ",\n"
  }
  print "\n  ],\n  \"measurements\": ["
  for (i = 1; i <= lines; i++) {
    split(line[i], field, "\t")
    printf "    {\"round\": %d, \"peer\": %s, \"load\": %s, \"cost\": %s, \"rate\": %s, \"machine\": %s}%s\n", field[1], \
      quoted(field[2]), quoted(field[3]), number(field[4]), number(field[5]), number(field[6]), i < lines ? "," : ""
  }
  print "  ],\n  \"percentiles\": ["
  for (i = 1; i <= percentiles; i++) {
    split(percentile[i], field, "\t")
    printf "    {\"round\": %d, \"peer\": %s, \"share\": %s, \"rate\": %s, \"percentile\": %s, \"µs\": %s}%s\n", field[1], \
      quoted(field[2]), field[3], number(field[4]), number(field[5]), number(field[6]), i < percentiles ? "," : ""
  }
  print "  ],\n  \"scaling_measurements\": ["
  for (i = 1; i <= points; i++) {
    split(point[i], field, "\t")
    printf "    {\"round\": %d, \"series\": %s, \"at\": %s, \"value\": %s}%s\n", field[1], quoted(field[2]), quoted(field[3]), \
      number(field[4]), i < points ? "," : ""
  }
  print "  ]\n}"
}
