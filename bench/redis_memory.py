"""Memory of Redis with few and with many submitted pages. Waiting documents are in the store, so it must hardly differ.

    python -m bench.redis_memory [--pages 10000 1000000]

For each number of pages, in documents of a hundred: manifests and markers as intake writes them, a real Valkey, and a
dispatcher that publishes up to its backlog limit (default: ten minutes of one worker's assumed speed). Exits with 1 if the
memory of Redis differs by more than a tenth.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ocrfleet import keys
from ocrfleet.broker.celery_app import make_app
from ocrfleet.broker.ledger import Ledger
from ocrfleet.profiles.profile import RAPIDOCR
from ocrfleet.records.documents import Kind, Manifest, Marker, Source
from ocrfleet.records.priority import Priority
from ocrfleet.settings import Settings
from ocrfleet.storage.store import FolderStore
from producer.control.dispatcher import Dispatcher
from producer.state.backlog import Backlog, count
from tests.support.servers import Valkey

#: Pages per document.
EACH = 100
LIMIT = 0.1


def submit(store: FolderStore, number: int) -> None:
    document = f"{number:032x}"
    created = f"20261125T{number:06d}.000000Z"
    source = Source(uri="s3://a/b.pdf", size=1, mtime_ns=1, sha256=f"{number:064x}", kind=Kind.PDF, pages=EACH)
    manifest = Manifest(
        document=document,
        created=created,
        profile=RAPIDOCR.name,
        profile_digest=RAPIDOCR.digest,
        sources=(source,),
        selection=((1, EACH),),
    )
    marker = Marker(
        generation=1,
        queue=Priority.BULK,
        collection="bench",
        profile=RAPIDOCR.name,
        profile_digest=RAPIDOCR.digest,
        pages_per_job=1,
        pages=EACH,
    )
    store.put(keys.manifest(document), manifest.to_bytes())
    store.put(keys.waiting(Priority.BULK, "bench", created, document, 1), marker.to_bytes())


def used(pages: int) -> tuple[int, int]:
    """Submit `pages` pages; return the memory of Redis in bytes, and the number of messages on its queue."""
    with tempfile.TemporaryDirectory(prefix="ocrfleet-bench-") as folder:
        valkey = Valkey()
        try:
            store = FolderStore(Path(folder) / "store")
            with ThreadPoolExecutor(16) as pool:
                list(pool.map(lambda number: submit(store, number), range(pages // EACH)))
            settings = Settings(store=folder, redis_url=valkey.url)
            ledger, app = Ledger(valkey.url), make_app(settings)
            ledger.counted(count(store))
            dispatcher = Dispatcher(store, ledger, app, backlog=Backlog(ledger, settings).limit)
            for _ in range(5):
                dispatcher.tick()
            app.close()
            valkey.client.memory_purge()
            memory: Any = valkey.client.info("memory")
            queued = sum(int(valkey.client.llen(keys.queue_pages(queue, RAPIDOCR.name))) for queue in Priority)
            return int(memory["used_memory"]), queued
        finally:
            valkey.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, nargs=2, default=(10_000, 1_000_000))
    few, many = parser.parse_args().pages
    found = {pages: used(pages) for pages in (few, many)}
    for pages, (size, queued) in found.items():
        print(f"{pages:>9} pages submitted: {size / 1e6:.2f} MB in Redis, {queued} messages queued")
    ratio = found[many][0] / found[few][0]
    print(f"ratio {ratio:.3f}")
    if abs(ratio - 1) > LIMIT:
        sys.exit(f"Redis's memory differs by more than {LIMIT:.0%}")


if __name__ == "__main__":
    main()
