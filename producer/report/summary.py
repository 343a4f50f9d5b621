"""Counts of a report: pages by state, confidence, throughput and cost."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from producer.report.pages import PageState, ReportedPage, Runs

#: Number of bins of the confidence histogram from 0 to 1.
BINS = 20
_SECONDS = 60


@dataclass(slots=True)
class Summary:
    """Counts over the pages of a report, each page once."""

    pages: int = 0
    states: Counter[str] = field(default_factory=Counter)
    documents: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    warnings: Counter[str] = field(default_factory=Counter)
    scripts: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    engines: Counter[str] = field(default_factory=Counter)
    #: done pages, by confidence
    confidence: list[int] = field(default_factory=lambda: [0] * BINS)
    #: done pages without a confidence
    no_confidence: int = 0
    blank: int = 0
    review: int = 0
    text_layer: int = 0
    #: pages with at least one warning
    warned: int = 0
    words: int = 0
    attempts: int = 0
    render_seconds: float = 0.0
    recognise_seconds: float = 0.0
    tokens: int = 0
    workers: set[str] = field(default_factory=set)
    #: pages that workers ended, over all runs
    ended_by_workers: int = 0
    first: float | None = None
    last: float | None = None
    _minutes: set[int] = field(default_factory=set)

    def add(self, page: ReportedPage) -> None:
        """Count a page."""
        self.pages += 1
        self.states[page.state] += 1
        self.warnings.update(page.warnings)
        self.warned += bool(page.warnings)
        self.blank += page.blank
        self.review += page.review
        self.text_layer += page.text_layer
        self.words += page.words
        self.attempts += page.effort.attempts
        self.render_seconds += page.effort.render_seconds
        self.recognise_seconds += page.effort.recognise_seconds
        self.tokens += page.effort.tokens
        if page.reason:
            self.reasons[page.reason] += 1
        if page.script:
            self.scripts[page.script] += 1
        if page.words:
            self.languages[page.language] += 1
        if page.engine and not page.blank:
            self.engines[" · ".join(filter(None, (page.engine, page.model)))] += 1
        if page.state is PageState.DONE:
            if page.confidence is None:
                self.no_confidence += 1
            else:
                self.confidence[min(BINS - 1, int(page.confidence * BINS))] += 1

    def add_runs(self, runs: Runs) -> None:
        """Count the run records of a document."""
        self.workers |= runs.workers
        for finished, pages in runs.finished:
            self.ended_by_workers += pages
            self.first = finished if self.first is None else min(self.first, finished)
            self.last = finished if self.last is None else max(self.last, finished)
            self._minutes.add(int(finished // _SECONDS))

    @property
    def working_seconds(self) -> float:
        """Working time in seconds: the minutes in which a page ended, so that pauses between runs do not count."""
        return float(len(self._minutes) * _SECONDS)
