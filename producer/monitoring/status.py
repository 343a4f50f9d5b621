"""`ocrfleet status`: who works, what waits, and what nobody serves."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from ocrfleet import keys
from ocrfleet.broker.inspection import MessageInspector
from ocrfleet.broker.ledger import Ledger
from ocrfleet.errors import DamagedRecordError, NotFoundError
from ocrfleet.records.base import Priority
from ocrfleet.records.documents import Marker
from ocrfleet.storage.open import open_store
from producer.state.leader import is_led

if TYPE_CHECKING:
    from ocrfleet.settings import Settings
    from ocrfleet.storage.store import ObjectStore

#: Documents that are counted of each collection that waits: an archive is not listed to count it.
COUNTED = 1000


def look(settings: Settings) -> dict[str, Any]:
    """Return the workers, the documents and the jobs by profile. Raises TransientError when Redis or the store is away."""
    ledger = Ledger(settings.redis_url)
    workers = ledger.workers()
    served: dict[str, set[str]] = {}
    for state in workers:
        served.setdefault(state.profile, set()).add(state.profile_digest)
    store = open_store(settings)
    documents = _documents(store)
    profiles = sorted({*served, *documents})
    jobs = MessageInspector(ledger.redis).waiting(profiles)
    rows = [
        {
            "profile": profile,
            "workers": sum(state.profile == profile for state in workers),
            "documents": len(documents.get(profile, ())),
            "jobs_queued": jobs[profile],
            # By digest: workers of another revision leave the jobs alone.
            "served": profile in served and served[profile].issuperset(documents.get(profile, ())),
        }
        for profile in profiles
    ]
    return {
        "led": is_led(ledger.redis),
        "profiles": rows,
        "waiting_documents": _waiting(store),
        "workers": [state.model_dump(mode="json", exclude={"schema_version", "profile_digest"}) for state in workers],
    }


def _documents(store: ObjectStore) -> dict[str, list[str]]:
    """Return the active documents by profile, as their profiles' digests, and the profiles that their pages may go to."""
    found: dict[str, list[str]] = {}
    for key in store.list(keys.ACTIVE):
        try:
            marker = Marker.from_bytes(store.get(key))
        except (NotFoundError, DamagedRecordError):
            continue
        found.setdefault(marker.profile, []).append(marker.profile_digest)
        for route in marker.routes:
            found.setdefault(route, [])
    return found


def _waiting(store: ObjectStore) -> dict[str, dict[str, int]]:
    return {
        queue.value: {
            collection: sum(1 for _ in islice(store.list(keys.waiting_in(queue, collection)), COUNTED))
            for collection in store.folders(keys.waiting_in(queue))
        }
        for queue in Priority
    }
