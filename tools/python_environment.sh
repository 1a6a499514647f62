# Sourced by the set-ups of the Python environments: one recipe for those whose pins name every package.
#
#   cache, root       set: the cache folder, this checkout
#   need_environment NAME WHAT [MORE]   a virtual environment $cache/NAME of exactly tools/NAME.txt, made where it is missing or of other
#                     pins; MORE is a command that prepares what else is needed, run in the folder after the packages

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${ONESTEP_CACHE:-${HOME:?HOME is not set}/.cache/onestep}

debian() {
  DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 install -y --no-install-recommends "$@"
}

install_environment() {
  local folder=$cache/$1 pins=$root/tools/$1.txt more=$2
  /usr/bin/python3 -c 'import ensurepip' 2>/dev/null || debian python3-venv || return 1
  rm -rf "$folder"
  /usr/bin/python3 -m venv "$folder" &&
    "$folder/bin/python" -m pip install --disable-pip-version-check --no-input --progress-bar off --no-deps -r "$pins" || return 1
  if [ -n "$more" ]; then "$more" "$folder" || return 1; fi
  cp "$pins" "$folder/installed.txt"
}

need_environment() {
  local name=$1 what=$2 more=${3:-} log=$cache/setup-$1.log
  mkdir -p "$cache"
  cmp -s "$root/tools/$name.txt" "$cache/$name/installed.txt" && return
  echo "making $cache/$name for $what" >&2
  if ! install_environment "$name" "$more" >"$log" 2>&1 </dev/null; then
    echo "failed: the environment for $what; the last lines of $log:" >&2
    tail -n 40 "$log" >&2
    return 1
  fi
}
