"""The page that says which method to take shows the figures of the results."""

from pathlib import Path

from experiments.testbed_table import END, START, choosing_table, saved_results

DOCS = Path(__file__).parent.parent / "docs"


def test_the_table_of_the_page_is_made_from_the_results() -> None:
    page = (DOCS / "CHOOSING.md").read_text()
    assert f"{START}\n{choosing_table(saved_results(DOCS / 'results'))}\n{END}" in page
