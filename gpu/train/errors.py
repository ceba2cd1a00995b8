"""What the person at the keyboard can put right: reported in one line, without a traceback."""


class UsageError(ValueError):
    """A setting or a folder that cannot be used; the message says what was expected."""


class DataError(UsageError):
    """A data file that is missing, unreadable or makes no sense; the message names it."""


class CheckpointError(UsageError):
    """A checkpoint or result that is damaged, or that belongs to other data or settings."""
