"""What tests of addresses ask of code that they write."""

from __future__ import annotations

import textwrap

from gridsearch import plugins


def address(target, **given):
    found = plugins.identity(target, **given)
    assert not found.missing or given, found.missing
    return found.source


def made(code, name="f", **around):
    """Run code as a prompt, a notebook's cell or `exec` does: there is no file."""
    space = {"__name__": "__main__", **around}
    exec(textwrap.dedent(code), space)
    return space[name]
