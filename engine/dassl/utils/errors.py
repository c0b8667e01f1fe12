"""The exception that replaces upstream's `assert` statements."""

__all__ = ["InvalidInputError"]


class InvalidInputError(AssertionError, ValueError):
    """Invalid input: caught by callers that expect a ValueError and by those that expect upstream's AssertionError."""
