"""The embedded benchmark's data sets and backbones, and data sets that are versions of another one."""

from __future__ import annotations

EMBEDDED = ("emoji", "emoji_objects", "emoji_v2", "emoji_flat", "emoji_ink")

# Sources of domain generalisation and their targets, by the names of the data set classes, as in results.
DOMAIN_VARIANTS = {
    "ImageNet": ("ImageNetV2", "ImageNetSketch", "ImageNetA", "ImageNetR"),
    "Emoji": ("EmojiV2", "EmojiFlat", "EmojiInk"),
}
