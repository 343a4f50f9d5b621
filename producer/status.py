"""`ocrfleet status`: who works, what waits, and what nobody serves."""

from __future__ import annotations

import json
from itertools import islice
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from ocrfleet import keys
from ocrfleet.broker.inspection import Published
from ocrfleet.broker.ledger import Ledger
from ocrfleet.errors import DamagedRecordError, NotFoundError
from ocrfleet.profiles.models import named
from ocrfleet.records.base import Queue
from ocrfleet.records.documents import Marker
from ocrfleet.storage.open import open_store
from producer.leader import NOBODY_LEADS, is_led

if TYPE_CHECKING:
    from ocrfleet.settings import Settings
    from ocrfleet.storage.store import ObjectStore

#: Documents that are counted of each collection that waits: an archive is not listed to count it.
_COUNTED = 1000


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
    jobs = Published(ledger.redis).waiting(profiles)
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
            collection: sum(1 for _ in islice(store.list(keys.waiting_in(queue, collection)), _COUNTED))
            for collection in store.folders(keys.waiting_in(queue))
        }
        for queue in Queue
    }


def _options(profile: str) -> str:
    """Return the options that start a worker of a profile; one that was made of options can't be told from its name."""
    if any(known.name == profile for known in named()):
        return f"--profile {profile}"
    return "with the same --engine, --model, --prompt, … or --profile FILE as the documents were registered with"


def show_status(settings: Settings, *, as_json: bool) -> None:
    """Print it, with what to do about jobs that nobody serves."""
    facts = look(settings)
    if as_json:
        print(json.dumps(facts, indent=1))  # noqa: T201 - the command's answer
        return
    console = Console(highlight=False)
    table = Table("profile", "workers", "active documents", "jobs queued", box=None, padding=(0, 2))
    for row in facts["profiles"]:
        table.add_row(row["profile"], str(row["workers"]), str(row["documents"]), str(row["jobs_queued"]))
    console.print(table)
    for row in facts["profiles"]:
        if not row["served"] and (row["jobs_queued"] or row["documents"]):
            console.print(
                f"[red]Nobody serves {row['profile']}[/]: {row['jobs_queued']} jobs wait. "
                f"Start a worker: ocrfleet worker {_options(row['profile'])}",
                soft_wrap=True,
            )
    if not facts["led"]:
        console.print(f"[red]{NOBODY_LEADS.capitalize()}[/]", soft_wrap=True)
    for queue, collections in facts["waiting_documents"].items():
        for collection, count in collections.items():
            more = " or more" if count == _COUNTED else ""
            console.print(f"{queue} collection {collection}: {count}{more} documents wait to be dispatched")
    if facts["workers"]:
        table = Table("worker", "profile", "pages", "tokens", "starved s", box=None, padding=(0, 2))
        for state in facts["workers"]:
            starved = f"{state['starved_seconds']:.0f} of {state['seconds']:.0f}"
            table.add_row(state["worker"], state["profile"], str(state["pages"]), str(state["tokens"]), starved)
        console.print(table)
    else:
        console.print("No worker is to be seen at this Redis.")
