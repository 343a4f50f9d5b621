"""Fleet overview: the first dashboard to look at. Does it keep up, is it busy, where does the time go, what is broken?"""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana.panels import INSTANCE, LED, OVERVIEW, PROFILE, QUEUE, above, below, board, lines, number, rows

PAGES = 'profile=~"$profile", queue=~"$queue"'
ENGINES = 'profile=~"$profile", instance=~"$instance"'

KEEPING_UP = (
    number(
        "Pages done",
        "Pages whose text was stored and believed, each second, over the whole fleet.",
        "it is 0 while pages wait.",
        {"": f'sum(rate(ocrfleet_pages_total{{status="done", {PAGES}}}[$__rate_interval]))'},
        unit="suffix: pages/s",
        decimals=2,
    ),
    number(
        "Backlog against its deadline",
        "Time that the waiting pages of each queue take at the fleet's present speed, as a share of the queue's deadline.",
        "it nears 100 %: what comes in now will be late.",
        {"{{queue}}": 'ocrfleet:backlog_seconds{queue=~"$queue"} / on (queue) ocrfleet:deadline_seconds'},
        unit="percentunit",
        steps=above(0.7, 1),
    ),
    number(
        "Oldest waiting page",
        "Age of the oldest document of each queue with pages that no worker has begun. Paused collections are left out.",
        "it grows steadily: something is never reached.",
        {"{{queue}}": f'max by (queue) (ocrfleet_oldest_waiting_seconds{{queue=~"$queue"}} {LED})'},
        unit="s",
        steps=above(3600, 86400),
    ),
    number(
        "Workers",
        "Worker processes whose heartbeat is to be seen in Redis, by profile.",
        "a profile has none while pages wait for it.",
        {"{{profile}}": f'max by (profile) (ocrfleet_workers{{profile=~"$profile"}} {LED})'},
        unit="none",
        steps=below(1),
        decimals=0,
    ),
    number(
        "Pages that failed in the last hour",
        "Share of the pages that ended in the last hour without a text that is believed, by profile.",
        "it is well above what is usual for these documents.",
        {"{{profile}}": 'ocrfleet:page_failures:ratio_rate1h{profile=~"$profile"}'},
        unit="percentunit",
        steps=above(0.05, 0.2),
    ),
    number(
        "Alerts that fire",
        "Number of alerts of this fleet that fire now; the table at the bottom names them.",
        "there is one. docs/howto/alerts.md says what to do, alert by alert.",
        {"": 'count(ALERTS{alertname=~"Ocrfleet.*", alertstate="firing"}) or vector(0)'},
        unit="none",
        steps=above(1, 1),
        decimals=0,
    ),
    lines(
        "Pages that ended",
        "Pages done and failed each second.",
        "done falls while the backlog stays, or failed rises.",
        {"{{status}}": f"sum by (status) (rate(ocrfleet_pages_total{{{PAGES}}}[$__rate_interval]))"},
        unit="suffix: pages/s",
        stacked=True,
    ),
    lines(
        "Pages done, and what the fleet could do",
        "Pages done each second, and what the workers that are there read while they have any: the backlog is reckoned by that.",
        "done stays far below while there is a backlog: workers wait for something.",
        {
            "done": 'sum(rate(ocrfleet_pages_total{status="done"}[$__rate_interval]))',
            "could": f"max(ocrfleet_fleet_pages_per_second {LED})",
        },
        unit="suffix: pages/s",
    ),
    lines(
        "Pages that were tried again, by reason",
        "Further attempts at pages each second, by what the attempt before had come to.",
        "it nears the pages done: each page is then read twice.",
        {"{{reason}}": 'sum by (reason) (rate(ocrfleet_page_retries_total{profile=~"$profile"}[$__rate_interval]))'},
        unit="suffix: pages/s",
        stacked=True,
    ),
    lines(
        "Backlog in pages",
        "Pages that wait in the store (waiting), that are on the queue (queued), and that workers hold (running).",
        "waiting grows for hours. queued is bounded and stays level.",
        {"{{queue}} {{state}}": 'ocrfleet:backlog_pages{queue=~"$queue"}'},
        unit="suffix: pages",
        stacked=True,
    ),
    lines(
        "Backlog in time",
        "Time that the waiting pages of each queue take at the fleet's present speed, and the queue's deadline.",
        "a queue is above its deadline, or heads for it.",
        {
            "{{queue}}": 'ocrfleet:backlog_seconds{queue=~"$queue"}',
            "deadline of {{queue}}": 'ocrfleet:deadline_seconds{queue=~"$queue"}',
        },
        unit="s",
    ),
    lines(
        "Time from submission to result",
        "From a document's submission (an upload's: when watch noticed it) to the delivery of its text: half of the documents, nine of ten, and 99 of 100 are faster.",
        "the line of nine of ten is above the deadline.",
        {
            f"{{{{queue}}}} {quantile}": f"histogram_quantile({quantile}, sum by (le, queue) "
            '(rate(ocrfleet_turnaround_seconds_bucket{queue=~"$queue"}[$__rate_interval])))'
            for quantile in (0.5, 0.9, 0.99)
        },
        unit="s",
    ),
    lines(
        "Documents by state",
        "Documents that wait to be dispatched, that are paused, whose pages are being read (active), and that ended but could not be delivered yet (undelivered).",
        "undelivered grows: results can't be delivered. The log of serve says why.",
        {"{{state}}": f"max by (state) (ocrfleet_documents {LED})"},
        unit="suffix: documents",
        stacked=True,
    ),
)

BUSY = (
    lines(
        "Time that engines had room and no page was ready",
        "Share of the time with pages in hand in which the engine had room for more than were ready. Click for the worker.",
        "a GPU is above 10 % for a quarter of an hour: it is paid for and not used. Engines on CPUs share their cores with the "
        "renderers, so some is normal there.",
        {"{{instance}} {{profile}}": f"ocrfleet:engine_starved:ratio_rate10m{{{ENGINES}}}"},
        unit="percentunit",
        steps=above(0.05, 0.1),
        top=1,
        to_worker=True,
    ),
    lines(
        "Requests in the engines, and slots for them",
        "Pages that engines write (running) or have taken and not begun (waiting), and how many they could write at once.",
        "running is far below the slots while there is a backlog.",
        {
            "{{state}}": f"sum by (state) (ocrfleet_engine_requests{{{ENGINES}}})",
            "slots": f"sum(ocrfleet_engine_slots{{{ENGINES}}})",
        },
        unit="suffix: pages",
    ),
    lines(
        "GPU use",
        "Share of the time that each GPU computed, as its driver says. Click for the worker.",
        "it is low while there is a backlog: see the panel on engines that have room.",
        {"{{instance}} GPU {{gpu}}": 'ocrfleet_gpu_utilization_ratio{instance=~"$instance"}'},
        unit="percentunit",
        top=1,
        to_worker=True,
    ),
    lines(
        "GPU memory",
        "Share of each GPU's memory that is taken: weights, KV cache, and whatever else runs there.",
        "it changes while a worker runs: vLLM takes its memory at the start, so another process took some.",
        {
            "{{instance}} GPU {{gpu}}": 'ocrfleet_gpu_memory_used_bytes{instance=~"$instance"} '
            '/ ocrfleet_gpu_memory_total_bytes{instance=~"$instance"}'
        },
        unit="percentunit",
        top=1,
        to_worker=True,
    ),
    lines(
        "Tokens",
        "Tokens each second that models read (in: prompt and image) and wrote (out). CPU engines have none.",
        "out falls while the pages done stay: texts become shorter, or pages blank.",
        {"{{direction}}": f"sum by (direction) (rate(ocrfleet_tokens_total{{{ENGINES}}}[$__rate_interval]))"},
        unit="suffix: tokens/s",
    ),
    lines(
        "KV cache of vLLM",
        "Share of the KV cache that the pages in hand take, in vLLM's own words.",
        "it is at 100 % for long: pages are thrown out and begun again. Lower OCRFLEET_VLLM_MAX_NUM_SEQS.",
        {"{{instance}}": 'max by (instance) (vllm:kv_cache_usage_perc{instance=~"$instance"})'},
        unit="percentunit",
        steps=above(0.9, 0.99),
        top=1,
        to_worker=True,
    ),
)

STAGES = (
    lines(
        "Time of a page, by stage",
        "Mean seconds of each stage, waiting included: fetch the source, render, recognise, judge, store; assemble is that of a document.",
        "one grows: it says what to look at. Stages of several pages go on at once, so these don't add up to the pages done.",
        {
            "{{stage}}": 'sum by (stage) (rate(ocrfleet_stage_seconds_sum{profile=~"$profile"}[$__rate_interval])) '
            '/ (sum by (stage) (rate(ocrfleet_stage_seconds_count{profile=~"$profile"}[$__rate_interval])) > 0)'
        },
        unit="s",
        stacked=True,
    ),
    lines(
        "Slow pages, by stage",
        "Nineteen of twenty pages are faster than this in each stage.",
        "it is far above the mean: a few pages are slow, or the store is so now and then.",
        {
            "{{stage}}": "histogram_quantile(0.95, sum by (le, stage) "
            '(rate(ocrfleet_stage_seconds_bucket{profile=~"$profile"}[$__rate_interval])))'
        },
        unit="s",
    ),
)

BROKEN = (
    rows(
        "Alerts that fire",
        "Each alert of this fleet that fires now.",
        "there is one of severity critical: docs/howto/alerts.md has a section for it.",
        'ALERTS{alertname=~"Ocrfleet.*", alertstate="firing"}',
        unit="none",
    ),
    rows(
        "Processes",
        "Every process that Prometheus knows of: 1 when it gives its metrics, 0 when not.",
        "there is a 0 for more than a few minutes.",
        'up{job=~".*ocrfleet.*"}',
        unit="none",
    ),
    lines(
        "Leases that expired, and jobs published again",
        "Jobs whose worker went silent, and pages, assemblies and arrivals that the sweep found missing and published again, an hour.",
        "it goes on without a worker having died or Redis restarted: messages get lost.",
        {
            "leases": "sum(increase(ocrfleet_leases_expired_total[1h]))",
            "{{kind}}": "sum by (kind) (increase(ocrfleet_republished_total[1h]))",
        },
        unit="none",
    ),
    lines(
        "Pages in quarantine",
        "Pages with which workers died, in quarantine until a retry; ocrfleet quarantine lists them.",
        "it rises.",
        {"pages": "ocrfleet:quarantined_pages"},
        unit="suffix: pages",
    ),
    lines(
        "Crashes of renderers, by reason",
        "Sandboxed renderers that crashed, took too long or too much memory, an hour. Each costs one attempt at one page.",
        "they come with ordinary documents: memory is short.",
        {"{{reason}}": "sum by (reason) (increase(ocrfleet_renderer_crashes_total[1h]))"},
        unit="none",
    ),
    lines(
        "Engines started again",
        "Workers whose engine died and was started again, an hour. Click for the worker.",
        "one is above 2.",
        {
            "{{instance}} {{profile}}": "sum by (instance, profile) "
            f"(increase(ocrfleet_engine_restarts_total{{{ENGINES}}}[1h]))"
        },
        unit="none",
        steps=above(1, 3),
        to_worker=True,
    ),
    lines(
        "Errors of the store and of Redis",
        "Requests each second that failed after all retries, by kind of process.",
        "it goes on for minutes.",
        {
            "store: {{job}}": "sum by (job) (rate(ocrfleet_store_errors_total[$__rate_interval]))",
            "Redis: {{job}}": "sum by (job) (rate(ocrfleet_redis_errors_total[$__rate_interval]))",
        },
        unit="reqps",
    ),
    lines(
        "Redis memory",
        "What Redis uses, and its limit (maxmemory; 0: none).",
        "it is above 80 % of the limit: at 100 % Redis refuses writes.",
        {
            "used": f"max(ocrfleet_redis_memory_used_bytes {LED})",
            "limit": f"max(ocrfleet_redis_memory_max_bytes {LED})",
        },
        unit="bytes",
    ),
    lines(
        "Keys that Redis evicted",
        "Keys that Redis threw away for want of memory since it was started.",
        "it is not 0: maxmemory-policy must be noeviction.",
        {"keys": f"max(ocrfleet_redis_evicted_keys {LED})"},
        unit="none",
        steps=above(1, 1),
    ),
    lines(
        "Versions that run",
        "Processes by their version. While a deployment goes on there are two.",
        "two versions stay.",
        {"{{version}}": "count by (version) (ocrfleet_build_info)"},
        unit="none",
        stacked=True,
    ),
)


def fleet_overview() -> Dashboard:
    return board(
        OVERVIEW,
        "Fleet overview",
        "The first one to look at. Does the fleet keep up, are its GPUs busy, where does the time go, and what is broken?",
        (QUEUE, PROFILE, INSTANCE),
        {
            "Is it keeping up?": KEEPING_UP,
            "Is the GPU busy?": BUSY,
            "Where does the time go?": STAGES,
            "What is broken?": BROKEN,
        },
    )
