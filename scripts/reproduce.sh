#!/usr/bin/env bash
# Every protocol of a benchmark, with its tables in OUTPUT/tables.md; finished runs are not done again.
# bash scripts/reproduce.sh embedded [options that all protocols take]
source "$(dirname "${BASH_SOURCE[0]}")/lib/python.sh"
protocol "$@"
