"""`--dry-run`: what a run would do, without doing any of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from ocrfleet.records.documents import Manifest
from ocrfleet.storage.page_records import stored_pages
from ocrfleet.storage.store import FolderStore
from producer.intake.discover import Skipped, discover
from producer.intake.inspect import Intake
from producer.intake.register import manifest_of
from producer.text import duration, printable, shown

if TYPE_CHECKING:
    from ocrfleet.settings import Settings
    from producer.local.run import Order


def estimate(order: Order, settings: Settings, *, as_json: bool) -> int:
    """Print documents, pages, problems and an estimate of the time; return the exit code. Writes nothing."""
    root = order.state / "store"
    store = FolderStore(root) if root.is_dir() else None
    intake = Intake(settings, None)
    seen: set[str] = set()
    problems: list[tuple[str, str, str]] = []
    skipped: list[Skipped] = []
    documents = pages = stored = 0
    try:
        for item in discover(order.inputs, group_folders=order.group_folders, leave_out=order.output):
            if isinstance(item, Skipped):
                skipped.append(item)
                continue
            documents += 1
            manifest = manifest_of(item, intake, profile=order.profile, selection=order.selection)
            if manifest.problem is not None:
                problems.append((item.name, manifest.problem.reason, manifest.problem.detail))
            elif manifest.document not in seen:
                seen.add(manifest.document)
                pages += manifest.total
                stored += _done(store, manifest)
    finally:
        intake.close()
    seconds = (pages - stored) * order.profile.typical_seconds / order.workers
    if as_json:
        facts: dict[str, Any] = {
            "documents": documents,
            "pages": pages,
            "pages_done_already": stored,
            "estimated_seconds": round(seconds),
            "problems": [{"name": printable(n), "reason": r, "detail": d} for n, r, d in problems],
            "skipped": [{"name": printable(item.name), "reason": item.reason} for item in skipped],
        }
        print(json.dumps(facts, indent=1, ensure_ascii=False))  # noqa: T201 - the command's answer
        return 0
    console = Console(highlight=False)
    for name, reason, detail in problems:
        console.print(f"[red]{shown(name)}[/]: {reason}: {escape(detail)}")
    for item in skipped:
        console.print(f"[dim]skipped[/] {shown(item.name)}: {escape(item.reason)}")
    already = f", {stored} of them done already" if stored else ""
    console.print(
        f"{documents} documents, {pages} pages{already}; {len(problems)} documents with a problem, {len(skipped)} files "
        f"skipped. About {duration(seconds)} with {order.workers} workers, at {order.profile.typical_seconds:g} s a page "
        "and core. Nothing was done."
    )
    return 0


def _done(store: FolderStore | None, manifest: Manifest) -> int:
    """Return how many of a document's pages have their result in the store."""
    if store is None:
        return 0
    return len(stored_pages(store, manifest.document, generation=0).done)
