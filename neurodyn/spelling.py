"""The name that a misspelt one was probably meant to be, for messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str:
    """ " (did you mean 'x'?)" for the closest of the known names, empty where none is close."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def check_options(where: str, given: Iterable[str], known: Iterable[str], needed: Iterable[str] = ()) -> None:
    """Refuse options that do not exist, and demand those that have no default.

    Args:
        where: what the options are of, to begin the message with.

    Raises:
        ValueError: one line naming the first option that is unknown (and the nearest known one) or missing.
    """
    given, known = list(given), list(known)
    for name in given:
        if name not in known:
            choice = f"some of {', '.join(known)}" if known else "none"
            raise ValueError(f"{where}: {name!r} given{nearest(name, known)}, {choice} wanted")
    for name in needed:
        if name not in given:
            raise ValueError(f"{where}: {name!r} not given, wanted")
