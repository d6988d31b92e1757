"""A suppressed warning names its error and gives its reason. The core suppresses none."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from typing import Final

import pytest

from tests.tidy import Source, assert_clean, faults, finished, python

SUPPRESSES: Final = re.compile(r"type:\s*ignore|noqa|pyright:|mypy:|ruff:|pylint:|pragma:|nosec")
REASONED: Final = re.compile(
    r"#\s*(type: ignore\[[a-z-]+(, ?[a-z-]+)*\]\s+#|noqa: [A-Z]+\d+(, ?[A-Z]+\d+)*\s*[#:–—-]?)\s*(?P<reason>\S.*)"
)


def comments(source: Source) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def unreasoned(source: Source) -> Iterator[str]:
    """Suppressions without an error's name or a reason of at least three words; in the core, every one."""
    for line, comment in comments(source):
        if not SUPPRESSES.search(comment):
            continue
        reasoned = REASONED.match(comment)
        if source.inside("control.core"):
            yield source.fault(line, "the core suppresses no warning")
        elif reasoned is None or len(reasoned["reason"].split()) < 3:
            yield source.fault(line, "name the error and the reason:  # type: ignore[name]  # because ...")


def test_a_suppression_gives_its_reason() -> None:
    assert_clean(unreasoned, python("control", "nodes", "graphs"))


@finished
def test_a_suppression_in_a_test_gives_its_reason() -> None:
    assert_clean(unreasoned, python("tests"))


@pytest.mark.parametrize(
    "comment",
    [
        "# type: ignore",
        "# type: ignore  # the stock saver says so",
        "# type: ignore[arg-type]",
        "# type: ignore[arg-type]  # why",
        "# noqa",
        "# noqa: E501",
        "# ruff: noqa",
        "# pragma: no cover",
    ],
)
def test_a_suppression_without_its_reason_is_found(comment: str) -> None:
    assert faults(unreasoned, [Source("control/store/saver.py", f"x = 1  {comment}\n")])


@pytest.mark.parametrize(
    "comment", ["# type: ignore[arg-type]  # the saver sets the row factory", "# noqa: S608 - a constant is joined in"]
)
def test_a_reason_is_allowed_outside_the_core(comment: str) -> None:
    assert not faults(unreasoned, [Source("control/store/saver.py", f"x = 1  {comment}\n")])
    assert faults(unreasoned, [Source("control/core/claim.py", f"x = 1  {comment}\n")])


def test_a_string_suppresses_nothing() -> None:
    assert not faults(unreasoned, [Source("control/core/claim.py", 'x = "# noqa"\n')])
