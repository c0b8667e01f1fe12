"""Losses, soft labels, encoders, prompt learners and trainers; everything is imported from its own module."""
