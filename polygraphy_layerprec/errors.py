"""The one kind of error whose text is for whoever uses the tool."""

from __future__ import annotations

__all__ = ["UserError"]


class UserError(ValueError):
    """What a user can fix: the text says what was wrong, where, and what to do.

    Commands show the text and end with exit code 1, without a traceback.
    """
