"""The one error that ends a command with exit code 2."""


class CannotRunError(Exception):
    """The command could not do its work; the message is one sentence: what is wrong, what to do.

    The message never holds a password.
    """
