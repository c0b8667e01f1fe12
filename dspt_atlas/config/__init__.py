"""From defaults, yaml files and a command line to a configuration; the keys and their meaning."""
