"""Dashboard "One worker": the worker processes of one machine and their engines."""

from __future__ import annotations

from grafana_foundation_sdk.models.common import BigValueTextMode
from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana.panels import PROFILE, WORKER, above, below, board, chosen, lines, number

HERE = 'instance=~"$instance"'
ITS = f'profile=~"$profile", {HERE}'
QUANTILES = (0.5, 0.95)


def quantiles(metric: str, by: str) -> dict[str, str]:
    legend = f"{{{{{by}}}}} "
    return {
        f"{legend}{quantile}": f"histogram_quantile({quantile}, sum by (le, {by}) "
        f"(rate({metric}_bucket{{{ITS}}}[$__rate_interval])))"
        for quantile in QUANTILES
    }


WORK = (
    number(
        "Up",
        "1 when the last scrape of the worker succeeded, else 0.",
        "the value is 0 for more than a few minutes.",
        {"": f"up{{{HERE}}}"},
        unit="none",
        steps=below(1),
        decimals=0,
    ),
    number(
        "Pages done",
        "Pages done per second by the processes of this worker.",
        "the rate is far below that of other workers with the same profile.",
        {"{{profile}}": f'sum by (profile) (rate(ocrfleet_pages_total{{status="done", {ITS}}}[$__rate_interval]))'},
        unit="suffix: pages/s",
        decimals=2,
    ),
    number(
        "Failed pages, last hour",
        "Share of failed pages among the pages that ended at this worker in the last hour.",
        "the share is above that of other workers with the same profile: the machine is the likely cause.",
        {
            "{{profile}}": f'(sum by (profile) (rate(ocrfleet_pages_total{{status="failed", {ITS}}}[1h])) '
            f"or 0 * sum by (profile) (rate(ocrfleet_pages_total{{{ITS}}}[1h]))) "
            f"/ (sum by (profile) (rate(ocrfleet_pages_total{{{ITS}}}[1h])) > 0)"
        },
        unit="percentunit",
        steps=above(0.05, 0.2),
    ),
    number(
        "Free slots, no page ready",
        "Share of the busy time of the engine in which it had free slots and no page was ready.",
        "the share is above 10 % on a GPU.",
        {"{{profile}}": f"ocrfleet:engine_starved:ratio_rate10m{{{ITS}}}"},
        unit="percentunit",
        steps=above(0.05, 0.1),
    ),
    number(
        "Engine restarts, last day",
        "Restarts of engines of this worker in the last day.",
        "the number is above 2.",
        {"{{profile}}": f"sum by (profile) (increase(ocrfleet_engine_restarts_total{{{ITS}}}[1d]))"},
        unit="none",
        steps=above(1, 3),
        decimals=0,
    ),
    number(
        "Version",
        "Version of ocrfleet on this worker.",
        "the version differs from that of the other workers.",
        {"{{version}}": f"ocrfleet_build_info{{{HERE}}}"},
        unit="none",
    ).text_mode(BigValueTextMode.NAME),
    lines(
        "Ended pages, by verdict",
        "Ended pages per second. Done: the text was accepted, the page is blank, or it has a text layer. Failed: by the reason.",
        "one verdict of failed pages dominates.",
        {"{{status}} {{verdict}}": f"sum by (status, verdict) (rate(ocrfleet_pages_total{{{ITS}}}[$__rate_interval]))"},
        unit="suffix: pages/s",
        stacked=True,
    ),
    lines(
        "Retries, by reason",
        "Retries per second, by the outcome of the previous attempt.",
        "the rate approaches that of pages done.",
        {"{{reason}}": f"sum by (reason) (rate(ocrfleet_page_retries_total{{{ITS}}}[$__rate_interval]))"},
        unit="suffix: pages/s",
        stacked=True,
    ),
)

ENGINE = (
    lines(
        "Requests and slots of the engine",
        "Requests that the engine processes (running) or has queued (waiting), and the requests that it can process at once (slots).",
        "the number of running requests is far below the number of slots while there is a backlog.",
        {
            "{{state}}": f"sum by (state) (ocrfleet_engine_requests{{{ITS}}})",
            "slots": f"sum(ocrfleet_engine_slots{{{ITS}}})",
        },
        unit="suffix: pages",
    ),
    lines(
        "Busy time of the engine",
        "Time with requests in the engine per second, summed over the engines of this worker (busy), and the part of it with free slots and no page ready (idle slots).",
        "idle slots exceed 10 % of busy on a GPU while there is a backlog.",
        {
            "busy": f"sum(rate(ocrfleet_engine_busy_seconds_total{{{ITS}}}[$__rate_interval]))",
            "idle slots": f"sum(rate(ocrfleet_engine_starved_seconds_total{{{ITS}}}[$__rate_interval]))",
        },
        unit="none",
    ),
    lines(
        "Tokens",
        "Input and output tokens per second, and output tokens of rejected or truncated attempts (rejected).",
        "rejected tokens exceed 10 % of the output tokens.",
        {
            "{{direction}}": f"sum by (direction) (rate(ocrfleet_tokens_total{{{ITS}}}[$__rate_interval]))",
            "rejected": f"sum(rate(ocrfleet_tokens_wasted_total{{{ITS}}}[$__rate_interval]))",
        },
        unit="suffix: tokens/s",
    ),
    lines(
        "Output tokens per page",
        "Output tokens per page: median and 95th percentile.",
        "the value jumps: another kind of document, or repetition loops of the model.",
        quantiles("ocrfleet_page_tokens", "profile"),
        unit="suffix: tokens",
    ),
    lines(
        "GPU utilisation and memory",
        "Utilisation of each GPU, and share of its memory in use, as reported by NVML.",
        "the utilisation is low while there is a backlog, or the memory in use changes while the worker runs.",
        {
            "utilisation, GPU {{gpu}}": f"ocrfleet_gpu_utilization_ratio{{{HERE}}}",
            "memory, GPU {{gpu}}": f"ocrfleet_gpu_memory_used_bytes{{{HERE}}} / ocrfleet_gpu_memory_total_bytes{{{HERE}}}",
        },
        unit="percentunit",
        top=1,
    ),
    lines(
        "vLLM: KV cache",
        "Share of the KV cache in use, as reported by vLLM.",
        "the share stays at 100 %: vLLM preempts requests and starts them again.",
        {"KV cache": f"vllm:kv_cache_usage_perc{{{HERE}}}"},
        unit="percentunit",
        steps=above(0.9, 0.99),
        top=1,
    ),
    lines(
        "vLLM: requests",
        "Requests that vLLM runs (running), and that wait for space in its KV cache (waiting).",
        "many requests wait all the time: lower OCRFLEET_VLLM_MAX_NUM_SEQS.",
        {
            "running": f"vllm:num_requests_running{{{HERE}}}",
            "waiting": f"vllm:num_requests_waiting{{{HERE}}}",
        },
        unit="none",
    ),
)

STAGES = (
    lines(
        "Time per page, by stage",
        "Time of each stage per page: median and 95th percentile.",
        "fetch, render or store takes longer than recognise: the engine waits for pages.",
        quantiles("ocrfleet_stage_seconds", "stage"),
        unit="s",
    ),
    lines(
        "Total time, by stage",
        "Seconds spent in each stage per second, summed over the processes of this worker.",
        "another stage than recognise takes the largest part.",
        {"{{stage}}": f"sum by (stage) (rate(ocrfleet_stage_seconds_sum{{{ITS}}}[$__rate_interval]))"},
        unit="none",
        stacked=True,
    ),
    lines(
        "Renderer crashes, by reason",
        "Renderer processes per hour that crashed, exceeded their deadline or exceeded their memory limit.",
        "crashes occur with ordinary documents: this machine is short of memory.",
        {"{{reason}}": f"sum by (reason) (increase(ocrfleet_renderer_crashes_total{{{HERE}}}[1h]))"},
        unit="none",
    ),
    lines(
        "Pages with warnings about their file, by code",
        "Pages per hour that were read from a damaged file, or from a file with content that was not read.",
        "one code occurs in every document: correct the program that writes these files.",
        {"{{code}}": f"sum by (code) (increase(ocrfleet_page_warnings_total{{{HERE}}}[1h]))"},
        unit="none",
    ),
    lines(
        "Pages for review, by cause, and audits",
        "Done pages per hour that are marked for review: low confidence, or a different text from a second engine (audit).",
        "audit is not 0: a generative model may have invented text.",
        {
            "{{cause}}": f"sum by (cause) (increase(ocrfleet_pages_for_review_total{{{HERE}}}[1h]))",
            "audited, {{outcome}}": f"sum by (outcome) (increase(ocrfleet_page_audits_total{{{HERE}}}[1h]))",
        },
        unit="none",
    ),
    lines(
        "Store and Redis errors",
        "Requests per second that failed after all retries.",
        "only this worker has errors: check its network, its clock and its credentials.",
        {
            "store": f"sum(rate(ocrfleet_store_errors_total{{{HERE}}}[$__rate_interval]))",
            "Redis": f"sum(rate(ocrfleet_redis_errors_total{{{HERE}}}[$__rate_interval]))",
        },
        unit="reqps",
    ),
)


def one_worker() -> Dashboard:
    return board(
        WORKER,
        "One worker",
        "The worker processes of one machine and their engines. The overview links here.",
        (chosen("instance", "label_values(ocrfleet_engine_slots, instance)", several=False), PROFILE),
        {"Pages": WORK, "Utilisation of the engine": ENGINE, "Time per stage": STAGES},
    )
