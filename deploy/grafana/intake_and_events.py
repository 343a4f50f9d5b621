"""Dashboard "Intake and S3 events": events, intake of sources, delivery of results and webhooks."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana.panels import INSTANCE, INTAKE, LED, QUEUE, above, below, board, lines, number

HERE = 'instance=~"$instance"'
SILENCE = f'time() - ocrfleet_watch_last_success_timestamp_seconds{{source=~"sqs|poll", {HERE}}}'

ARRIVING = (
    number(
        "Time since the last success of watch",
        "Time since the last successful request of `ocrfleet watch` to its event queue (sqs) or its bucket (poll).",
        "the time is several minutes: uploads are not registered.",
        {"{{instance}} {{source}}": SILENCE},
        unit="s",
        steps=above(300, 600),
        decimals=0,
    ),
    number(
        "Registered uploads, last hour",
        "Objects that were registered from events and listings in the last hour.",
        "the number is 0 although objects are uploaded.",
        {"": f'sum(increase(ocrfleet_events_total{{outcome="registered", {HERE}}}[1h])) or vector(0)'},
        unit="none",
        decimals=0,
    ),
    number(
        "Unparsable messages, last day",
        "Messages from the queue or to /v1/events/s3 that could not be parsed.",
        "the number is not 0: each may be an upload that was not registered.",
        {"": f'sum(increase(ocrfleet_events_total{{outcome="unparsable", {HERE}}}[1d])) or vector(0)'},
        unit="none",
        steps=above(1, 10),
        decimals=0,
    ),
    number(
        "Waiting intake batches",
        "Submitted batches that are not registered yet. Each has up to 1,000 sources.",
        "the number grows: start more intake consumers (`serve --intake-consumers`).",
        {"{{queue}}": f'max by (queue) (ocrfleet_arrivals{{queue=~"$queue"}} {LED})'},
        unit="none",
        steps=above(100, 1000),
        decimals=0,
    ),
    number(
        "Failed webhooks",
        "Webhook deliveries that failed for a day and are not tried again.",
        "the number rises: receivers miss notifications of ended documents.",
        {"": "ocrfleet:webhooks_given_up"},
        unit="none",
        steps=above(1, 10),
        decimals=0,
    ),
    number(
        "Leaders",
        "Number of leaders among the `serve` and `dispatch` processes. The leader schedules intake, dispatches, sweeps and delivers.",
        "the number is 0 for more than a minute. 2 for a short time is harmless.",
        {"": "sum(ocrfleet_leader)"},
        unit="none",
        steps=below(1),
        decimals=0,
    ),
)

CLIENTS = (
    lines(
        "Pages submitted over HTTP, by tenant",
        "Pages that clients submitted per second, and submissions that were refused as a quota was spent.",
        "refusals occur: a client submits more than its quota, or the quota is too small.",
        {
            "{{tenant}}": f"sum by (tenant) (rate(ocrfleet_tenant_pages_total{{{HERE}}}[$__rate_interval])) or vector(0)",
            "refused": f"sum(rate(ocrfleet_quota_refusals_total{{{HERE}}}[$__rate_interval])) or vector(0)",
        },
        unit="suffix: /s",
    ),
    lines(
        "Bytes submitted over HTTP, by tenant",
        "Bytes of files that clients submitted per second.",
        "one tenant submits far more than the others: OCRFLEET_API_BYTES_A_DAY limits it.",
        {"{{tenant}}": f"sum by (tenant) (rate(ocrfleet_tenant_bytes_total{{{HERE}}}[$__rate_interval])) or vector(0)"},
        unit="Bps",
    ),
)

EVENTS = (
    lines(
        "Events, by outcome",
        "Objects in events and listings per second: registered, ignored (excluded by a filter, or already known), or unparsable.",
        "unparsable events occur; all events are ignored (check the filters); or reconcile registers many objects: events get "
        "lost.",
        {
            "{{source}} {{outcome}}": "sum by (source, outcome) "
            f"(rate(ocrfleet_events_total{{{HERE}}}[$__rate_interval]))"
        },
        unit="suffix: events/s",
        stacked=True,
    ),
    lines(
        "Time since the last success, by watch process",
        "Time since the last successful request of each `ocrfleet watch` process.",
        "the time of a process exceeds 10 minutes.",
        {"{{instance}} {{source}}": SILENCE},
        unit="s",
        steps=above(300, 600),
    ),
    lines(
        "Store and Redis errors",
        "Requests per second that failed after all retries, by process.",
        "errors continue for minutes.",
        {
            "store: {{instance}}": f"sum by (instance) (rate(ocrfleet_store_errors_total{{{HERE}}}[$__rate_interval]))",
            "Redis: {{instance}}": f"sum by (instance) (rate(ocrfleet_redis_errors_total{{{HERE}}}[$__rate_interval]))",
        },
        unit="reqps",
    ),
)

TAKING_IN = (
    lines(
        "Waiting intake batches, by queue",
        "Submitted batches of sources that no intake consumer has registered yet.",
        "the number grows for hours.",
        {"{{queue}}": f'max by (queue) (ocrfleet_arrivals{{queue=~"$queue"}} {LED})'},
        unit="none",
    ),
    lines(
        "Intake time per source",
        "Time to fetch a source, count its pages and register it: median and 95th percentile.",
        "the time is minutes for small sources: the store is slow, or the intake consumers have too few cores.",
        {
            f"{quantile}": f"histogram_quantile({quantile}, sum by (le) "
            f"(rate(ocrfleet_intake_seconds_bucket{{{HERE}}}[$__rate_interval])))"
            for quantile in (0.5, 0.95)
        },
        unit="s",
    ),
    lines(
        "Registered sources",
        "Registered sources per second, and intake jobs per second that the sweep published again.",
        "the rate of republished jobs stays above 0: sources are unavailable, intake consumers crash, or Redis loses messages.",
        {
            "registered": f"sum(rate(ocrfleet_intake_seconds_count{{{HERE}}}[$__rate_interval]))",
            "republished": 'sum(rate(ocrfleet_republished_total{kind="intake"}[$__rate_interval]))',
        },
        unit="suffix: sources/s",
    ),
    lines(
        "Documents by state",
        "Documents that wait for dispatch (waiting), in paused collections (paused), with pages at workers (active), and ended without delivery so far (undelivered).",
        "waiting grows while active stays level: the fleet has no free capacity, or the dispatcher does not run. undelivered grows: delivery fails.",
        {"{{state}}": f"max by (state) (ocrfleet_documents {LED})"},
        unit="suffix: documents",
        stacked=True,
    ),
)

LEAVING = (
    lines(
        "Ended documents",
        "Ended documents per hour, by status. partial: some pages of the document failed.",
        "the number of failed or partial documents rises.",
        {"{{status}}": "sum by (status) (increase(ocrfleet_documents_ended_total[1h]))"},
        unit="suffix: documents",
        stacked=True,
    ),
    lines(
        "Time from submission to result",
        "Time from the submission of a document (for an upload: from its event or listing) to the delivery of its text: median and 90th percentile.",
        "the 90th percentile is above the deadline.",
        {
            f"{{{{queue}}}} {quantile}": f"histogram_quantile({quantile}, sum by (le, queue) "
            '(rate(ocrfleet_turnaround_seconds_bucket{queue=~"$queue"}[$__rate_interval])))'
            for quantile in (0.5, 0.9)
        },
        unit="s",
    ),
    lines(
        "Webhooks",
        "Webhook deliveries that wait, and those that failed for a day and are not tried again.",
        "the number of waiting deliveries grows: a receiver is down.",
        {"{{state}}": f"max by (state) (ocrfleet_webhooks {LED})"},
        unit="none",
    ),
)


def intake_and_events() -> Dashboard:
    return board(
        INTAKE,
        "Intake and S3 events",
        "Events and listings, intake of sources, delivery of results, and webhooks.",
        (QUEUE, INSTANCE),
        {
            "Overview": ARRIVING,
            "Events and listings": EVENTS,
            "Clients of the HTTP API": CLIENTS,
            "Intake": TAKING_IN,
            "Results and webhooks": LEAVING,
        },
    )
