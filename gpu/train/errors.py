"""What the person at the keyboard can put right: reported in one line, without a traceback."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer


class UsageError(ValueError):
    """A setting or a folder that cannot be used; the message says what was expected."""


class DataError(UsageError):
    """A data file that is missing, unreadable or makes no sense; the message names it."""


class CheckpointError(UsageError):
    """A checkpoint or result that is damaged, or that belongs to other data or settings."""


def refuse_all_but(context: "typer.Context", *allowed: str) -> None:
    """UsageError for an option beside --resume that is none of the allowed ones."""
    for name in context.params:
        source = context.get_parameter_source(name)
        if name not in allowed and source is not None and source.name == "COMMANDLINE":
            raise UsageError(
                f"--resume: continues with the settings of its folder; leave out --{name.replace('_', '-')}"
            )
