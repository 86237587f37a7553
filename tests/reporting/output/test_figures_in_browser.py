"""The figures that the page's script draws, in headless Chromium: they answer, follow a choice, and compare trials."""

from contextlib import contextmanager
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from gridsearch.plugins import ImageData
from gridsearch.records import TrialState
from gridsearch.reporting import (
    Predictions,
    write_report,
)
from tests.browser import PATIENCE_MS

pytestmark = [
    pytest.mark.browser,
    # Playwright's own threads close their loops late
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]
IMAGES = 300


def answers(number):
    """Predictions that differ from trial to trial, of images of which some are hard."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, IMAGES)
    logits = rng.normal(0, 1, (IMAGES, 10)).astype(np.float32)
    logits += np.random.default_rng(number).normal(0, 0.8, logits.shape)
    logits[np.arange(IMAGES), labels] += np.where(rng.random(IMAGES) < 0.8, 6.0, 1.0)
    return Predictions(logits, labels, indices=np.arange(IMAGES) + 7)


@pytest.fixture(scope="module")
def report(tmp_path_factory, study, hostile):
    """Three axes with hostile names and values, two seeds, lost trials, images: the page, and the study."""
    axes = {"lr": [0.01, 0.001, 1e-5], "batch": [10, 200], "model.</script>🦄": ["a", hostile[1]]}
    builder = study(axes, seeds=2, class_names=hostile, name="<i>study</i>")
    builder.lose(0, TrialState.DIVERGED, "boom").lose(5, TrialState.FAILED, "x")
    labels = answers(0).labels
    pixels = np.random.default_rng(1).integers(0, 255, (IMAGES + 7, 1, 12, 12), dtype=np.uint8)
    known = np.concatenate([np.zeros(7, np.int64), labels])
    images = ImageData(
        train_images=pixels, train_labels=known, test_images=None, test_labels=None, class_names=hostile
    )
    folder = tmp_path_factory.mktemp("figures")
    return write_report(builder.data(), folder=folder, predictions=answers, images=lambda _: images)


@pytest.fixture
def page(browser, report):
    with opened(browser, report.page) as made:
        yield made


@contextmanager
def opened(browser, path, **how):
    """Open a page that asks for nothing and says nothing."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | how)
    context.set_default_timeout(PATIENCE_MS)
    heard, asked = [], []
    page = context.new_page()
    page.on("console", lambda message: heard.append(message.text))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    yield page
    context.close()
    assert heard == []
    assert [url for url in asked if not url.startswith(("data:", "blob:"))] == [path.as_uri()]


def rows(page, table):
    return page.locator(f"#{table} tbody tr").count()


def test_every_figure_is_drawn_in_place_of_its_still_picture(page):
    names = page.eval_on_selector_all("figure[data-figure]", "all => all.map(f => f.dataset.figure)")
    assert names == [
        "heatmap",
        "marginals",
        "parallel",
        "curves",
        "cost",
        "confusion",
        "mistakes",
        "reliability",
        "samples",
    ]
    for name in names:
        figure = page.locator(f'figure[data-figure="{name}"]')
        still = name in ("mistakes", "samples")
        assert figure.locator(".still").is_visible() == still, name
        assert figure.locator(".drawn svg").count() == (not still), name


CUT = """() => [...document.querySelectorAll("figure svg")].flatMap((svg) => {
  const sheet = svg.getBoundingClientRect();
  return [...svg.querySelectorAll("text:not([transform])")].filter((text) => {
    const box = text.getBoundingClientRect();
    return box.width && (box.left < sheet.left - 1 || box.right > sheet.right + 1);
  }).map((text) => text.textContent);
})"""
NAMES = """() => [...document.querySelectorAll('figure[data-figure="confusion"] text[text-anchor="end"]:not([transform])')]
  .map((text) => text.textContent)"""


def test_names_that_are_cut_differ_and_no_number_lies_outside_its_drawing(browser, study, tmp_path):
    names = [f"a class of images, number {i} of ten classes of images" for i in range(10)]
    builder = study({"lr": [0.01, 0.003], "batch": [32, 64]}, class_names=names)
    for number, value in enumerate((0.9281, 0.9017, 0.9280, 0.9209)):
        builder.score(number, value).change(number, seconds=5.2 + 0.02 * number)
    written = write_report(builder.data(), folder=tmp_path, predictions=answers)
    for width in (360, 1280):
        with opened(browser, written.page, viewport={"width": width, "height": 900}) as page:
            assert page.evaluate(CUT) == []
            shown = page.evaluate(NAMES)
            assert len(shown) == len(set(shown)) == 10
            assert all("\u2026" in name and str(i) in name for i, name in enumerate(shown))


def test_slanted_names_are_whole_and_apart_on_a_telephone(browser, study, tmp_path):
    """They reach to the left of the first column, and of many columns not each has space for one."""
    data = study({"model.act": [f"text {i} with some words" for i in range(36)], "lr": [0.1, 0.2]}).data()
    files = write_report(data, folder=tmp_path, predictions=lambda _: None)
    with opened(browser, files.page, viewport={"width": 400, "height": 900}) as page:
        found = page.evaluate("""[...document.querySelectorAll("figure svg")].map(svg => {
            const own = svg.getBoundingClientRect(), names = [...svg.querySelectorAll("text[transform^='rotate(-40']")];
            return names.map(t => [t.getBoundingClientRect().left - own.left, Number(t.getAttribute("x"))]);
        }).filter(names => names.length)""")
    assert len(found) == 2
    for names in found:
        assert min(left for left, _ in names) >= 0
        places = sorted(x for _, x in names)
        assert len(places) > 5 and min(np.diff(places)) >= 17


def test_small_values_lie_below_large_ones_as_in_the_still_picture(page):
    levels = page.locator('figure[data-figure="parallel"] g.level')
    lr = [(label, levels.nth(i).bounding_box()["y"]) for i, label in enumerate(levels.all_text_contents())][
        :3
    ]
    assert [label for label, _ in sorted(lr, key=lambda each: -each[1])] == ["1e-05", "0.001", "0.01"]


def test_long_names_of_axes_lie_whole_and_apart_above_their_lines(browser, study, tmp_path):
    long = "model.a_name_that_is_longer_than_its_place"
    for axes in ({long: [1, 2]}, {long: [1, 2], f"{long}_too": [1, 2], "lr": [0.1, 0.01]}):
        axes |= {"batch": [1, 2]}
        made = write_report(study(axes).data(), folder=tmp_path, predictions=answers)
        with opened(browser, made.page) as page:
            boxes = page.eval_on_selector_all(
                'figure[data-figure="parallel"] svg',
                """all => [all[0], ...all[0].querySelectorAll(".title")].map((each) => {
                    const { left, right } = each.getBoundingClientRect(); return [left, right]; })""",
            )
        figure, *titles = boxes
        assert len(titles) == len(axes) + 1
        ends = [figure[0], *(end for title in titles for end in title), figure[1]]
        assert ends == sorted(ends)


def test_the_pointer_over_a_mark_shows_its_value_and_its_settings_as_the_table_has_them(page, report):
    best = report.ranking.best
    for figure in ("heatmap", "marginals", "parallel", "cost"):
        mark = page.locator(
            f'figure[data-figure="{figure}"] .mark-of:has(.best-edge), figure[data-figure="{figure}"] .mark-of.best'
        ).first
        mark.dispatch_event("pointerenter", {"clientX": 40, "clientY": 40})
        shown = page.locator(".tip").inner_text()
        assert (
            "validation accuracy: " + page.locator("#points tbody tr").first.locator("td").nth(5).inner_text()
            in shown
        )
        assert f"lr={best.params['lr']}" in shown.replace("1e-03", "0.001"), figure
        assert "rank 1, best, 2 seeds" in shown, figure
        mark.dispatch_event("pointerleave")
        assert not page.locator(".tip").is_visible()


def test_a_click_goes_to_the_trial(page, report):
    page.locator('figure[data-figure="heatmap"] .mark-of:has(.best-edge)').first.click()
    number = report.ranking.best_trial.number
    assert page.evaluate("location.hash") == f"#trial-{number}"
    page.locator(f"#trial-{number}.mark").wait_for()
    card = page.locator(".trial")
    assert card.locator("h3").inner_text() == f"Trial {number}"
    row = page.locator(f"#trial-{number} td").all_inner_texts()
    shown = card.locator("table").nth(0).locator("td").all_inner_texts()
    assert shown == row[1 : 1 + len(shown)] and len(shown) == 4, "three axes and the seed"
    assert set(card.locator("table").nth(1).locator("td").all_inner_texts()) <= set(row[5:])
    assert card.locator("figure").nth(0).locator(".curve").count() == 2, "loss and accuracy"
    card.locator("figure").nth(1).locator("svg").wait_for()
    stored = answers(number)
    of_class = stored.labels == 0
    label = f"{int((of_class & stored.right).sum())} of {int(of_class.sum())} images"
    assert label in card.locator(".recognised").first.get_attribute("aria-label")
    tiles = card.locator(".tiles li")
    assert tiles.count() == min(8, int((~stored.right).sum()))
    assert tiles.first.get_attribute("title").startswith("training image ")
    assert tiles.first.locator("canvas").count() == 1
    assert card.get_by_role("link", name="Link to this trial").get_attribute("href") == f"#trial-{number}"
    card.locator("a", has_text="#").first.click()
    card.locator("h3", has_not_text=f"Trial {number}").wait_for()  # another seed of its point
    card.get_by_role("button", name="Close").click()
    page.locator("tr.mark").wait_for(state="detached")
    assert page.locator(".trial").count() == 0


def test_a_lost_trial_shows_its_error(page):
    page.locator(".failures a").first.click()
    assert page.locator(".trial .error").inner_text() in ("boom", "x")


def test_the_keyboard_walks_over_the_marks_and_enter_follows_one(page):
    stops = page.locator('figure[data-figure="heatmap"] .mark-of[tabindex="0"]')
    assert stops.count() == 1
    stops.focus()
    first = stops.get_attribute("aria-label")
    page.keyboard.press("ArrowRight")
    assert stops.get_attribute("aria-label") != first
    assert page.locator(".tip").is_visible()
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash").startswith("#trial-")


def test_a_brush_over_an_axis_filters_heatmap_curves_and_tables_together(page):
    axis = page.locator('figure[data-figure="parallel"] .brush').first
    axis.scroll_into_view_if_needed()
    box = axis.bounding_box()
    before = rows(page, "trials")
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] * 0.55, steps=4)
    page.mouse.up()
    assert page.locator(".controls output").inner_text() == "8 of 12 points (lr: 0.001, 0.01)"
    assert (rows(page, "points"), rows(page, "trials"), before) == (8, 16, 24)
    assert page.locator('figure[data-figure="heatmap"] .cell.off').count() == 4
    assert page.locator('figure[data-figure="parallel"] .line.off').count() == 4
    curves = page.locator('figure[data-figure="curves"] .mark-of')
    assert all("lr=1e-05 " not in curves.nth(i).get_attribute("aria-label") for i in range(curves.count()))
    page.get_by_role("button", name="Show all points").click()
    assert (rows(page, "points"), rows(page, "trials")) == (12, 24)


def test_levels_and_the_range_of_values_are_chosen_from_the_keyboard(page):
    page.get_by_role("checkbox", name="batch 200: only this").press("Enter")
    assert page.locator(".controls output").inner_text() == "6 of 12 points (batch: 200)"
    assert page.get_by_role("checkbox", name="batch 200: only this").get_attribute("aria-checked") == "true"
    page.get_by_role("checkbox", name="batch 200: only this").press(" ")
    page.get_by_role("slider", name="lowest validation accuracy").press("PageUp")
    kept = rows(page, "points")
    assert 0 < kept < 12
    assert page.locator('figure[data-figure="heatmap"] .cell:not(.off)').count() == kept


def test_the_metric_is_switched_in_figures_and_tables(page):
    page.get_by_label("Metric of the figures").select_option("val_loss")
    column = page.locator("#points th").all_inner_texts().index("validation loss")
    cells = f"#points tbody tr:not(.lost) td:nth-child({column + 1})"
    shown = page.locator(cells).all_inner_texts()
    values = [float(v) for v in shown]
    assert len(values) == 11, "one point has a trial that diverged, and comes last"
    assert values == sorted(values)
    assert page.locator("#points th[aria-sort]").inner_text() == "validation loss"
    cell = page.locator('figure[data-figure="heatmap"] .mark-of:has(.best-edge)').first
    assert f"validation loss: {shown[0]}" in cell.get_attribute("aria-label")
    assert (
        page.locator('figure[data-figure="parallel"] svg')
        .first.get_attribute("aria-label")
        .endswith("validation loss")
    )


def test_two_trials_are_compared_down_to_the_images_on_which_they_differ(page, report):
    a, b = 8, 14
    page.get_by_label("first trial").select_option(f"0:{a}")
    page.get_by_label("second trial").select_option(f"0:{b}")
    right = [answers(n).right for n in (a, b)]
    won, lost = int((right[0] & ~right[1]).sum()), int((~right[0] & right[1]).sum())
    pair = page.locator(".pair-host")
    pair.locator(".tiles li").first.wait_for()
    p = stats.binomtest(won, won + lost).pvalue
    said = pair.locator(".answered p").first.inner_text()
    assert f"A is right on {won} images where B is wrong, B on {lost} where A is wrong" in said
    assert f"p = {p:.3f}" in said
    params = {t.number: t for q in report.ranking.points for t in q.trials}
    differing = [n for n in params[a].params if params[a].params[n] != params[b].params[n]]
    settings = pair.locator("table").first.locator("tbody th").all_inner_texts()
    assert [s for s in settings if s != "seed"] == differing
    tiles = pair.locator(".tiles li")
    places = {int(t.get_attribute("title").split()[-1]) for t in tiles.all()}
    assert places == {7 + int(i) for i in np.flatnonzero(right[0] & ~right[1])}
    page.get_by_role("button", name="B right, A wrong").click()
    assert tiles.count() == lost
    assert (
        pair.locator("figure .drawn svg").get_attribute("aria-label")
        == f"Reliability of trial {a} and trial {b}"
    )
    drawn = "c => c.getContext('2d').getImageData(0, 0, 12, 12).data.some(v => v > 0 && v < 255)"
    assert page.locator(".tiles canvas").first.evaluate(drawn)


def test_the_scripts_exact_test_is_scipys(page):
    for won, lost in [(0, 0), (1, 0), (5, 5), (3, 11), (40, 90), (2000, 2150)]:
        expected = stats.binomtest(won, won + lost).pvalue if won + lost else 1.0
        assert page.evaluate("([w, l]) => report.exactP(w, l)", [won, lost]) == pytest.approx(
            expected, rel=1e-9
        )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_figures_follow_the_scheme_and_fit_a_telephone(browser, report, scheme):
    with opened(browser, report.page, viewport={"width": 400, "height": 800}, color_scheme=scheme) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        ink, ground = page.evaluate(
            "(() => [getComputedStyle(document.querySelector('.drawn .title')).fill,"
            " getComputedStyle(document.querySelector('.drawn')).backgroundColor])()"
        )
        brightness = [sum(map(int, c[4:-1].split(","))) for c in (ink, ground)]
        assert (brightness[0] < 150 and brightness[1] > 700) == (scheme == "light")
        assert (brightness[0] > 600 and brightness[1] < 150) == (scheme == "dark")
        wider = "s => s.getBoundingClientRect().width > s.closest('.drawn').clientWidth"
        assert page.eval_on_selector_all(".drawn svg", f"a => a.filter({wider}).map(s => s.ariaLabel)") == []


@pytest.mark.parametrize(("scheme", "bright"), [("light", True), ("dark", False)])
def test_without_scripts_the_still_figures_stand_there_in_the_readers_scheme(browser, report, scheme, bright):
    with opened(browser, report.page, java_script_enabled=False, color_scheme=scheme) as page:
        stills = page.locator(".still img")
        assert stills.count() == 9
        assert not page.locator("section.pair").is_visible()
        assert not page.locator(".controls").is_visible()
        shot = stills.first.screenshot()
        corner = Image.open(BytesIO(shot)).convert("L").getpixel((3, 3))
        assert (corner > 200) == bright


def test_a_study_of_a_function_has_figures_that_answer(browser, tmp_path, of_a_function):
    data = of_a_function(
        [{"x": x} for x in (-1.0, 0.5, 2.0)],
        lambda p: {"loss": p["x"] ** 2, "other": p["x"]},
        lambda name, end: [end + 2, end + 1, end] if name == "loss" else [],
    )
    files = write_report(data, folder=tmp_path, predictions=lambda _: None)
    with opened(browser, files.page) as page:
        mark = page.locator('figure[data-figure="heatmap"] .mark-of').first
        assert mark.get_attribute("aria-label").startswith("x=-1, loss: 1.00, rank 2")
        assert page.locator('figure[data-figure="curves"] .mark-of').count() == 3
        page.get_by_label("Metric of the figures").select_option("other")
        assert "other: " in page.locator('figure[data-figure="heatmap"] .mark-of').first.get_attribute(
            "aria-label"
        )
        assert page.locator(".pair-host table").count() == 2
        assert page.locator(".answered").count() == 0, "no images to be compared"


FAULTS = """() => [...document.querySelectorAll("figure svg")].flatMap((root) => {
  const whole = root.getBoundingClientRect(), box = (t) => t.getBoundingClientRect();
  const texts = [...root.querySelectorAll("text")].filter((t) => !t.getAttribute("transform"));
  const over = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 3 && b.top < a.bottom - 3;
  const cut = texts.filter((t) => box(t).left < whole.left - 1 || box(t).right > whole.right + 1);
  const hit = texts.filter((t, i) => texts.slice(i + 1).some((o) => over(box(t), box(o))));
  return [...cut, ...hit].map((t) => `${root.getAttribute("aria-label")}: ${t.textContent}`);
})"""
TICKS = """(name) => [...document.querySelectorAll(`figure[data-figure="${name}"] text`)].map((t) => t.textContent)
  .filter((t) => /^-?[0-9.]+(e[+-]?[0-9]+)?$/.test(t))"""


@pytest.mark.parametrize(("base", "step"), [(-1e6, 1e-3), (0.5, 1e-9), (12345678.0, 0.25), (3e12, 1.0)])
def test_numbers_of_any_size_are_apart_whole_and_told_apart(browser, tmp_path, of_a_function, base, step):
    grid = [{"x": x, "y": y} for x in (1, 2, 3, 4) for y in (1, 2)]
    data = of_a_function(
        grid,
        lambda p: {"loss": base + step * p["x"] * p["y"]},
        lambda _, end: [end + 2 * step, end + step, end],
    )
    files = write_report(data, folder=tmp_path, predictions=lambda _: None)
    for width in (420, 1100):
        with opened(browser, files.page, viewport={"width": width, "height": 900}) as page:
            assert page.evaluate(FAULTS) == []
            ticks = [t for t in page.evaluate(TICKS, "curves") if t not in ("1", "2", "3")]
            assert ticks and len(set(ticks)) == len(ticks)
            marks = page.locator('figure[data-figure="curves"] .mark-of').all()
            ends = {mark.get_attribute("aria-label").rpartition("loss: ")[2] for mark in marks}
            assert len(ends) == len({trial.value for trial in data.trials})


def test_a_long_metrics_name_does_not_widen_the_page(browser, tmp_path, of_a_function):
    name = "mean_intersection_over_union_of_all_the_classes_but_the_ground"
    data = of_a_function([{"x": 1}, {"x": 2}], lambda p: {name: p["x"], "other": 1.0})
    files = write_report(data, folder=tmp_path, predictions=lambda _: None)
    with opened(browser, files.page, viewport={"width": 400, "height": 900}) as page:
        assert page.get_by_label("Metric of the figures").is_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 400


def test_what_the_winner_gets_wrong_is_said_to_be_of_one_trial(page):
    said = page.locator("#classes ~ p").first.inner_text()
    number = page.locator("#points tbody tr").first.locator("td").last.inner_text().split()[0]
    assert said.startswith("Balanced accuracy ") and said.endswith(f" % (trial {number}).")
