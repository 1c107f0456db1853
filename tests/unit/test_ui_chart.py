"""Charts are light: drawn as SVG, without pandas or Altair."""

import subprocess
import sys
from pathlib import Path

from streamlit.testing.v1 import AppTest

from ui.parts.chart import curves_svg, line_svg


def charts() -> None:
    from ui.parts.chart import histogram, line_chart, table

    line_chart([20, 40, 60], [2.0, 1.0, 1.5], "Loss")
    histogram([1.0, 1.0, 9.0], "Yaw")
    line_chart([20], [2.0], "One point")
    table(["Figure", "Mine"], [["Pose", "1.2"]])


def test_charts_say_in_words_what_they_show() -> None:
    page = AppTest.from_function(charts).run()
    assert not page.exception
    assert [caption for chart in page.image for caption in chart.captions] == [
        "Loss: from 2 to 1.5",
        "Yaw: 1 in the middle",
        "One point: from 2 to 2",
    ]


def test_a_curve_falls_where_its_values_fall() -> None:
    curve = line_svg([20, 40, 60], [2.0, 1.0, 1.5])
    heights = [float(pair.split(",")[1]) for pair in curve.split('points="')[1].split('"')[0].split()]
    assert heights[0] < heights[2] < heights[1]  # SVG counts downwards


def test_an_axis_has_room_for_its_ends() -> None:
    svg = line_svg([50, 2000], [0.96831, 2.4322])
    assert [text.split("<")[0] for text in svg.split('">') if text[0].isdigit()] == ["50", "2000", "0.968", "2.43"]


def test_curves_share_an_axis_from_zero_and_are_named() -> None:
    svg = curves_svg({"mesh": [10.0, 10.0, 10.0], "whole <swap>": [20.0, 40.0, 20.0]})
    curves = [part.split('"')[0].split() for part in svg.split('points="')[1:]]
    heights = [[float(pair.split(",")[1]) for pair in curve] for curve in curves]
    assert heights[0][0] > heights[1][0] > heights[1][1]  # SVG counts downwards
    assert heights[1][0] - heights[1][1] == 2 * (heights[0][0] - heights[1][0])
    assert "whole &lt;swap&gt;" in svg and ">-2<" in svg and ">0<" in svg


def test_charts_import_no_data_frames(repository: Path) -> None:
    heavy = "{'pandas', 'altair', 'pyarrow'}"
    code = f"import sys, ui.parts.figures, ui.live.status; print(*sorted({heavy} & set(sys.modules)))"
    told = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=True)
    assert told.stdout.split() == []
