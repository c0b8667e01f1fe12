#!/usr/bin/env bash
# Wrong training labels, clean test set; finished runs are skipped. In the fork's folder:
# DATA=/folder/of/data bash scripts/dspt_atlas/noisy.sh TRAINER DATASET TYPE RATE [KEY VALUE ...]
# DATASET: a file of configs/datasets; TYPE: sym or asym. Environment: CONFIG, SHOTS, SEEDS, OUTPUT, PYTHON.
set -euo pipefail
if [ $# -lt 4 ] || [ -z "${DATA:-}" ]; then
    echo "Usage: DATA=/folder/of/data bash $0 TRAINER DATASET TYPE RATE [KEY VALUE ...]" >&2
    exit 2
fi
source "$(dirname "${BASH_SOURCE[0]}")/runs.sh"
trainer=$1 dataset=$2 type=$3 rate=$4
shift 4
config=${CONFIG:-CoOp/rn50_ep50} shots=${SHOTS:-16}
case "$rate" in 0 | 1) rate=$rate.0 ;; esac # the keys' type, which yacs asks for
pairs_name "$@"
case "$rate" in *[1-9]*) expected="^Label noise: " ;; esac
for seed in ${SEEDS:-1 2 3}; do
    folder="${OUTPUT:-output}/noisy/$dataset/$type-$rate/$trainer/${config//\//_}_${shots}shots$name/seed$seed"
    run "$folder" "" "$dataset" "$trainer" "$seed" \
        DATASET.NUM_SHOTS "$shots" DATASET.NOISE.TYPE "$type" DATASET.NOISE.RATE "$rate" "$@"
done
