"""Which objects are wanted: by key, apart from what we write ourselves, and only where somebody allowed it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from ocrfleet.s3.client import SCHEME, S3Location, typed
from producer.errors import UsageError
from producer.intake.discover import SUFFIXES


class BucketPrefix(Protocol):
    """A bucket, and a prefix of keys in it: "" for all."""

    @property
    def bucket(self) -> str: ...

    @property
    def prefix(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Prefix:
    """A bucket and a prefix. As with S3 itself, a prefix may end in the middle of a name."""

    bucket: str
    prefix: str

    @classmethod
    def typed(cls, text: str) -> Prefix:
        """Return what somebody typed as s3://bucket/prefix. Raises UsageError."""
        location = _typed(text)
        return cls(location.bucket, location.key)

    @classmethod
    def folder(cls, text: str) -> Prefix:
        """As `typed`, with the slash at the end that s3://bucket/inbox lacks. Raises UsageError."""
        location = _typed(text)
        return cls(location.bucket, location.key if location.key in {"", "/"} else location.key.rstrip("/") + "/")

    def holds(self, bucket: str, key: str) -> bool:
        return bucket == self.bucket and key.startswith(self.prefix)

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"


def _typed(text: str) -> S3Location:
    try:
        return typed(text)
    except ValueError:
        raise UsageError(f"{text!r} must be s3://bucket or s3://bucket/prefix/") from None


@dataclass(frozen=True, slots=True)
class Filter:
    """Wants keys of documents that can be read: those with a prefix and a suffix that are named, and not excluded."""

    #: () for all
    prefixes: tuple[str, ...] = ()
    #: whatever their case
    suffixes: tuple[str, ...] = tuple(SUFFIXES)
    #: prefixes of keys that are never wanted
    exclude: tuple[str, ...] = ()
    #: where we write ourselves, results and the store: a searchable PDF is a PDF, a figure is an image
    ours: tuple[Prefix, ...] = ()

    def wants(self, bucket: str, key: str) -> bool:
        return (
            (not self.prefixes or key.startswith(self.prefixes))
            and key.lower().endswith(tuple(suffix.lower() for suffix in self.suffixes))
            and not key.startswith(self.exclude)
            and not any(place.holds(bucket, key) for place in self.ours)
        )

    def separates(self, watched: BucketPrefix, other: BucketPrefix) -> bool:
        """Say whether no key below `other` can be wanted from `watched` as far as prefixes tell, leaving `ours` aside."""
        if watched.bucket != other.bucket or not _overlap(watched.prefix, other.prefix):
            return True
        if any(other.prefix.startswith(excluded) for excluded in self.exclude):
            return True
        return bool(self.prefixes) and not any(_overlap(prefix, other.prefix) for prefix in self.prefixes)


def _overlap(one: str, other: str) -> bool:
    """Say whether some key starts with both prefixes."""
    return one.startswith(other) or other.startswith(one)


def check_results(watched: BucketPrefix, results: str | None, wanted: Filter, *, what: str = "results") -> None:
    """Raise UsageError when `results` (s3://bucket/prefix, or None) and what is watched are not apart.

    Each result would be an upload that makes the next one. Results are delivered below their prefix with the whole key of
    their source, so results in s3://b/ land in a watched s3://b/inbox/ as well as the other way round. `what` lies there is
    said in the error.
    """
    if results is None:
        return
    other = Prefix.folder(results)
    if wanted.separates(watched, other):
        return
    place = f"s3://{watched.bucket}/{watched.prefix}"
    remedy = f"leave them out with --exclude {other.prefix}, or " if _below(other, watched) else ""
    raise UsageError(
        f"{what} in {other} would lie in what is read itself, {place}: {remedy}choose another bucket or prefix"
    )


def apart_from_ours(wanted: Filter, watched: Iterable[Prefix], *, results: str | None, store: str) -> Filter:
    """Return a filter that wants nothing of what we write: results, and the store where that is in S3.

    Raises UsageError when either lies in what is `watched`, or the other way round.
    """
    own = store if store.startswith(SCHEME) else None
    for place in watched:
        check_results(place, results, wanted)
        check_results(place, own, wanted, what="the store")
    return replace(wanted, ours=tuple(Prefix.folder(place) for place in (results, own) if place is not None))


def _below(inner: BucketPrefix, outer: BucketPrefix) -> bool:
    return inner.prefix != outer.prefix and inner.prefix.startswith(outer.prefix)


class Allowed:
    """The buckets and prefixes that others may name: a token is no key to everything that we can read."""

    def __init__(self, places: Iterable[str]) -> None:
        """Take s3://bucket/folder, with or without a slash at the end: s3://b/in does not allow inner/x. Raises UsageError."""
        self._places: Sequence[Prefix] = [Prefix.folder(place) for place in places]

    def allows(self, bucket: str, key: str) -> bool:
        return any(place.holds(bucket, key) for place in self._places)
