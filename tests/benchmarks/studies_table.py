"""The tables of studies/README.md and the figure beside them, made from the files in studies/results.

``python -m tests.benchmarks.studies_table``

A row without a result file is shown as not run, with the reason that results/claims.toml gives; nothing is filled in.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from tests.benchmarks.lessons import SEARCHED
from tests.benchmarks.studies import RESULTS, STUDIES, rows

if TYPE_CHECKING:
    from pathlib import Path

README = STUDIES / "README.md"
FIGURE = RESULTS / "claims.png"
METRICS = {"test_accuracy": "test", "train_accuracy": "train", "val_accuracy": "validation"}


def results() -> dict[str, dict[str, Any]]:
    """Return the result of each row that has one."""
    return {
        name: json.loads(path.read_text()) for name in rows() if (path := RESULTS / f"{name}.json").exists()
    }


def percent(value: float | None) -> str:
    """Return an accuracy as a reader wants it."""
    return "-" if value is None else f"{100 * value:.2f}"


def spread(found: dict[str, Any]) -> str:
    """Return a mean with its interval and number of seeds."""
    if found["n"] == 1:
        text = f"{percent(found['mean'])} %, 1 seed"
        return text if found["ci_low"] is None else f"{text} (images: {_ends(found)})"
    return f"{percent(found['mean'])} % ({_ends(found)}), {seeds(found['n'])}"


def seeds(count: int) -> str:
    """Return a number of seeds in words."""
    return f"{count} seed" + "s" * (count != 1)


def _ends(found: dict[str, Any]) -> str:
    return f"{percent(found['ci_low'])} to {percent(found['ci_high'])}"


def point(params: dict[str, Any]) -> str:
    """Return a point as one types it."""
    return " ".join(f"{name}={'none' if value is None else value}" for name, value in params.items()) or "-"


def reproduced_table(found: dict[str, dict[str, Any]]) -> str:
    """Return what they claim beside what their recipes reach here."""
    lines = [
        "| study | published | measured here | validation accuracy (train accuracy) | winner by validation accuracy |",
        "|---|---|---|---|---|",
    ]
    for name, row in rows().items():
        if "beats" in row:
            continue
        claim = row["claim"] if isinstance(row["claim"], str) else f"{percent(row['claim'])} %"
        head = f"| `{name}`: {row['system']} | {claim} ({row['claim_kind']})"
        result = found.get(name)
        if result is None:
            lines.append(f"{head} | {row.get('missing', 'not run yet')} | - | - |")
        elif "parts" in row:
            lines.append(f"{head} | works, see below | - | - |")
        else:
            ours = result["ours"]
            ranked = f"{spread(ours['val_accuracy'])} (train {percent(ours['train_accuracy']['mean'])})"
            if row["metric"] == "train_accuracy" and result["params"]:
                head += f" at {point(result['params'])}"
            kind = METRICS[result["metric"]]
            lines.append(f"{head} | {kind} {spread(result)} | {ranked} | {point(ours['params'])} |")
            if also := result.get("also"):
                kind = f"{METRICS[also['metric']]} {spread(also)}"
                lines.append(f"| | {percent(also['claim'])} % ({also['claim_kind']}) | {kind} | | |")
    return "\n".join(lines)


def parts_table(found: dict[str, dict[str, Any]]) -> str:
    """Return what the best points of the plain functions end with."""
    lines = ["| study | best point | last values (mean over seeds) |", "|---|---|---|"]
    for result in found.values():
        for name, part in result.get("parts", {}).items():
            ends = ", ".join(
                f"{metric} {values['mean']:.4g}"
                for metric, values in part.items()
                if isinstance(values, dict) and "mean" in values
            )
            lines.append(f"| `{name}` | {point(part['params'])} | {ends} |")
    return "\n".join(lines)


def beaten_table(found: dict[str, dict[str, Any]]) -> str:
    """Return our recipes beside theirs, on the test images."""
    known = rows()
    lines = [
        "| network | published | published recipe, trained here | our recipe | goal | result |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in known.items():
        if "beats" not in row:
            continue
        theirs, result = found.get(row["beats"]), found.get(name)
        claim = known[row["beats"]]["claim"]
        verdict = "not run yet"
        if result is not None:
            verdict = "better than published" if result["ci_low"] > claim else "may be as good as published"
            verdict += ", goal reached" if result["mean"] >= row["goal"] else ", goal missed"
        lines.append(
            f"| `{name}`: {row['system']} | {percent(claim)} % | {spread(theirs) if theirs else '-'} | "
            f"{spread(result) if result else '-'} | {percent(row['goal'])} % | {verdict} |"
        )
    return "\n".join(lines)


def lessons() -> str:
    """Return what choosing by train accuracy, on the test set and on one seed cost in our own runs."""
    path = RESULTS / "lessons.json"
    if not path.exists():
        return "Not run yet."
    found = json.loads(path.read_text())
    lines = [
        "| study | chosen by train accuracy | chosen by validation accuracy | cost of the first | the second, on the images that chose it | overestimate |",
        "|---|---|---|---|---|---|",
    ]
    for name, study in found.items():
        if name not in SEARCHED:
            continue
        lines.append(
            f"| `{name}`: {study['trials_of_a_seed']} points, {seeds(study['seeds'])} | {percent(study['by_train'])} % | "
            f"{percent(study['by_held_out'])} % | {percent(study['cost_of_choosing_by_train'])} | "
            f"{percent(study['claimed'])} % | {percent(study['too_high_by'])} |"
        )
    luck = found["luck"]
    lines += ["", "| point | seeds | worst | mean | best | range |", "|---|---|---|---|---|---|"]
    for params, of in luck["points"].items():
        lines.append(
            f"| {point(json.loads(params))} | {of['n']} | {percent(of['least'])} % | {percent(of['mean'])} % | "
            f"{percent(of['most'])} % | {percent(of['most'] - of['least'])} |"
        )
    gaps = ", ".join(percent(gap) for gap in luck["gaps_between_the_best_points"])
    lines += [
        "",
        f"Differences between the means of the six best points, each and the next: {gaps} percentage points.",
    ]
    return "\n".join(lines)


def machines(found: dict[str, dict[str, Any]]) -> str:
    """Return on what, with what and how long."""
    if not found:
        return "Nothing was run yet."
    hardware = sorted({result["hardware"] for result in found.values()})
    versions = sorted({f"torch {result['versions']['torch']}" for result in found.values()})
    minutes = sum(result["seconds"] for result in found.values()) / 60
    return (
        f"Measured on {' and '.join(hardware)}, with {' and '.join(versions)}; {minutes:.0f} minutes of wall time in all, "
        "while the same cores also did other work."
    )


def draw(found: dict[str, dict[str, Any]], path: Path) -> None:
    """Draw claims, what their recipes reach and what ours reach, a line a row."""
    import matplotlib as mpl

    mpl.use("Agg")
    import seaborn as sns
    from matplotlib import pyplot as plt

    known = rows()
    shown = [n for n, r in known.items() if "beats" not in r and n in found and found[n]["mean"] is not None]
    sns.set_theme(style="whitegrid", font_scale=0.9)
    figure, axes = plt.subplots(figsize=(9, 0.42 * len(shown) + 1.6), layout="constrained")
    blue, orange, grey = (sns.color_palette("colorblind")[i] for i in (0, 1, 7))
    for y, name in enumerate(shown):
        entries = [(found[name], blue, "published recipe, trained here")]
        entries += [
            (found[n], orange, "our recipe") for n in known if known[n].get("beats") == name and n in found
        ]
        for result, colour, label in entries:
            low, high = (
                result[end] if result[end] is not None else result["mean"] for end in ("ci_low", "ci_high")
            )
            axes.plot([100 * low, 100 * high], [y, y], color=colour, linewidth=3, solid_capstyle="butt")
            axes.plot(100 * result["mean"], y, "o", color=colour, label=label, markersize=7)
        axes.plot(
            100 * known[name]["claim"],
            y,
            "D",
            color="white",
            markeredgecolor=grey,
            label="published",
            markersize=7,
        )
    axes.set_yticks(range(len(shown)), [f"{n} ({METRICS[found[n]['metric']]})" for n in shown])
    axes.invert_yaxis()
    axes.set_xlabel("accuracy, %, with 95 % intervals")
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=3, frameon=False)
    figure.savefig(path, dpi=160)
    plt.close(figure)


def blocks(found: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Return the generated parts of the README by name."""
    return {
        "reproduced": f"{reproduced_table(found)}\n\n{machines(found)}",
        "functions": parts_table(found),
        "beaten": beaten_table(found),
        "lessons": lessons(),
    }


def filled(text: str, parts: dict[str, str]) -> str:
    """Return a page with its generated parts put in, between `<!-- NAME -->` and `<!-- /NAME -->`."""
    for name, part in parts.items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
        text, times = re.subn(
            pattern, lambda m, part=part: f"{m[1]}\n{part}\n\n{m[2]}", text, flags=re.DOTALL
        )
        assert times == 1, name
    return text


def main() -> None:
    found = results()
    README.write_text(filled(README.read_text(), blocks(found)))
    draw(found, FIGURE)


if __name__ == "__main__":
    main()
