"""Save and load the profiles that submissions name by digest."""

from __future__ import annotations

import functools

from ocrfleet import keys
from ocrfleet.profiles.profile import Profile
from ocrfleet.storage.store import ObjectStore


def save_profile(store: ObjectStore, profile: Profile) -> str:
    """Store a profile under its digest, which submissions name; return the digest. Raises TransientError."""
    store.create(keys.profile(profile.digest), profile.model_dump_json().encode())
    return profile.digest


class Profiles:
    """Profiles of a store, cached in memory."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.get = functools.lru_cache(maxsize=64)(self._get)

    def _get(self, digest: str) -> Profile:
        """Return a profile by its digest. Raises NotFoundError, DamagedRecordError."""
        return Profile.from_bytes(self._store.get(keys.profile(digest)))
