#!/bin/bash
# Trains on several nodes of a cluster with SLURM, and queues itself again until the run is complete:
#   sbatch docs/slurm.sh simclr-v1 --data /shared/images
# The arguments are those of `contralex train`. Change the numbers below, and load what the nodes need (see "environment").
#SBATCH --job-name=contralex
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.out

# environment: source /shared/venv/bin/activate

export MASTER_ADDR MASTER_PORT WORLD_SIZE LOCAL_WORLD_SIZE
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
WORLD_SIZE=$SLURM_NTASKS
LOCAL_WORLD_SIZE=$SLURM_NTASKS_PER_NODE

out=${OUT:-runs/$SLURM_JOB_ID} # in a folder that all nodes share; a requeued job has the same number
if [ -d "$out" ]; then
    arguments=(--out "$out" --resume)
else
    arguments=("$@" --out "$out" --set "train.workers=$((SLURM_CPUS_PER_TASK - 1))")
fi

# One task for each GPU. Each gets SLURM's signal itself, and saves at the end of its next step.
# shellcheck disable=SC2016  # the variables are the tasks' own
srun --kill-on-bad-exit=1 bash -c 'export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID; exec contralex train "$@"' \
    contralex "${arguments[@]}"
code=$?

if [ "$code" -eq 143 ]; then # 128 + SIGTERM: the run is saved, and not complete
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
