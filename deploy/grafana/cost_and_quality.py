"""Cost and quality: what a page costs, what is thrown away, and how many pages are believed."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana.panels import COST, PROFILE, QUEUE, above, board, lines, number

PAGES = 'profile=~"$profile", queue=~"$queue"'
ENGINES = 'profile=~"$profile"'
GPUS = "count(count by (instance, gpu) (ocrfleet_gpu_memory_total_bytes))"
DONE = f'sum(rate(ocrfleet_pages_total{{status="done", {PAGES}}}[1h]))'
#: GPUs cost by the hour, whether they read or not.
FOR_A_THOUSAND = f"max(ocrfleet_price_per_gpu_hour) * {GPUS} / (3600 * {DONE} > 0) * 1000"
WASTED = (
    f"sum by (profile) (rate(ocrfleet_tokens_wasted_total{{{ENGINES}}}[1h])) "
    f'/ (sum by (profile) (rate(ocrfleet_tokens_total{{direction="out", {ENGINES}}}[1h])) > 0)'
)

MONEY = (
    number(
        "A thousand accepted pages",
        "Cost of a thousand pages whose text was believed, at the speed of the last hour: the price of a GPU hour "
        "(OCRFLEET_PRICE_PER_GPU_HOUR, in your currency) times the GPUs, by the pages done. Nothing without a price or without GPUs.",
        "it rises: GPUs idle, or more pages are thrown away.",
        {"": FOR_A_THOUSAND},
        unit="none",
        decimals=3,
    ),
    number(
        "GPUs",
        "GPUs of all workers that give their metrics, busy or not.",
        "it is not what is paid for.",
        {"": GPUS},
        unit="none",
        decimals=0,
    ),
    number(
        "Pages a day",
        "Pages done a day, at the speed of the last hour.",
        "it is below what the fleet was sized for, while there is a backlog.",
        {"": f"86400 * {DONE}"},
        unit="suffix: pages",
        decimals=0,
    ),
    number(
        "Pages a day for each GPU",
        "Pages done a day for each GPU, at the speed of the last hour. ocrfleet bench says what one can do.",
        "it is far below the bench's number, while there is a backlog.",
        {"": f"86400 * {DONE} / {GPUS}"},
        unit="suffix: pages",
        decimals=0,
    ),
    number(
        "Tokens thrown away",
        "Of the tokens that models wrote in the last hour, those of attempts that were not believed or were cut off.",
        "it is above a tenth.",
        {"{{profile}}": WASTED},
        unit="percentunit",
        steps=above(0.1, 0.25),
    ),
    number(
        "Pages that failed in the last hour",
        "Share of the pages that ended in the last hour without a text that is believed, by profile.",
        "it is well above what is usual for these documents.",
        {"{{profile}}": 'ocrfleet:page_failures:ratio_rate1h{profile=~"$profile"}'},
        unit="percentunit",
        steps=above(0.05, 0.2),
    ),
    lines(
        "Cost of a thousand accepted pages",
        "What a thousand pages cost whose text was believed, at the speed of the hour before each point.",
        "it rises and the documents are of the same kind.",
        {"cost": FOR_A_THOUSAND},
        unit="none",
    ),
    lines(
        "Price of what runs",
        "What the GPUs that are there cost an hour, and what of it went to time in which an engine had room and pages were not ready.",
        "lost is a good part of all.",
        {
            "all": f"max(ocrfleet_price_per_gpu_hour) * {GPUS}",
            "lost": f"max(ocrfleet_price_per_gpu_hour) * {GPUS} * avg("
            "ocrfleet:engine_starved:ratio_rate10m and on (job, instance) ocrfleet_gpu_memory_total_bytes)",
        },
        unit="none",
    ),
    lines(
        "Tokens thrown away, by profile",
        "Share of the written tokens that belong to attempts that were thrown away.",
        "it rises: more loops, or another kind of document.",
        {"{{profile}}": WASTED},
        unit="percentunit",
        steps=above(0.1, 0.25),
    ),
    lines(
        "Tokens of a page, by profile",
        "Tokens written for a page: half of the pages, and 95 of 100, have fewer.",
        "it jumps: it is what a page costs.",
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
        "Pages that ended, by engine",
        "Pages each second by the engine of whoever had them last.",
        "another engine than before reads the most: routing or the ladder changed.",
        {"{{engine}} {{status}}": f"sum by (engine, status) (rate(ocrfleet_pages_total{{{PAGES}}}[$__rate_interval]))"},
        unit="suffix: pages/s",
        stacked=True,
    ),
    lines(
        "Pages that failed, by verdict",
        "Pages an hour that ended without a text that is believed, by why.",
        "one verdict stands out: the runbook's OcrfleetFailuresAboveNormal says what each points to.",
        {"{{verdict}}": f'sum by (verdict) (increase(ocrfleet_pages_total{{status="failed", {PAGES}}}[1h]))'},
        unit="suffix: pages",
        stacked=True,
    ),
    lines(
        "Failures, and what is normal",
        "Share of the pages that failed in an hour, and in the week before, by profile.",
        "the hour is more than twice the week and five points: then an alert fires.",
        {
            "{{profile}}, an hour": 'ocrfleet:page_failures:ratio_rate1h{profile=~"$profile"}',
            "{{profile}}, the week before": 'ocrfleet:page_failures:ratio_rate1w{profile=~"$profile"}',
        },
        unit="percentunit",
    ),
    lines(
        "Further attempts, for each page",
        "Further attempts in an hour, for each page that ended, by profile.",
        "it nears 1: each page is then read twice.",
        {
            "{{profile}}": f"sum by (profile) (rate(ocrfleet_page_retries_total{{{ENGINES}}}[1h])) "
            f"/ (sum by (profile) (rate(ocrfleet_pages_total{{{ENGINES}}}[1h])) > 0)"
        },
        unit="percentunit",
        steps=above(0.25, 1),
    ),
    lines(
        "Documents that ended",
        "Documents an hour by how they ended. partial: some of their pages failed.",
        "failed or partial rise.",
        {"{{status}}": "sum by (status) (increase(ocrfleet_documents_ended_total[1h]))"},
        unit="suffix: documents",
        stacked=True,
    ),
)


def cost_and_quality() -> Dashboard:
    return board(
        COST,
        "Cost and quality",
        "What a page costs, how much is thrown away, and how many pages are believed.",
        (QUEUE, PROFILE),
        {"What does it cost?": MONEY, "How good is it?": QUALITY},
    )
