"""The report's HTML, without a browser: what is on the page, and that nothing else can be."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from dreamprm.errors import DataError
from dreamprm.evaluation.statistics import Estimate
from dreamprm.report.page import AccuracyTable, Domain, ReportData, render, write_report
from tests.report_samples import (
    ATTACK,
    bare_report,
    example,
    full_report,
    hostile_report,
)


class Tags(HTMLParser):
    """Start tags with their attributes, and the text outside script and style."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def page_data(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    data = json.loads(found[1])
    assert isinstance(data, dict)
    return data


def rows(page: str) -> dict[str, str]:
    """Method -> its table row's HTML."""
    return {
        found[1].strip(): found[0]
        for found in re.finditer(
            r'<tr class[^>]*>\s*<th scope="row">([^<]*)</th>.*?</tr>', page, re.DOTALL
        )
    }


def test_the_page_says_what_ran_and_warns_before_the_numbers() -> None:
    text = Tags(render(full_report())).text
    for part in ("small visual world", "0.1.0", "4 min 12 s", "upper_lr", "is a toy"):
        assert part in text
    assert text.index("is a toy") < text.index("One sample")


def test_cells_show_percent_and_interval() -> None:
    page = render(bare_report())
    assert "50.0" in page
    assert "45.0–55.0" in page
    assert "n = 160" in page


def test_the_best_of_a_column_is_bold_but_never_the_oracle_or_the_ceiling() -> None:
    def estimate(mean: float) -> Estimate:
        return Estimate(10, mean, mean, mean)

    table = AccuracyTable(
        "t",
        {
            "a": {"dreamprm": estimate(0.7), "orm": estimate(0.6), "any_right": estimate(0.7)},
            "b": {"dreamprm": estimate(0.5), "orm": estimate(0.5), "prm_oracle": estimate(0.8)},
        },
    )
    found = rows(render(ReportData("t", tables=(table,))))
    assert found["DreamPRM"].count('class="best"') == 2
    assert found["Outcome reward model"].count('class="best"') == 1  # the tie in b
    assert 'class="best"' not in found["Any right (ceiling)"] + found["PRM, oracle weights"]
    assert "<td>–</td>" in found["Any right (ceiling)"]  # not evaluated on b


def test_differences_are_shown_with_their_interval_and_p() -> None:
    page = render(full_report()).split('id="fates"')[0]
    found = rows(page)["PRM, oracle weights"]
    assert "−3.0" in found
    assert "−5.5 to" in found
    assert "p = 0.011" in found


@pytest.mark.parametrize("make", [full_report, bare_report, hostile_report])
def test_the_page_loads_nothing(make: Any) -> None:
    page = Tags(render(make()))
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        assert not {"src", "href", "srcset", "action", "style"} & set(attributes)
    policies = [a["content"] for t, a in page.tags if t == "meta" and "http-equiv" in a]
    assert policies
    assert policies[0] and policies[0].startswith("default-src 'none'")


def test_plotly_is_inlined_once_where_there_is_a_chart_and_not_otherwise() -> None:
    assert render(full_report()).count("* plotly.js v") == 1
    assert "plotly.js v" not in render(bare_report())
    assert len(render(bare_report())) < 100_000


def test_hostile_text_adds_no_element_and_no_attribute() -> None:
    page = render(hostile_report())
    assert ATTACK not in page
    assert "<script>window.attacked" not in page
    assert "<img" not in page.replace('"<img', "").split("plotly.js v")[0]
    tags = Tags(page).tags
    assert sum(tag == "script" for tag, _ in tags) == 3  # data, plotly, ours
    assert not [a for _, attributes in tags for a in attributes if a.startswith("on")]


def test_hostile_text_survives_unchanged_as_data() -> None:
    data = page_data(render(hostile_report()))
    assert data["examples"][0]["question"] == ATTACK
    assert data["examples"][0]["candidates"][0]["steps"] == [ATTACK]
    assert data["domains"][0]["name"] == ATTACK
    assert data["scaling"][0][0] == ATTACK


def test_methods_keep_their_order_in_the_curves() -> None:
    report = full_report()
    assert [m for m, _ in page_data(render(report))["scaling"]] == list(report.scaling)


def test_images_of_four_kinds_are_embedded_and_others_refused() -> None:
    one = example(0, main_right=True, uniform_right=True)
    kinds = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg", b"GIF89a": "gif", b"RIFF": "webp"}
    with_images = replace(one, images=tuple(kinds))
    data = page_data(render(ReportData("t", examples=(with_images,))))
    for uri, kind in zip(data["examples"][0]["images"], kinds.values(), strict=True):
        assert uri.startswith(f"data:image/{kind};base64,")
    with pytest.raises(DataError, match="no PNG"):
        render(ReportData("t", examples=(replace(one, images=(b"<svg onload=alert(1)>",)),)))


def test_numbers_that_json_cannot_hold_and_missing_step_scores_are_refused() -> None:
    with pytest.raises(DataError, match="nan"):
        render(ReportData("t", domains=(Domain("d", "f", "", None, float("nan")),)))
    one = example(0, main_right=True, uniform_right=True)
    short = replace(one.candidates[0], step_scores=(0.5,))
    with pytest.raises(DataError, match="1 scores for 5 steps"):
        render(ReportData("t", examples=(replace(one, candidates=(short,)),)))


def test_the_report_is_written_as_one_utf8_file(tmp_path: Path) -> None:
    write_report(ReportData("Ergebnis – große Übersicht"), tmp_path / "report.html")
    assert "große Übersicht" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
