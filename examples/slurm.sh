#!/bin/bash
# A training stage on several nodes of a SLURM cluster, a process for each GPU:
#
#   sbatch --nodes 2 examples/slurm.sh sft --model runs/pretrain --data demonstrations.jsonl --out runs/sft --optimizer.fsdp
#
# Paths, and the environment that has amenable, are on a disk that all nodes share. Five minutes before the time limit,
# or on `scancel --signal=TERM JOB`, the run saves a checkpoint after its step and the job is queued again: it goes on
# from there. So does the same command after a failure, with any number of nodes.

#SBATCH --job-name=amenable
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log

set -euo pipefail

hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
export MASTER_ADDR=${hosts%%$'\n'*}
export MASTER_PORT=${MASTER_PORT:-$((20000 + SLURM_JOB_ID % 20000))}
export WORLD_SIZE=$SLURM_NTASKS LOCAL_WORLD_SIZE=$SLURM_NTASKS_PER_NODE
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}

code=0
srun --wait=60 bash -c 'export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID; exec python -m amenable "$@"' \
    amenable "$@" || code=$?
if [ "$code" -eq 130 ]; then # stopped by the signal, after a checkpoint
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
