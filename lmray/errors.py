"""What lmray raises for a user's mistake: one line with value, rule and remedy, and an exit code.

Anything else that is raised is a fault of lmray or of the machine and keeps its traceback.
"""


class LmrayError(Exception):
    """A failure that lmray explains in one line; the command line exits with `exit_code`."""

    exit_code = 1


class UsageError(LmrayError, ValueError):
    """The request itself is wrong: an unknown name, an impossible value, an unknown key."""

    exit_code = 2


class PreflightError(LmrayError, ValueError):
    """What a well-formed request needs is not there or does not fit; nothing was started."""

    exit_code = 3


class LimitError(LmrayError):
    """A limit that was set for work was reached on its way; what was begun can be gone on with."""

    exit_code = 3


class CorruptionError(LmrayError):
    """A file is not what its own record says: truncated, altered, or made by something else."""
