#!/usr/bin/env bash
# Zero-shot CLIP: nothing is trained.
# bash scripts/atlas/zeroshot.sh --dataset emoji --seeds 1
source "$(dirname "${BASH_SOURCE[0]}")/../lib/python.sh"
protocol zeroshot "$@"
