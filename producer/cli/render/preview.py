"""Print what a dry run found."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape

from ocrfleet.profiles.profile import Profile
from ocrfleet.settings import Settings
from producer.intake.preview import Preview, Speed
from producer.text import duration, printable, shown

_HOUR = 3600.0


def show_preview(
    found: Preview, speed: Speed, profile: Profile, settings: Settings, *, known: int, skipped: int
) -> None:
    """Print it for a person."""
    console = Console(highlight=False, soft_wrap=True)
    for name, why in found.problems:
        console.print(f"[red]{shown(name)}[/]: {escape(printable(why))}")
    pages = f"{found.pages:,} pages"
    if not found.exact:
        pages = f"about {pages} ({found.counted} of {found.several:,} PDFs and TIFFs were counted)"
    console.print(
        f"{found.documents:,} documents, {decimal(found.size)}, {pages}; {known:,} known already, {skipped:,} skipped."
    )
    whose = (
        f"{speed.workers} workers"
        if speed.workers
        else f"one worker, as OCRFLEET_PAGES_PER_SECOND says: nobody serves {profile.name} now"
    )
    console.print(
        f"About {duration(found.pages / speed.pages_per_second)} at {speed.pages_per_second:.2f} pages/s ({whose}), if they "
        "read nothing else."
    )
    cost = _cost(found, speed, settings)
    if cost is not None:
        console.print(
            f"About {cost:,.2f} at {settings.price_per_gpu_hour:g} for the hour of a GPU, one for each worker."
        )
    console.print("Nothing was submitted.")


def preview_json(found: Preview, speed: Speed, settings: Settings, *, known: int, skipped: int) -> str:
    """Return it as one JSON object; `cost` is missing where no price is set."""
    facts: dict[str, Any] = {
        "documents": found.documents,
        "known": known,
        "skipped": skipped,
        "bytes": found.size,
        "pages": found.pages,
        "pages_exact": found.exact,
        "workers": speed.workers,
        "pages_per_second": round(speed.pages_per_second, 3),
        "hours": round(found.pages / speed.pages_per_second / _HOUR, 3),
        "problems": [{"name": printable(name), "why": why} for name, why in found.problems],
    }
    cost = _cost(found, speed, settings)
    return json.dumps(facts if cost is None else facts | {"cost": round(cost, 2)}, indent=1)


def _cost(found: Preview, speed: Speed, settings: Settings) -> float | None:
    """Return what the GPUs cost meanwhile, None where no price is set."""
    if settings.price_per_gpu_hour is None:
        return None
    return found.pages / speed.pages_per_second / _HOUR * max(1, speed.workers) * settings.price_per_gpu_hour
