"""Every metric, declared once: what it counts, in base units, with labels that no number of documents makes more.

Counters and histograms stand at zero until something happens. What is looked up all at once, as the leader does, is
`ObservedGauge`: it is there while somebody looks, and gone after that (ocrfleet/metrics/exposition.py).

Labels: `profile` and `engine` are as many as profiles are served; `queue` is interactive or bulk; a `verdict` or `reason` is
one of ocrfleet/errors.py's, or stands below.
"""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import Counter, Gauge, Histogram


@dataclass(frozen=True)
class ObservedGauge:
    """A gauge that is looked up now and then, all its values at once."""

    name: str
    documentation: str
    labels: tuple[str, ...] = ()


# ---- every process

BUILD_INFO = Gauge("ocrfleet_build_info", "Always 1; the version is a label.", ["version"])
PRICE = ObservedGauge(
    "ocrfleet_price_per_gpu_hour", "What a GPU costs for an hour, in any currency; not there unless set."
)
STORE_ERRORS = Counter("ocrfleet_store_errors_total", "Times the object store could not be read or written.")
REDIS_ERRORS = Counter("ocrfleet_redis_errors_total", "Times Redis could not be asked, or a job not be published.")

# ---- pages, counted by the worker that had them

#: verdict of a page that is done: read by the engine; nothing on it; the PDF's own text
BELIEVED, BLANK, TEXT_LAYER = "believed", "blank", "text_layer"

PAGES = Counter(
    "ocrfleet_pages_total",
    "Pages that came to an end, done or failed. The verdict says why a page failed, or how it got done: believed (what an "
    "engine wrote), blank, text_layer (the PDF's own text).",
    ["status", "profile", "queue", "engine", "verdict"],
)
PAGE_RETRIES = Counter(
    "ocrfleet_page_retries_total",
    "Further attempts at pages, by what the attempt before had come to.",
    ["profile", "reason"],
)
#: From a page of a fast engine to one that takes all of its deadline.
STAGE_SECONDS = Histogram(
    "ocrfleet_stage_seconds",
    "Seconds that a page spent in a stage, its waiting for a place there included: fetch (the source), render, recognise, "
    "judge, store; and a document in assemble.",
    ["stage", "profile"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600),
)
STAGES = ("fetch", "render", "recognise", "judge", "store", "assemble")
RENDERER_CRASHES = Counter(
    "ocrfleet_renderer_crashes_total",
    "Sandboxed processes that crashed, hung, or ran out of memory over a page or a file.",
    ["reason"],
)

# ---- the engine

ENGINE_REQUESTS = Gauge(
    "ocrfleet_engine_requests",
    "Pages with the engine: running, or waiting since it takes no more at once.",
    ["state", "profile"],
    multiprocess_mode="livesum",
)
ENGINE_SLOTS = Gauge(
    "ocrfleet_engine_slots", "Pages that the engines take at once.", ["profile"], multiprocess_mode="livesum"
)
ENGINE_BUSY = Counter(
    "ocrfleet_engine_busy_seconds_total", "Seconds in which a worker had at least one page in hand.", ["profile"]
)
ENGINE_STARVED = Counter(
    "ocrfleet_engine_starved_seconds_total",
    "Seconds in which an engine had room while pages were still being made ready for it.",
    ["profile"],
)
ENGINE_RESTARTS = Counter(
    "ocrfleet_engine_restarts_total",
    "Worker processes, each with its engine, that had to be started again.",
    ["profile"],
)
TOKENS = Counter(
    "ocrfleet_tokens_total",
    "Tokens that engines read (in: prompt and image) and wrote (out), as far as they say so.",
    ["direction", "profile"],
)
TOKENS_WASTED = Counter(
    "ocrfleet_tokens_wasted_total", "Tokens written in attempts whose text was not believed.", ["profile"]
)
PAGE_TOKENS = Histogram(
    "ocrfleet_page_tokens",
    "Tokens that an engine wrote for a page in one attempt.",
    ["profile"],
    buckets=(16, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384),
)
GPU_UTILIZATION = ObservedGauge(
    "ocrfleet_gpu_utilization_ratio", "Share of the time in which the GPU computed.", ("gpu",)
)
GPU_MEMORY_USED = ObservedGauge(
    "ocrfleet_gpu_memory_used_bytes", "Memory of the GPU that is taken, by anybody.", ("gpu",)
)
GPU_MEMORY_TOTAL = ObservedGauge("ocrfleet_gpu_memory_total_bytes", "Memory that the GPU has.", ("gpu",))

# ---- intake

INTAKE_SECONDS = Histogram(
    "ocrfleet_intake_seconds",
    "Seconds to take in one source: fetch it, count its pages, register it.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
EVENTS = Counter(
    "ocrfleet_events_total",
    "Uploads that were told of (sqs, webhook) or found by looking (poll, reconcile): registered to be read; ignored, as nothing "
    "is to be done for them; or messages that were unparsable.",
    ["source", "outcome"],
)
OUTCOMES = ("registered", "ignored", "unparsable")
WATCH_LAST_SUCCESS = Gauge(
    "ocrfleet_watch_last_success_timestamp_seconds",
    "When a queue or a prefix was last asked for uploads, and what it told was registered; before that, when the watch began.",
    ["source"],
)

# ---- the fleet, as its leader sees it

LEADER = ObservedGauge("ocrfleet_leader", "Whether this process leads the fleet (1) or would take over (0).")
WORKERS = ObservedGauge("ocrfleet_workers", "Living worker processes.", ("profile",))
FLEET_SPEED = ObservedGauge(
    "ocrfleet_fleet_pages_per_second",
    "Pages that the living workers read in a second while they have any: measured, or assumed of new ones.",
)
BACKLOG_PAGES = ObservedGauge(
    "ocrfleet_backlog_pages",
    "Pages to be read: waiting (not on the queue yet; those of paused collections left out), queued, running (in a worker's "
    "hand).",
    ("queue", "state"),
)
BACKLOG_SECONDS = ObservedGauge(
    "ocrfleet_backlog_seconds",
    "Seconds that the fleet takes for these pages at its speed; without workers, that one takes at the speed assumed.",
    ("queue",),
)
OLDEST_WAITING = ObservedGauge(
    "ocrfleet_oldest_waiting_seconds",
    "Seconds since the registration of the oldest document that has pages nobody has begun; 0 without one. Documents that "
    "are paused, or tried again, are left out.",
    ("queue",),
)
DOCUMENTS = ObservedGauge(
    "ocrfleet_documents",
    "Documents that are waiting, paused, active, or ended but undelivered; at most 10,000 of each are counted.",
    ("state",),
)
ARRIVALS = ObservedGauge(
    "ocrfleet_arrivals", "Arrivals that nobody has taken in yet; at most 10,000 of each class are counted.", ("queue",)
)
WEBHOOKS = ObservedGauge(
    "ocrfleet_webhooks",
    "Ends of documents that somebody is to be told of (waiting), or could not be told of for a day (given_up); at most 10,000 "
    "of each are counted.",
    ("state",),
)
QUARANTINED = ObservedGauge(
    "ocrfleet_quarantined_pages",
    "Pages that failed because workers died of them, until somebody has them tried again; at most 10,000 are counted.",
    ("reason",),
)
REDIS_MEMORY_USED = ObservedGauge("ocrfleet_redis_memory_used_bytes", "Memory that Redis uses.")
REDIS_MEMORY_MAX = ObservedGauge("ocrfleet_redis_memory_max_bytes", "Memory that Redis may use; 0 without a limit.")
REDIS_EVICTED = ObservedGauge(
    "ocrfleet_redis_evicted_keys", "Keys that Redis dropped for want of memory since it started."
)
DOCUMENTS_ENDED = Counter(
    "ocrfleet_documents_ended_total",
    "Documents that ended and were delivered; one that is submitted again after that is delivered, and counted, again.",
    ["status"],
)
#: From a page that somebody waits for to an archive that took its turn.
TURNAROUND = Histogram(
    "ocrfleet_turnaround_seconds",
    "Seconds from a document's latest submission to the delivery of its text; those that are tried again are left out.",
    ["queue"],
    buckets=(1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400, 259200, 604800),
)
LEASES_EXPIRED = Counter(
    "ocrfleet_leases_expired_total", "Jobs that went back to the queue because nobody renewed their lease."
)
REPUBLISHED = Counter(
    "ocrfleet_republished_total",
    "Pages, assemblies and intakes that had vanished from the queue, or intakes that were left for later, published again.",
    ["kind"],
)
REPUBLISHED_KINDS = ("page", "assembly", "intake")
