#!/bin/bash
#SBATCH --job-name=distgrad
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=4
#SBATCH --time=00:30:00
#SBATCH --output=%x-%j.log

# Starts one Ray node on each machine of the job, runs a driver on the first machine, and ends what it started:
#
#     sbatch --nodes=4 cluster/slurm.sh python examples/digits.py --address auto
#
# Needs `ray` and `python` of the environment distgrad is installed in on PATH (activate it before sbatch).
# DISTGRAD_JOIN_SECONDS (default 120) limits the wait for all nodes.

set -euo pipefail

if (($# == 0)); then
    set -- python examples/digits.py --address auto
fi
join_seconds=${DISTGRAD_JOIN_SECONDS:-120}
cpus=${SLURM_CPUS_PER_TASK:-1}

# Ray starts its workers at nice 15; on machines of this job alone that only slows them down.
export RAY_worker_niceness=0
# Other users of these machines must not reach the cluster: a token of this job's own, handed on by srun's environment.
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token
# Ray's files in a directory of this job's own, so that two jobs on one machine do not find each other.
export RAY_TMPDIR="${TMPDIR:-/tmp}/ray-${SLURM_JOB_ID}"

mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${hosts[0]}
workers=$((${#hosts[@]} - 1))
# Asked of Ray and not of `hostname`, which names the loopback address on machines that map their own name to it.
head_ip=$(srun --nodes=1 --ntasks=1 --nodelist="$head" \
    python -c 'import ray; print(ray.util.get_node_ip_address())')
# Between Ray's worker ports (up to 19999) and the ephemeral ports of Linux (from 32768).
port=$((20000 + SLURM_JOB_ID % 12000))
export RAY_ADDRESS="$head_ip:$port"

steps=()

# Ends the job steps that run `ray start --block`, which end their own Ray processes. No `ray stop`: it would also end
# the Ray of another job on the same machine.
tear_down() {
    trap - EXIT
    trap '' INT TERM
    local pid waited
    for pid in ${steps[@]+"${steps[@]}"}; do
        kill -TERM "$pid" 2>/dev/null || true
    done
    for pid in ${steps[@]+"${steps[@]}"}; do
        for ((waited = 0; waited < 30; waited++)); do
            kill -0 "$pid" 2>/dev/null || break
            sleep 1
        done
        # Slurm ends the tasks of a step whose srun is gone.
        kill -KILL "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    srun --ntasks-per-node=1 rm -rf -- "$RAY_TMPDIR" || echo "slurm.sh: could not delete $RAY_TMPDIR everywhere" >&2
}
trap tear_down EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

srun --nodes=1 --ntasks=1 --nodelist="$head" --cpus-per-task="$cpus" \
    env -u RAY_ADDRESS ray start --head --node-ip-address="$head_ip" --port="$port" --num-cpus="$cpus" \
    --include-dashboard=false --disable-usage-stats --block &
steps+=($!)

# A node that asks before the head listens gives up on its own terms, so wait for the head first.
python - "$head_ip" "$port" "$join_seconds" <<'PYTHON'
import socket, sys, time

host, port, limit = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
deadline = time.monotonic() + limit
while True:
    try:
        socket.create_connection((host, port), timeout=2).close()
        break
    except OSError as error:
        if time.monotonic() > deadline:
            sys.exit(f"slurm.sh: the Ray head at {host}:{port} did not answer within {limit:g} s ({error}); "
                     "DISTGRAD_JOIN_SECONDS changes the limit")
        time.sleep(0.5)
PYTHON

if ((workers > 0)); then
    srun --nodes="$workers" --ntasks="$workers" --exclude="$head" --cpus-per-task="$cpus" \
        ray start --address="$RAY_ADDRESS" --num-cpus="$cpus" --disable-usage-stats --block &
    steps+=($!)
fi

python - "$join_seconds" "${hosts[@]}" <<'PYTHON'
import sys, time

import ray

limit, hosts = float(sys.argv[1]), sys.argv[2:]
ray.init(address="auto", log_to_driver=False)
deadline = time.monotonic() + limit
while True:
    joined = [node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"]]
    if len(joined) >= len(hosts):
        break
    if time.monotonic() > deadline:
        sys.exit(f"slurm.sh: {len(joined)} of {len(hosts)} Ray nodes joined within {limit:g} s: {joined} of {hosts}; "
                 "DISTGRAD_JOIN_SECONDS changes the limit")
    time.sleep(0.5)
print(f"slurm.sh: {len(joined)} Ray nodes", flush=True)
PYTHON

# In the background with `wait`: bash runs a trap only between commands, and a signal must end the driver too. It is always
# SIGTERM, because a background command of a script ignores SIGINT.
"$@" &
driver=$!
stop_driver() {
    kill -TERM "$driver" 2>/dev/null || true
    wait "$driver" || true
    exit "$1"
}
trap 'stop_driver 143' TERM
trap 'stop_driver 130' INT
status=0
wait "$driver" || status=$?
exit "$status"
