"""Renders the estimate of a dry run: as text and as JSON."""

from __future__ import annotations

import json
from typing import Any

from rich.filesize import decimal
from rich.markup import escape

from producer.cli import terminal
from producer.intake.estimate import Estimate
from producer.text import duration, printable, shown

_HOUR = 3600.0


def show_estimate(estimate: Estimate, *, skipped: int, workers: str, ending: str, price: float | None = None) -> None:
    """Print the estimate for a person.

    `skipped` counts what is no document, `workers` names those that would read, `ending` is the last sentence, `price` is
    that of a GPU's hour.
    """
    console = terminal.console(soft_wrap=True)
    for problem in estimate.problems:
        console.print(f"[red]{shown(problem.name)}[/]: {escape(printable(str(problem)))}")
    pages = f"{estimate.pages:,} pages"
    if not estimate.exact:
        pages = f"about {pages} ({estimate.counted} of {estimate.several:,} PDFs and TIFFs were counted)"
    done = f", {estimate.done:,} of them done already" if estimate.done else ""
    console.print(
        f"{estimate.documents:,} documents, {decimal(estimate.size)}, {pages}{done}; {len(estimate.problems)} documents "
        f"with a problem, {skipped:,} files skipped."
    )
    console.print(
        f"About {duration(estimate.seconds)} at {estimate.speed.pages_per_second:.2f} pages/s ({workers}), if they read "
        "nothing else."
    )
    cost = estimate.cost(price)
    if cost is not None:
        console.print(f"About {cost:,.2f} at {price:g} for the hour of a GPU, one for each worker.")
    console.print(ending)


def run_json(estimate: Estimate) -> str:
    """Return the estimate of a run as one JSON object."""
    facts = {
        "documents": estimate.documents,
        "pages": estimate.pages,
        "pages_done_already": estimate.done,
        "estimated_seconds": round(estimate.seconds),
        "problems": [
            {"name": printable(problem.name), "reason": problem.reason, "detail": problem.why}
            for problem in estimate.problems
        ],
        "skipped": [{"name": printable(item.name), "reason": item.reason} for item in estimate.skipped],
    }
    return json.dumps(facts, indent=1)


def submission_json(estimate: Estimate, *, known: int, skipped: int, price: float | None) -> str:
    """Return the estimate of a submission as one JSON object; `cost` is missing where no price is set."""
    facts: dict[str, Any] = {
        "documents": estimate.documents,
        "known": known,
        "skipped": skipped,
        "bytes": estimate.size,
        "pages": estimate.pages,
        "pages_exact": estimate.exact,
        "workers": estimate.speed.workers,
        "pages_per_second": round(estimate.speed.pages_per_second, 3),
        "hours": round(estimate.seconds / _HOUR, 3),
        "problems": [{"name": printable(problem.name), "why": str(problem)} for problem in estimate.problems],
    }
    cost = estimate.cost(price)
    return json.dumps(facts if cost is None else facts | {"cost": round(cost, 2)}, indent=1)
