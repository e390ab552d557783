"""How a check of the kit speaks: what is wrong, and how to mend it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import GenxaiError, one_line


def failure(wrong: str, mend: str) -> AssertionError:
    """Return the error of a check that failed, with both texts."""
    return AssertionError(f"{wrong}\n  To mend: {mend}")


def expect(condition: object, wrong: str, mend: str) -> None:
    """Fail a check unless a condition holds.

    Parameters
    ----------
    condition
        What must be true.
    wrong
        What is wrong if it is not.
    mend
        What its author can do.

    Raises
    ------
    AssertionError
        With both texts.
    """
    __tracebackhide__ = True
    if not condition:
        raise failure(wrong, mend)


def expect_error(kind: type[Exception], call: Callable[[], Any], what: str, mend: str) -> None:
    """Fail a check unless a call raises an error of a kind, in one line where it is one of genxai's.

    Raises
    ------
    AssertionError
        If it raises none, or another one, which is chained.
    """
    __tracebackhide__ = True
    try:
        call()
    except kind as error:
        if isinstance(error, GenxaiError):
            text = str(error)
            expect(
                text.strip() and "\n" not in text.strip(),
                f"{what}: {kind.__name__} says {text!r}, which is not one clear line",
                "say in one line what is wrong, where, and how to mend it",
            )
    except Exception as error:
        raise failure(f"{what}: expected {kind.__name__}, but it raised {one_line(error)}", mend) from error
    else:
        raise failure(f"{what}: expected {kind.__name__}, but nothing was raised", mend)
