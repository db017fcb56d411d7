"""What the pictures of the dashboard are drawn from: its panels with their queries, and lines with their gaps."""

from __future__ import annotations

from tests.pictures import drawing, scene
from tests.watching import Panel, named, panels


def test_every_panel_has_its_queries_and_its_place() -> None:
    found = {panel.title: panel for panel in panels()}
    assert found["Shares"] == Panel(
        "Shares", (0, 0, 8, 5), "none", {1: "answers", 0: "silent"},
        {'rpinfs_share_up{instance=~".*"}': "{{instance}}"},
    )  # fmt: skip
    assert len(found["Images on the NAS"].queries) == 3
    assert not [query for panel in found.values() for query in panel.queries if "$" in query]
    assert [drawing.formatter(panel)(1) for panel in found.values()]


def test_a_line_has_the_name_that_grafana_gives_it() -> None:
    assert named("{{instance}} {{image}} takes", {"instance": "pi1:9100", "image": "docker"}) == "pi1:9100 docker takes"
    assert named("{{ instance }}{{share}}", {"instance": "pi1"}) == "pi1"


def test_a_line_is_interrupted_where_values_are_missing() -> None:
    step = scene.STEP_SECONDS
    assert drawing.course([(60, 1), (60 + step, 2), (360, 3)], 60) == [
        (0, 1),
        (step / 60, 2),
        (step / 60, None),
        (5, 3),
    ]


def test_values_are_written_as_their_unit_says() -> None:
    def written(unit: str, value: float) -> str:
        return drawing.formatter(Panel("", (0, 0, 1, 1), unit, {}, {}))(value)

    assert [written(*one) for one in (("s", 0.25), ("percent", 40), ("bytes", 2 << 30), ("none", 3))] == [
        "0.25 s", "40 %", "2 GiB", "3"
    ]  # fmt: skip
