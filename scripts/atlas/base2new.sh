#!/usr/bin/env bash
# Base to new: half of the classes for training, all for testing.
# bash scripts/atlas/base2new.sh --dataset emoji --seeds 1,2,3
source "$(dirname "${BASH_SOURCE[0]}")/../lib/python.sh"
PROTOCOL_TRAINER=CoOpATLaS protocol base2new "$@"
