"""Finished runs read back: records, rows, tables."""
