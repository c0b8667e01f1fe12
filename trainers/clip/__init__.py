"""Frozen CLIP: loading it, and its encoders with learned tokens."""
