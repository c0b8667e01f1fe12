"""`python -m dspt_atlas`, the same as `dspt-atlas`."""

from dspt_atlas.cli import start

if __name__ == "__main__":
    start()
