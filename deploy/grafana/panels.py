"""Parts of the dashboards: panels with a description, variables and annotations, in a grid of 24 columns."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

#: The Prometheus data source selected at the top of the dashboard.
DATASOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
OVERVIEW, WORKER, INTAKE, COST = "ocrfleet-overview", "ocrfleet-worker", "ocrfleet-intake", "ocrfleet-cost"
TAG = "ocrfleet"
#: Only the leader exports gauges of the backlog, the documents, Redis and the webhooks.
LED = "and on (job, instance) ocrfleet_leader == 1"

#: A metric that has the label fleet, with its opening brace if it has matchers. The deadlines are the same for all fleets.
_OF_FLEET = re.compile(r"\b((?:ocrfleet|vllm)[_:](?!deadline_seconds)[\w:]+)\b(\{)?")

GREEN, ORANGE, RED = "green", "orange", "red"

#: Lower bound of each colour; None: no lower bound.
Steps = Sequence[tuple[float | None, str]]
#: PromQL expressions, by the legend of their series.
Queries = Mapping[str, str]
Panel = stat.Panel | timeseries.Panel | table.Panel


def of_fleet(query: str) -> str:
    """Return a query of the selected fleet only."""
    return _OF_FLEET.sub(lambda found: f'{found[1]}{{fleet="$fleet"' + (", " if found[2] else "}"), query)


def above(warn: float, bad: float) -> Steps:
    """Return thresholds: orange from `warn`, red from `bad`."""
    return ((None, GREEN), (warn, ORANGE), (bad, RED))


def below(bad: float) -> Steps:
    """Return thresholds: red below `bad`."""
    return ((None, RED), (bad, GREEN))


def number(
    title: str,
    shows: str,
    worry: str,
    queries: Queries,
    *,
    unit: str,
    steps: Steps = ((None, GREEN),),
    decimals: int = 1,
) -> stat.Panel:
    """Return a panel with the current value of each series; a sixth of the dashboard wide."""
    panel = (
        stat.Panel()
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .no_value("none")
        .decimals(decimals)
    )
    panel.graph_mode(options.BigValueGraphMode.NONE)
    panel.color_mode(options.BigValueColorMode.BACKGROUND if len(steps) > 1 else options.BigValueColorMode.VALUE)
    return _described(panel, title, shows, worry, queries, unit=unit, steps=steps).span(4).height(5)


def lines(
    title: str,
    shows: str,
    worry: str,
    queries: Queries,
    *,
    unit: str,
    steps: Steps = (),
    stacked: bool = False,
    top: float | None = None,
    to_worker: bool = False,
) -> timeseries.Panel:
    """Return a panel with each series over time; half of the dashboard wide. `to_worker` links each series to its worker."""
    panel = (
        timeseries.Panel()
        .min(0)
        .fill_opacity(40 if stacked else 10)
        .show_points(options.VisibilityMode.NEVER)
        .tooltip(common.VizTooltipOptions().mode(options.TooltipDisplayMode.MULTI).sort(options.SortOrder.DESCENDING))
        .legend(
            common.VizLegendOptions()
            .display_mode(options.LegendDisplayMode.TABLE)
            .placement(options.LegendPlacement.BOTTOM)
            .calcs(["lastNotNull", "max"])
            .show_legend(True)
        )
    )
    if stacked:
        panel.stacking(common.StackingConfig().mode(options.StackingMode.NORMAL).group("A"))
    if top is not None:
        panel.max(top)
    if len(steps) > 1:
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(options.GraphThresholdsStyleMode.DASHED))
    if to_worker:
        url = f"/d/{WORKER}?var-instance=${{__field.labels.instance}}&${{fleet:queryparam}}&${{datasource:queryparam}}&${{__url_time_range}}"
        panel.data_links([dashboard.DashboardLink("This worker").url(url)])
    return (
        _described(panel, title, shows, worry, queries, unit=unit, steps=steps or ((None, GREEN),)).span(12).height(8)
    )


def rows(title: str, shows: str, worry: str, query: str, *, unit: str) -> table.Panel:
    """Return a table with a row for each current series; half of the dashboard wide."""
    hidden = model.DataTransformerConfig(id_val="organize", options={"excludeByName": {"Time": True, "__name__": True}})
    panel = table.Panel().show_header(True).align(options.FieldTextAlignment.AUTO).with_transformation(hidden)
    described = _described(panel, title, shows, worry, {}, unit=unit, steps=((None, GREEN),))
    asked = (
        prometheus.Dataquery()
        .expr(of_fleet(query))
        .ref_id("A")
        .instant()
        .format(PromQueryFormat.TABLE)
        .datasource(DATASOURCE)
    )
    return described.with_target(asked).span(12).height(8)


def _described(panel: Any, title: str, shows: str, worry: str, queries: Queries, *, unit: str, steps: Steps) -> Any:
    thresholds = [model.Threshold(value=value, color=color) for value, color in steps]
    panel.title(title).description(f"{shows}\n\n**Worry when** {worry}").unit(unit).datasource(DATASOURCE)
    panel.thresholds(dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(thresholds))
    for index, (legend, expr) in enumerate(queries.items()):
        asked = prometheus.Dataquery().expr(of_fleet(expr)).ref_id("ABCDEFGH"[index]).legend_format(legend)
        # An instant query shows no series that has ended.
        asked = asked.instant() if isinstance(panel, stat.Panel) else asked.range()
        panel.with_target(asked.datasource(DATASOURCE))
    return panel


class _Annotation(model.AnnotationQuery):
    """Marks the times at which a query has a value. Adds the fields of a Prometheus annotation that the SDK lacks."""

    title_format = text_format = ""

    def to_json(self) -> dict[str, object]:
        return super().to_json() | {"titleFormat": self.title_format, "textFormat": self.text_format, "step": "60s"}


class _Marks:
    def __init__(self, name: str, expr: str, colour: str, text: str) -> None:
        self._made = _Annotation(name=name, datasource=DATASOURCE, icon_color=colour, expr=of_fleet(expr))
        self._made.title_format, self._made.text_format = name, text

    def build(self) -> model.AnnotationQuery:
        return self._made


def chosen(name: str, values: str, *, several: bool = True) -> dashboard.QueryVariable:
    """Return a variable with the values of a query. With `several`, all are selected by default."""
    variable = (
        dashboard.QueryVariable(name)
        .label(name.capitalize())
        .datasource(DATASOURCE)
        .query({"query": values if name == "fleet" else of_fleet(values), "refId": name})
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
    )
    if several:
        everything = model.VariableOption(selected=True, text="All", value="$__all")
        variable.multi(True).include_all(True).all_value(".*").current(everything)
    return variable


#: One at a time: its numbers are not those of another fleet.
FLEET = chosen("fleet", "label_values(ocrfleet_build_info, fleet)", several=False)
QUEUE = chosen("queue", "label_values(ocrfleet_backlog_pages, queue)")
PROFILE = chosen("profile", "label_values(ocrfleet_pages_total, profile)")
INSTANCE = chosen("instance", "label_values(ocrfleet:up, instance)")


def board(
    uid: str,
    title: str,
    description: str,
    variables: Sequence[dashboard.QueryVariable],
    parts: Mapping[str, Sequence[Panel]],
) -> model.Dashboard:
    """Return a dashboard: panels by the title of their row, links to the other dashboards, annotations of deployments and restarts."""
    made = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG])
        .refresh("30s")
        .time("now-6h", "now")
        .timezone("browser")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    )
    for variable in (FLEET, *variables):
        made.with_variable(variable)
    made.annotation(
        _Marks(
            "Deployment",
            "count by (version) (ocrfleet_build_info) unless count by (version) (ocrfleet_build_info offset 5m)",
            "blue",
            "ocrfleet {{version}}",
        )
    )
    made.annotation(
        _Marks(
            "Engine restarted",
            "sum by (instance, profile) (increase(ocrfleet_engine_restarts_total[1m])) > 0",
            "red",
            "{{profile}} on {{instance}}",
        )
    )
    made.link(
        dashboard.DashboardLink("Dashboards of the fleet")
        .type(model.DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .include_vars(True)
        .keep_time(True)
    )
    identifiers = iter(range(1, 1000))
    for heading, panels in parts.items():
        made.with_row(dashboard.Row(heading).id(next(identifiers)))
        for panel in panels:
            made.with_panel(panel.id(next(identifiers)))
    return made.build()
