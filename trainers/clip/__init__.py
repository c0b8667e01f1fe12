"""CLIP, frozen: loading it, and its encoders with learned tokens."""
