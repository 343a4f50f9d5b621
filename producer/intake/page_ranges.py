"""Page selections: parse `3-10,15-`, and apply one to a document of known length."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ocrfleet.errors import PermanentError, Reason
from producer.errors import UsageError

Selection = Sequence[tuple[int, int | None]]


def select(selection: Selection, total: int) -> tuple[tuple[int, int], ...]:
    """Return the selected pages that a document of `total` pages has, as ascending ranges that do not touch.

    Raises PermanentError when it has none of them.
    """
    merged: list[tuple[int, int]] = []
    for first, end in sorted((first, min(last or total, total)) for first, last in selection or [(1, None)]):
        if end < first:
            continue
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((first, end))
    if not merged:
        raise PermanentError(Reason.NO_SUCH_PAGES, f"the document has {total} pages, and none of the selected ones")
    return tuple(merged)


def parse_pages(text: str) -> Selection:
    """Return the ranges of a page selection such as `3-10`, `1,5-` or `-4`. Raises UsageError."""
    ranges: list[tuple[int, int | None]] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{0,6})\s*(?:(-)\s*([0-9]{0,6})\s*)?", part)
        if match is None or not (match[1] or match[3]):
            raise UsageError(f"--pages {text!r}: write it like 3-10, or 1,5-8, or 20-")
        first = int(match[1] or 1)
        last = first if not match[2] else int(match[3]) if match[3] else None
        if first < 1 or (last is not None and last < first):
            raise UsageError(f"--pages {text!r}: pages count from 1, and a range goes upwards")
        ranges.append((first, last))
    return ranges
