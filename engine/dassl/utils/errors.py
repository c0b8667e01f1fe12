"""The exceptions of invalid input; they replace upstream's `assert` statements."""

__all__ = ["DamagedCheckpointError", "InvalidInputError"]


class InvalidInputError(AssertionError, ValueError):
    """Invalid input: caught by callers that expect a ValueError and by those that expect upstream's AssertionError."""


class DamagedCheckpointError(InvalidInputError):
    """A file that is no readable checkpoint: truncated, empty, or something else."""
