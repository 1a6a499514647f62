# For shell tests, which define fail.
# eventually SECONDS TEXT COMMAND...: tries until the command succeeds.
eventually() {
  local end=$((SECONDS + $1)) text=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$end" ] || fail "not within time: $text"
    sleep 0.2
  done
}
