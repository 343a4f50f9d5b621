"""One worker: a machine's worker processes and their engines, when the overview points to it."""

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
        "1 when the worker gives its metrics.",
        "it is 0 for more than a few minutes.",
        {"": f"up{{{HERE}}}"},
        unit="none",
        steps=below(1),
        decimals=0,
    ),
    number(
        "Pages done",
        "Pages done each second by this worker's processes.",
        "it is far below that of its like.",
        {"{{profile}}": f'sum by (profile) (rate(ocrfleet_pages_total{{status="done", {ITS}}}[$__rate_interval]))'},
        unit="suffix: pages/s",
        decimals=2,
    ),
    number(
        "Pages that failed in the last hour",
        "Share of the pages that ended here in the last hour without a text that is believed.",
        "it is above that of other workers of the same profile: then it is the machine.",
        {
            "{{profile}}": f'(sum by (profile) (rate(ocrfleet_pages_total{{status="failed", {ITS}}}[1h])) '
            f"or 0 * sum by (profile) (rate(ocrfleet_pages_total{{{ITS}}}[1h]))) "
            f"/ (sum by (profile) (rate(ocrfleet_pages_total{{{ITS}}}[1h])) > 0)"
        },
        unit="percentunit",
        steps=above(0.05, 0.2),
    ),
    number(
        "Engine had room",
        "Share of the time with pages in hand in which the engine had room for more than were ready.",
        "it is above 10 % on a GPU.",
        {"{{profile}}": f"ocrfleet:engine_starved:ratio_rate10m{{{ITS}}}"},
        unit="percentunit",
        steps=above(0.05, 0.1),
    ),
    number(
        "Engine restarts in a day",
        "Times that an engine of this worker died and was started again.",
        "it is more than one or two.",
        {"{{profile}}": f"sum by (profile) (increase(ocrfleet_engine_restarts_total{{{ITS}}}[1d]))"},
        unit="none",
        steps=above(1, 3),
        decimals=0,
    ),
    number(
        "Version",
        "The version of ocrfleet that runs here.",
        "it is not that of the others.",
        {"{{version}}": f"ocrfleet_build_info{{{HERE}}}"},
        unit="none",
    ).text_mode(BigValueTextMode.NAME),
    lines(
        "Pages that ended, by verdict",
        "Pages each second: done since an engine's text was believed, they were blank, or had a text layer; or why they failed.",
        "a verdict of failed pages stands out.",
        {"{{status}} {{verdict}}": f"sum by (status, verdict) (rate(ocrfleet_pages_total{{{ITS}}}[$__rate_interval]))"},
        unit="suffix: pages/s",
        stacked=True,
    ),
    lines(
        "Pages that were tried again, by reason",
        "Further attempts each second, by what the attempt before had come to.",
        "it nears the pages done.",
        {"{{reason}}": f"sum by (reason) (rate(ocrfleet_page_retries_total{{{ITS}}}[$__rate_interval]))"},
        unit="suffix: pages/s",
        stacked=True,
    ),
)

ENGINE = (
    lines(
        "Requests in the engine, and slots for them",
        "Pages that the engine writes (running) or has taken and not begun (waiting), and how many it could write at once.",
        "running is far below the slots while there is a backlog.",
        {
            "{{state}}": f"sum by (state) (ocrfleet_engine_requests{{{ITS}}})",
            "slots": f"sum(ocrfleet_engine_slots{{{ITS}}})",
        },
        unit="suffix: pages",
    ),
    lines(
        "The engine's time",
        "Seconds of each second, over all engines here, in which they had pages in hand (busy), and of these with room for more (starved).",
        "starved is above a tenth of busy on a GPU and there is a backlog.",
        {
            "busy": f"sum(rate(ocrfleet_engine_busy_seconds_total{{{ITS}}}[$__rate_interval]))",
            "starved": f"sum(rate(ocrfleet_engine_starved_seconds_total{{{ITS}}}[$__rate_interval]))",
        },
        unit="none",
    ),
    lines(
        "Tokens",
        "Tokens each second that the model read and wrote, and those written for attempts that were thrown away.",
        "wasted is a good part of out.",
        {
            "{{direction}}": f"sum by (direction) (rate(ocrfleet_tokens_total{{{ITS}}}[$__rate_interval]))",
            "wasted": f"sum(rate(ocrfleet_tokens_wasted_total{{{ITS}}}[$__rate_interval]))",
        },
        unit="suffix: tokens/s",
    ),
    lines(
        "Tokens of a page",
        "Tokens written for a page: half of the pages, and 95 of 100, have fewer.",
        "it jumps: another kind of document, or a model that repeats itself.",
        quantiles("ocrfleet_page_tokens", "profile"),
        unit="suffix: tokens",
    ),
    lines(
        "GPU use and memory",
        "Share of the time that the GPU computed, and of its memory that is taken.",
        "use is low while there is a backlog, or memory changes while the worker runs.",
        {
            "use, GPU {{gpu}}": f"ocrfleet_gpu_utilization_ratio{{{HERE}}}",
            "memory, GPU {{gpu}}": f"ocrfleet_gpu_memory_used_bytes{{{HERE}}} / ocrfleet_gpu_memory_total_bytes{{{HERE}}}",
        },
        unit="percentunit",
        top=1,
    ),
    lines(
        "vLLM: KV cache",
        "Share of the KV cache that the pages in hand take, in vLLM's own words.",
        "it is at 100 % for long: pages are thrown out and begun again.",
        {"KV cache": f"vllm:kv_cache_usage_perc{{{HERE}}}"},
        unit="percentunit",
        steps=above(0.9, 0.99),
        top=1,
    ),
    lines(
        "vLLM: requests",
        "Requests that vLLM runs, and that it keeps waiting for room in its KV cache.",
        "it keeps many waiting all the time: it is given more than it can hold.",
        {
            "running": f"vllm:num_requests_running{{{HERE}}}",
            "waiting": f"vllm:num_requests_waiting{{{HERE}}}",
        },
        unit="none",
    ),
)

STAGES = (
    lines(
        "Time of a page, by stage",
        "Half of the pages, and 95 of 100, are faster than this in each stage.",
        "fetch, render or store take longer than recognise: they keep the engine waiting.",
        quantiles("ocrfleet_stage_seconds", "stage"),
        unit="s",
    ),
    lines(
        "Where the time goes",
        "Seconds spent in each stage, of each second, over all processes here.",
        "a stage that is not recognise takes the most.",
        {"{{stage}}": f"sum by (stage) (rate(ocrfleet_stage_seconds_sum{{{ITS}}}[$__rate_interval]))"},
        unit="none",
        stacked=True,
    ),
    lines(
        "Crashes of renderers, by reason",
        "Sandboxed renderers that crashed, took too long or too much memory, an hour.",
        "they come with ordinary documents: memory is short here.",
        {"{{reason}}": f"sum by (reason) (increase(ocrfleet_renderer_crashes_total{{{HERE}}}[1h]))"},
        unit="none",
    ),
    lines(
        "Pages with something wrong in their file, by what it is",
        "Pages that were read although their file is damaged, or holds more than was read, an hour.",
        "one kind comes with every document: whatever writes these files should be mended.",
        {"{{code}}": f"sum by (code) (increase(ocrfleet_page_warnings_total{{{HERE}}}[1h]))"},
        unit="none",
    ),
    lines(
        "Pages for review, by cause, and audits",
        "Pages that are done and that a person should look at, an hour: low confidence, or a second engine that reads another text (audit).",
        "audit is not zero: a model that writes has invented what is not on the page.",
        {
            "{{cause}}": f"sum by (cause) (increase(ocrfleet_pages_for_review_total{{{HERE}}}[1h]))",
            "audited, {{outcome}}": f"sum by (outcome) (increase(ocrfleet_page_audits_total{{{HERE}}}[1h]))",
        },
        unit="none",
    ),
    lines(
        "Errors of the store and of Redis",
        "Requests each second that failed after all retries.",
        "only this worker has them: then it is its network, its clock or its credentials.",
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
        "A machine's worker processes and their engines: where the overview points to, when something is slow or fails there.",
        (chosen("instance", "label_values(ocrfleet_engine_slots, instance)", several=False), PROFILE),
        {"What does it do?": WORK, "Is its engine busy?": ENGINE, "Where does its time go?": STAGES},
    )
