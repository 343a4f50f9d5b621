"""Tenants take turns at the queue, whatever their number of collections."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ocrfleet.records.tenants import stored_collection, tenant_of
from tests.support.servers import Valkey
from tests.support.stage import Stage


def test_a_tenant_with_many_collections_gets_no_more_turns(tmp_path: Path, valkey: Valkey) -> None:
    # Given a tenant with five collections and one with a single one, each with more pages than the queue takes
    stage = Stage(tmp_path, valkey, backlog_pages=32)
    for number, (tenant, collection) in enumerate([*(("acme", f"c{count}") for count in range(5)), ("brick", "c")]):
        numbers = list(range(1 + 20 * number, 21 + 20 * number))
        stage.register(f"{tenant}-{collection}", numbers, collection=stored_collection(tenant, collection))

    # When the queue is filled
    stage.dispatcher.tick()

    # Then both have as many pages on it
    queued: Counter[str] = Counter()
    for active in stage.dispatcher.active.values():
        queued[tenant_of(active.marker.collection)] += active.queued()
    assert queued == {"acme": 12, "brick": 12}
    stage.close()
