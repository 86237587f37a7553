"""Reads the words of single options, as the command line and the library take them: counts and times.

Each raises `argparse.ArgumentTypeError`, whose text argparse shows as it stands.
"""

from __future__ import annotations

import argparse
import re

_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?")


def duration(text: str) -> float:
    """Read a time such as ``90s``, ``30m``, ``2h``, ``1h30m`` as seconds.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    match = _DURATION.fullmatch(text.strip())
    if not match or not any(match.groups()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 90s, 30m, 2h or 1h30m")
    days, hours, minutes, seconds = (int(group or 0) for group in match.groups())
    total = float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
    if total <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} must be more than 0")
    return total


def interval(text: str) -> float | None:
    """Read a time, "every-epoch" as 0, or "off" as None.

    Raises:
        argparse.ArgumentTypeError: it is neither.
    """
    if text == "off":
        return None
    if text == "every-epoch":
        return 0.0
    try:
        return duration(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a time such as 30s or 5m, every-epoch or off"
        ) from None


def duration_word(seconds: float) -> str:
    """Write a time as `duration` reads it, "1h30m"."""
    hours, rest = divmod(seconds, 3600)
    minutes, rest = divmod(rest, 60)
    return "".join(f"{n:g}{unit}" for n, unit in ((hours, "h"), (minutes, "m"), (rest, "s")) if n) or "0s"


def count(text: str) -> int:
    """Read a whole number of at least 1.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def natural(text: str) -> int:
    """Read a whole number of at least 0.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def count_or_auto(text: str) -> int | None:
    """Read a whole number of at least 1, or "auto" as None.

    Raises:
        argparse.ArgumentTypeError: it is neither.
    """
    return None if text == "auto" else count(text)
