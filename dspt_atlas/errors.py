"""The exception of a user's mistake."""


class UserError(ValueError):
    """A user's mistake, in one sentence: what was expected, what came, the valid choices, what to do."""
