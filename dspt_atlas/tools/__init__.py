"""Commands besides training: data sets, the cache, forks, label errors, predictions."""
