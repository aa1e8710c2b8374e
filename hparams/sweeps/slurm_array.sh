#!/bin/bash
# Workers of one study as a SLURM job array: every task joins the study in the
# shared folder STUDY and leaves when there is no point left to take. A task
# may be killed or preempted at any time; submit the array again to go on.
#
#   STUDY=/shared/folder sbatch hparams/sweeps/slurm_array.sh \
#       hparams/sweeps/exits/hpopt.yaml --data_folder=/shared/corpus
#
#SBATCH --job-name=sweep
#SBATCH --array=0-7
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --output=sweep-%A_%a.out
# Asked 60 s before it is killed, a worker gives its point back at once.
#SBATCH --signal=TERM@60

set -eu
: "${STUDY:?name the folder that all tasks share: STUDY=... sbatch ...}"

# srun passes signals on to the worker
exec srun "${PYTHON:-python}" -m speechbrain_ee sweep "$1" \
    --study-folder "$STUDY" --no-wait "${@:2}"
