#!/usr/bin/env bash
# Cross-dataset: train on a source, test on other data sets.
# bash scripts/dspt/crossdataset.sh --source emoji --seeds 1,2,3
source "$(dirname "${BASH_SOURCE[0]}")/../lib/python.sh"
PROTOCOL_TRAINER=CoOpDSPT protocol crossdataset "$@"
