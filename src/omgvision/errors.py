"""Errors that a user can cause and repair."""


class UserError(ValueError):
    """What the user gave cannot be used.

    The message is one line that says what is wrong, what was expected, what was given and what to do about it.
    The command line prints it to stderr and exits with code 2.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class TooLongError(UserError):
    """A conversation is longer than the model can read.

    Attributes:
        missing: By so many tokens.
    """

    def __init__(self, message: str, *, missing: int) -> None:
        super().__init__(message)
        self.missing = missing
