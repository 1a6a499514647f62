#!/usr/bin/env bash
# A Slurm cluster of four nodes on this machine, of Debian's packages, without systemd; needs root.
#
#   cluster.sh start FOLDER             controller and nodes n1..n4, 4 processors and 2 (made-up) GPUs each; FOLDER is new
#   cluster.sh stop FOLDER              ends all of it; jobs too
#   cluster.sh kill-node FOLDER NODE    as when its power is cut; start-node FOLDER NODE brings it back,
#                                       start-node FOLDER NODE PRIVATE with a folder PRIVATE that the others don't see
#   cluster.sh kill-controller FOLDER   start-controller FOLDER starts it again
#
# Afterwards `. FOLDER/environment` makes sbatch, srun and the others find it. Nothing outside FOLDER is changed but the
# packages, which are installed where they are missing. Exit status 77: this machine can't have one.
set -euo pipefail

say() { printf 'cluster: %s\n' "$*"; }
skip() {
  say "skipped: $*"
  exit 77
}
fail() {
  printf 'cluster: FAILED: %s\n' "$*" >&2
  exit 1
}

nodes=(n1 n2 n3 n4)
usage='expected start|stop FOLDER, kill-node FOLDER NODE, start-node FOLDER NODE [PRIVATE], or kill-controller|start-controller FOLDER'
[ $# -ge 2 ] || fail "$usage"
command=$1
folder=$(realpath -m "$2")
export SLURM_CONF=$folder/slurm.conf

install_packages() {
  command -v slurmctld >/dev/null && command -v slurmd >/dev/null && command -v srun >/dev/null && command -v munged >/dev/null && return
  [ "$(id -u)" = 0 ] || skip "Slurm is missing, and installing it needs root"
  export DEBIAN_FRONTEND=noninteractive
  { apt-get -o DPkg::Lock::Timeout=600 update && apt-get -o DPkg::Lock::Timeout=600 install -y --no-install-recommends \
    slurmctld slurmd slurm-client munge; } >"$folder/install.log" 2>&1 || skip "slurmctld, slurmd, slurm-client or munge can't be installed"
}

# Ports of this cluster alone: two of them may run side by side.
free_ports() {
  python3 - "$1" <<'PY'
import socket, sys
sockets = [socket.socket() for _ in range(int(sys.argv[1]))]
for s in sockets: s.bind(("127.0.0.1", 0))
print(*[s.getsockname()[1] for s in sockets])
PY
}

write_configuration() {
  local ports host
  read -ra ports < <(free_ports 5)
  host=$(hostname -s)
  mkdir -p "$folder"/state "$folder"/tmp-{n1,n2,n3,n4} "$folder"/spool-{n1,n2,n3,n4}
  # slurmd takes only character devices for GPUs.
  mknod "$folder/g0" c 1 3 && mknod "$folder/g1" c 1 3 || skip "no device nodes can be made here"
  cat >"$SLURM_CONF" <<CONF
ClusterName=onestep
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=${ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A requeued job waits for as long as a credential is good.
AuthInfo=socket=$folder/munge.socket,cred_expire=5
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool-%n
SlurmdPidFile=$folder/slurmd-%n.pid
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdLogFile=$folder/slurmd-%n.log
SlurmctldLogFile=$folder/slurmctld.log
# A folder a node: PMIx servers of one machine would meet in it.
TmpFS=$folder/tmp-%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MailProg=/bin/true
ReturnToService=2
SlurmdTimeout=10
KillWait=10
MinJobAge=300
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName=n[1-4] NodeHostname=$host NodeAddr=127.0.0.1 Port=[$(IFS=,; echo "${ports[*]:1}")] CPUs=4 RealMemory=2000 Gres=gpu:2
PartitionName=main Nodes=ALL Default=YES State=UP MaxTime=INFINITE
CONF
  echo "NodeName=n[1-4] Name=gpu File=$folder/g[0-1]" >"$folder/gres.conf"
  # The nodes share a host name: ranks of two nodes would take each other for neighbours in shared memory.
  cat >"$folder/environment" <<ENV
export SLURM_CONF=$SLURM_CONF
export OMPI_MCA_pml=ob1 OMPI_MCA_btl=tcp,self OMPI_MCA_btl_tcp_if_include=lo OMPI_MCA_mpi_yield_when_idle=1
ENV
}

start_munge() {
  dd if=/dev/urandom of="$folder/munge.key" bs=1024 count=1 status=none
  chmod 600 "$folder/munge.key"
  munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
    --log-file="$folder/munged.log" --seed-file="$folder/munged.seed" >>"$folder/munged.log" 2>&1 ||
    skip "munged does not start: $(tail -n 1 "$folder/munged.log")"
}

start_controller() { slurmctld -f "$SLURM_CONF" >>"$folder/slurmctld.log" 2>&1; }
# With a second argument, that folder is one of the node's own.
start_node() {
  local start=(slurmd -f "$SLURM_CONF" -N "$1")
  if [ -n "${2:-}" ]; then
    unshare --mount sh -c 'mount -t tmpfs tmpfs "$1" && shift && exec "$@"' sh "$2" "${start[@]}" >>"$folder/slurmd-$1.log" 2>&1
  else
    "${start[@]}" >>"$folder/slurmd-$1.log" 2>&1
  fi
}

# eventually SECONDS TEXT COMMAND...
eventually() {
  local end=$((SECONDS + $1)) text=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$end" ] || fail "not within time: $text; $(tail -n 3 "$folder/slurmctld.log")"
    sleep 0.1
  done
}
idle_nodes() { sinfo --noheader --nodes="$1" --states=idle --format=%D | grep -qx "$2"; }

node_answers() { sinfo --noheader --nodes="$1" --states=idle,mixed,allocated --format=%t | grep -qv '[*]'; }

pid_of() { cat "$folder/$1.pid" 2>/dev/null || true; }

# A node's daemon and its step daemons hold its log open; what they started knows the node's name.
processes_of_node() {
  find /proc/[0-9]*/fd -lname "$folder/slurmd-$1.log" 2>/dev/null | cut -d/ -f3
  { grep -lsxz "SLURM_CONF=$SLURM_CONF" /proc/[0-9]*/environ || true; } | xargs -r grep -lsxz "SLURMD_NODENAME=$1" | cut -d/ -f3
}

kill_node() {
  local pids
  for _ in 1 2 3; do
    mapfile -t pids < <(processes_of_node "$1" | sort -un)
    [ "${#pids[@]}" -gt 0 ] || return 0
    kill -9 "${pids[@]}" 2>/dev/null || true
  done
}

case $command in
  start)
    [ "$(id -u)" = 0 ] || skip "needs root"
    [ ! -e "$SLURM_CONF" ] || fail "$folder: expected a new folder, found a cluster's"
    mkdir -p "$folder"
    install_packages
    write_configuration
    start_munge
    start_controller
    for node in "${nodes[@]}"; do start_node "$node"; done
    eventually 30 "four idle nodes" idle_nodes n1,n2,n3,n4 4
    say "4 nodes idle; . $folder/environment"
    ;;
  stop)
    scancel --user=root >/dev/null 2>&1 || true
    for node in "${nodes[@]}"; do kill_node "$node"; done
    for name in slurmctld munged; do
      pid=$(pid_of "$name")
      [ -z "$pid" ] || kill -9 "$pid" 2>/dev/null || true
    done
    ;;
  kill-node) kill_node "$3" ;;
  start-node)
    start_node "$3" "${4:-}"
    eventually 30 "$3 is there again" node_answers "$3"
    ;;
  kill-controller)
    pid=$(pid_of slurmctld)
    kill -9 "$pid"
    rm -f "$folder/slurmctld.pid"
    ;;
  start-controller)
    start_controller
    eventually 30 "the controller answers" scontrol ping
    ;;
  *) fail "$usage" ;;
esac
