"""Plots as files: every one of the page, in colours of its own, and with what was drawn."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from credibly.errors import InputError
from credibly.report import render_html, write_plots
from credibly.report.page import html as html_module
from credibly.report.page.content import drawings
from credibly.report.page.drawing import Drawing, Palette, picture
from credibly.report.page.plot_files import light
from credibly.report.tables.families import FAMILIES

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(binary: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("plots") / "new" / "folder"
    write_plots(json.loads(json.dumps(binary)), target)
    return target


def rows_of(folder: Path, name: str) -> list[dict[str, str]]:
    (file,) = folder.glob(f"[0-9][0-9]-{name}.csv")
    with file.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page has the names of its drawings in their place, which takes no time."""
    monkeypatch.setattr(html_module, "svg", lambda drawing: f"<svg>{drawing.name}</svg>")


def test_every_plot_of_the_page_is_there_in_its_order_and_in_three_forms(
    binary: dict[str, Any], folder: Path, named: None
) -> None:
    stems = [f"{at:02}-" + re.sub(r"[ _+]", "-", name) for at, name in enumerate(drawings(binary), start=1)]
    expected = [f"{stem}.{form}" for stem in stems for form in ("csv", "png", "svg")]
    # Those of reliability are named by the form in which the system answers.
    found = [re.sub(r"(reliability-.*)-temperature", r"\1", file.name) for file in sorted(folder.iterdir())]
    assert found == expected
    shown = re.findall(r"<svg>(.*?)</svg>", render_html(binary))
    assert shown == [drawing.name for drawing in drawings(binary).values()]


def test_an_svg_is_whole_in_itself(folder: Path) -> None:
    files = sorted(folder.glob("*.svg"))
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert ElementTree.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
        assert "var(" not in text
        assert set(re.findall(r"https?://[^\s\"\']+", text)) <= {
            "http://www.w3.org/2000/svg",
            "http://www.w3.org/1999/xlink",
        }
        colours = set(re.findall(r"#[0-9a-f]{6}\b", text)) & set(light().values())
        assert {light()["paper"], light()["ink"], light()["grid"]} <= colours
    assert light()["student"] in files[-1].read_text(encoding="utf-8")


def test_a_png_is_light_on_white_and_shows_its_systems(folder: Path) -> None:
    (file,) = folder.glob("*-risk-coverage.png")
    pixels = imread(file)[..., :3]
    assert (pixels[[0, 0, -1, -1], [0, -1, 0, -1]] == 1).all()
    for system in ("single", "ensemble", "student"):
        assert np.isclose(pixels, to_rgb(light()[system]), atol=1e-3).all(axis=-1).sum() > 50


def test_a_csv_holds_what_was_drawn(binary: dict[str, Any], folder: Path) -> None:
    rows = rows_of(folder, "rejection")
    kinds = binary["curves"]["rejection"]
    assert [row["uncertainty"] for row in rows] == [kind for kind in kinds for _ in kinds[kind]]
    for row, point in zip(rows, (point for points in kinds.values() for point in points), strict=True):
        assert {name: float(row[name]) for name in point} == point
    for row, own in zip(rows_of(folder, "set-sizes"), binary["curves"]["set_sizes"], strict=True):
        assert float(row["coverage_promised"]) == own["coverage_promised"]
        assert float(row["mean_size_low"]) == own["mean_size"]["low"]
    domains = {(row["domain"], row["system"]): row for row in rows_of(folder, "uncertainty-total")}
    for (domain, system), row in domains.items():
        held = binary["curves"]["uncertainty"][domain][system]["total"]
        assert (float(row["mean"]), float(row["quantile_0.05"])) == (held["mean"], held["0.05"])
    history = binary["histories"]["student"]
    rows = [row for row in rows_of(folder, "history-loss") if row["network"] == "student"]
    assert [(float(row["step"]), float(row["loss"])) for row in rows] == list(
        zip(history["step"], history["loss"], strict=True)
    )


def test_a_title_may_hold_anything() -> None:
    def draw(figure: Any, palette: Palette) -> None:
        figure.subplots()

    drawing = Drawing("name", "<b>&$x$ 名前", (2, 2), draw, key={"</text>": "single"})
    texts = ElementTree.fromstring(picture(drawing, light(), "svg")).itertext()
    assert {"<b>&$x$ 名前", "</text>"} <= set(texts)
    assert picture(drawing, light(), "png") == picture(drawing, light(), "png")


def test_other_files_of_the_folder_are_left_alone(lone: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    files = write_plots(lone, tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([*files, tmp_path / "notes.txt"])
    assert [file.name for file in files if "rejection" in file.name and file.suffix == ".csv"]


def test_a_file_in_the_place_of_the_folder_is_refused(lone: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match="expected a folder for the plots, got"):
        write_plots(lone, file)
    assert file.read_text(encoding="utf-8") == "mine"


def test_a_report_older_than_these_plots_still_has_its_page(binary: dict[str, Any], named: None) -> None:
    curves = {
        name: points for name, points in binary["curves"].items() if name not in ("rejection", "set_sizes")
    }
    older = {**binary, "curves": curves}
    assert set(drawings(binary)) - set(drawings(older)) == {"rejection", "set sizes"}
    for report, there in ((older, False), (binary, True)):
        html = render_html(report)
        assert ("Right answers of" in html) is there
        assert ("<svg>set sizes</svg>" in html) is there


def test_every_family_has_a_colour_of_its_own_in_light() -> None:
    assert len({light()[family] for family in FAMILIES}) == len(FAMILIES)
