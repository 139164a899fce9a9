#!/usr/bin/env bash
# A Slurm cluster of one node, said to have 8 CPUs, on this machine; of its own folder, key and ports:
#   cluster.sh start DIR [PID]   start it (again: nothing); it stops when the process PID has ended
#   cluster.sh stop DIR          end its jobs and daemons; leaves their logs in DIR
# Needs Debian's packages slurm-wlm and munge, no systemd, no cgroups, no root (jobs run as you).
# Then `SLURM_CONF=DIR/slurm.conf sbatch ...`. Says in one line why it cannot, with exit code 1.
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin

fail() { echo "no Slurm cluster: $*" >&2; exit 1; }
usage() { sed -n '2,4s/^# \{0,1\}//p' "$0" >&2; exit 2; }
# A process that nobody has waited for yet has ended, too.
ended() { ! grep -q '^State:[[:space:]]*[^ZX[:space:]]' "/proc/$1/status" 2>/dev/null; }
started() { [ -e "$dir/$1.pid" ] && ! ended "$(cat "$dir/$1.pid")"; }
slurm() { timeout 20 env SLURM_CONF="$dir/slurm.conf" "$@"; }

# A port that nobody listens on.
port() {
  local port
  while port=$((20000 + RANDOM % 10000)); do
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
  done
}

# Waits until a command succeeds, for so many tenths of a second.
await() {
  local tenths=$1; shift
  for ((; tenths > 0; tenths--)); do "$@" >/dev/null 2>&1 && return; sleep 0.1; done
  return 1
}

configure() {
  local host user
  host=$(hostname -s) user=$(id -un)
  mkdir -p "$dir"/{state,spool}
  chmod 755 "$dir"
  [ -e "$dir/munge.key" ] || (umask 077; head -c 1024 /dev/urandom >"$dir/munge.key")
  # cred_expire: a job that is requeued waits for as long. KillWait: from SIGTERM to SIGKILL.
  cat >"$dir/slurm.conf" <<END
ClusterName=robust
SlurmctldHost=$host(127.0.0.1)
SlurmUser=$user
SlurmdUser=$user
AuthInfo=socket=$dir/munge.socket,cred_expire=5
SlurmctldPort=$(port)
SlurmdPort=$(port)
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
SlurmdParameters=config_overrides
ReturnToService=2
JobRequeue=1
KillWait=2
NodeName=$host NodeAddr=127.0.0.1 CPUs=8 RealMemory=16000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END
}

start() {
  local tool
  for tool in munged slurmctld slurmd sbatch srun squeue scontrol scancel; do
    command -v "$tool" >/dev/null || fail "$tool is missing (apt-get install slurm-wlm munge)"
  done
  if started slurmctld && started slurmd && started munged; then return; fi
  stop
  mkdir -p "$dir" 2>/dev/null && [ -w "$dir" ] || fail "cannot write $dir"
  configure
  trap stop ERR EXIT
  munged --key-file "$dir/munge.key" --socket "$dir/munge.socket" --pid-file "$dir/munged.pid" \
    --log-file "$dir/munged.log" --seed-file "$dir/munged.seed" --num-threads 2 --force \
    2>/dev/null || fail "munged does not start: $(tail -n 1 "$dir/munged.log" 2>/dev/null)"
  slurmctld -f "$dir/slurm.conf" -c || fail "slurmctld does not start: see $dir/slurmctld.log"
  ROBUST_SLURM=$dir slurmd -f "$dir/slurm.conf" || fail "slurmd does not start: see $dir/slurmd.log"
  await 200 is_idle || fail "the node does not come up: see $dir/slurmd.log"
  trap - ERR EXIT
  if [ -n "${1:-}" ]; then
    setsid "$0" watch "$dir" "$1" </dev/null >/dev/null 2>&1 &
  fi
}

is_idle() { slurm sinfo --noheader --format %T | grep -qx idle; }
no_jobs() { [ -z "$(slurm squeue --noheader)" ]; }

stop() {
  local name pid
  if started slurmctld; then
    slurm scancel --user "$(id -un)" 2>/dev/null || true
    await 80 no_jobs || true
  fi
  for name in slurmd slurmctld munged; do
    started "$name" || continue
    pid=$(cat "$dir/$name.pid")
    kill "$pid"
    await 50 ended "$pid" || kill -9 "$pid"
  done
  # What has outlived them: step managers, and processes of jobs.
  for pid in /proc/[0-9]*; do
    ours "$pid" && kill -9 "${pid#/proc/}" 2>/dev/null
  done
  rm -f "$dir"/{slurmd,slurmctld,munged}.pid
}

ours() {
  { grep -qzxF "ROBUST_SLURM=$dir" "$1/environ" ||
    { grep -qzxF "SLURM_CONF=$dir/slurm.conf" "$1/environ" &&
      grep -qz "^SLURM_JOB_ID=" "$1/environ"; }; } 2>/dev/null
}

watch() {
  while started slurmctld; do
    ended "$1" && { stop; return; }
    sleep 1
  done
}

[ $# -ge 2 ] || usage
dir=$(realpath -m "$2")
case $1 in
  start) start "${3:-}" ;;
  stop) stop ;;
  watch) watch "$3" ;;
  *) usage ;;
esac
