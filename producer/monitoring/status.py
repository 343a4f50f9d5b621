"""Data of `ocrfleet status`: workers and documents by profile, jobs on the queue, waiting documents."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

from ocrfleet.broker.inspection import MessageInspector
from ocrfleet.broker.ledger import Ledger
from ocrfleet.storage.open import open_store
from producer.monitoring.active_documents import ActiveDocumentReader
from producer.monitoring.fleet_snapshot import FleetMonitor
from producer.monitoring.inventory import waiting_by_collection

if TYPE_CHECKING:
    from ocrfleet.settings import Settings


def fleet_status(settings: Settings) -> dict[str, Any]:
    """Return the state of the fleet as `status --json` prints it. Raises TransientError when Redis or the store is away."""
    ledger = Ledger(settings.redis_url.get_secret_value())
    store = open_store(settings)
    with closing(ActiveDocumentReader(store, ledger)) as active:
        fleet = FleetMonitor(settings, store, ledger).snapshot(active.read())
    jobs = MessageInspector(ledger.redis).waiting(fleet.profiles)
    return {
        "led": fleet.led,
        "profiles": [
            {
                "profile": profile,
                "workers": use.workers,
                "documents": use.documents,
                "jobs_queued": jobs[profile],
                "served": use.served,
            }
            for profile, use in fleet.profiles.items()
        ],
        "waiting_documents": waiting_by_collection(store),
        "workers": [
            state.model_dump(mode="json", exclude={"schema_version", "profile_digest"}) for state in fleet.workers
        ],
    }
