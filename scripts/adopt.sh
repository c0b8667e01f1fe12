#!/usr/bin/env bash
# Copy configurations and scripts into a fork of CoOp, MaPLe and so on, and show the two lines that its train.py needs.
# bash scripts/adopt.sh FORK [--dry-run] [--undo]
source "$(dirname "${BASH_SOURCE[0]}")/lib/python.sh"
subcommand adopt "$@"
