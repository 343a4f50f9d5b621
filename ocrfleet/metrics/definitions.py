"""Every metric: name, labels, buckets and help. Units are base units; no label grows with the number of documents.

Counters and histograms are zero until something happens. An `ObservedGauge` exists only while a process measures it, as
the leader does (ocrfleet/metrics/exposition.py).

Labels: every metric has `fleet`, which its exposition adds; `profile` and `engine` have a value for each profile that is served; `queue` is the priority, interactive or bulk;
`verdict` and `reason` are those of ocrfleet/errors.py and those below.
"""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import Counter, Gauge, Histogram


@dataclass(frozen=True)
class ObservedGauge:
    """A gauge whose values are measured together, from time to time."""

    name: str
    documentation: str
    labels: tuple[str, ...] = ()


# ---- every process

BUILD_INFO = Gauge("ocrfleet_build_info", "Always 1; the version is a label.", ["version"])
PRICE = ObservedGauge(
    "ocrfleet_price_per_gpu_hour",
    "Price of one GPU for one hour, in any currency (OCRFLEET_PRICE_PER_GPU_HOUR); absent unless set.",
)
STORE_ERRORS = Counter("ocrfleet_store_errors_total", "Failed reads and writes of the object store.")
DAMAGED_RECORDS = Counter(
    "ocrfleet_damaged_records_total",
    "Times that a process met a record in the store that it can't parse: damaged, or written by a newer version.",
)
REDIS_ERRORS = Counter("ocrfleet_redis_errors_total", "Failed requests to Redis, and jobs that could not be published.")

# ---- pages, counted by their worker

#: verdicts of a page that is done: text of the engine, which was accepted; blank page; text layer of the PDF
BELIEVED, BLANK, TEXT_LAYER = "believed", "blank", "text_layer"

PAGES = Counter(
    "ocrfleet_pages_total",
    "Pages that are done or failed. The verdict is the reason of a failure, or the origin of the text: believed (an engine's "
    "text was accepted), blank, text_layer (the text is the PDF's text layer).",
    ["status", "profile", "queue", "engine", "verdict"],
)
PAGE_WARNINGS = Counter(
    "ocrfleet_page_warnings_total",
    "Pages that ended with warnings about their file, by warning: a page counts once for each.",
    ["code", "profile"],
)
PAGES_FOR_REVIEW = Counter(
    "ocrfleet_pages_for_review_total",
    "Pages that are done and that a person should look at, as their confidence is low (confidence) or a second engine reads "
    "another text (audit).",
    ["cause", "profile"],
)
REVIEW_CAUSES = ("confidence", "audit")
PAGE_AUDITS = Counter(
    "ocrfleet_page_audits_total",
    "Pages that a second engine read (--audit), by what came of it: agreed, disagreed, or failed.",
    ["outcome", "profile"],
)
AUDIT_OUTCOMES = ("agreed", "disagreed", "failed")
PAGE_RETRIES = Counter(
    "ocrfleet_page_retries_total",
    "Further attempts at pages, by the outcome of the attempt before.",
    ["profile", "reason"],
)
#: Buckets reach from a page of a fast engine to one that takes its whole deadline.
STAGE_SECONDS = Histogram(
    "ocrfleet_stage_seconds",
    "Seconds that a page spent in a stage, including the wait for it: fetch (the source), render, recognise, judge, audit, store; "
    "for assemble, seconds of a document.",
    ["stage", "profile"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600),
)
STAGES = ("fetch", "render", "recognise", "judge", "audit", "store", "assemble")
TENANT_PAGES = Counter("ocrfleet_tenant_pages_total", "Pages that were submitted over HTTP.", ["tenant"])
TENANT_BYTES = Counter("ocrfleet_tenant_bytes_total", "Bytes that were submitted over HTTP.", ["tenant"])
QUOTA_REFUSALS = Counter(
    "ocrfleet_quota_refusals_total",
    "Submissions that were refused as a quota was spent: pages or bytes of a client, collection_pages or collection_bytes.",
    ["kind"],
)
RENDERER_CRASHES = Counter(
    "ocrfleet_renderer_crashes_total",
    "Sandboxed processes that crashed, hung or ran out of memory on a page or a file.",
    ["reason"],
)

SANDBOX_MISSING = Gauge(
    "ocrfleet_sandbox_missing",
    "Processes that open documents on a kernel without this kind of confinement (Landlock, seccomp).",
    ["kind"],
    multiprocess_mode="livesum",
)

# ---- the engine

ENGINE_REQUESTS = Gauge(
    "ocrfleet_engine_requests",
    "Pages in the engine: running, or waiting for a free slot.",
    ["state", "profile"],
    multiprocess_mode="livesum",
)
ENGINE_SLOTS = Gauge(
    "ocrfleet_engine_slots",
    "Pages that the engines recognise at the same time.",
    ["profile"],
    multiprocess_mode="livesum",
)
ENGINE_BUSY = Counter(
    "ocrfleet_engine_busy_seconds_total", "Seconds in which a worker had at least one page in flight.", ["profile"]
)
ENGINE_STARVED = Counter(
    "ocrfleet_engine_starved_seconds_total",
    "Seconds in which an engine had free slots while pages were still being prepared for it.",
    ["profile"],
)
ENGINE_RESTARTS = Counter(
    "ocrfleet_engine_restarts_total",
    "Worker processes, each with its engine, that were restarted.",
    ["profile"],
)
TOKENS = Counter(
    "ocrfleet_tokens_total",
    "Tokens that engines read (in: prompt and image) and wrote (out), as far as engines report them.",
    ["direction", "profile"],
)
TOKENS_WASTED = Counter(
    "ocrfleet_tokens_wasted_total", "Tokens written in attempts whose text was rejected.", ["profile"]
)
PAGE_TOKENS = Histogram(
    "ocrfleet_page_tokens",
    "Tokens that an engine wrote for a page in one attempt.",
    ["profile"],
    buckets=(16, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384),
)
GPU_UTILIZATION = ObservedGauge(
    "ocrfleet_gpu_utilization_ratio", "Share of the time in which the GPU was busy, 0 to 1.", ("gpu",)
)
GPU_MEMORY_USED = ObservedGauge("ocrfleet_gpu_memory_used_bytes", "Memory of the GPU in use, by any process.", ("gpu",))
GPU_MEMORY_TOTAL = ObservedGauge("ocrfleet_gpu_memory_total_bytes", "Total memory of the GPU.", ("gpu",))

# ---- intake

INTAKE_SECONDS = Histogram(
    "ocrfleet_intake_seconds",
    "Seconds of the intake of one source that was registered: fetch it, count its pages, register it.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
EVENTS = Counter(
    "ocrfleet_events_total",
    "Uploads reported by events (sqs, webhook) or found by listing (poll, reconcile): registered, or ignored because they need "
    "no action; and messages that were unparsable.",
    ["source", "outcome"],
)
OUTCOMES = ("registered", "ignored", "unparsable")
WATCH_LAST_SUCCESS = Gauge(
    "ocrfleet_watch_last_success_timestamp_seconds",
    "Unix time at which a queue or a prefix was last asked for uploads and all of them were registered; before the first "
    "time, the start of the watch.",
    ["source"],
)

# ---- the fleet, as its leader sees it

LEADER = ObservedGauge("ocrfleet_leader", "Whether this process leads the fleet (1) or is a candidate (0).")
WORKERS = ObservedGauge("ocrfleet_workers", "Worker processes with a heartbeat.", ("profile",))
FLEET_SPEED = ObservedGauge(
    "ocrfleet_fleet_pages_per_second",
    "Speed of all workers: pages per busy second, measured, or assumed for new workers.",
)
BACKLOG_PAGES = ObservedGauge(
    "ocrfleet_backlog_pages",
    "Pages that are not read yet: waiting (not on the queue; without paused collections), queued, running (with a worker).",
    ("queue", "state"),
)
BACKLOG_SECONDS = ObservedGauge(
    "ocrfleet_backlog_seconds",
    "Seconds until the workers of the slowest profile have read its share of these pages; without workers, that one takes at the "
    "assumed speed.",
    ("queue",),
)
OLDEST_WAITING = ObservedGauge(
    "ocrfleet_oldest_waiting_seconds",
    "Seconds since the registration of the oldest document with pages that no worker has begun; 0 without one. Without paused "
    "and retried documents.",
    ("queue",),
)
DOCUMENTS = ObservedGauge(
    "ocrfleet_documents",
    "Documents that are waiting, paused, active, or ended and undelivered; counted up to 10,000 of each.",
    ("state",),
)
ARRIVALS = ObservedGauge(
    "ocrfleet_arrivals", "Intake batches that wait; counted up to 10,000 of each priority.", ("queue",)
)
OLDEST_ARRIVAL = ObservedGauge(
    "ocrfleet_oldest_arrival_seconds",
    "Seconds since the submission of the oldest intake batch with sources that are not registered; 0 without one.",
    ("queue",),
)
WEBHOOKS = ObservedGauge(
    "ocrfleet_webhooks",
    "Webhook deliveries that are due (waiting), or failed for a day (given_up); counted up to 10,000 of each.",
    ("state",),
)
QUARANTINED = ObservedGauge(
    "ocrfleet_quarantined_pages",
    "Pages in quarantine: workers died with each of them alone in flight; until a retry. Counted up to 10,000.",
    ("reason",),
)
REDIS_MEMORY_USED = ObservedGauge("ocrfleet_redis_memory_used_bytes", "Memory that Redis uses, in bytes.")
REDIS_MEMORY_MAX = ObservedGauge(
    "ocrfleet_redis_memory_max_bytes", "Memory limit of Redis, in bytes; 0 without a limit."
)
REDIS_EVICTED = ObservedGauge(
    "ocrfleet_redis_evicted_keys", "Keys that Redis evicted for lack of memory since it started."
)
STORE_FREE = ObservedGauge(
    "ocrfleet_store_free_bytes", "Free bytes of the file system of the store; absent for a store in S3."
)
STORE_SIZE = ObservedGauge(
    "ocrfleet_store_size_bytes", "Size of the file system of the store, in bytes; absent for a store in S3."
)
DOCUMENTS_ENDED = Counter(
    "ocrfleet_documents_ended_total",
    "Documents that ended and were delivered. A document that is submitted again is delivered and counted again.",
    ["status"],
)
#: Buckets reach from a page that a person waits for to a large archive.
TURNAROUND = Histogram(
    "ocrfleet_turnaround_seconds",
    "Seconds from a document's latest submission to the delivery of its text; without retried documents.",
    ["queue"],
    buckets=(1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400, 259200, 604800),
)
LEASES_EXPIRED = Counter(
    "ocrfleet_leases_expired_total", "Jobs that went back to the queue because their lease expired."
)
REPUBLISHED = Counter(
    "ocrfleet_republished_total",
    "Pages, assemblies and intakes that were published again: lost from the queue, or intakes that were postponed.",
    ["kind"],
)
REPUBLISHED_KINDS = ("page", "assembly", "intake")
