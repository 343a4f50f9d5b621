"""Dashboard "Fleet overview": throughput and backlog, utilisation, time per stage, errors."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana.panels import INSTANCE, LED, OVERVIEW, PROFILE, QUEUE, above, below, board, lines, number, rows

PAGES = 'profile=~"$profile", queue=~"$queue"'
ENGINES = 'profile=~"$profile", instance=~"$instance"'

KEEPING_UP = (
    number(
        "Pages done",
        "Accepted pages per second, over the whole fleet.",
        "the value is 0 while pages wait.",
        {"": f'sum(rate(ocrfleet_pages_total{{status="done", {PAGES}}}[$__rate_interval]))'},
        unit="suffix: pages/s",
        decimals=2,
    ),
    number(
        "Backlog relative to its deadline",
        "Time to read the waiting pages of each queue at the current speed of the fleet, divided by the deadline of the queue.",
        "the value approaches 100 %: new pages will miss the deadline.",
        {"{{queue}}": 'ocrfleet:backlog_seconds{queue=~"$queue"} / on (queue) ocrfleet:deadline_seconds'},
        unit="percentunit",
        steps=above(0.7, 1),
    ),
    number(
        "Age of the oldest waiting document",
        "Age of the oldest document in each queue that has pages waiting for a worker. Paused collections are excluded.",
        "the age grows steadily: the dispatcher never reaches a document.",
        {"{{queue}}": f'max by (queue) (ocrfleet_oldest_waiting_seconds{{queue=~"$queue"}} {LED})'},
        unit="s",
        steps=above(3600, 86400),
    ),
    number(
        "Workers",
        "Worker processes with a current heartbeat in Redis, by profile.",
        "a profile has no workers while its pages wait.",
        {"{{profile}}": f'max by (profile) (ocrfleet_workers{{profile=~"$profile"}} {LED})'},
        unit="none",
        steps=below(1),
        decimals=0,
    ),
    number(
        "Failed pages, last hour",
        "Share of failed pages among the pages that ended in the last hour, by profile.",
        "the share is well above the usual share for these documents.",
        {"{{profile}}": 'ocrfleet:page_failures:ratio_rate1h{profile=~"$profile"}'},
        unit="percentunit",
        steps=above(0.05, 0.2),
    ),
    number(
        "Firing alerts",
        "Number of firing alerts of this fleet. The table at the bottom lists them.",
        "an alert fires: docs/howto/alerts.md has a section for each alert.",
        {
            "": 'count(ALERTS{alertname=~"Ocrfleet.*", fleet=~"$fleet|", severity!="none", alertstate="firing"}) or vector(0)'
        },
        unit="none",
        steps=above(1, 1),
        decimals=0,
    ),
    lines(
        "Ended pages",
        "Done and failed pages per second.",
        "the rate of done pages falls while the backlog stays, or the rate of failed pages rises.",
        {"{{status}}": f"sum by (status) (rate(ocrfleet_pages_total{{{PAGES}}}[$__rate_interval]))"},
        unit="suffix: pages/s",
        stacked=True,
    ),
    lines(
        "Pages done, and capacity of the fleet",
        "Pages done per second (done), and pages per second that the current workers read while they are busy (capacity). The backlog in seconds is computed from the capacity.",
        "the rate of done pages stays far below the capacity while there is a backlog: workers are idle or blocked.",
        {
            "done": 'sum(rate(ocrfleet_pages_total{status="done"}[$__rate_interval]))',
            "capacity": f"max(ocrfleet_fleet_pages_per_second {LED})",
        },
        unit="suffix: pages/s",
    ),
    lines(
        "Retries, by reason",
        "Retries per second, by the outcome of the previous attempt.",
        "the rate approaches that of pages done: each page is then read twice.",
        {"{{reason}}": 'sum by (reason) (rate(ocrfleet_page_retries_total{profile=~"$profile"}[$__rate_interval]))'},
        unit="suffix: pages/s",
        stacked=True,
    ),
    lines(
        "Backlog in pages",
        "Pages that wait in the store (waiting), that wait on the queue (queued), and that workers process (running).",
        "the number of waiting pages grows for hours. The number of queued pages is bounded.",
        {"{{queue}} {{state}}": 'ocrfleet:backlog_pages{queue=~"$queue"}'},
        unit="suffix: pages",
        stacked=True,
    ),
    lines(
        "Backlog in time",
        "Time to read the waiting pages of each queue at the current speed of the fleet, and the deadline of the queue.",
        "the backlog of a queue is above its deadline, or rises towards it.",
        {
            "{{queue}}": 'ocrfleet:backlog_seconds{queue=~"$queue"}',
            "deadline of {{queue}}": 'ocrfleet:deadline_seconds{queue=~"$queue"}',
        },
        unit="s",
    ),
    lines(
        "Time from submission to result",
        "Time from the submission of a document (for an upload: from its event or listing) to the delivery of its text: median, 90th and 99th percentile.",
        "the 90th percentile is above the deadline.",
        {
            f"{{{{queue}}}} {quantile}": f"histogram_quantile({quantile}, sum by (le, queue) "
            '(rate(ocrfleet_turnaround_seconds_bucket{queue=~"$queue"}[$__rate_interval])))'
            for quantile in (0.5, 0.9, 0.99)
        },
        unit="s",
    ),
    lines(
        "Documents by state",
        "Documents that wait for dispatch (waiting), in paused collections (paused), with pages at workers (active), and ended without delivery so far (undelivered).",
        "the number of undelivered documents grows: the log of `serve` has the error.",
        {"{{state}}": f"max by (state) (ocrfleet_documents {LED})"},
        unit="suffix: documents",
        stacked=True,
    ),
)

BUSY = (
    lines(
        "Free engine slots while no page is ready",
        "Share of the busy time of an engine in which it had free slots and no page was ready. Click a line to open its worker.",
        "a GPU is above 10 % for 15 minutes: it is underused. CPU engines share their cores with the renderers, so a higher "
        "share is normal there.",
        {"{{instance}} {{profile}}": f"ocrfleet:engine_starved:ratio_rate10m{{{ENGINES}}}"},
        unit="percentunit",
        steps=above(0.05, 0.1),
        top=1,
        to_worker=True,
    ),
    lines(
        "Requests and slots of the engines",
        "Requests that the engines process (running) or have queued (waiting), and the requests that they can process at once (slots).",
        "the number of running requests is far below the number of slots while there is a backlog.",
        {
            "{{state}}": f"sum by (state) (ocrfleet_engine_requests{{{ENGINES}}})",
            "slots": f"sum(ocrfleet_engine_slots{{{ENGINES}}})",
        },
        unit="suffix: pages",
    ),
    lines(
        "GPU utilisation",
        "Utilisation of each GPU, as reported by NVML. Click a line to open its worker.",
        "the utilisation is low while there is a backlog: see the panel on free engine slots.",
        {"{{instance}} GPU {{gpu}}": 'ocrfleet_gpu_utilization_ratio{instance=~"$instance"}'},
        unit="percentunit",
        top=1,
        to_worker=True,
    ),
    lines(
        "GPU memory",
        "Share of the memory of each GPU in use: weights, KV cache, and other processes on the GPU.",
        "the value changes while a worker runs: vLLM allocates its memory at the start, so another process uses the GPU.",
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
        "Input tokens (in: prompt and image) and output tokens (out) per second. CPU engines have no tokens.",
        "the rate of output tokens falls while the rate of pages done stays: texts are shorter, or pages are blank.",
        {"{{direction}}": f"sum by (direction) (rate(ocrfleet_tokens_total{{{ENGINES}}}[$__rate_interval]))"},
        unit="suffix: tokens/s",
    ),
    lines(
        "KV cache of vLLM",
        "Share of the KV cache in use, as reported by vLLM.",
        "the share stays at 100 %: vLLM preempts requests and starts them again. Lower OCRFLEET_VLLM_MAX_NUM_SEQS.",
        {"{{instance}}": 'max by (instance) (vllm:kv_cache_usage_perc{instance=~"$instance"})'},
        unit="percentunit",
        steps=above(0.9, 0.99),
        top=1,
        to_worker=True,
    ),
)

STAGES = (
    lines(
        "Time per page, by stage",
        "Mean time of each stage per page, including waiting: fetch the source, render, recognise, judge, store. assemble: time per document.",
        "the time of one stage grows. Stages of several pages run at the same time, so the throughput does not follow from the sum.",
        {
            "{{stage}}": 'sum by (stage) (rate(ocrfleet_stage_seconds_sum{profile=~"$profile"}[$__rate_interval])) '
            '/ (sum by (stage) (rate(ocrfleet_stage_seconds_count{profile=~"$profile"}[$__rate_interval])) > 0)'
        },
        unit="s",
        stacked=True,
    ),
    lines(
        "Time per page, by stage (95th percentile)",
        "95th percentile of the time of each stage per page.",
        "the value is far above the mean: a few pages are slow, or the store is slow at times.",
        {
            "{{stage}}": "histogram_quantile(0.95, sum by (le, stage) "
            '(rate(ocrfleet_stage_seconds_bucket{profile=~"$profile"}[$__rate_interval])))'
        },
        unit="s",
    ),
)

BROKEN = (
    rows(
        "Firing alerts",
        "Alerts of this fleet that fire now.",
        "an alert of severity critical fires: docs/howto/alerts.md has a section for each alert.",
        'ALERTS{alertname=~"Ocrfleet.*", fleet=~"$fleet|", severity!="none", alertstate="firing"}',
        unit="none",
    ),
    rows(
        "Processes",
        "Every process of this fleet that Prometheus scrapes: 1 when the last scrape succeeded, 0 when it failed.",
        "a process has 0 for more than a few minutes.",
        "ocrfleet:up",
        unit="none",
    ),
    lines(
        "Expired leases, and republished jobs",
        "Expired leases per hour, and page, assembly and intake jobs per hour that the sweep found missing and published again.",
        "the rate stays above 0 although no worker died and Redis did not restart: the broker loses messages.",
        {
            "leases": "sum(increase(ocrfleet_leases_expired_total[1h]))",
            "{{kind}}": "sum by (kind) (increase(ocrfleet_republished_total[1h]))",
        },
        unit="none",
    ),
    lines(
        "Pages in quarantine",
        "Pages that were in flight when workers died, in quarantine until a retry. `ocrfleet quarantine` lists them.",
        "the number rises.",
        {"pages": "ocrfleet:quarantined_pages"},
        unit="suffix: pages",
    ),
    lines(
        "Renderer crashes, by reason",
        "Renderer processes per hour that crashed, exceeded their deadline or exceeded their memory limit. Each crash costs one attempt of one page.",
        "crashes occur with ordinary documents: the machine is short of memory.",
        {"{{reason}}": "sum by (reason) (increase(ocrfleet_renderer_crashes_total[1h]))"},
        unit="none",
    ),
    lines(
        "Processes with a weaker sandbox",
        "Processes that open documents on a kernel without Landlock or seccomp (docs/security.md).",
        "the number is above 0: update that machine's kernel.",
        {"{{kind}}": "sum by (kind) (ocrfleet_sandbox_missing)"},
        unit="none",
    ),
    lines(
        "Engine restarts",
        "Engine restarts per hour, by worker. Click a line to open its worker.",
        "a worker has more than 2.",
        {
            "{{instance}} {{profile}}": "sum by (instance, profile) "
            f"(increase(ocrfleet_engine_restarts_total{{{ENGINES}}}[1h]))"
        },
        unit="none",
        steps=above(1, 3),
        to_worker=True,
    ),
    lines(
        "Store and Redis errors",
        "Requests per second that failed after all retries, by job.",
        "errors continue for minutes.",
        {
            "store: {{job}}": "sum by (job) (rate(ocrfleet_store_errors_total[$__rate_interval]))",
            "Redis: {{job}}": "sum by (job) (rate(ocrfleet_redis_errors_total[$__rate_interval]))",
        },
        unit="reqps",
    ),
    lines(
        "Redis memory",
        "Memory that Redis uses, and its limit (maxmemory; 0: no limit).",
        "the use is above 80 % of the limit: at 100 % Redis refuses writes.",
        {
            "used": f"max(ocrfleet_redis_memory_used_bytes {LED})",
            "limit": f"max(ocrfleet_redis_memory_max_bytes {LED})",
        },
        unit="bytes",
    ),
    lines(
        "Evicted Redis keys",
        "Keys that Redis evicted for lack of memory since its start.",
        "the number is not 0: maxmemory-policy must be noeviction.",
        {"keys": f"max(ocrfleet_redis_evicted_keys {LED})"},
        unit="none",
        steps=above(1, 1),
    ),
    lines(
        "Running versions",
        "Number of processes, by version of ocrfleet. A deployment shows two versions until it is complete.",
        "two versions remain after a deployment.",
        {"{{version}}": "count by (version) (ocrfleet_build_info)"},
        unit="none",
        stacked=True,
    ),
)


def fleet_overview() -> Dashboard:
    return board(
        OVERVIEW,
        "Fleet overview",
        "Throughput and backlog, utilisation of engines and GPUs, time per stage, and errors. Start here.",
        (QUEUE, PROFILE, INSTANCE),
        {
            "Throughput and backlog": KEEPING_UP,
            "Utilisation of engines and GPUs": BUSY,
            "Time per stage": STAGES,
            "Errors and restarts": BROKEN,
        },
    )
