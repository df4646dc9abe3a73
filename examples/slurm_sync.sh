#!/bin/sh
# Copy a mirror with many workers, then write its index. Submit once; the job array is the first step of two:
#
#   SOURCE=https://mirror.example.org/spack KEY=owner.asc DEST=/shared/mirror sbatch examples/slurm_sync.sh
#
# Every worker copies its own part (--shard I/N). A worker that fails can run again: it copies only the rest.
# Without Slurm: PART=3 PARTS=8 sh examples/slurm_sync.sh   and at the end   PUBLISH=yes sh examples/slurm_sync.sh
#
#SBATCH --job-name=cachefetch-sync
#SBATCH --array=1-4
#SBATCH --cpus-per-task=2
#SBATCH --time=04:00:00
set -eu

: "${SOURCE:?the mirror to copy from}" "${KEY:?the public key of its owner}" "${DEST:?the directory to fill}"
: "${SPECS:=--all}" "${CACHEFETCH:=cachefetch}"
part=${SLURM_ARRAY_TASK_ID:-${PART:-1}}
parts=${SLURM_ARRAY_TASK_COUNT:-${PARTS:-1}}

if [ "${PUBLISH:-no}" = yes ]; then
  # shellcheck disable=SC2086 -- SPECS is a list of words
  exec $CACHEFETCH sync $SPECS --from "$SOURCE" --key "$KEY" --to "$DEST" --publish
fi

# The first worker queues the last step: it starts when all workers have ended well.
if [ -n "${SLURM_ARRAY_JOB_ID:-}" ] && [ "$part" = 1 ]; then
  export SOURCE KEY DEST SPECS CACHEFETCH
  PUBLISH=yes sbatch --array=1-1 --dependency="afterok:$SLURM_ARRAY_JOB_ID" "$0"
fi

# shellcheck disable=SC2086 -- SPECS is a list of words
exec $CACHEFETCH sync $SPECS --from "$SOURCE" --key "$KEY" --to "$DEST" --shard "$part/$parts" --wait
