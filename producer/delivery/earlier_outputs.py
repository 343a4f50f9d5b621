"""Recognise what an earlier version delivered to an output folder, which recorded nothing there: by the outputs in the store."""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Container
from contextlib import suppress
from typing import TYPE_CHECKING

from ocrfleet import keys
from ocrfleet.errors import DamagedRecordError, NotFoundError
from ocrfleet.formats import extension
from ocrfleet.markdown.style import AS_STORED, Style, Tables
from ocrfleet.records.submissions import Submission
from producer.delivery.delivery import MARKDOWN, in_style

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ocrfleet.storage.store import ObjectStore

_STYLES = tuple(
    style for style in itertools.starmap(Style, itertools.product(Tables, (False, True))) if style != AS_STORED
)


class EarlierOutputs(Container[str]):
    """The SHA-256 of all outputs of some documents: of all generations, in all formats, the Markdown in all styles."""

    def __init__(self, store: ObjectStore, documents: Iterable[str]) -> None:
        self._store = store
        self._documents = documents

    def __contains__(self, sha256: object) -> bool:
        return isinstance(sha256, str) and any(self._is_of(document, sha256) for document in self._documents)

    def _is_of(self, document: str, sha256: str) -> bool:
        stored = list(self._store.list(keys.outputs(document)))
        return any(keys.is_output_of(sha256, key) for key in stored) or any(
            self._styled(key, style) == sha256
            for key in stored
            if key.endswith(f".{extension(MARKDOWN)}")
            for style in _STYLES
        )

    def _styled(self, key: str, style: Style) -> str | None:
        sha = hashlib.sha256()
        with suppress(NotFoundError):
            for line in in_style(self._store, key, style):
                sha.update(line)
            return sha.hexdigest()
        return None


class DocumentsByName:
    """The documents that were submitted by each name, read from the store when the first one is asked for."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def __call__(self, name: str) -> Iterable[str]:
        return self._documents.get(name, ())

    @functools.cached_property
    def _documents(self) -> dict[str, set[str]]:
        documents: dict[str, set[str]] = {}
        for collection in self._store.folders(keys.COLLECTIONS):
            for key in self._store.list(keys.submissions(collection)):
                with suppress(NotFoundError, DamagedRecordError):
                    submission = Submission.from_bytes(self._store.get(key))
                    documents.setdefault(submission.name, set()).add(submission.document)
        return documents
