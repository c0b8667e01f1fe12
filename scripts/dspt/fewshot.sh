#!/usr/bin/env bash
# Few-shot: 1, 2, 4, 8 and 16 images per class.
# bash scripts/dspt/fewshot.sh --dataset emoji --seeds 1,2,3
source "$(dirname "${BASH_SOURCE[0]}")/../lib/python.sh"
PROTOCOL_TRAINER=CoOpDSPT protocol fewshot "$@"
