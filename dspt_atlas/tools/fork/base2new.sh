#!/usr/bin/env bash
# Train on the first half of the classes, test on the other half; finished runs are skipped. In the fork's folder:
# DATA=/folder/of/data bash scripts/dspt_atlas/base2new.sh TRAINER DATASET [KEY VALUE ...]
# DATASET: a file of configs/datasets. Environment: CONFIG, SHOTS, SEEDS, OUTPUT, PYTHON.
set -euo pipefail
if [ $# -lt 2 ] || [ -z "${DATA:-}" ]; then
    echo "Usage: DATA=/folder/of/data bash $0 TRAINER DATASET [KEY VALUE ...]" >&2
    exit 2
fi
source "$(dirname "${BASH_SOURCE[0]}")/runs.sh"
trainer=$1 dataset=$2
shift 2
config=${CONFIG:-CoOp/vit_b16_ep50_ctxv1} shots=${SHOTS:-16}
pairs_name "$@"
for seed in ${SEEDS:-1 2 3}; do
    path="$dataset/shots_$shots/$trainer/${config//\//_}$name/seed$seed"
    trained="${OUTPUT:-output}/base2new/train_base/$path"
    settings=(DATASET.NUM_SHOTS "$shots" "$@")
    run "$trained" "" "$dataset" "$trainer" "$seed" DATASET.SUBSAMPLE_CLASSES base "${settings[@]}"
    run "${OUTPUT:-output}/base2new/test_new/$path" "$trained" "$dataset" "$trainer" "$seed" \
        DATASET.SUBSAMPLE_CLASSES new "${settings[@]}"
done
