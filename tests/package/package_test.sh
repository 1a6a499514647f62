#!/usr/bin/env bash
# Installs the Debian package on a copy of this system that boots systemd of its own, and uses it as an operator would.
#
#   package_test.sh BUILD_FOLDER
#
# The copy is an overlay in memory, with its own processes and network: nothing of this system is changed. Needs root;
# exit status 77 (skipped) without it or where containers can't be started.
set -euo pipefail

build=$(cd "$1" && pwd)
support=$(cd "$(dirname "${BASH_SOURCE[0]}")/../support" && pwd)
cd /
folder=$(mktemp -d /tmp/onestep-package.XXXXXX)
leader=
nspawn=

say() { printf '%s\n' "package: $*"; }
fail() {
  printf 'package: FAILED: %s\n' "$*" >&2
  if [ -n "$leader" ]; then
    inside journalctl -u onestep-coordinator --no-pager -n 40 >&2 || true
    inside sh -c 'tail -n 20 /var/lib/onestep/jobs/*/logs/*' >&2 || true
  fi
  exit 1
}
skip() {
  say "skipped: $*"
  exit 77
}

clean_up() {
  if [ -n "$nspawn" ]; then
    kill "$nspawn" 2>/dev/null || true
    wait "$nspawn" 2>/dev/null || true
  fi
  umount -R "$folder/root" 2>/dev/null || true
  umount "$folder" 2>/dev/null || true
  rmdir "$folder" 2>/dev/null || true
}
trap clean_up EXIT

inside() { nsenter --target "$leader" --all --wdns=/ env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 "$@"; }

. "$support/eventually.sh"

boot() {
  mount -t tmpfs -o size=4G tmpfs "$folder" || skip "no file systems can be mounted here"
  mkdir "$folder"/{upper,work,root}
  mount -t overlay overlay -o "lowerdir=/,upperdir=$folder/upper,workdir=$folder/work" "$folder/root" ||
    skip "no overlay can be mounted here"
  rm -f "$folder/root/etc/machine-id"
  # It has no network to wait for, as other services that are installed here would.
  ln -sf /dev/null "$folder/root/etc/systemd/system/systemd-networkd-wait-online.service"
  systemd-nspawn --quiet --directory "$folder/root" --machine "onestep-package-$$" --register=no --keep-unit --private-network \
    --boot >"$folder/boot.log" 2>&1 </dev/null &
  nspawn=$!
  local end=$((SECONDS + 60))
  until leader=$(pgrep --parent "$nspawn" 2>/dev/null | head -n 1) && [ -n "$leader" ] &&
    [[ $(nsenter --target "$leader" --all systemctl is-system-running 2>/dev/null) =~ ^(running|degraded)$ ]]; do
    kill -0 "$nspawn" 2>/dev/null || skip "no container can be started here: $(tail -n 3 "$folder/boot.log")"
    [ "$SECONDS" -lt "$end" ] || fail "systemd did not come up: $(tail -n 5 "$folder/boot.log")"
    sleep 0.2
  done
}

main_pid() { inside systemctl show --property MainPID --value onestep-coordinator; }
healthy() { inside curl -fsS http://127.0.0.1:8080/readyz; }
job_state() { inside onestep show "$1" --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["state"])'; }
job_is() { [ "$(job_state "$1")" = "$2" ]; }
worker_pid() { inside pgrep -u onestep -x onestep-worker | head -n 1; }

[ "$(id -u)" = 0 ] || skip "needs root"
if ! command -v systemd-nspawn >/dev/null; then
  apt-get -o DPkg::Lock::Timeout=600 install -y --no-install-recommends systemd-container >/dev/null 2>&1 ||
    skip "systemd-nspawn is missing and can't be installed"
fi
rm -rf "$build/package"
cpack --config "$build/CPackConfig.cmake" -B "$build/package" >/dev/null 2>&1
package=$(echo "$build"/package/onestep_*_amd64.deb)

boot
cp "$package" "$folder/root/root/onestep.deb"
mkdir "$folder/root/srv/data"
cp "$build/data/digits.h5" "$folder/root/srv/data/"
cat >"$folder/root/srv/job.json" <<'JSON'
{"name": "teacher", "kind": "train_teacher", "ranks": 1, "seed": 3, "dataset": {"path": "/srv/data/digits.h5", "resolution": 14},
 "network": {"attention_resolutions": []}, "images": 25600, "batch": 128, "checkpoint": {"every_iterations": 20}}
JSON

say "installs and starts"
inside dpkg --install /root/onestep.deb >"$folder/dpkg.log" 2>&1
eventually 20 "the service answers" healthy
[ "$(inside systemctl is-enabled onestep-coordinator)" = enabled ] || fail "the service is not enabled"
[ "$(inside ps -o user= -p "$(main_pid)")" = onestep ] || fail "the service does not run as its own user"
# The libraries come from the package, not from whoever built it.
! inside ldd /usr/bin/onestep-worker | grep -qE 'not found|/root/' || fail "the worker's libraries: $(inside ldd /usr/bin/onestep-worker)"

say "a running job outlives a killed coordinator, and a restarted one"
inside onestep submit /srv/job.json >/dev/null
eventually 60 "the job runs" job_is teacher running
worker=$(worker_pid)
before=$(main_pid)
inside kill -9 "$before"
eventually 30 "systemd starts it again" healthy
[ "$(main_pid)" != "$before" ] || fail "it is still the killed process"
[ "$(worker_pid)" = "$worker" ] || fail "the worker did not outlive the killed coordinator"
inside systemctl restart onestep-coordinator
eventually 30 "it answers after a restart" healthy
[ "$(worker_pid)" = "$worker" ] || fail "the worker did not outlive the restart"
eventually 180 "the job succeeds" job_is teacher succeeded
[ "$(inside onestep show teacher --json | python3 -c 'import json, sys; print(len(json.load(sys.stdin)["attempts"]))')" = 1 ] ||
  fail "the job took more than one attempt"

say "an upgrade keeps the configuration and the jobs"
inside sed -i 's/^#slots = 8/slots = 3/' /etc/onestep/coordinator.toml
inside dpkg --install /root/onestep.deb >"$folder/dpkg.log" 2>&1
eventually 20 "it answers after the upgrade" healthy
inside grep -q '^slots = 3' /etc/onestep/coordinator.toml || fail "the configuration was overwritten"
job_is teacher succeeded || fail "the job is gone"

say "a wrong configuration is said in the journal"
inside sed -i 's/^slots = 3/slotz = 3/' /etc/onestep/coordinator.toml
inside systemctl restart onestep-coordinator || true
eventually 10 "the journal names the key" sh -c "nsenter --target $leader --all journalctl -u onestep-coordinator --no-pager | grep -q slotz"

say "removed, the data stay"
inside dpkg --remove onestep >"$folder/dpkg.log" 2>&1
! inside test -e /usr/bin/onestep || fail "programs are left"
inside test -f /var/lib/onestep/coordinator.sqlite || fail "the data are gone"
say "done"
