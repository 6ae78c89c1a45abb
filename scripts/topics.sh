#!/usr/bin/env bash
# Says which tests a change calls for, by the `//! covers:` lines of the test files.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/packages.sh
source scripts/packages.sh

# Without a change, and for what no test file covers: one topic of each room that clients notice.
default=(balancing health relay reload stop)
# Enough for a change of one thing. Whoever changes more runs all tests.
most=8

usage() {
  cat <<TEXT
Usage: scripts/topics.sh [--kernel-features]

Prints the test files that scripts/test.sh --quick runs beside the unit tests, tests/tidy.rs and the simulation, one a line:
  behaviours/TOPIC  the tests of a topic that share the machine (Machine::shared)
  behaviours/TOPIC! all tests of a topic
  PROGRAM           a test program of tests/
What it leaves out goes to standard error.

The rule. A test file's line "//! covers: PATH, PATH" names what it tests: a file of the repository without its extension, or a
folder. Changed is what differs from the merge base with main (origin/main, where there is one), committed or not, and new files.
  1. A changed test file runs itself, all of it.
  2. A changed file runs the test files that cover it; those that cover most of the changed files come first, $most at most.
  3. Where nothing is changed, or something in src, tests or Cargo.toml that no test file covers: ${default[*]}.

--kernel-features prints the topics that run twice instead, the second time with BALANCER_DISABLE=all: those with a line
"//! kernel features: NAME, NAME", which names the optional kernel features that make a difference to them.
TEXT
}

# covers FILE: the paths of its line.
covers() { sed -n 's|^//! covers: ||p' "$1" | tr -d ' ' | tr , '\n'; }

# name_of FILE: as it is printed.
name_of() {
  local name=${1#tests/}
  printf '%s\n' "${name%.rs}"
}

kernel_features() {
  grep -l '^//! kernel features: ' tests/behaviours/*.rs | while read -r file; do name_of "$file"; done
}

changed_files() {
  local base
  base=$(git merge-base HEAD origin/main 2>/dev/null || git merge-base HEAD main 2>/dev/null || echo HEAD)
  { git diff --name-only "$base" && git ls-files --others --exclude-standard; } 2>/dev/null | sort -u
}

case ${1:-} in
  '') ;;
  --kernel-features) kernel_features; exit ;;
  --help | -h) usage; exit 0 ;;
  *) say "${0##*/}: unknown argument '$1'; try: scripts/topics.sh --help"; exit 2 ;;
esac

mapfile -t changed < <(changed_files)
declare -A itself=() hits=() covered=()
for file in tests/*.rs tests/behaviours/*.rs; do
  mapfile -t paths < <(covers "$file")
  for path in "${changed[@]}"; do
    if [[ $path == "$file" && ${#paths[@]} -gt 0 ]]; then itself[$file]=yes covered[$path]=yes; fi
    for place in "${paths[@]}"; do
      if [[ $path == "$place" || $path == "$place".* || $path == "$place"/* ]]; then
        hits[$file]=$((${hits[$file]:-0} + 1)) covered[$path]=yes
        break
      fi
    done
  done
done

for file in "${!itself[@]}"; do
  if [[ $file == tests/behaviours/* ]]; then printf '%s!\n' "$(name_of "$file")"; else name_of "$file"; fi
done | sort

chosen=0
while read -r count file; do
  if [[ -n ${itself[$file]:-} ]]; then continue; fi
  if ((chosen++ < most)); then name_of "$file"; else say "left out, $count of the changed files: $(name_of "$file")"; fi
done < <(for file in "${!hits[@]}"; do printf '%s %s\n' "${hits[$file]}" "$file"; done | sort -k1,1nr -k2)

unknown=''
for path in "${changed[@]}"; do
  # Tests that always run, and what is compiled into them, need no more.
  if [[ $path == @(src|tests)/*.rs || $path == Cargo.* ]] && [[ -z ${covered[$path]:-} ]] &&
    [[ $path != tests/@(tidy|simulation/*|behaviours/main).rs ]]; then
    unknown=$path
  fi
done
if ((${#changed[@]} == 0)) || [[ -n $unknown ]]; then
  for topic in "${default[@]}"; do
    file=tests/behaviours/$topic.rs
    if [[ -z ${itself[$file]:-}${hits[$file]:-} ]]; then printf 'behaviours/%s\n' "$topic"; fi
  done
fi
