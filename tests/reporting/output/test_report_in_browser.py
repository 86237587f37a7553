"""The page in headless Chromium: silent, asks for nothing, sorts, filters, fits a telephone."""

from pathlib import Path

import pytest

from gridsearch.records import TrialState
from gridsearch.reporting import Side, rank, write_comparison, write_report
from tests.browser import PATIENCE_MS

pytestmark = [
    pytest.mark.browser,
    # Playwright's own threads close their loops late
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def report(tmp_path_factory, study, hostile, predictions) -> Path:
    axes = {"lr": [0.01, 0.001, 1e-5], "batch": [10, 200], "model.<b>act</b>": list(hostile[:3])}
    builder = study(axes, seeds=2, class_names=hostile, name="<i>study</i>")
    builder.lose(0, TrialState.DIVERGED, "</script><script>document.title='owned'</script>")
    builder.lose(5, TrialState.FAILED, "<img src=x onerror=document.title='owned'>")
    folder = tmp_path_factory.mktemp("report")
    return write_report(builder.data(), folder=folder, predictions=lambda _: predictions(10)).page


@pytest.fixture(scope="module")
def long_report(tmp_path_factory, study, hostile) -> Path:
    """A study of 1,200 trials: more than the page draws at once."""
    axes = {"batch": list(range(1, 201)), "model.x": [hostile[0], "<!--", "c"]}
    builder = study(axes, seeds=2, epochs=1).lose(900, TrialState.PRUNED)
    folder = tmp_path_factory.mktemp("long")
    return write_report(builder.data(), folder=folder, predictions=lambda _: None).page


@pytest.fixture
def open_page(browser, report):
    contexts, heard, asked, wanted = [], [], [], []

    def opened(width=1280, scheme="light", path=report, **more):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, **more)
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: heard.append(message.text))
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        wanted.append(path.as_uri())
        page.goto(path.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert heard == []
    assert [url for url in asked if not url.startswith("data:")] == wanted


def column(page, table, index):
    return page.eval_on_selector_all(
        f"#{table} tbody tr:not([hidden])", f"rows => rows.map(row => row.cells[{index}].textContent.trim())"
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
def test_the_page_opens_from_a_file_without_a_word_and_without_overflow(open_page, width, scheme):
    page = open_page(width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert page.title() == "<i>study</i>: grid search report"


def test_light_and_dark_have_different_grounds_and_readable_ink(open_page):
    script = "(() => { const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]; })()"

    def brightness(scheme):
        return [
            sum(map(int, colour[4:-1].split(","))) for colour in open_page(scheme=scheme).evaluate(script)
        ]

    (light_ground, light_ink), (dark_ground, dark_ink) = brightness("light"), brightness("dark")
    assert light_ground - light_ink > 500
    assert dark_ink - dark_ground > 500


def test_a_click_on_a_heading_sorts_by_number_and_a_second_one_turns_it_round(open_page):
    page = open_page()
    heading = page.locator("#points th", has_text="lr").locator("button").first
    heading.click()
    rising = [float(x) for x in column(page, "points", 1)]
    assert rising == sorted(rising)
    assert len(set(rising)) == 3
    heading.click()
    assert [float(x) for x in column(page, "points", 1)] == rising[::-1]
    assert page.locator("#points th[aria-sort]").count() == 1


def test_cells_without_a_number_sort_last_both_ways(open_page):
    page = open_page()
    heading = page.locator("#trials th", has_text="validation loss").locator("button")
    index = page.locator("#trials th").all_inner_texts().index("validation loss")
    for _ in range(2):
        heading.click()
        values = column(page, "trials", index)
        assert values[-2:] == ["\u2013", "\u2013"]
        assert "\u2013" not in values[:-2]


@pytest.mark.parametrize(
    ("typed", "rows"),
    [
        ("state=failed", 1),
        ("seed=1", 18),
        ("lr=1e-5 seed=0", 6),
        ("batch>10 seed=0", 9),
        ("nonsense", 0),
        ("validation accuracy>0 seed = 0", 17),
        ("Epochs trained=10 seed=1", 17),
        ('state="failed"', 1),
        ("Nonsense accuracy>0", 0),
        ("", 36),
    ],
)
def test_the_filter_keeps_the_rows_that_match_every_word(open_page, typed, rows):
    page = open_page()
    page.locator("input[data-for=trials]").fill(typed)
    assert len(column(page, "trials", 0)) == rows
    assert page.locator("output[data-for=trials]").inner_text() == (f"{rows} of 36 rows" if typed else "")


def test_a_link_to_a_trial_shows_its_row_even_when_filtered_away(open_page):
    page = open_page()
    page.locator("input[data-for=trials]").fill("nonsense")
    page.locator("#points tbody tr a").first.click()
    target = page.evaluate("location.hash")
    page.locator(target).wait_for()
    assert page.locator("input[data-for=trials]").input_value() == "nonsense", "the filter stays"


def test_the_page_is_whole_without_its_script(open_page):
    page = open_page(java_script_enabled=False)
    assert page.locator("#trials tbody tr").count() == 36


def test_the_page_prints(open_page, tmp_path):
    page = open_page()
    pdf = page.pdf(path=tmp_path / "report.pdf", format="A4")
    assert pdf.startswith(b"%PDF")
    page.emulate_media(media="print")
    assert not page.locator("input[data-for=trials]").is_visible()
    assert page.locator("#trials tbody tr").last.is_visible()


def test_every_column_is_filtered_by_the_name_that_it_shows(open_page, long_report):
    page = open_page(path=long_report)
    for table in ("points", "trials"):
        box = page.locator(f"input[data-for={table}]")
        for index, name in enumerate(page.locator(f"#{table} th").all_inner_texts()):
            box.fill("")
            value = column(page, table, index)[3]
            if value and " ± " not in value:
                box.fill(
                    f'{name}="{value}"' if " " in value and "%" not in value else f"{name}={value.split()[0]}"
                )
                assert len(column(page, table, index)) >= 1, name
                assert set(column(page, table, index)) <= {value}, name
            else:
                box.fill(f"{name}>0")
                assert page.locator(f"output[data-for={table}]").inner_text().endswith(" rows"), name


def test_paper_holds_all_rows_and_says_what_a_filter_left_out(open_page, long_report, tmp_path):
    page = open_page(path=long_report)
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert page.locator("#trials tbody tr").count() == 1200
    assert page.locator("p.printed[data-for=trials]").inner_text() == ""
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.locator("#trials tbody tr").count() == 200
    page.emulate_media(media="screen")
    page.locator("input[data-for=trials]").fill("seed=1")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert page.locator("#trials tbody tr").count() == 600
    assert (
        page.locator("p.printed[data-for=trials]").inner_text()
        == 'Only the 600 of 1,200 rows that match "seed=1".'
    )


def test_paper_says_how_many_rows_are_too_many_for_it(open_page, tmp_path, study):
    data = study({"batch": list(range(1, 2051))}, epochs=1).data()
    page = open_page(path=write_report(data, folder=tmp_path, predictions=lambda _: None).page)
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert page.locator("#trials tbody tr").count() == 2000
    assert page.locator("p.printed[data-for=trials]").inner_text() == "… and 50 more rows, in trials.csv."


def test_a_long_table_draws_more_rows_as_they_are_scrolled_to(open_page, long_report):
    page = open_page(path=long_report)
    rows = page.locator("#trials tbody tr")
    assert rows.count() == 200
    page.evaluate("document.querySelector('#trials').parentElement.scrollTo(0, 1e6)")
    # not by a script, which the page's policy forbids to be evaluated where the rows are not there at once
    rows.nth(200).wait_for(state="attached")
    assert column(page, "trials", 0)[200:203] == ["200", "201", "202"]
    assert page.locator("#trials tbody tr").nth(250).get_attribute("id") == "trial-250"


def test_a_long_table_is_sorted_and_filtered_with_all_its_rows(open_page, long_report):
    page = open_page(path=long_report)
    page.locator("input[data-for=trials]").fill("state=pruned")
    assert column(page, "trials", 0) == ["900"]
    assert page.locator("output[data-for=trials]").inner_text() == "1 of 1,200 rows"
    page.locator("input[data-for=trials]").fill("")
    heading = page.locator("#trials th").first.locator("button")
    heading.click()
    heading.click()
    assert column(page, "trials", 0)[:3] == ["1199", "1198", "1197"]
    assert page.locator("#trials tbody tr").count() == 200


def test_a_link_to_a_trial_that_was_not_drawn_yet_shows_it(open_page, long_report):
    page = open_page(path=long_report)
    page.locator("input[data-for=points]").fill("batch=200 c")
    page.locator("#points tbody tr a").first.click()
    target = page.evaluate("location.hash")
    assert int(target.removeprefix("#trial-")) > 1000
    page.locator(f"{target}.mark").wait_for()
    assert page.locator(".trial h3").inner_text() == f"Trial {target.removeprefix('#trial-')}"
    assert page.locator("#trials tbody tr").count() == 201, "on top of those that are drawn"
    page.locator("#trials tbody a").nth(5).click()
    page.locator(target).wait_for(state="detached")
    assert page.locator("#trials tbody tr").count() == 200


def test_names_in_rows_that_the_script_draws_stay_text(open_page, long_report, hostile):
    page = open_page(path=long_report)
    page.locator("input[data-for=trials]").fill("trial>1190")
    assert set(column(page, "trials", 2)) == {hostile[0], "<!--", "c"}
    # the rows of two tables, what the figures draw, and the script; no predictions, so no answers
    assert page.evaluate("document.scripts.length") == 4


@pytest.fixture(scope="module")
def comparison(tmp_path_factory, study, hostile, predictions) -> Path:
    """Two studies with hostile values and class names."""
    sides = []
    for name, values in (("a", list(hostile[:3])), ("b", list(hostile[2:5]))):
        data = study({"lr": [0.01, 0.001], "model.x": values}, seeds=2, name=name, class_names=hostile).data()
        sides.append(Side(data=data, ranking=rank(data), predictions=lambda _: predictions(10)))
    return write_comparison(sides, folder=tmp_path_factory.mktemp("a+b")).page


@pytest.mark.parametrize(("width", "scheme"), [(400, "light"), (1280, "dark")])
def test_a_comparisons_page_is_silent_asks_for_nothing_and_fits(open_page, comparison, width, scheme):
    page = open_page(width, scheme, path=comparison)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert page.locator("img").count() == 4
    assert page.title() == "a and b"
    page.locator("table.sortable").nth(1).locator("button").first.click()
    assert page.locator("th[aria-sort]").count() == 1
