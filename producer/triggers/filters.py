"""Filters of objects by key: supported formats, no own results, only permitted prefixes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from ocrfleet.s3.location import SCHEME, S3Location, has_dots, typed
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
    """A bucket and a prefix of keys. As with S3 itself, a prefix may end in the middle of a name."""

    bucket: str
    prefix: str

    @classmethod
    def parse(cls, text: str) -> Prefix:
        """Parse s3://bucket/prefix, in which each character stands for itself. Raises UsageError."""
        location = _typed(text)
        return cls(location.bucket, location.key)

    @classmethod
    def parse_folder(cls, text: str) -> Prefix:
        """Parse s3://bucket/folder, with or without a slash at the end. Raises UsageError."""
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
        raise UsageError(
            f"{text!r} must be s3://bucket or s3://bucket/prefix/, without the segments . and .."
        ) from None


@dataclass(frozen=True, slots=True)
class Filter:
    """Accepts keys with one of the prefixes and suffixes, none of the excluded prefixes, and no dot segments."""

    #: (): all keys
    prefixes: tuple[str, ...] = ()
    #: compared without case
    suffixes: tuple[str, ...] = tuple(SUFFIXES)
    #: prefixes of keys that are never accepted
    exclude: tuple[str, ...] = ()
    #: prefixes of results and of the store: an own figure is an image, too
    ours: tuple[Prefix, ...] = ()

    def wants(self, bucket: str, key: str) -> bool:
        return (
            (not self.prefixes or key.startswith(self.prefixes))
            and key.lower().endswith(tuple(suffix.lower() for suffix in self.suffixes))
            and not key.startswith(self.exclude)
            and not any(place.holds(bucket, key) for place in self.ours)
            and not has_dots(key)
        )

    def separates(self, watched: BucketPrefix, other: BucketPrefix) -> bool:
        """Return whether the prefixes exclude every key below `other` from `watched`; ignores `ours`."""
        if watched.bucket != other.bucket or not _overlap(watched.prefix, other.prefix):
            return True
        if any(other.prefix.startswith(excluded) for excluded in self.exclude):
            return True
        return bool(self.prefixes) and not any(_overlap(prefix, other.prefix) for prefix in self.prefixes)


def _overlap(one: str, other: str) -> bool:
    """Return whether a key can start with both prefixes."""
    return one.startswith(other) or other.startswith(one)


def check_results(watched: BucketPrefix, results: str | None, wanted: Filter, *, what: str = "results") -> None:
    """Raise UsageError when `results` (s3://bucket/prefix, or None) overlap with the watched prefix.

    Else each result would be an upload that makes the next one. Results are delivered below their prefix with the whole key
    of their source, so results in s3://b/ land in a watched s3://b/inbox/, too. `what` names the results in the error.
    """
    if results is None:
        return
    other = Prefix.parse_folder(results)
    if wanted.separates(watched, other):
        return
    place = f"s3://{watched.bucket}/{watched.prefix}"
    remedy = f"leave them out with --exclude {other.prefix}, or " if _below(other, watched) else ""
    raise UsageError(
        f"{what} in {other} would lie in the source prefix {place}: {remedy}choose another bucket or prefix"
    )


def apart_from_ours(wanted: Filter, watched: Iterable[Prefix], *, results: str | None, store: str) -> Filter:
    """Return a filter that rejects own outputs: results, and the store when it is in S3.

    Raises UsageError when either overlaps with a `watched` prefix.
    """
    own = store if store.startswith(SCHEME) else None
    for place in watched:
        check_results(place, results, wanted)
        check_results(place, own, wanted, what="the store")
    return replace(wanted, ours=tuple(Prefix.parse_folder(place) for place in (results, own) if place is not None))


def _below(inner: BucketPrefix, outer: BucketPrefix) -> bool:
    return inner.prefix != outer.prefix and inner.prefix.startswith(outer.prefix)


class Allowed:
    """The buckets and prefixes that clients of the API may read: less than the server itself can."""

    def __init__(self, places: Iterable[str]) -> None:
        """Take s3://bucket/folder, with or without a slash at the end; s3://b/in does not permit inner/x. Raises UsageError."""
        self._places: Sequence[Prefix] = [Prefix.parse_folder(place) for place in places]

    def allows(self, bucket: str, key: str) -> bool:
        return any(place.holds(bucket, key) for place in self._places)
