"""Assign words that were not recognised to words of the page that were read wrongly or not at all, in order, by their lengths."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Cost of a word without a partner, where the cost of a pair is the difference of their lengths in the longer one's, 0 to 1.
_ALONE = 0.6


class Part(NamedTuple):
    """A seen word, and the part of its length that a given word takes, from 0 to 1."""

    word: int
    begin: float
    end: float


def assign(given: Sequence[str], seen: Sequence[str]) -> list[Part]:
    """Return the place of each given word; words that share a seen word divide it by their lengths.

    The pairs have the least cost of all that keep the order (Needleman and Wunsch, 1970). A given word without a partner shares
    the one of the word before it, or the first.
    """
    scale = sum(map(len, given)) / sum(map(len, seen))
    lengths = np.array([len(word) for word in given], np.float64)
    others = np.array([len(word) for word in seen], np.float64) * scale
    pair = np.abs(lengths[:, None] - others) / np.maximum(lengths[:, None], others)
    pair[np.array(given, object)[:, None] == np.array(seen, object)] = 0
    cost = np.zeros((len(given) + 1, len(seen) + 1))
    cost[0], cost[:, 0] = np.arange(len(seen) + 1) * _ALONE, np.arange(len(given) + 1) * _ALONE
    steps = np.arange(len(seen) + 1) * _ALONE
    for row in range(len(given)):
        best = np.minimum(cost[row, 1:] + _ALONE, cost[row, :-1] + pair[row])
        # Words of the row that are left out, one after the other: a running minimum.
        best = np.concatenate((cost[row + 1, :1], best)) - steps
        cost[row + 1] = np.minimum.accumulate(best) + steps
    partners = [-1] * len(given)
    here, there = len(given), len(seen)
    while here and there:
        if np.isclose(cost[here, there], cost[here - 1, there - 1] + pair[here - 1, there - 1]):
            here, there = here - 1, there - 1
            partners[here] = there
        elif np.isclose(cost[here, there], cost[here - 1, there] + _ALONE):
            here -= 1
        else:
            there -= 1
    return _divided(given, partners)


def _divided(given: Sequence[str], partners: Sequence[int]) -> list[Part]:
    first = next((partner for partner in partners if partner >= 0), 0)
    sharing: dict[int, list[int]] = {}
    for index, partner in enumerate(partners):
        first = partner if partner >= 0 else first
        sharing.setdefault(first, []).append(index)
    found: dict[int, Part] = {}
    for partner, members in sharing.items():
        ends = np.cumsum([len(given[index]) for index in members]) / sum(len(given[index]) for index in members)
        for index, begin, end in zip(members, [0.0, *ends], ends, strict=False):
            found[index] = Part(partner, float(begin), float(end))
    return [found[index] for index in range(len(given))]
