# shellcheck shell=bash disable=SC2154
# What distill_sd.sh does: checks, a coordinator as a step, the pipeline as steps beside it, saving before the time limit.
# Sourced by it; expects `root` and CONFIG.

say() { printf '%(%H:%M:%S)T onestep: %s\n' -1 "$*"; }

refuse() {
  printf 'onestep: refused: %s\n' "$*" >&2
  exit 2
}

# ---- Checks: nothing has been started or changed ------------------------------------------------------------------

find_programs() {
  local name
  if [ -n "${ONESTEP_BIN:-}" ]; then
    [ -x "$ONESTEP_BIN/onestep" ] || refuse "ONESTEP_BIN: $ONESTEP_BIN has no onestep program; build the programs with tools/setup.sh --programs"
    PATH=$ONESTEP_BIN:$PATH
  elif [ -x "$root/build/bin/onestep" ]; then
    PATH=$root/build/bin:$PATH
  fi
  for name in onestep onestep-coordinator onestep-worker; do
    command -v "$name" >/dev/null ||
      refuse "no $name in ONESTEP_BIN, $root/build/bin or PATH; build the programs with tools/setup.sh --programs"
  done
}

find_config() {
  case $CONFIG in
    /*) config=$CONFIG ;;
    *)
      config=${SLURM_SUBMIT_DIR:-$PWD}/$CONFIG
      [ -f "$config" ] || config=$root/$CONFIG
      ;;
  esac
  [ -f "$config" ] || refuse "CONFIG: $CONFIG: no such file in ${SLURM_SUBMIT_DIR:-$PWD} or $root; expected CONFIG=FILE before sbatch, or the third place of distill_sd.sh"
}

job_field() { scontrol --oneliner show job "$SLURM_JOB_ID" | grep -o " $1=[^ ]*" | cut -d= -f2; }

# "1-02:03:04", "02:03:04" or "UNLIMITED" to seconds; nothing for no limit.
seconds_of() {
  local days=0 hours minutes seconds text=$1
  case $text in UNLIMITED | INVALID | '') return ;; esac
  case $text in *-*) days=${text%%-*} text=${text#*-} ;; esac
  IFS=: read -r hours minutes seconds <<<"$text"
  echo $((10#$days * 86400 + 10#$hours * 3600 + 10#$minutes * 60 + 10#$seconds))
}

check_time_limit() {
  local limit
  limit=$(seconds_of "$(job_field TimeLimit)")
  [ -z "$limit" ] || [ "$limit" -ge $((SAVE_TIME * 2)) ] ||
    refuse "time limit $(job_field TimeLimit): too short to work and save, which begins $SAVE_TIME s before it; expected at least" \
      "$((SAVE_TIME * 2)) s (sbatch --time)"
}

# What one node writes the others must see.
check_shared_folder() {
  mkdir -p "$ONESTEP_DATA" 2>/dev/null || refuse "ONESTEP_DATA: $ONESTEP_DATA can't be made"
  ONESTEP_DATA=$(cd "$ONESTEP_DATA" && pwd)
  local probe blind
  probe=$(mktemp "$ONESTEP_DATA/.probe.XXXXXX") || refuse "ONESTEP_DATA: $ONESTEP_DATA can't be written"
  blind=$(srun --overlap --mpi=none --nodes="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --ntasks="$SLURM_JOB_NUM_NODES" --input=none \
    sh -c 'ls -d "$(dirname "$1")" >/dev/null 2>&1; [ -f "$1" ] || echo "$SLURMD_NODENAME"' sh "$probe" | sort | tr '\n' ' ')
  rm -f "$probe"
  [ -z "$blind" ] || refuse "ONESTEP_DATA: $ONESTEP_DATA is not shared: not seen from ${blind% }; expected a file system of all nodes (set ONESTEP_DATA)"
}

# ---- The coordinator ----------------------------------------------------------------------------------------------

address_field() { grep -o "\"$1\":[^,}]*" "$ONESTEP_DATA/coordinator.address" 2>/dev/null | cut -d: -f2- | tr -d '" '; }

start_coordinator() {
  local extra=() folder folders
  # How Slurm itself reaches this node: the ranks of the others report there.
  extra+=(--telemetry "$(scontrol --oneliner show node "$SLURMD_NODENAME" | grep -o ' NodeAddr=[^ ]*' | cut -d= -f2)")
  IFS=: read -ra folders <<<"$root:$(dirname "$config"):${ONESTEP_ROOTS:-}"
  for folder in "${folders[@]}"; do
    [ -z "$folder" ] || extra+=(--root "$folder")
  done
  [ -z "${SLURM_GPUS_ON_NODE:-}" ] || extra+=(--slurm gpus-per-task=1)
  # Others may be logged in on this node.
  export ONESTEP_TOKEN_FILE=$ONESTEP_DATA/slurm.token
  [ -f "$ONESTEP_TOKEN_FILE" ] ||
    onestep token add --data "$ONESTEP_DATA" --role admin --label slurm --expires never --out "$ONESTEP_TOKEN_FILE" >/dev/null
  rm -f "$ONESTEP_DATA/coordinator.address"
  srun --overlap --mpi=none --gres=none --nodes=1 --ntasks=1 --nodelist="$SLURMD_NODENAME" --input=none --job-name=onestep-coordinator \
    onestep-coordinator --data "$ONESTEP_DATA" --listen 127.0.0.1:0 --auth token --launcher slurm-step \
    --ranks-per-node "$ranks_per_node" --stop-workers "${extra[@]}" &
  coordinator=$!
  until [ -n "$(address_field pid)" ]; do
    kill -0 "$coordinator" 2>/dev/null || { wait "$coordinator" || true; refuse "the coordinator did not start"; }
    sleep 0.1
  done
  ONESTEP_URL=$(address_field url)
  export ONESTEP_URL
  say "coordinator on $SLURMD_NODENAME, data in $ONESTEP_DATA"
}

# Asks it to let the ranks save, and waits for that.
stop_coordinator() {
  [ -n "${coordinator:-}" ] || return 0
  kill -TERM "$(address_field pid)" 2>/dev/null || true
  wait "$coordinator" || true
  coordinator=
}

# ---- The pipeline -------------------------------------------------------------------------------------------------

on_time_limit() {
  say "the time limit comes: saving"
  [ -z "${follow:-}" ] || kill -INT "$follow" 2>/dev/null || true
  stop_coordinator
  say "saved; requeued"
  scontrol requeue "$SLURM_JOB_ID"
  exit 0
}

# The pipeline of this file in this data folder: submitted once, followed and resumed by every later start.
submit_or_find() {
  local change changes=()
  for change in ${ONESTEP_SET:-}; do changes+=(--set "$change"); done
  local note
  note=$ONESTEP_DATA/slurm-$( (cat "$config" && echo "${changes[*]:-}") | sha256sum | cut -c1-16).pipeline
  if [ ! -s "$note" ]; then
    onestep submit "$config" "${changes[@]}" --json | grep -o '"pipeline":{"id":"[^"]*"' | cut -d'"' -f6 >"$note.new"
    [ -s "$note.new" ] || exit 3
    mv "$note.new" "$note"
    say "submitted $(basename "$config") as $(cat "$note")"
  else
    say "goes on with $(cat "$note")"
  fi
  pipeline=$(cat "$note")
}

run_pipeline() {
  SAVE_TIME=${SAVE_TIME:-120}
  ONESTEP_DATA=${ONESTEP_DATA:-$root/onestep-data}
  ranks_per_node=${SLURM_NTASKS_PER_NODE:-1}
  say "Slurm job $SLURM_JOB_ID, start $((${SLURM_RESTART_COUNT:-0} + 1)), on $SLURM_JOB_NODELIST, $ranks_per_node ranks a node"
  find_programs
  find_config
  if [ -n "${ONESTEP_URL:-}" ]; then
    mkdir -p "$ONESTEP_DATA"
  else
    check_time_limit
    check_shared_folder
    start_coordinator
  fi
  # Bash runs a trap when `wait` returns, not while a program runs in the foreground.
  trap on_time_limit USR1
  submit_or_find
  onestep follow "$pipeline" --resume &
  follow=$!
  local status=0
  wait "$follow" || status=$?
  trap - USR1
  stop_coordinator
  say "ended with exit status $status"
  exit "$status"
}
