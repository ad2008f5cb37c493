#!/usr/bin/env bash
# A Ray cluster for the time of one command, on the nodes of a Slurm allocation; exits as the command does.
#
#   sbatch --nodes=4 --gpus-per-node=8 --exclusive --signal=B:TERM@120 scripts/slurm.sh lmray sweep run learning_rate --root SHARED
#   salloc --nodes=2 --cpus-per-task=16 bash scripts/slurm.sh lmray sweep run learning_rate --root SHARED
#
# The head and the command run on the allocation's first node, a worker on each other one. Ray is given the CPUs and
# GPUs that Slurm gave the job there, not those the machine has. The dashboard listens on the first node's loopback;
# every client shows a token: yours, or one that is made for this job. A SIGTERM reaches the command, which writes
# its checkpoints; the same line again goes on from them.
#
# LMRAY_VENV      folder of the Python environment, the same on all nodes (by default what is on the PATH)
# LMRAY_HEAD_IP   the first node's address, where the one that Slurm knows is not the one to use
# LMRAY_WAIT_S    how long the nodes may take to join (300)
set -euo pipefail

refuse() {
  echo "error: $1" >&2
  exit "${2:-3}"
}

[ $# -gt 0 ] || refuse "no command; for example: sbatch --nodes=2 scripts/slurm.sh lmray sweep run learning_rate --root SHARED" 2
[ -n "${SLURM_JOB_ID:-}" ] || refuse "not in a Slurm allocation; start this by sbatch or salloc"
[ -z "${LMRAY_VENV:-}" ] || export PATH=$LMRAY_VENV/bin:$PATH
command -v ray >/dev/null || refuse "no ray on the PATH; activate the environment first or set LMRAY_VENV"

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
wait_s=${LMRAY_WAIT_S:-300}
scratch=/tmp/lmray-ray-$SLURM_JOB_ID

# Ports of this job's own: others may have a Ray on the same machine.
port=$((20000 + SLURM_JOB_ID % 1000 * 10))

export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 RAY_LOGGER_LEVEL=warning
# Or Ray Data would notice after 5 minutes that a node that is gone will not answer; the same on all nodes.
export RAY_grpc_client_keepalive_time_ms=20000 RAY_grpc_client_keepalive_timeout_ms=40000
if [ -z "${RAY_AUTH_TOKEN:-}${RAY_AUTH_TOKEN_PATH:-}" ] && [ ! -s ~/.ray/auth_token ]; then
  RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
  export RAY_AUTH_TOKEN
fi

# A step on one node, beside the others and with all that the job has there. Of Slurm's variables those that would
# make a step of the whole job are left out.
on() {
  (become_step "$@")
}

# The same in place of this shell: behind it goes `&`, so that what is signalled is the step and no shell around it.
become_step() {
  local node=$1
  shift
  exec env -u SLURM_NTASKS -u SLURM_NPROCS -u SLURM_NTASKS_PER_NODE -u SLURM_TASKS_PER_NODE -u SLURM_CPUS_PER_TASK \
    srun --overlap --nodes=1 --ntasks=1 --nodelist="$node" --export=ALL "$@"
}

# Where the last node finds the first, which is how all of them will.
address=${LMRAY_HEAD_IP:-}
if [ -z "$address" ]; then
  named=$(scontrol show node "$head" | sed -n 's/.*NodeAddr=\([^ ]*\).*/\1/p')
  address=$(on "${nodes[-1]}" getent ahostsv4 "${named:-$head}" | awk 'NR == 1 {print $1}') || true
  [ -n "$address" ] || refuse "${nodes[-1]} finds no address of ${named:-$head}; set LMRAY_HEAD_IP"
fi
export RAY_ADDRESS=$address:$port

# shellcheck disable=SC2016 # expanded on the node
start='
log=$0/start-$SLURMD_NODENAME.log
ulimit -n "$(ulimit -Hn)"
mkdir -p -m 700 "$0"
for attempt in 1 2 3; do # Ray gives a node half a minute, which a busy one may miss
  ray start --block --num-cpus="$SLURM_CPUS_ON_NODE" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" --temp-dir="$0" "$@" >>"$log" 2>&1
  code=$?
  ! grep -q "Ray runtime started" "$log" || break
done
exit $code'

steps=()
command_step=

stop() {
  trap - EXIT
  [ ${#steps[@]} = 0 ] || kill "${steps[@]}" 2>/dev/null || true
  wait "${steps[@]}" 2>/dev/null || true
}
trap stop EXIT

count='
import sys, time, ray
ray.init(log_to_driver=False, logging_level="ERROR")
while sum(node["Alive"] for node in ray.nodes()) < int(sys.argv[1]):
    time.sleep(0.5)'

until=$((SECONDS + wait_s))
await() { # await N: returns once N nodes have joined
  local step counter
  while true; do
    become_step "$head" timeout "$wait_s" python -c "$count" "$1" </dev/null >/dev/null 2>&1 &
    counter=$!
    while kill -0 "$counter" 2>/dev/null; do
      for step in "${steps[@]}"; do
        kill -0 "$step" 2>/dev/null || refuse "Ray ended on a node before all had joined; see $scratch/start-*.log there" 1
      done
      [ $SECONDS -lt $until ] || refuse "fewer than $1 nodes joined within $wait_s s; see $scratch/start-*.log on them, or raise LMRAY_WAIT_S" 1
      sleep 1
    done
    wait "$counter" && return
  done
}

become_step "$head" bash -c "$start" "$scratch" --head --node-ip-address="$address" --port="$port" \
  --dashboard-host=127.0.0.1 --dashboard-port=$((port + 1)) --ray-client-server-port=$((port + 2)) </dev/null >&2 &
steps+=($!)
await 1 # a worker that finds no head gives up
for node in "${nodes[@]:1}"; do
  become_step "$node" bash -c "$start" "$scratch" --address="$RAY_ADDRESS" </dev/null >&2 &
  steps+=($!)
done
await ${#nodes[@]}
echo "Ray: ${#nodes[@]} nodes at $RAY_ADDRESS, dashboard on $head 127.0.0.1:$((port + 1))" >&2

become_step "$head" --job-name=lmray-command "$@" &
command_step=$!
told=
tell() { # srun itself would answer a SIGTERM by killing the step
  local step
  told=yes
  step=$(squeue --noheader --steps --jobs="$SLURM_JOB_ID" --format="%i %j" | awk '$2 == "lmray-command" {print $1}')
  [ -z "$step" ] || scancel --signal=TERM "$step" || true
}
trap tell TERM INT
code=0
wait "$command_step" || code=$?
while [ -n "$told" ]; do # a signal ends a wait, with a code of its own
  told=
  code=0
  wait "$command_step" || code=$?
done
stop
for node in "${nodes[@]}"; do
  on "$node" rm -rf "$scratch" || true # a job that is cancelled gets no further step
done
exit "$code"
