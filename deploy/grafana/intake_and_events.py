"""Intake and S3 events: from an upload to a registered document, and back to whoever wants to be told."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana.panels import INSTANCE, INTAKE, LED, QUEUE, above, below, board, lines, number

HERE = 'instance=~"$instance"'
SILENCE = f'time() - ocrfleet_watch_last_success_timestamp_seconds{{source=~"sqs|poll", {HERE}}}'

ARRIVING = (
    number(
        "Since the watcher last succeeded",
        "Time since a watcher last had an answer from its queue of events (sqs) or its bucket (poll).",
        "it is minutes: uploads are not noticed.",
        {"{{instance}} {{source}}": SILENCE},
        unit="s",
        steps=above(300, 600),
        decimals=0,
    ),
    number(
        "Uploads noticed in an hour",
        "Objects that were registered because an event or a listing told of them.",
        "it is 0 and people do upload.",
        {"": f'sum(increase(ocrfleet_events_total{{outcome="registered", {HERE}}}[1h])) or vector(0)'},
        unit="none",
        decimals=0,
    ),
    number(
        "Messages that are not events, in a day",
        "Messages of a queue, or sent to /v1/events/s3, that could not be read.",
        "there is one: it may be an upload that is not registered.",
        {"": f'sum(increase(ocrfleet_events_total{{outcome="unparsable", {HERE}}}[1d])) or vector(0)'},
        unit="none",
        steps=above(1, 10),
        decimals=0,
    ),
    number(
        "Arrivals that wait",
        "What was submitted and is not yet counted and registered. Each may hold up to 1,000 sources.",
        "it grows: more clerks are needed (serve --clerks).",
        {"{{queue}}": f'max by (queue) (ocrfleet_arrivals{{queue=~"$queue"}} {LED})'},
        unit="none",
        steps=above(100, 1000),
        decimals=0,
    ),
    number(
        "Webhooks that were given up",
        "Receivers that did not take the news of a document's end for a day.",
        "it rises: receivers miss the end of documents.",
        {"": "ocrfleet:webhooks_given_up"},
        unit="none",
        steps=above(1, 10),
        decimals=0,
    ),
    number(
        "Processes that lead",
        "Of all serve and dispatch processes one leads: it takes in, dispatches, sweeps and delivers.",
        "it is 0 for more than a minute. 2 for a moment is harmless.",
        {"": "sum(ocrfleet_leader)"},
        unit="none",
        steps=below(1),
        decimals=0,
    ),
)

EVENTS = (
    lines(
        "Events, by what became of them",
        "Objects that events and listings told of: registered, ignored (not wanted, or known already), or unparsable.",
        "unparsable is not 0; everything is ignored (do the filters fit what is uploaded?); or reconcile registers many: "
        "then events get lost.",
        {
            "{{source}} {{outcome}}": "sum by (source, outcome) "
            f"(rate(ocrfleet_events_total{{{HERE}}}[$__rate_interval]))"
        },
        unit="suffix: events/s",
        stacked=True,
    ),
    lines(
        "Silence of the watchers",
        "Time since each watcher last had an answer from what it watches.",
        "a line climbs above 10 minutes.",
        {"{{instance}} {{source}}": SILENCE},
        unit="s",
        steps=above(300, 600),
    ),
    lines(
        "Errors of the store and of Redis",
        "Requests each second that failed after all retries, by process.",
        "it goes on for minutes.",
        {
            "store: {{instance}}": f"sum by (instance) (rate(ocrfleet_store_errors_total{{{HERE}}}[$__rate_interval]))",
            "Redis: {{instance}}": f"sum by (instance) (rate(ocrfleet_redis_errors_total{{{HERE}}}[$__rate_interval]))",
        },
        unit="reqps",
    ),
)

TAKING_IN = (
    lines(
        "Arrivals that wait, by queue",
        "Bundles of submitted sources that no clerk has counted yet.",
        "it grows for long.",
        {"{{queue}}": f'max by (queue) (ocrfleet_arrivals{{queue=~"$queue"}} {LED})'},
        unit="none",
    ),
    lines(
        "Time to take a source in",
        "Time to fetch a source, count its pages and register it: half of them, and 95 of 100, are faster.",
        "it is minutes for small sources: the store is slow, or the clerks have too few cores.",
        {
            f"{quantile}": f"histogram_quantile({quantile}, sum by (le) "
            f"(rate(ocrfleet_intake_seconds_bucket{{{HERE}}}[$__rate_interval])))"
            for quantile in (0.5, 0.95)
        },
        unit="s",
    ),
    lines(
        "Sources taken in",
        "Sources each second that were counted and registered, and intakes that had to be published again.",
        "published again is not 0 for long: sources can't be had now, clerks die, or Redis loses messages.",
        {
            "taken in": f"sum(rate(ocrfleet_intake_seconds_count{{{HERE}}}[$__rate_interval]))",
            "published again": 'sum(rate(ocrfleet_republished_total{kind="intake"}[$__rate_interval]))',
        },
        unit="suffix: sources/s",
    ),
    lines(
        "Documents by state",
        "Documents that wait to be dispatched, that are paused, whose pages are being read (active), and that ended but could not be delivered yet (undelivered).",
        "waiting grows while active stays level: the fleet is full, or nothing is dispatched. undelivered grows: nothing can be delivered.",
        {"{{state}}": f"max by (state) (ocrfleet_documents {LED})"},
        unit="suffix: documents",
        stacked=True,
    ),
)

LEAVING = (
    lines(
        "Documents that ended",
        "Documents an hour by how they ended. partial: some of their pages failed.",
        "failed or partial rise.",
        {"{{status}}": "sum by (status) (increase(ocrfleet_documents_ended_total[1h]))"},
        unit="suffix: documents",
        stacked=True,
    ),
    lines(
        "Time from submission to result",
        "From a document's submission (an upload's: when watch noticed it) to the delivery of its text: half of the documents, and nine of ten, are faster.",
        "it is above what was promised.",
        {
            f"{{{{queue}}}} {quantile}": f"histogram_quantile({quantile}, sum by (le, queue) "
            '(rate(ocrfleet_turnaround_seconds_bucket{queue=~"$queue"}[$__rate_interval])))'
            for quantile in (0.5, 0.9)
        },
        unit="s",
    ),
    lines(
        "Webhooks",
        "News of ended documents that wait to be delivered, and that were given up after a day.",
        "waiting grows: a receiver is down.",
        {"{{state}}": f"max by (state) (ocrfleet_webhooks {LED})"},
        unit="none",
    ),
)


def intake_and_events() -> Dashboard:
    return board(
        INTAKE,
        "Intake and S3 events",
        "From an upload to a registered document, and from an ended one back to whoever wants to be told.",
        (QUEUE, INSTANCE),
        {
            "Does it come in?": ARRIVING,
            "Events and listings": EVENTS,
            "Taking in": TAKING_IN,
            "Back to those who asked": LEAVING,
        },
    )
