"""The payload of a webhook: the event that a document has ended."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from ocrfleet.records.documents import Status
from ocrfleet.records.submissions import Submission
from ocrfleet.records.tenants import plain_collection
from ocrfleet.s3.location import as_typed


def webhook_event(status: Status, submission: Submission) -> str:
    """Return the JSON of the event `document.ended`, the payload of a webhook."""
    event = {
        "type": "document.ended",
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": {
            "document": status.document,
            "generation": status.generation,
            "status": status.status,
            "total": status.total,
            "done": status.done,
            "failed": len(status.failures),
            "review": len(status.review),
            "problem": status.problem.model_dump(mode="json") if status.problem else None,
            "name": submission.name,
            "source": as_typed(submission.uri),
            "collection": plain_collection(submission.terms.collection),
            "results": submission.terms.results,
        },
    }
    return json.dumps(event, ensure_ascii=False)
