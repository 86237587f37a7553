"""Tables to paste into a paper: every point, its interval, ties marked, and nothing that the paper would act on."""

from __future__ import annotations

import re
from dataclasses import replace

from gridsearch.reporting.exports.paper_tables import latex_table, markdown_table
from gridsearch.reporting.ranking.ranking import rank


def test_the_latex_table_has_every_point_with_its_mean_interval_and_tie(study):
    data = study({"lr": [0.01, 0.001], "batch": [10, 20]}, seeds=3, name="my_study").data()
    ranking = rank(data)
    text = latex_table(data, ranking)
    rows = [line for line in text.splitlines() if re.match(r"\d", line)]
    assert len(rows) == 4
    best = ranking.best
    assert rows[0].startswith(
        f"1{'=' if ranking.tied else ''} & {best.params['lr']} & {best.params['batch']} & 3 & "
    )
    assert rf"{100 * best.mean:.2f} $\pm$" in rows[0]
    assert f"{{[{100 * best.ci_low:.2f}" in rows[0]  # in braces: LaTeX reads "\\ [" as a length
    assert r"rank & lr & batch & n & validation accuracy & 95 \% interval \\" in text
    assert r"\caption{my\_study: 4 points on fmnist" in text
    for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\usepackage{booktabs}"):
        assert text.count(rule) == 1
    assert {row.count("&") for row in rows} == {5}


def test_names_of_a_user_stay_text_in_latex_and_markdown(study, hostile):
    axis = "model.act"
    words = [*hostile[:-1], "a|b", "50 % & more_#^~\\end{table}", "**bold** `x`"]
    data = study({axis: words}, seeds=1).data()
    latex, markdown = latex_table(data, rank(data)), markdown_table(data, rank(data))
    body = latex[latex.index(r"\midrule") : latex.index(r"\bottomrule")]
    assert body.count("\\\\\n") == len(words)
    assert not re.search(r"(?<!\\)[#%_^~]", body)
    assert body.count(r"\end{") == 0
    assert re.sub(r"\$\\pm\$|\\\$", "", body).count("$") == 0
    rows = [line for line in markdown.splitlines() if line.startswith("| ")][2:]
    assert len(rows) == len(words)
    for row in rows:
        assert len(re.findall(r"(?<!\\)\|", row)) == len(re.findall(r"(?<!\\)\|", rows[0]))
        assert "<" not in re.sub(r"\\<", "", row)
        assert "**bold**" not in row


def test_a_table_of_one_seed_and_no_predictions_has_no_interval_and_a_failed_point_says_so(study):
    from gridsearch.records import TrialState

    data = study({"lr": [0.01, 0.001]}).lose(1, TrialState.FAILED, "boom").data()
    text = markdown_table(data, rank(data))
    assert "95" not in text.splitlines()[0]
    assert "failed" in text


def test_a_point_that_lost_seeds_or_has_other_images_is_not_passed_over_in_silence(study):
    from gridsearch.records import TrialState

    builder = study({"lr": [0.01, 0.001]}, seeds=2).score(0, 0.5).score(1, 0.5).score(2, 0.9)
    data = builder.lose(3, TrialState.DIVERGED).data()
    text = markdown_table(data, rank(data))
    assert re.search(r"\n\| 2 \| 0.001 \| 1 \| 90.00 % \\\(1 diverged\\\) \|", text)
    assert "a point with trials that gave no result ranks below those without" in text
    other = replace(data.trials[0].settings, data_fingerprint="other")
    mixed = replace(data, trials=(replace(data.trials[0], settings=other), *data.trials[1:]))
    assert "without 1 point trained on other images" in latex_table(mixed, rank(mixed))


def test_a_value_out_of_all_measure_is_said_to_rank_last_and_not_to_have_lost_seeds(of_a_function):
    data = of_a_function([{"x": i} for i in range(3)], lambda p: {"loss": (0.1, 0.2, 1e181)[p["x"]]})
    text = markdown_table(data, rank(data))
    assert "values far out of range rank below all others" in text
    assert "gave no result" not in text


def test_no_two_columns_bear_one_heading_whatever_axes_are_called(of_a_function):
    data = of_a_function([{"n": i, "rank": 2 * i, "loss": 0.1} for i in (1, 2)], lambda p: {"loss": p["n"]})
    for text, between in ((markdown_table(data, rank(data)), "|"), (latex_table(data, rank(data)), "&")):
        heads = next(line for line in text.splitlines() if "params.n" in line).strip("| \\").split(between)
        assert [head.strip() for head in heads] == ["rank", "params.n", "params.rank", "n", "loss"]


def test_two_hyphens_are_no_dash_in_latex(study):
    data = study({"model.act": ["a-b", "a--b", "---"]}).data()
    body = latex_table(data, rank(data)).partition(r"\midrule")[2]
    assert "& a-b &" in body and "& a-{}-b &" in body and "& -{}-{}- &" in body
