"""Leader election: one process leads; another takes over when it ends, dies or loses Redis."""

from __future__ import annotations

from producer.state.leader import Leadership
from tests.support.servers import Valkey
from tests.support.waiting import rest, scaled, until

NAME = "ocrfleet:dispatcher"


def test_one_process_leads_and_another_takes_over_at_once(valkey: Valkey) -> None:
    with Leadership(valkey.client, NAME, seconds=scaled(1)) as one:
        until(lambda: one.held)
        with Leadership(valkey.client, NAME, seconds=scaled(1)) as two:
            rest(1.5)  # longer than the key would last without being renewed
            assert one.held
            assert not two.held
            one.__exit__(None, None, None)
            until(lambda: two.held, seconds=2)
    until(lambda: not valkey.client.exists(NAME))


def test_a_dead_leader_is_replaced_when_its_key_expires(valkey: Valkey) -> None:
    valkey.client.set(NAME, "of a process that was killed", px=1000)
    with Leadership(valkey.client, NAME, seconds=scaled(1)) as next_one:
        until(lambda: next_one.held, seconds=5)


def test_a_leader_that_lost_its_key_stops_leading(valkey: Valkey) -> None:
    with Leadership(valkey.client, NAME, seconds=scaled(1)) as one:
        until(lambda: one.held)
        valkey.client.set(NAME, "somebody else")
        until(lambda: not one.held)


def test_it_leads_again_after_redis_was_away(valkey: Valkey) -> None:
    with Leadership(valkey.client, NAME, seconds=scaled(1)) as one:
        until(lambda: one.held)
        valkey.kill()
        until(lambda: not one.held)
        valkey.start()
        until(lambda: one.held)
