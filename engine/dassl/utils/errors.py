"""The exceptions of invalid input; they replace upstream's `assert` statements."""

__all__ = ["DamagedCheckpointError", "InvalidInputError"]


class InvalidInputError(AssertionError, ValueError):
    """Invalid input; callers that expect a ValueError catch it, and those that expect upstream's AssertionError too."""


class DamagedCheckpointError(InvalidInputError):
    """A file that is not a readable checkpoint: truncated, empty, or something else."""
