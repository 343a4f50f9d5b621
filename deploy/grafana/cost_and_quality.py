"""Dashboard "Cost and quality": cost per page, rejected tokens, share of accepted pages."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana.panels import COST, PROFILE, QUEUE, above, board, lines, number

PAGES = 'profile=~"$profile", queue=~"$queue"'
ENGINES = 'profile=~"$profile"'
GPUS = "count(count by (instance, gpu) (ocrfleet_gpu_memory_total_bytes))"
DONE = f'sum(rate(ocrfleet_pages_total{{status="done", {PAGES}}}[1h]))'
#: The price is per GPU hour, busy or idle.
FOR_A_THOUSAND = f"max(ocrfleet_price_per_gpu_hour) * {GPUS} / (3600 * {DONE} > 0) * 1000"
WASTED = (
    f"sum by (profile) (rate(ocrfleet_tokens_wasted_total{{{ENGINES}}}[1h])) "
    f'/ (sum by (profile) (rate(ocrfleet_tokens_total{{direction="out", {ENGINES}}}[1h])) > 0)'
)

MONEY = (
    number(
        "Cost of 1,000 accepted pages, last hour",
        "Cost of 1,000 accepted pages at the speed of the last hour: the price per GPU hour (OCRFLEET_PRICE_PER_GPU_HOUR, in "
        "your currency) times the number of GPUs, divided by the pages done per hour. No value without a price or without GPUs.",
        "the cost rises: GPUs are idle, or more attempts are rejected.",
        {"": FOR_A_THOUSAND},
        unit="none",
        decimals=3,
    ),
    number(
        "GPUs",
        "GPUs of all workers that Prometheus scrapes, busy or idle.",
        "the number differs from the number of GPUs that you pay for.",
        {"": GPUS},
        unit="none",
        decimals=0,
    ),
    number(
        "Pages per day",
        "Pages done per day, extrapolated from the last hour.",
        "the value is below the planned throughput while there is a backlog.",
        {"": f"86400 * {DONE}"},
        unit="suffix: pages",
        decimals=0,
    ),
    number(
        "Pages per day and GPU",
        "Pages done per day and GPU, extrapolated from the last hour. `ocrfleet bench` measures the throughput of one GPU.",
        "the value is far below the result of `ocrfleet bench` while there is a backlog.",
        {"": f"86400 * {DONE} / {GPUS}"},
        unit="suffix: pages",
        decimals=0,
    ),
    number(
        "Rejected tokens",
        "Share of the output tokens of the last hour that belong to rejected or truncated attempts.",
        "the share is above 10 %.",
        {"{{profile}}": WASTED},
        unit="percentunit",
        steps=above(0.1, 0.25),
    ),
    number(
        "Failed pages, last hour",
        "Share of failed pages among the pages that ended in the last hour, by profile.",
        "the share is well above the usual share for these documents.",
        {"{{profile}}": 'ocrfleet:page_failures:ratio_rate1h{profile=~"$profile"}'},
        unit="percentunit",
        steps=above(0.05, 0.2),
    ),
    lines(
        "Cost of 1,000 accepted pages",
        "Cost of 1,000 accepted pages, at the speed of the hour before each point.",
        "the cost rises and the documents are of the same kind.",
        {"cost": FOR_A_THOUSAND},
        unit="none",
    ),
    lines(
        "GPU cost per hour",
        "Cost per hour of all GPUs (all), and the part spent while an engine had free slots and no page was ready (idle).",
        "the idle part is more than 10 % of the total.",
        {
            "all": f"max(ocrfleet_price_per_gpu_hour) * {GPUS}",
            "idle": f"max(ocrfleet_price_per_gpu_hour) * {GPUS} * avg("
            "ocrfleet:engine_starved:ratio_rate10m and on (job, instance) ocrfleet_gpu_memory_total_bytes)",
        },
        unit="none",
    ),
    lines(
        "Rejected tokens, by profile",
        "Share of the output tokens that belong to rejected or truncated attempts.",
        "the share rises: more repetition loops, or another kind of document.",
        {"{{profile}}": WASTED},
        unit="percentunit",
        steps=above(0.1, 0.25),
    ),
    lines(
        "Output tokens per page, by profile",
        "Output tokens per page: median and 95th percentile.",
        "the value jumps: the cost of a page depends on it.",
        {
            f"{{{{profile}}}} {quantile}": f"histogram_quantile({quantile}, sum by (le, profile) "
            f"(rate(ocrfleet_page_tokens_bucket{{{ENGINES}}}[$__rate_interval])))"
            for quantile in (0.5, 0.95)
        },
        unit="suffix: tokens",
    ),
)

QUALITY = (
    lines(
        "Ended pages, by engine",
        "Ended pages per second, by the engine of the last attempt.",
        "another engine than before reads most pages: the routing or the retry policy changed.",
        {"{{engine}} {{status}}": f"sum by (engine, status) (rate(ocrfleet_pages_total{{{PAGES}}}[$__rate_interval]))"},
        unit="suffix: pages/s",
        stacked=True,
    ),
    lines(
        "Failed pages, by verdict",
        "Failed pages per hour, by verdict.",
        "one verdict dominates: see OcrfleetFailuresAboveNormal in docs/howto/alerts.md for the cause of each verdict.",
        {"{{verdict}}": f'sum by (verdict) (increase(ocrfleet_pages_total{{status="failed", {PAGES}}}[1h]))'},
        unit="suffix: pages",
        stacked=True,
    ),
    lines(
        "Failure rate and its baseline",
        "Share of failed pages in the last hour and in the week before, by profile.",
        "the last hour exceeds twice the weekly share plus five percentage points: an alert then fires.",
        {
            "{{profile}}, last hour": 'ocrfleet:page_failures:ratio_rate1h{profile=~"$profile"}',
            "{{profile}}, the week before": 'ocrfleet:page_failures:ratio_rate1w{profile=~"$profile"}',
        },
        unit="percentunit",
    ),
    lines(
        "Retries per page",
        "Retries per ended page in the last hour, by profile.",
        "the value approaches 1: each page is then read twice.",
        {
            "{{profile}}": f"sum by (profile) (rate(ocrfleet_page_retries_total{{{ENGINES}}}[1h])) "
            f"/ (sum by (profile) (rate(ocrfleet_pages_total{{{ENGINES}}}[1h])) > 0)"
        },
        unit="percentunit",
        steps=above(0.25, 1),
    ),
    lines(
        "Ended documents",
        "Ended documents per hour, by status. partial: some pages of the document failed.",
        "the number of failed or partial documents rises.",
        {"{{status}}": "sum by (status) (increase(ocrfleet_documents_ended_total[1h]))"},
        unit="suffix: documents",
        stacked=True,
    ),
)


def cost_and_quality() -> Dashboard:
    return board(
        COST,
        "Cost and quality",
        "Cost per page, rejected tokens, and accepted and failed pages.",
        (QUEUE, PROFILE),
        {"Cost": MONEY, "Quality": QUALITY},
    )
