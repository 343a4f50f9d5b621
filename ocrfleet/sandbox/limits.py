"""Limits of what a document may claim in its headers."""

from __future__ import annotations

from ocrfleet.errors import PermanentError, Reason

#: A page tree can claim any number of pages, and each gets a record; the largest archives' volumes have 20,000.
MAX_PAGES = 200_000
#: A header can claim any size. A0 at 600 dpi is 560 million pixels; one byte each is what Pillow needs at least.
MAX_IMAGE_PIXELS = 1_000_000_000


def check_pages(pages: int) -> None:
    if pages == 0:
        raise PermanentError(
            Reason.NO_PAGES, "the file has no pages: it is empty or its page tree is lost; export it again"
        )
    if pages > MAX_PAGES:
        raise PermanentError(Reason.TOO_LARGE, f"the file claims {pages} pages, more than {MAX_PAGES}: split it")


def check_index(index: int, pages: int) -> None:
    if not 0 <= index < pages:
        raise PermanentError(Reason.NO_SUCH_PAGES, f"the file has {pages} pages, none with number {index + 1}")


def check_pixels(width: int, height: int) -> None:
    if width * height > MAX_IMAGE_PIXELS:
        raise PermanentError(
            Reason.TOO_LARGE,
            f"the image has {width} x {height} pixels, more than {MAX_IMAGE_PIXELS}: split it or scale it down",
        )
