"""Losses, soft labels, encoders, prompt learners and trainers; import each from its own module."""
