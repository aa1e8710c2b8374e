#!/bin/bash
# A sweep as a SLURM job array: task n trains point n, whose values follow from
# the seed and n. No server is needed, only the shared folder STUDY. A task may
# be killed or preempted at any time: it goes on where it was. What failed or
# ran out of time is run by submitting the same array again; points that are
# done take no time. Give the array as many tasks as there are points, and %8
# for at most 8 at a time.
#
#   STUDY=/shared/folder sbatch --array=0-23%8 hparams/sweeps/slurm_array.sh \
#       hparams/sweeps/exits/hpopt.yaml --data_folder=/shared/corpus
#
# The results so far:
#
#   python -m speechbrain_ee sweep hparams/sweeps/exits/hpopt.yaml \
#       --study-folder /shared/folder --workers 0
#
#SBATCH --job-name=sweep
#SBATCH --array=0-7
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --output=sweep-%A_%a.out
# Asked 60 s before it is killed, a training ends in order.
#SBATCH --signal=TERM@60

set -eu
: "${STUDY:?name the folder that all tasks share: STUDY=... sbatch ...}"

# srun passes signals on
exec srun "${PYTHON:-python}" -m speechbrain_ee sweep "$1" \
    --study-folder "$STUDY" --point "$SLURM_ARRAY_TASK_ID" "${@:2}"
