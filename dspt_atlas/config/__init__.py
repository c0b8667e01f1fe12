"""From defaults, yaml files and a command line to a configuration; which keys there are and what they mean."""
