#!/usr/bin/env bash
# Counts the instructions of what must not grow, and says what has grown.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/packages.sh
source scripts/packages.sh

usage() {
  cat <<'TEXT'
Usage: scripts/instructions.sh [--record]

Counts with callgrind (valgrind) how many instructions one of each takes: a small exchange and a splice turn in the session's
state machine, a deadline among 9,000, a pick among 1,000 backends by each algorithm. Compares with benches/instructions.tsv and
exits with 1 where one has grown by more than 5 %. Installs valgrind where it is missing. Takes a few
seconds after the build (profile dist), which takes a minute or more. scripts/check.sh runs it, too.

  --record   writes what was counted to benches/instructions.tsv instead
TEXT
}

record=''
case ${1:-} in
  '') ;;
  --record) record=yes ;;
  --help | -h) usage; exit 0 ;;
  *) say "${0##*/}: unknown argument '$1'; try: scripts/instructions.sh --help"; exit 2 ;;
esac
install_missing valgrind:valgrind

program=$(cargo bench --locked --profile dist --bench instructions --no-run --message-format=json 2>/dev/null |
  sed -n 's/.*"name":"instructions".*"executable":"\([^"]*\)".*/\1/p')
[[ -x $program ]] || die "the bench does not build: cargo bench --profile dist --bench instructions --no-run"

# total WHAT TIMES: the instructions of the whole program.
total() {
  valgrind --tool=callgrind --callgrind-out-file=/dev/null "$program" "$1" "$2" 2>&1 | sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}

# of WHAT: the instructions of one, without the program's start.
of() {
  local few many
  few=$(total "$1" 1000)
  many=$(total "$1" 3000)
  echo $(((many - few) / 2000))
}

all=(exchange splice-turn deadline pick-round_robin pick-least_connections pick-random_two pick-source_hash pick-first)
grown=0
counted=''
for what in "${all[@]}"; do
  now=$(of "$what")
  counted+=$what$'\t'$now$'\n'
  known=$(awk -F'\t' -v what="$what" '$1 == what { print $2 }' benches/instructions.tsv)
  verdict=''
  if [[ -z $record && -n $known ]] && ((now * 100 > known * 105)); then
    verdict='  GROWN'
    grown=1
  fi
  printf '%-24s %6s  (known: %s)%s\n' "$what" "$now" "${known:--}" "$verdict"
done
if [[ -n $record ]]; then
  printf '%s' "$counted" >benches/instructions.tsv
  say "written to benches/instructions.tsv"
elif ((grown)); then
  die "something takes more instructions than it did; if that is meant: scripts/instructions.sh --record"
fi
