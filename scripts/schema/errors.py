"""Errors that end a command: exit code 2, or 143."""


class CannotRunError(Exception):
    """The command could not do its work; the message is one sentence: what is wrong, what to do.

    The message never holds a password.
    """


class TerminatedError(KeyboardInterrupt):
    """SIGTERM or SIGHUP arrived: like Ctrl-C, it unwinds the program, so that servers stop."""
