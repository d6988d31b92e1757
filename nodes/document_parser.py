"""Read labelled fields from the text layer of a PDF form, and remember the page each one stood on.

A field is a label at the start of a line, a colon, and the value on the same line or, as form fields are often drawn
separately, on the next. The page of each value is evidence for whoever decides later.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final

from pypdf import PdfReader
from pypdf.errors import PyPdfError

from control.sdk import Problem
from nodes.node import Node

DOCUMENT_UNREADABLE: Final = Problem(
    code="document-unreadable",
    status=422,
    title="A document cannot be read",
    next_step="Start a new run with a readable PDF that has a text layer; this one will not read better on a retry.",
)
FIELDS_MISSING: Final = Problem(
    code="fields-missing",
    status=422,
    title="A document lacks what this workflow needs",
    next_step="Ask the sender for the missing entries and start a new run with the completed document.",
)


@dataclass(frozen=True, slots=True)
class Field:
    """What to look for. `read` turns the text into a plain value and raises ValueError if it cannot."""

    name: str
    label: str
    read: Callable[[str], Any] = str.strip


def document_parser(fields: Sequence[Field], *, source: str, target: str) -> Node:
    """A node that reads the PDF at the path in `source` and puts the fields by name into `target`.

    `target` also gets `document` (the file's name), `pages` (their number) and `page_of` (field name to page, from 1).
    Problems, both final: `document-unreadable`, `fields-missing`.
    """

    def parse(state: Any) -> dict[str, Any]:
        path = Path(state[source])
        pages = page_texts(path)
        found = {field.name: _find(field, pages) for field in fields}
        missing = [field.label for field in fields if found[field.name] is None]
        if missing:
            raise FIELDS_MISSING.because(
                f"{path.name} has no legible entry for: {', '.join(missing)}.", missing=missing
            )
        entries = {name: entry for name, entry in found.items() if entry is not None}
        values = {name: value for name, (value, _) in entries.items()}
        page_of = {name: page for name, (_, page) in entries.items()}
        return {target: values | {"document": path.name, "pages": len(pages), "page_of": page_of}}

    return parse


def page_texts(path: Path) -> list[str]:
    """The text layer, page by page. Problem: `document-unreadable`."""
    try:
        pages = [page.extract_text() for page in PdfReader(path).pages]
    except OSError as error:
        raise DOCUMENT_UNREADABLE.because(f"{path.name} cannot be opened: {error.strerror}.", file=path.name) from error
    except (PyPdfError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        # pypdf meets broken structure with whatever its parser trips over.
        raise DOCUMENT_UNREADABLE.because(f"{path.name} is not a sound PDF file: {error}.", file=path.name) from error
    if not any(text.strip() for text in pages):
        raise DOCUMENT_UNREADABLE.because(f"{path.name} has no text layer; it may be a scan.", file=path.name)
    return pages


def _find(field: Field, pages: Sequence[str]) -> tuple[Any, int] | None:
    entry = re.compile(rf"^[ \t]*{re.escape(field.label)}[ \t]*:[ \t]*\n?[ \t]*(\S[^\n]*)$", re.MULTILINE)
    for number, text in enumerate(pages, start=1):
        if (match := entry.search(text)) and not match[1].endswith(":"):
            try:
                return field.read(match[1]), number
            except ValueError:
                continue
    return None


def euros(text: str) -> float:
    """`EUR 28,000.00` as 28000.0."""
    try:
        return float(Decimal(text.upper().removeprefix("EUR").replace(",", "").strip()))
    except InvalidOperation:
        raise ValueError(f"not an amount: {text}") from None


def iso_date(text: str) -> str:
    """An ISO date, checked."""
    return date.fromisoformat(text.strip()).isoformat()


def yes_or_no(text: str) -> bool:
    """`yes` or `no`, in any case."""
    word = text.strip().lower()
    if word not in ("yes", "no"):
        raise ValueError(f"neither yes nor no: {text}")
    return word == "yes"
