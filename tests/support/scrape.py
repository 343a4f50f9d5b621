"""Scrapes the metrics of a process, as Prometheus does."""

from __future__ import annotations

import re
from collections.abc import Callable

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.support.waiting import scaled, until


class Scrape:
    """One page of metrics."""

    def __init__(self, text: str) -> None:
        self.text = text
        #: each sample once, as Prometheus requires
        self.samples: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        #: by name, without what a type adds to it
        self.families: dict[str, str] = {}
        for family in text_string_to_metric_families(text):
            self.families[family.name] = family.type
            for sample in family.samples:
                at = sample.name, tuple(sorted(sample.labels.items()))
                assert at not in self.samples, f"twice: {at}"
                self.samples[at] = sample.value

    def sum(self, name: str, **labels: str) -> float:
        """Add up what fits the labels; 0 where nothing does."""
        return sum(self.values(name, **labels))

    def values(self, name: str, **labels: str) -> list[float]:
        return [
            value
            for (of, has), value in self.samples.items()
            if of == name and all(dict(has).get(label) == wanted for label, wanted in labels.items())
        ]

    def labels(self, name: str, label: str) -> set[str]:
        return {dict(has)[label] for of, has in self.samples if of == name and label in dict(has)}

    def names(self) -> set[str]:
        return {re.sub(r"_(bucket|sum|count)$", "", name) for name, _ in self.samples}


def scrape(port: int) -> Scrape:
    answer = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=scaled(30))
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return Scrape(answer.text)


def scraped(port: int, condition: Callable[[Scrape], object], *, seconds: float = 120) -> Scrape:
    """Scrape until a page fits, and return it."""
    latest: Scrape | None = None

    def fitting() -> Scrape | None:
        nonlocal latest
        try:
            latest = scrape(port)
        except httpx.TransportError:
            return None
        return latest if condition(latest) else None

    return until(fitting, seconds=seconds, otherwise=lambda: latest.text if latest else "no answer")
