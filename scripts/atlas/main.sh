#!/usr/bin/env bash
# Noisy labels: DATASET TYPE RATE.
# bash scripts/atlas/main.sh emoji sym 0.5 --seeds 1,2,3
source "$(dirname "${BASH_SOURCE[0]}")/../lib/python.sh"
PROTOCOL_TRAINER=CoOpATLaS protocol noisy "$@"
