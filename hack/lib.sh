# shellcheck shell=bash disable=SC2034  # the scripts that source this use what it sets
# What the shell scripts of hack/ share: the folders, and how they talk to the person at the terminal (on stderr).
root=$(dirname "$(dirname "$(realpath "${BASH_SOURCE[0]}")")")
cache=${XDG_CACHE_HOME:-$HOME/.cache}/moorage
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$root/pyproject.toml")

# Which cluster: `--name NAME` or `--context NAME`, as hack/cluster takes them.
cluster_options=()
cluster() { "$root/hack/cluster" "${cluster_options[@]}" "$@"; }

say() { echo "$*" >&2; }
fail() { say "$*"; exit 1; }

# need PROGRAM...: all that is missing is named at once.
need() {
  local program missing=()
  for program in "$@"; do command -v "$program" > /dev/null || missing+=("$program"); done
  [[ ${#missing[@]} -eq 0 ]] || fail "Not installed: ${missing[*]}. Run hack/install."
}

# step TEXT COMMAND...: says that it begins, reminds every 15 s, says how long it took; on failure, the end of the command's output.
step() {
  local text=$1 begin=$SECONDS log reminder status=0
  shift
  log=$(mktemp)
  say "  $text ..."
  # Waiting by `read` on a pipe that stays empty: a `sleep` would outlive this loop and hold the caller's stderr open.
  { exec {tick}<> <(:); while ! read -rt 15 -u "$tick"; do say "  $text ... $((SECONDS - begin)) s"; done; } &
  reminder=$!
  "$@" > "$log" 2>&1 || status=$?
  { kill "$reminder" && wait "$reminder"; } 2> /dev/null || true
  if [[ $status -ne 0 ]]; then
    tail -n 30 "$log" | sed 's/^/  | /' >&2
    rm -f "$log"
    fail "  $text: failed with exit code $status after $((SECONDS - begin)) s; above is the end of what it printed."
  fi
  rm -f "$log"
  say "  $text: $((SECONDS - begin)) s"
}
