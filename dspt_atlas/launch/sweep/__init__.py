"""Sweeps: a yaml of trainers, data sets, seeds and keys becomes runs of train.py, done by a launcher."""
