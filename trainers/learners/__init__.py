"""Prompt learners: what is learned, and where it enters CLIP."""
