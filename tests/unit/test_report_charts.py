"""Charts: round ticks, honest thinning, nothing drawn from nothing."""

from __future__ import annotations

import doctest
import math
import re

from flows import charts, report
from flows.charts import Bar, Scale, forest_plot, line_chart, running_mean, stage_graph, thin, ticks


def test_ticks_are_round_and_inside() -> None:
    assert ticks(0.13, 0.38) == [0.15, 0.2, 0.25, 0.3, 0.35]
    assert ticks(-30, 70) == [-20.0, 0.0, 20.0, 40.0, 60.0]
    assert ticks(5.0, 5.0) == [5.0]


def test_thinning_keeps_the_ends_and_the_limit() -> None:
    points = [(float(x), 0.0) for x in range(1001)]
    kept = thin(points, 11)
    assert kept == [(100.0 * index, 0.0) for index in range(11)]


def test_a_running_mean_averages_each_point_with_its_neighbours() -> None:
    assert running_mean([(0, 0), (1, 3), (2, 6), (3, 0)], 3) == [(0, 1.5), (1, 3.0), (2, 3.0), (3, 3.0)]


def test_a_scale_maps_ends_to_ends_and_a_constant_to_the_middle() -> None:
    scale = Scale(10.0, 20.0, 0.0, 100.0)
    assert (scale(10.0), scale(12.5), scale(20.0)) == (0.0, 25.0, 100.0)
    assert Scale(4.0, 4.0, 0.0, 100.0)(4.0) == 50.0


def test_curves_leave_out_what_is_not_finite_and_need_two_points() -> None:
    assert line_chart("loss", [(1, 2.0), (2, math.nan), (3, math.inf)]) == ""
    svg = line_chart("loss", [(1, 2.0), (2, math.nan), (3, 1.0)])
    assert svg.count("<circle") == 2 and "<title>step 3: 1</title>" in svg and "nan" not in svg


def test_a_forest_plot_puts_intervals_in_proportion() -> None:
    svg = forest_plot([Bar("a <b>", 50.0, 0.0, 100.0)])
    line = re.search(r'<line x1="([\d.]+)" x2="([\d.]+)" y1="21', svg)
    circle = re.search(r'<circle cx="([\d.]+)"', svg)
    assert line is not None and circle is not None
    assert float(circle.group(1)) == (float(line.group(1)) + float(line.group(2))) / 2
    assert "a &lt;b&gt;: 50.0% [0.0, 100.0]" in svg and forest_plot([]) == ""


def test_the_stage_graph_draws_an_arc_for_every_known_input() -> None:
    svg = stage_graph([("sft", "reused"), ("rl", "completed")], [("base", "sft"), ("sft", "rl")])
    assert svg.count('class="edge"') == 1 and "rl reads sft" in svg


def test_the_examples_in_docstrings_hold() -> None:
    assert [doctest.testmod(module).failed for module in (charts, report)] == [0, 0]
