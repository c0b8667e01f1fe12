"""Views of images and the cache of frozen image features."""
