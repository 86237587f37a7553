"""Comparisons of studies and of trials in headless Chromium: their figures answer as those of one study do."""

from __future__ import annotations

import pytest

from gridsearch.reporting import ShownTrial, Side, confusion_matrix, rank, trials_page, write_comparison
from tests.browser import drawn
from tests.reporting.output.test_figures_in_browser import answers, opened

pytestmark = [
    pytest.mark.browser,
    # Playwright's own threads close their loops late
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def sides(study, hostile):
    """Two studies on the same images, of which one has an axis more."""
    found = []
    for name, axes in (
        ("a", {"lr": [0.01, 0.001]}),
        ("b", {"lr": [0.02, 0.001], "model.</b>": ["x", hostile[0]]}),
    ):
        data = study(axes, seeds=2, name=name, class_names=hostile).data()
        shift = 40 * (name == "b")
        found.append(Side(data=data, ranking=rank(data), predictions=lambda n, s=shift: answers(n + s)))
    return found


def test_a_comparison_answers_like_the_page_of_one_study(browser, tmp_path, sides):
    files = write_comparison(sides, folder=tmp_path / "a+b")
    first = files.comparison.sides[0].data.name
    with opened(browser, files.page) as page:
        names = page.eval_on_selector_all("figure[data-figure]", "all => all.map(f => f.dataset.figure)")
        assert names == ["winners", "heatmap", "heatmap", "confusion"]
        assert page.locator(".still:visible").count() == 0
        first_grid = 'figure[data-figure="heatmap"][data-study="0"] .mark-of'
        mark = page.locator(f"{first_grid}.best, {first_grid}:has(.best-edge)").first
        mark.dispatch_event("pointerenter", {"clientX": 40, "clientY": 40})
        winner = files.comparison.sides[0].winner
        assert f"{100 * winner.mean:.2f} ±" in page.locator(".tip").inner_text()
        mark.press("Enter")
        number = files.comparison.sides[0].ranking.best_trial.number
        assert page.evaluate("location.hash") == f"#trial-{number}-of-{first}"
        page.locator(f"#trial-{number}-of-{first}.mark").wait_for()
        assert page.locator(".trial td").first.inner_text() == first
        pair = page.locator(".pair-host")
        pair.locator(".tiles li").first.wait_for()
        stored = [s.predictions(s.ranking.best_trial.number) for s in files.comparison.sides]
        won = int((stored[0].right & ~stored[1].right).sum())
        assert (
            f"A is right on {won} images where B is wrong" in pair.locator(".answered p").first.inner_text()
        )
        assert pair.locator("thead th").all_inner_texts()[1].startswith(f"A: {first} #")
        page.get_by_label("Metric of the figures").select_option("val_loss")
        assert "validation loss: " in mark.get_attribute("aria-label")
        page.set_viewport_size({"width": 400, "height": 800})
        drawn(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 400


def test_trials_side_by_side_answer(browser, tmp_path, sides):
    side, numbers = sides[1], (1, 6)
    shown = [
        ShownTrial(
            trial=side.data.trials[n], matrix=confusion_matrix(side.predictions(n)), title=f"Trial {n}"
        )
        for n in numbers
    ]
    made = trials_page(side.data, side.ranking, shown, predictions=side.predictions)
    path = tmp_path / "trials-1-6.html"
    path.write_text(made.html)
    with opened(browser, path) as page:
        assert page.locator('figure[data-figure="confusion"] .title').all_text_contents() == [
            "trial 1",
            "trial 6",
        ]
        assert page.locator('figure[data-figure="winners"] .curve').count() == 4
        assert page.locator(".pair-host select").first.locator("option").count() == 2
        page.locator("#trials a").nth(1).click()
        assert page.locator(".trial h3").inner_text() == "Trial 6"
        assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    with opened(browser, path, java_script_enabled=False) as page:
        assert page.locator(".still img").count() == 2
        assert page.locator("#trials tbody tr").count() == 2
