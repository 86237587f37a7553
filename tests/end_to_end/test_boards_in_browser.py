"""What a person sees of a study in the Optuna dashboard and in TensorBoard, in a real browser."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request

import pytest

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.browser,
    # Playwright's own threads close their loops late
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]
RUN = ("run", "--dataset", "digits", "--model", "mlp", "--executor", "inline", "--no-report", "-q")
LOADED = "image => image.complete && image.naturalWidth > 300"


def words(page) -> str:
    return " ".join(page.locator("body").inner_text().split())


def test_the_dashboard_shows_metric_params_curves_notes_and_the_confusion_image(cli, serve, browse):
    assert cli(*RUN, "--epochs", "3", "--grid", "lr=.1,.01", "norm=none,standard", "--seeds", "1").code == 0
    _, url = serve("dashboard")
    study = url + "/studies/1"
    page = browse.page
    page.goto(study)
    page.get_by_text("Intermediate values").first.wait_for()
    page.locator(".scatterlayer .trace").nth(4).wait_for(
        state="attached"
    )  # the history, and a curve for each trial
    text = words(page)
    assert "val_accuracy" in text
    assert "digits" in text
    curves = page.locator(".legendtext", has_text=re.compile("trial #"))
    assert curves.count() == 4
    assert "batch" not in text.split("Best Trial")[1].split("Study User")[0], "what does not vary is no param"
    assert re.search(r"Params = \[lr: 0\.\d+, norm: (none|standard)\]", text)

    page.goto(study + "/trials")
    page.get_by_text("Trial 0 (trial_id=1)").wait_for()
    picture = page.locator("img[alt='confusion.png'], img[src*='/artifacts/']").first
    picture.wait_for()
    page.wait_for_function(LOADED, arg=picture.element_handle())
    text = words(page)
    assert "per_class.csv" in text
    assert "gridsearch trial 0 --study digits" in text, "the trial's note"
    assert re.search(r"optimizer adam", text)
    assert re.search(r"Parameter lr 0\.1 norm none", text)
    assert len(re.findall(r"Intermediate Values 1 0\.\d+ 2 0\.\d+ 3 0\.\d+", text)) == 1

    page.goto(study + "/note")
    page.get_by_text("ranked by val_accuracy").wait_for()
    assert "norm=none,standard" in words(page)
    assert browse.problems == []


def test_an_open_dashboard_shows_a_trial_that_ends_and_its_picture_without_being_loaded_again(
    cli, serve, browse
):
    assert cli(*RUN, "--epochs", "2", "--grid", "lr=.1").code == 0
    _, url = serve("dashboard")
    page = browse.page
    page.goto(url + "/studies/1/trials")
    page.get_by_text("Trial 0 (trial_id=1)").wait_for()
    assert cli(*RUN, "--epochs", "2", "--grid", "lr=.1,.01,.02").code == 0  # the dashboard is another process
    page.get_by_text("Trial 2", exact=True).click()
    page.get_by_text("Trial 2 (trial_id=3)").wait_for()
    picture = page.locator("img[src*='/artifacts/']").first
    picture.wait_for()
    page.wait_for_function(LOADED, arg=picture.element_handle())
    assert browse.problems == []


def test_a_study_deleted_while_the_dashboard_is_open_leaves_it_at_work(cli, serve, browse):
    for name in ("kept", "gone"):
        assert cli(*RUN, "--epochs", "1", "--grid", "lr=.1", "--study", name).code == 0
    _, url = serve("dashboard")
    browse.page.goto(url + "/studies/2")
    browse.page.get_by_text("gone").first.wait_for()
    assert cli("study", "delete", "gone", "--yes", "-q").code == 0
    api = url.removesuffix("/dashboard") + "/api/studies"
    with pytest.raises(urllib.error.HTTPError) as gone:
        urllib.request.urlopen(api + "/2", timeout=30)
    assert gone.value.code == 404
    browse.page.goto(url)
    browse.page.get_by_text("kept").first.wait_for()
    assert "gone" not in words(browse.page)
    assert json.load(urllib.request.urlopen(api + "/1", timeout=30))["name"] == "kept"


def test_an_empty_store_is_shown_as_empty(cli, serve, browse):
    assert cli(*RUN, "--epochs", "1", "--grid", "lr=.1").code == 0
    assert cli("study", "delete", "digits", "--yes", "-q").code == 0
    _, url = serve("dashboard")
    browse.page.goto(url)
    browse.page.get_by_role("button").first.wait_for()
    _, board = serve("tensorboard")
    browse.page.goto(board)
    browse.page.get_by_text("No dashboards are active").wait_for()
    assert browse.problems == []


def test_tensorboard_has_a_row_for_each_trial_with_all_params_and_pictures(cli, serve, browse):
    grid = ("--epochs", "2", "--grid", "lr=.1,.01", "norm=none,standard", "--seeds", "2")
    assert cli(*RUN, *grid).code == 0
    _, url = serve("tensorboard", "--study", "digits")
    page = browse.page
    page.goto(url + "#hparams")
    page.get_by_text("TABLE VIEW").wait_for()
    for _ in range(12):  # it reads the runs every few seconds
        if (rows := hparam_rows(page)) and len(rows) == 8:
            break
        page.wait_for_timeout(3000)
        page.reload()
    assert sorted(rows) == [
        (number, lr, norm, seed)
        for number, (lr, norm, seed) in enumerate(
            (lr, norm, seed) for lr in (0.1, 0.01) for norm in ("none", "standard") for seed in (0, 1)
        )
    ]
    root = url.rstrip("/")
    tags = json.load(urllib.request.urlopen(root + "/data/plugin/scalars/tags", timeout=30))
    assert len({frozenset(own) for own in tags.values()}) == 1, "the same tags over all trials"
    page.goto(url + "#images")
    page.reload()
    for tag in ("confusion", "samples"):
        page.get_by_text(tag, exact=True).first.wait_for()
    picture = page.locator("img[src*='individualImage']").first
    picture.wait_for()
    page.wait_for_function(LOADED, arg=picture.element_handle())
    assert browse.problems == []


def hparam_rows(page) -> list[tuple]:
    """Read the table: trial, lr, norm, seed of each row."""
    page.wait_for_timeout(2000)
    cells = page.locator("vaadin-grid-cell-content").all_inner_texts()
    texts = [" ".join(cell.split()) for cell in cells]
    if "Trial ID" not in texts:
        return []
    names = texts[texts.index("Trial ID") :]
    names = names[: names.index("seed") + 1]
    found = []
    for at, text in enumerate(texts):
        if run := re.match(r"digits/(\d) lr=", text):
            row = dict(zip(names, texts[at:], strict=False))
            found.append((int(run[1]), float(row["lr"]), row["norm"], int(float(row["seed"]))))
    return found
