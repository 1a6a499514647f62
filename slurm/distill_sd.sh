#!/usr/bin/env bash
# Distils a model on a Slurm cluster: edit the three places, then
#
#   sbatch slurm/distill_sd.sh                         or   CONFIG=FILE sbatch slurm/distill_sd.sh
#
# Before its time limit it saves, requeues itself and goes on; a lost node costs the work since the last checkpoint.
# docs/slurm.md has the whole story and a transcript.

# 1. EDIT: who pays, and where
##SBATCH --account=ACCOUNT
##SBATCH --partition=PARTITION

# 2. EDIT: nodes, ranks a node (one for each GPU), and how long at a time
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
##SBATCH --gpus-per-node=8
#SBATCH --time=04:00:00

# Nothing to edit: how it is requeued, and told to save (sbatch reads no such lines behind the first command).
#SBATCH --job-name=onestep
#SBATCH --output=onestep-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --no-kill
#SBATCH --signal=B:USR1@120

# 3. EDIT: what to run
CONFIG=${CONFIG:-configs/sd15/tiny.json}

# Environment:
#   ONESTEP_DATA    folder for everything that is kept, on a file system that all nodes share (default: onestep-data beside
#                   the project). Runs of one file in one folder are one run: a finished one is not run again.
#   ONESTEP_BIN     folder of the programs (default: build/bin of the project, else PATH)
#   ONESTEP_ROOTS   further folders, separated by ':', that the jobs read files in
#   ONESTEP_SET     changes of the file, JOB.KEY=VALUE separated by blanks
#   ONESTEP_URL     a coordinator that runs elsewhere: the jobs go there, and nothing is started here
#   SAVE_TIME       seconds before the time limit that --signal says (120)

# sbatch runs a copy of this file; Slurm knows where it came from.
set -euo pipefail
script=$(scontrol --oneliner show job "${SLURM_JOB_ID:?"expected to run under sbatch"}" | grep -o ' Command=[^ ]*' | cut -d= -f2)
root=$(cd "$(dirname "$script")/.." && pwd)
. "$root/slurm/run.sh"
run_pipeline
