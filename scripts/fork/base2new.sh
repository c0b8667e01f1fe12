#!/usr/bin/env bash
# Train on the first half of the classes, test on the other half; finished runs are skipped. In the fork's folder:
# DATA=/folder/of/data bash scripts/dspt_atlas/base2new.sh TRAINER DATASET [KEY VALUE ...]
# DATASET: a file of configs/datasets. Environment: CONFIG, SHOTS, SEEDS, OUTPUT, PYTHON.
set -euo pipefail
if [ $# -lt 2 ] || [ -z "${DATA:-}" ]; then
    echo "Usage: DATA=/folder/of/data bash $0 TRAINER DATASET [KEY VALUE ...]" >&2
    exit 2
fi
trainer=$1 dataset=$2
shift 2
pairs=("$@")
config=${CONFIG:-CoOp/vit_b16_ep50_ctxv1} shots=${SHOTS:-16}

run() { # FOLDER CLASSES [OPTION ...]
    if [ -e "$1/done" ]; then
        echo "Finished already: $1"
        return
    fi
    "${PYTHON:-python}" train.py --root "$DATA" --seed "$seed" --trainer "$trainer" --output-dir "$1" "${@:3}" \
        --dataset-config-file "configs/datasets/$dataset.yaml" --config-file "configs/trainers/$config.yaml" \
        DATASET.NUM_SHOTS "$shots" DATASET.SUBSAMPLE_CLASSES "$2" ${pairs[@]+"${pairs[@]}"}
    touch "$1/done"
}

for seed in ${SEEDS:-1 2 3}; do
    path="$dataset/shots_$shots/$trainer/${config//\//_}/seed$seed"
    trained="${OUTPUT:-output}/base2new/train_base/$path"
    run "$trained" base
    run "${OUTPUT:-output}/base2new/test_new/$path" new --eval-only --model-dir "$trained"
done
