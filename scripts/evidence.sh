#!/usr/bin/env bash
# The evidence run: both papers' claims on the embedded benchmark, results and tables in docs/evidence (docs/evidence.md).
# bash scripts/evidence.sh [--part noise|generalisation|ablations|figures|all] [--minutes N] [--dry-run]
source "$(dirname "${BASH_SOURCE[0]}")/lib/python.sh"
subcommand evidence "$@"
