"""The report folder and its page: complete, self-contained, and safe whatever names hold."""

import csv
import dataclasses
import html.parser
import io
import json
import os
import re

import numpy as np
import pytest

from gridsearch.errors import ArtifactError, UsageError
from gridsearch.records import TrialState
from gridsearch.reporting import filter_data, rank, report_json, write_report
from gridsearch.reporting.figures.pictures import Classes
from gridsearch.reporting.output import page as page_module
from gridsearch.reporting.output import page_tables
from gridsearch.reporting.output.page import render_page
from gridsearch.reporting.output.page_tables import MOST_POINTS, MOST_STATIC, MOST_TRIALS
from gridsearch.reporting.output.report_parts import parts_beside, parts_list
from gridsearch.reporting.stats.predictions import per_class

pytestmark = pytest.mark.thorough


def no_predictions(number):
    return None


class Reader(html.parser.HTMLParser):
    """Collects what a browser would see: tags with attributes, and text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    def of(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def data_of(page, name):
    """Return what a page holds for its script to draw."""
    found = re.search(
        f'<script type="application/json" data-figures="{name}">(.*?)</script>', page, re.DOTALL
    )
    return json.loads(found[1])


def page_of(data, **more):
    return Reader(render_page(data, rank(data), **more))


@pytest.fixture(scope="module")
def written(tmp_path_factory, study, predictions):
    """A small study's report: the data, and what was written."""
    data = study({"lr": [0.01, 0.001], "batch": [10, 20]}, seeds=2).data()
    folder = tmp_path_factory.mktemp("study") / "report"
    asked = []

    def stored(number):
        asked.append(number)
        return predictions(10)

    return data, write_report(data, folder=folder, predictions=stored), asked


def test_a_report_holds_every_file_of_the_interface(written):
    data, files, _ = written
    names = {p.name for p in files.files}
    assert names >= {"index.html", "ranking.csv", "ranking.json", "trials.csv"}
    assert names >= {
        f"{stem}.{kind}"
        for stem in ("heatmap", "confusion", "reliability", "curves", "marginals", "parallel", "cost")
        for kind in ("png", "svg")
    }
    assert {p.name for p in files.folder.iterdir()} == names
    assert json.loads((files.folder / "ranking.json").read_text()) == report_json(data, ranking=files.ranking)
    assert len(list(csv.DictReader(io.StringIO((files.folder / "trials.csv").read_text())))) == 8


def test_the_confusion_matrix_is_that_of_the_winning_trial(written):
    data, files, asked = written
    page = files.page.read_text()
    assert rank(data).best_trial.number in asked
    assert len(asked) == len(set(asked)), "each trial's predictions are read once"
    assert data_of(page, "studies")[0]["confusion"]["of"] == f"trial {rank(data).best_trial.number}"
    assert re.search(r"Shirt predicted as T-shirt/top, \d+\.\d %", page)


@pytest.mark.parametrize("trouble", [None, ArtifactError("predictions.safetensors: altered")])
def test_missing_predictions_are_said_and_the_rest_is_there(tmp_path, study, trouble):
    def stored(number):
        if trouble:
            raise trouble
        return trouble

    data = study({"lr": [0.01, 0.001]}, epochs=2).data()
    for name in ("confusion.png", "confusion.svg", "per_class.csv"):
        (tmp_path / name).write_text("of an earlier winner")
    page = Reader(write_report(data, folder=tmp_path, predictions=stored).page.read_text())
    assert not list(tmp_path.glob("confusion*"))
    assert not (tmp_path / "per_class.csv").exists()
    assert ("altered" if trouble else "no stored validation predictions") in page.text


def test_files_of_others_in_the_folder_stay(tmp_path, study):
    (tmp_path / "notes.txt").write_text("mine")
    write_report(study({"lr": [0.1]}).data(), folder=tmp_path, predictions=no_predictions)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_the_page_is_written_last_and_through_the_given_writer(tmp_path, study):
    names = []
    data = study({"lr": [0.1, 0.2]}).data()
    write_report(
        data, folder=tmp_path, predictions=no_predictions, write=lambda path, _: names.append(path.name)
    )
    assert names[-1] == "index.html"
    assert list(tmp_path.iterdir()) == []


def test_a_filter_is_applied_and_named(tmp_path, study):
    data = study({"lr": [0.1, 0.2], "batch": [1, 2]}).data()
    part = filter_data(data, {"batch": "2"})
    files = write_report(part, folder=tmp_path, predictions=no_predictions)
    assert [p.params["batch"] for p in files.ranking.points] == [2, 2]
    assert "Only trials with batch=2: 2 of 4." in Reader(files.page.read_text()).text
    with pytest.raises(UsageError):
        filter_data(data, {"batch": "3"})


def test_a_part_says_so_in_every_file_and_leaves_the_whole_report_which_leads_to_it(tmp_path, study):
    data = study({"lr": [0.1, 0.2], "batch": [1, 2]}).data()
    whole = write_report(data, folder=tmp_path / "report", predictions=no_predictions)
    before = {f.name: f.read_bytes() for f in whole.files}
    part = write_report(
        filter_data(data, {"batch": "2"}), folder=tmp_path / "report-a b", predictions=no_predictions
    )
    words = "Only trials with batch=2"
    changed = [name for name, content in before.items() if (whole.folder / name).read_bytes() != content]
    assert changed == ["index.html"]
    page = whole.page.read_text()
    assert f'<a href="../report-a%20b/index.html">{words} (2 trials)</a>' in page
    assert (
        page.replace(parts_list(parts_beside(whole.folder)), parts_list([])) == before["index.html"].decode()
    )
    assert f"{words}: 2 of 4." in part.page.read_text()
    assert 'href="../report/index.html"' in part.page.read_text()
    for name in ("trials.csv", "ranking.csv"):
        head, *rows = (part.folder / name).read_text().splitlines()
        assert head.endswith(",only_trials_with")
        assert len(rows) == 2 and all(row.endswith(",batch=2") for row in rows)
        assert "only_trials_with" not in before[name].decode()
    told = json.loads((part.folder / "ranking.json").read_text())["part"]
    assert told == {"where": {"batch": 2}, "words": "batch=2", "trials": 2, "of": 4}
    again = write_report(data, folder=tmp_path / "report", predictions=no_predictions)
    assert words in again.page.read_text()


def test_the_header_says_what_won_by_how_much_and_what_is_not_covered(study):
    builder = study({"lr": [0.01, 0.001]}).score(0, 0.90).score(1, 0.92)
    text = page_of(builder.data()).text
    assert "lr=0.001 is best: 92.00 % validation accuracy (one seed)." in text
    assert "It is 2.00 percentage points ahead of the runner-up, lr=0.01." in text
    assert "how much another seed would change is unknown" in text
    assert "Ranked on validation data only, not on the test set." in text


def test_equal_means_are_called_equal(study):
    builder = study({"lr": [0.01, 0.001]}).score(0, 0.9).score(1, 0.9)
    assert "The runner-up, lr=0.001, has exactly the same mean." in page_of(builder.data()).text


def test_a_ranking_by_train_accuracy_is_warned_of(study):
    page = page_of(study({"lr": [0.1, 0.2]}, val=0.0).data())
    assert [a for a in page.of("p") if a.get("class") == "warning"]
    assert "TRAIN accuracy" in page.text


def test_values_of_the_best_epoch_are_said_to_be_so(study):
    assert "that of its best epoch" in page_of(study({"lr": [0.1, 0.2]}, select="best").data()).text
    assert "best epoch" not in page_of(study({"lr": [0.1, 0.2]}).data()).text


def test_recipe_commands_environment_counts_failures_and_time_are_there(study):
    builder = study({"lr": [0.1, 0.2]}, label_smoothing=0.125).lose(
        0, TrialState.FAILED, "RuntimeError: boom"
    )
    text = page_of(builder.data()).text
    for words in ("label_smoothing 0.125", "gridsearch run --grid", "torch 2.13.0", "1 complete", "1 failed"):
        assert words in text
    assert "#0 failed lr=0.1 seed=0 RuntimeError: boom" in text
    assert "17.0 s of training in 2 trials" in text


def test_trials_that_were_lost_for_one_reason_stand_together_with_links_to_each(study):
    builder = study({"lr": [0.1, 0.2], "batch": [10, 20, 30], "norm": ["none", "standard"]})
    broken = [t.number for t in builder.records if t.params["batch"] == 20]
    for n in broken:
        builder.lose(n, TrialState.FAILED, f"ValueError: trial {n} has no size")
    for n, epoch in ((0, 3), (1, 3), (10, 7)):
        builder.prune(n, epoch)
    page = page_of(builder.data())
    assert f"4 trials failed, all batch=20 ValueError: trial {broken[0]} has no size" in page.text
    assert " ".join(f"#{n}" for n in broken) in page.text
    assert {f"#trial-{n}" for n in broken} <= {a["href"] for a in page.of("a")}
    reached = sorted(100 * builder.epochs[n][-1].val_accuracy for n in (0, 1))
    ends = " to ".join(f"{r:.2f} %" for r in reached)
    assert (
        f"2 trials pruned, all lr=0.1 batch=10 by asha after epoch 3 of 10 at {ends} validation accuracy"
        in page.text
    )
    assert "#10 pruned lr=0.2 batch=30 norm=none seed=0 by asha after epoch 7 of 10" in page.text


def test_what_varies_is_not_listed_as_recipe(study):
    data = study({"lr": [0.1, 0.2]}).data()
    other = dataclasses.replace(
        data.trials[1], settings=dataclasses.replace(data.trials[1].settings, epochs=99)
    )
    page = render_page(data, rank(data))
    assert "<dt>epochs</dt>" in page and "<dt>lr</dt>" not in page
    assert "<dt>epochs</dt>" not in render_page(
        dataclasses.replace(data, trials=(data.trials[0], other)), rank(data)
    )


def test_every_ranked_point_links_to_the_rows_of_its_trials(study):
    page = page_of(study({"lr": [0.1, 0.2]}, seeds=2).data())
    targets = {a["href"] for a in page.of("a")}
    rows = {f"#{a['id']}" for a in page.of("tr") if a.get("id")}
    assert {t for t in targets if "trial-" in t} == rows == {f"#trial-{i}" for i in range(4)}


def hostile_study(study, hostile):
    builder = study(
        {"model.<b>act</b>": list(hostile[:6]), "lr": [0.1, 0.2]}, class_names=hostile, name="<i>study</i>"
    )
    builder.commands = ("gridsearch run '<script>alert(2)</script>'",)
    builder.lose(0, TrialState.FAILED, "</script><script>alert(3)</script>")
    return builder.data(dataset="<u>data</u>", environment={"<s>k</s>": "<s>v</s>"})


def test_hostile_names_stay_text(tmp_path, study, hostile, predictions):
    data = hostile_study(study, hostile)
    page = write_report(data, folder=tmp_path, predictions=lambda _: predictions(10)).page.read_text()
    reader = Reader(page)
    assert [a.get("data-figures") for a in reader.of("script")] == ["studies", "answers", None]
    assert len(reader.of("style")) == 1
    assert not {tag for tag, _ in reader.tags} & {"b", "i", "u", "s", "iframe", "object", "form"}
    assert all(a["src"].startswith("data:image/") for a in reader.of("img"))
    assert not any(name.startswith("on") for _, attributes in reader.tags for name in attributes)
    assert "{{ 7*7 }}" in reader.text
    for svg in tmp_path.glob("*.svg"):
        assert "<script" not in svg.read_text()


def test_the_page_refers_to_nothing_outside_itself_and_its_policy_fits(study):
    page = render_page(data := study({"lr": [0.1, 0.2]}).data(), rank(data))
    reader = Reader(page)
    policy = next(a["content"] for a in reader.of("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:; ")
    assert "unsafe" not in policy
    assert not re.search(r"https?://", page)
    links = [
        a for _, attributes in reader.tags for k, a in attributes.items() if k in ("href", "src", "action")
    ]
    assert all(link.startswith(("#", "data:")) for link in links)
    assert not any("style" in attributes for _, attributes in reader.tags)


def test_every_picture_has_alternative_text(written):
    page = written[1].page.read_text()
    texts = [a["alt"] for a in Reader(page).of("img")]
    assert len(texts) == 7
    assert all(len(t) > 40 for t in texts)


def stored_rows(page, name):
    """Return the rows that a page holds for its script."""
    found = re.search(f'<script type="application/json" data-rows="{name}">(.*?)</script>', page, re.DOTALL)
    return json.loads(found[1]) if found else []


def test_a_long_table_keeps_its_first_rows_in_the_page_and_the_others_for_the_script(study, hostile):
    data = study({"batch": list(range(1, 301)), "model.x": [hostile[0], "<!--"]}, epochs=1).data()
    page = render_page(data, rank(data))
    static = [a for a in Reader(page).of("tr") if a.get("id")]
    assert len(static) == MOST_STATIC
    more = stored_rows(page, "trials")
    assert [int(cells[0]) for cells, _, _ in more] == list(range(MOST_STATIC, 600))
    assert {cells[2] for cells, _, _ in more} == {hostile[0], "<!--"}
    assert "<" not in re.search(r'data-rows="trials">(.*?)</script>', page, re.DOTALL)[1]
    assert len(stored_rows(page, "points")) == 600 - MOST_STATIC
    assert (
        f"… and {600 - MOST_STATIC:,} more rows, shown where scripts are enabled; all of them are in trials.csv"
        in page
    )


def test_a_page_of_too_many_trials_is_cut_to_its_limits_and_says_so(study, monkeypatch):
    assert MOST_POINTS == MOST_TRIALS == 10_000
    monkeypatch.setattr(page_module, "MOST_POINTS", 500)
    monkeypatch.setattr(page_tables, "MOST_TRIALS", 500)  # ten thousand take half a minute to rank
    data = study({"batch": list(range(1, 356)), "lr": [0.1, 0.2]}, epochs=1).data()
    page = render_page(data, rank(data))
    text = Reader(page).text
    assert len(stored_rows(page, "trials")) == 500 - MOST_STATIC
    assert "… and 210 more in ranking.csv" in text
    assert "… and 210 more in trials.csv" in text
    rows = stored_rows(page, "trials")
    trials = {cells[0] for cells, _, _ in rows} | {
        a["id"].removeprefix("trial-") for a in Reader(page).of("tr") if a.get("id")
    }
    linked = {a["href"].removeprefix("#trial-") for a in Reader(page).of("a") if "trial-" in a["href"]}
    linked |= {n for _, _, links in stored_rows(page, "points") for n in links}
    assert linked <= trials


def test_a_report_of_a_study_that_still_runs_says_how_far_it_is(study):
    builder = study({"lr": [0.1, 0.2], "batch": [1, 2]}).lose(0, TrialState.RUNNING)
    builder.lose(1, TrialState.WAITING)
    text = page_of(builder.data()).text
    assert "2 of 4 trials are done; these are the results so far." in text
    assert "trials have ended" not in page_of(study({"lr": [0.1, 0.2]}).data()).text


def test_pruned_trials_are_listed_with_their_epoch_and_what_they_had_reached(study):
    builder = study({"lr": [0.1, 0.2]}).lose(0, TrialState.PRUNED)
    builder.epochs[0] = study({"lr": [0.1]}).epochs[0][:3]
    builder.change(0, epochs=3)
    reached = f"{100 * builder.epochs[0][-1].val_accuracy:.2f} %"
    text = page_of(builder.data()).text
    assert f"#0 pruned lr=0.1 seed=0 after epoch 3 of 10 at {reached} validation accuracy" in text
    assert "Diverged and failed trials" not in text


def test_the_top_of_the_page_says_what_the_winner_gets_wrong(written):
    page = Reader(written[1].page.read_text()).text
    assert page.index("Its most common error: Shirt predicted as T-shirt/top") < page.index("trials")


def test_an_empty_study_and_one_with_nothing_but_failures_have_a_page(tmp_path, study):
    empty = study({"lr": [0.1]}).without(0).data()
    assert "No trials yet." in page_of(empty).text
    lost = study({"lr": [0.1, 0.2]}).lose(0, TrialState.FAILED, "x").lose(1, TrialState.DIVERGED, "y").data()
    files = write_report(lost, folder=tmp_path, predictions=no_predictions)
    assert "No point has a result yet." in files.page.read_text()


def test_a_reader_never_finds_half_a_file(tmp_path, study, monkeypatch):
    data = study({"lr": [0.1, 0.2]}).data()
    page = write_report(data, folder=tmp_path, predictions=no_predictions).page
    before = page.read_bytes()

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_report(data, folder=tmp_path, predictions=no_predictions)
    assert page.read_bytes() == before
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize(
    ("metric", "direction", "example"),
    [
        ("val_accuracy", "maximize", 'placeholder="words, or lr=0.001, or validation accuracy&gt;'),
        ("val_loss", "minimize", 'placeholder="words, or lr=0.001, or validation loss&lt;'),
    ],
)
def test_the_filter_of_the_ranking_shows_an_example_of_this_study(study, metric, direction, example):
    data = study({"lr": [0.1, 0.01, 0.001]}).data()
    data = dataclasses.replace(data, metric=metric, direction=direction)
    assert example in render_page(data, rank(data))


def test_classes_beyond_the_table_are_counted(study):
    matrix = np.eye(page_tables.MOST_CLASSES + 4, dtype=int)
    names = [f"class {i}" for i in range(len(matrix))]
    classes = Classes(results=per_class(matrix, names), balanced_accuracy=1.0, macro_f1=1.0, pairs=())
    data = study({"lr": [0.1]}, class_names=names).data()
    page = page_of(data, classes=classes)
    assert "class 299" in page.text and "class 300" not in page.text
    assert "… and 4 more in per_class.csv." in page.text
