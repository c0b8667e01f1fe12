#!/usr/bin/env bash
# Domain generalisation: train on a source, test on other versions of it.
# bash scripts/atlas/domain_generalisation.sh --source emoji --seeds 1,2,3
source "$(dirname "${BASH_SOURCE[0]}")/../lib/python.sh"
PROTOCOL_TRAINER=CoOpATLaS protocol domain_generalisation "$@"
