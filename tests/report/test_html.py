"""The page needs nothing but itself, escapes what it is given, and shows every part of a report."""

from __future__ import annotations

import copy
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from credibly.errors import MissingExtraError
from credibly.records import Examples
from credibly.report import render_html, write_report
from credibly.report.page import html as html_module
from credibly.report.page.drawing import Drawing, Palette, inline, svg
from credibly.report.page.plots import uncertainty_plot
from credibly.report.page.strips import strips
from credibly.report.tables.families import FAMILIES
from credibly.report.tables.systems import by_class_table, systems_table
from credibly.runs import Run
from report.samples import BINARY, SIX, built, examples, members_only

pytestmark = pytest.mark.slow

HOSTILE = (
    "<script>alert('mine')</script>",
    "a & b \"quoted\" 'single' {{ 7 * 7 }} {% raw %}",
    "<img src=http://example.org/x.png onerror=alert(1)>",
    "لا أحب هذا الفيلم \u202egnp.exe",
    "nul \x00 and bell \x07",
    "]]></svg></style><b>",
    "$x_1$ \\frac{a}{b}",
    "名前 🎬 नमस्ते",
    "one\nline\nmore",
    "w" * 5000,
    "  spaces  ",
    "&lt;already escaped&gt;",
)


class Page(HTMLParser):
    """Every element and attribute of a page, and whether its elements are closed in order."""

    VOID = frozenset({"meta", "br", "wbr"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="session")
def pages(binary: dict[str, Any], six: dict[str, Any], lone: dict[str, Any]) -> dict[str, str]:
    return {"binary": render_html(binary), "six": render_html(six), "lone": render_html(lone)}


@pytest.fixture(scope="session")
def page(pages: dict[str, str]) -> Page:
    return Page(pages["binary"])


@pytest.fixture(scope="session")
def hostile() -> tuple[dict[str, Any], str]:
    classes = ("<b>bad</b>", 'go"od & $\\alpha$')
    plain = examples(12, classes, texts=HOSTILE)
    test = Examples(tuple(f"<id {row}>" for row in range(12)), plain.texts, classes, plain.labels)
    run = members_only(test, shift=examples(20, classes, labelled=False, name="shift"))
    run["stored"]["members"]["<shift> $x$ 名前"] = run["stored"]["members"].pop("shifted")
    run.update(
        run_name="<title>\x00",
        shift_splits=["<shift> $x$ 名前"],
        notes=["<note>"],
        recipe={"<key>": {"a": "<value>"}},
    )
    report = built(run)
    return report, render_html(report)


@pytest.mark.parametrize("name", ["binary", "six", "lone"])
def test_the_page_is_well_formed_and_needs_no_network(name: str, pages: dict[str, str]) -> None:
    html = pages[name]
    page = Page(html)
    assert page.open == []
    assert "http:" not in html
    assert "https:" not in html
    assert not re.search(r"@import|<link|<script|<iframe|<img|src=", html)
    assert not re.search(r"url\((?!#)", html)
    assert not re.search(r"\b(nan|inf|None|Undefined)\b", " ".join(page.text))


def test_every_reference_within_the_page_is_met_once(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = [attributes["href"][1:] for tag, attributes in page.elements if tag in ("a", "use")]
    clips = [attributes["clip-path"][5:-1] for _, attributes in page.elements if "clip-path" in attributes]
    assert clips
    assert set(targets + clips) <= set(ids)


def test_hostile_texts_come_out_escaped(hostile: tuple[dict[str, Any], str]) -> None:
    report, html = hostile
    page = Page(html)
    assert page.open == []
    assert "\x00" not in html
    assert "\x07" not in html
    assert {tag for tag, _ in page.elements}.isdisjoint({"script", "img", "b>"})
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    said = "".join(page.text)
    shown = [text["text"] for text in report["texts"]]
    assert len(shown) == 10
    for text in shown:
        pictures = text.replace("\x00", "␀").replace("\x07", "␇")
        assert pictures in said
    for name in (
        "<b>bad</b>",
        'go"od & $\\alpha$',
        "<id ",
        "<shift> $x$ 名前",
        "<note>",
        "<key>.a",
        "<value>",
        "<title>␀",
    ):
        assert name in said


def test_a_text_of_another_direction_stays_within_its_own_box(hostile: tuple[dict[str, Any], str]) -> None:
    quotes = Page(hostile[1]).all("blockquote")
    assert len(quotes) == 10
    assert all(attributes == {"dir": "auto"} for attributes in quotes)


def test_hostile_reports_can_be_written_to_a_run(hostile: tuple[dict[str, Any], str], tmp_path: Path) -> None:
    run = Run(tmp_path)
    write_report(run, hostile[0])
    assert json.loads(run.report_json.read_text(encoding="utf-8")) == hostile[0]
    assert run.report_html.read_text(encoding="utf-8") == hostile[1]


def test_a_lone_surrogate_does_not_keep_the_page_from_being_written(
    lone: dict[str, Any],
) -> None:
    report = {**copy.deepcopy(lone), "notes": ["half \ud83d an emoji"]}
    assert "half \N{REPLACEMENT CHARACTER}" in render_html(report).encode("utf-8").decode("utf-8")


def test_the_page_says_every_finding_and_every_system(binary: dict[str, Any], page: Page) -> None:
    said = " ".join(
        "".join(page.text).replace("\N{NO-BREAK SPACE}", " ").replace("\N{MINUS SIGN}", "-").split()
    )
    assert binary["headline"] in said
    for sentence in binary["findings"]:
        claim, _, evidence = sentence.partition(". ")
        assert claim in said
        assert evidence in said
    for name in binary["systems"]:
        assert name in said
    for text in binary["texts"]:
        assert text["text"] in said
    assert binary["notes"][0] in said


def test_all_is_rendered_from_the_json_alone(six: dict[str, Any], pages: dict[str, str]) -> None:
    assert render_html(json.loads(json.dumps(six))) == pages["six"]


def test_every_table_has_heads_and_every_drawing_a_name(page: Page) -> None:
    assert all(attributes.get("scope") in ("col", "row") for attributes in page.all("th"))
    assert all(attributes.get("aria-label") for attributes in page.all("figure"))
    for attributes in page.all("svg"):
        assert attributes.get("aria-label") or attributes.get("aria-hidden") == "true"
    regions = [attributes for attributes in page.all("div") if attributes.get("class") == "box"]
    assert regions
    assert all(attributes["tabindex"] == "0" for attributes in regions)  # can be scrolled by keyboard


def test_every_colour_of_a_drawing_is_a_variable_of_the_style_sheet(pages: dict[str, str]) -> None:
    html = pages["binary"]
    style, drawings = html.split("</style>")[0], "".join(re.findall(r"<svg.*?</svg>", html, re.DOTALL))
    used = set(re.findall(r"var\((--[a-z-]+)\)", drawings))
    assert used >= {"--ink", "--soft", "--grid", "--student", "--ensemble"}
    assert all(f"{name}:" in style for name in used)
    assert not re.search(r"#[0-9a-f]{6}", drawings)


@pytest.mark.parametrize("scheme", ["light", "dark", "print"])
def test_text_and_lines_have_contrast(pages: dict[str, str], scheme: str) -> None:
    blocks = [dict(re.findall(r"(--[a-z-]+): (#[0-9a-f]{3,6})", block)) for block in re.findall(
        r":root \{(.*?)\}", pages["lone"].split("</style>")[0], re.DOTALL)]  # fmt: skip
    colours = blocks[["light", "dark", "print"].index(scheme)]
    assert set(colours) == set(blocks[0])
    for name in ("ink", "soft", "accent", "good", "bad"):
        assert contrast(colours[f"--{name}"], colours["--paper"]) >= 4.5
        assert contrast(colours[f"--{name}"], colours["--panel"]) >= 4.5
    for name in (*(family.replace("_", "-") for family in FAMILIES), "people"):
        assert contrast(colours[f"--{name}"], colours["--paper"]) >= 4.5


def contrast(first: str, second: str) -> float:
    """The contrast ratio of WCAG 2."""
    brighter, darker = sorted((luminance(first), luminance(second)), reverse=True)
    return (brighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_leaders_are_starred_and_nobody_else(binary: dict[str, Any]) -> None:
    table = systems_table(binary["systems"], ["accuracy", "nll"], binary["shipped"], binary["leaders"])
    for place, metric in enumerate(("accuracy", "nll")):
        starred = [row.name for row in table.rows if row.cells[place].leads]
        assert starred == binary["leaders"][metric]


def test_an_undefined_figure_is_a_dash(six: dict[str, Any]) -> None:
    table = systems_table(six["shift"]["shifted"], ["accuracy", "mean_total"], "ensemble")
    assert [column.label for column in table.columns] == ["Total"]  # nobody has an accuracy
    cells = systems_table(
        {"a": six["systems"]["ensemble"], "b": six["shift"]["shifted"]["ensemble"]}, ["nll"], ""
    )
    assert cells.rows[1].cells[0].main == "–"


def test_two_classes_have_one_strip_and_more_the_ones_that_matter(
    binary: dict[str, Any], six: dict[str, Any]
) -> None:
    strip = strips(binary["texts"][0], BINARY)
    assert [part.class_name for part in strip] == ["positive"]
    assert [lane.who for lane in strip[0].lanes] == ["members", "ensemble", "student", "people"]
    for text in six["texts"]:
        names = [part.class_name for part in strips(text, SIX)]
        probabilities = text["ensemble"]["probabilities"]
        assert names[0] == SIX[probabilities.index(max(probabilities))]
        assert text["label"] in names
        assert 2 <= len(names) <= 3


def test_a_drawing_is_the_same_each_time_and_names_no_address() -> None:
    at = {"mean": 0.2, "0.05": 0.0, "0.25": 0.1, "0.5": 0.2, "0.75": 0.3, "0.95": 0.4}
    domains = {"test": {"ensemble": {"total": at}}, "名前 $x$ <b>": {"ensemble": {"total": at}}}
    first, second = (svg(uncertainty_plot("total", domains)) for _ in range(2))
    assert first == second
    assert "http" not in first
    assert "&lt;b&gt;" in first


def test_ids_of_two_drawings_never_meet() -> None:
    def draw(figure: Any, palette: Palette) -> None:
        figure.subplots().plot([0, 1], [0, 1])

    ids = [
        set(re.findall(r'id="([^"]+)"', svg(Drawing(name, name, (2, 2), draw)))) for name in ("one", "two")
    ]
    assert ids[0]
    assert ids[0].isdisjoint(ids[1])


def test_a_style_within_a_drawing_does_not_reach_the_page() -> None:
    assert "style" not in inline('<svg xmlns="x"><style type="text/css">* {}</style></svg>', "name")


@pytest.mark.parametrize("missing", ["jinja2", "matplotlib"])
def test_a_missing_extra_says_which_install_mends_it(
    missing: str, lone: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingExtraError, match=rf'{missing}.*pip install "credibly\[report\]"'):
        render_html(lone)


def test_the_json_is_written_even_where_the_page_cannot_be(
    lone: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtraError):
        write_report(Run(tmp_path), lone)
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8")) == lone


def test_every_system_has_its_recall_and_precision_by_class(
    binary: dict[str, Any], pages: dict[str, str]
) -> None:
    systems = {name: binary["systems"][name] for name in ("single", "student")}
    table = by_class_table(systems, "recall", "student", BINARY)
    assert [column.label for column in table.columns] == list(BINARY)
    recall = systems["student"]["classes"]["positive"]["recall"]
    row = table.rows[1]
    assert (row.name, row.shipped) == ("student", True)
    assert row.cells[1].main == f"{100 * recall['value']:.1f}"
    assert row.cells[1].below == f"[{100 * recall['low']:.1f}, {100 * recall['high']:.1f}]"
    html = pages["binary"]
    assert html.count("Recall by class") == html.count("Precision by class") >= 1


def test_zero_shot_is_explained_where_it_stands(
    lone: dict[str, Any], pages: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "zero_shot" not in pages["lone"]
    monkeypatch.setattr(html_module, "svg", lambda drawing: "")
    systems = {"zero_shot": lone["systems"]["ensemble"], **lone["systems"]}
    assert "<dt>zero_shot</dt>" in render_html({**lone, "systems": systems})
