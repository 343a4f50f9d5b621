"""The estimate of `ocrfleet run --dry-run`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocrfleet.storage.page_records import stored_pages
from ocrfleet.storage.store import FolderStore
from producer.intake.discover import Skipped, discover
from producer.intake.estimate import Estimate, ReadingSpeed, UnreadableSource
from producer.intake.inspect import Intake
from producer.intake.register import manifest_of

if TYPE_CHECKING:
    from ocrfleet.settings import Settings
    from producer.local.run import Order


def estimate_run(order: Order, settings: Settings) -> Estimate:
    """Return the estimate of a run: every document is counted. Writes nothing."""
    root = order.state / "store"
    store = FolderStore(root) if root.is_dir() else None
    estimate = Estimate(ReadingSpeed.of_machine(order.profile, order.workers))
    intake = Intake(settings, None)
    seen: set[str] = set()
    try:
        for item in discover(order.inputs, group_folders=order.group_folders, leave_out=order.output):
            if isinstance(item, Skipped):
                estimate.skipped.append(item)
                continue
            estimate.documents += 1
            manifest = manifest_of(item, intake, profile=order.profile, selection=order.selection)
            if manifest.problem is not None:
                estimate.problems.append(UnreadableSource(item.name, manifest.problem.detail, manifest.problem.reason))
            elif manifest.document not in seen:
                seen.add(manifest.document)
                estimate.size += sum(source.size for source in manifest.sources)
                estimate.pages += manifest.total
                if store is not None:
                    estimate.done += len(stored_pages(store, manifest.document, generation=0).done)
    finally:
        intake.close()
    return estimate
