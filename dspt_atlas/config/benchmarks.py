"""Which data sets belong together in the protocols. Names are those of the files in configs/datasets."""

from __future__ import annotations

BASE_TO_NEW = (
    "imagenet",
    "caltech101",
    "oxford_pets",
    "stanford_cars",
    "oxford_flowers",
    "food101",
    "fgvc_aircraft",
    "sun397",
    "dtd",
    "eurosat",
    "ucf101",
)
EMBEDDED = ("emoji", "emoji_objects", "emoji_v2", "emoji_flat", "emoji_ink")

# Source: its targets without further training.
CROSS_DATASET = {"imagenet": BASE_TO_NEW[1:], "emoji": ("emoji_objects",)}
DOMAIN_GENERALISATION = {
    "imagenet": ("imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r"),
    "emoji": ("emoji_v2", "emoji_flat", "emoji_ink"),
}
# The same by the names of the data set classes, which results carry.
DOMAIN_VARIANTS = {
    "ImageNet": ("ImageNetV2", "ImageNetSketch", "ImageNetA", "ImageNetR"),
    "Emoji": ("EmojiV2", "EmojiFlat", "EmojiInk"),
}
