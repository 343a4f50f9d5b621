"""Writes the dashboards as JSON files for Grafana: `make dashboards`."""

from __future__ import annotations

from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.grafana.cost_and_quality import cost_and_quality
from deploy.grafana.fleet_overview import fleet_overview
from deploy.grafana.intake_and_events import intake_and_events
from deploy.grafana.one_worker import one_worker

FOLDER = Path(__file__).with_name("dashboards")


def written() -> dict[Path, str]:
    """Return the JSON of each dashboard, by the path of its file."""
    encoder = JSONEncoder(sort_keys=True, indent=1, ensure_ascii=False)
    made = fleet_overview(), one_worker(), intake_and_events(), cost_and_quality()
    return {FOLDER / f"{dashboard.uid}.json": encoder.encode(dashboard) + "\n" for dashboard in made}


if __name__ == "__main__":
    for path, text in written().items():
        path.write_text(text)
