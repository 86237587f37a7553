import itertools
import json
import math
import os
import subprocess
import sys

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import composite

from gridsearch.records import ImageSettings, trial_key
from gridsearch.spec import Grid, StudySpec, axis_of, expand_study

numbers = st.floats(min_value=1e-12, max_value=1e6)
words = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=12)
VALUES = {
    "lr": numbers,
    "weight_decay": st.floats(min_value=0, max_value=1),
    "momentum": st.floats(min_value=0, max_value=1, exclude_max=True),
    "dropout": st.none() | st.floats(min_value=0, max_value=1, exclude_max=True),
    "batch": st.integers(1, 2**63 - 1),
    "epochs": st.integers(1, 200),
    "optimizer": st.sampled_from(axis_of("optimizer").choices),
    "augment": st.sampled_from(axis_of("augment").choices),
    "nesterov": st.booleans(),
    "model": st.sampled_from(
        ["lenet", "my_net.py:Net", "./dir/my net.py:Net", "pkg.mod:Net", 'odd"name', "a,b", "none"]
    ),
    "model.width": st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-1e9, 1e9) | words,
    "data.size": st.integers(1, 64),
}


def apart(value):
    return isinstance(value, bool), value


def quoted(value):
    """A string that is taken as it is, whatever it looks like."""
    return json.dumps(value) if isinstance(value, str) else value


def lists(name, most=4):
    return st.lists(VALUES[name].map(quoted), min_size=1, max_size=most, unique_by=apart)


@composite
def axes_of_grids(draw, most=4):
    names = draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=most, unique=True))
    axes = {}
    while names:
        if len(names) > 1 and draw(st.booleans()):
            pair, names = names[:2], names[2:]
            row = st.tuples(*(VALUES[n].map(quoted) for n in pair))
            rows = draw(st.lists(row, min_size=1, max_size=4, unique_by=lambda r: tuple(map(apart, r))))
            axes[",".join(pair)] = rows
        else:
            axes[names[0]] = draw(lists(names[0]))
            names = names[1:]
    if draw(st.booleans()):
        axes["seed"] = draw(st.lists(st.integers(0, 99), min_size=1, max_size=3, unique=True))
    return axes


def term(name, values):
    """A term of a rule, its strings quoted."""
    return f"{name}={','.join('none' if v is None else str(quoted(v)) for v in values)}"


@composite
def grids(draw):
    """A grid with rules that name its own axes and values."""
    axes = draw(axes_of_grids())
    plain = Grid(axes)
    exclude = []
    for _ in range(draw(st.integers(0, 2))):
        names = draw(st.lists(st.sampled_from(plain.axes), min_size=1, max_size=2, unique=True))
        some = [draw(st.lists(st.sampled_from(plain.values[n]), min_size=1, max_size=2)) for n in names]
        exclude.append(" ".join(map(term, names, some)))
    when = []
    if len(plain.axes) > 1 and draw(st.booleans()):
        first, last = plain.axes[0], plain.axes[-1]
        when.append(f"{last}: {term(first, [draw(st.sampled_from(plain.values[first]))])}")
    return Grid(axes, exclude=exclude, when=when)


@given(axes_of_grids())
def test_the_size_is_the_product_of_the_axes(axes):
    grid = Grid(axes)
    lengths = [len(values) for name, values in axes.items() if name != "seed"]
    # 1 and 1.0 of a free axis are one value.
    assume(not grid.warnings)
    assert grid.size == math.prod(lengths) == len(list(grid.points()))


@given(grids())
def test_a_grid_reads_back_from_its_text(grid):
    arguments = list(grid.arguments())
    at = [i for i, word in enumerate(arguments) if word in ("--exclude", "--when")]
    head = arguments[1 : at[0]] if at else arguments[1:]
    rules = {
        option: [arguments[i + 1] for i in at if arguments[i] == option] for option in ("--exclude", "--when")
    }
    again = Grid.parse(head, exclude=rules["--exclude"], when=rules["--when"])
    assert again == grid
    assert hash(again) == hash(grid)
    assert list(map(repr, again.points())) == list(map(repr, grid.points()))
    assert again.arguments() == grid.arguments()


@given(grids())
def test_a_grid_reads_back_from_json(grid):
    assert Grid.from_json(json.loads(json.dumps(grid.to_json()))) == grid


@given(grids())
def test_no_point_comes_twice(grid):
    seen = [tuple((k, apart(v)) for k, v in point.values.items()) for point in grid.points()]
    assert len(seen) == len(set(seen))


small = {
    "lr": st.sampled_from([0.1, 0.01, 0.001]),
    "batch": st.sampled_from([10, 20, 50]),
    "optimizer": st.sampled_from(["sgd", "adam"]),
    "momentum": st.sampled_from([0.0, 0.5, 0.9]),
    "nesterov": st.booleans(),
}
terms = st.dictionaries(st.sampled_from(sorted(small)), st.none(), min_size=1, max_size=2).flatmap(
    lambda names: st.fixed_dictionaries(
        {n: st.lists(small[n], min_size=1, max_size=2, unique=True) for n in names}
    )
)


def text_of(rule):
    return " ".join(f"{k}={','.join(str(v).lower() for v in vs)}" for k, vs in rule.items())


@settings(max_examples=200)
@given(
    st.fixed_dictionaries({n: st.lists(small[n], min_size=1, max_size=3, unique=True) for n in small}),
    st.booleans(),
    st.lists(terms, max_size=3),
    st.lists(st.tuples(st.sampled_from(["momentum", "nesterov"]), terms), max_size=2),
)
def test_pairs_exclusions_and_conditions_equal_a_brute_force_search(axes, paired, exclude, when):
    # An axis depends only on those before it here, so that there is no circle.
    order = list(small)
    when = [(a, r) for a, r in when if all(order.index(k) < order.index(a) for k in r)]
    exclude = [r for r in exclude if all(v in axes[k] for k, vs in r.items() for v in vs)]

    names = ["lr", "batch", *order[2:]]
    if paired:
        rows = list(zip(axes["lr"], axes["batch"], strict=False))
        given_axes = {"lr,batch": rows} | {n: axes[n] for n in order[2:]}
        exclude = [
            r
            for r in exclude
            if all(
                v in {dict(zip(("lr", "batch"), row, strict=True))[k] for row in rows}
                for k, vs in r.items()
                if k in ("lr", "batch")
                for v in vs
            )
        ]
        choices = [(*row, *rest) for row in rows for rest in itertools.product(*(axes[n] for n in order[2:]))]
    else:
        given_axes = {n: axes[n] for n in names}
        choices = list(itertools.product(*(axes[n] for n in names)))

    expected, left_out = [], []
    for choice in choices:
        point = dict(zip(names, choice, strict=True))
        for axis in order:
            for conditional, rule in when:
                if conditional == axis and not all(k in point and point[k] in vs for k, vs in rule.items()):
                    point.pop(axis, None)
        if point in expected or point in left_out:
            continue
        out = any(all(k in point and point[k] in vs for k, vs in rule.items()) for rule in exclude)
        (left_out if out else expected).append(point)

    grid = Grid(
        given_axes, exclude=[text_of(r) for r in exclude], when=[f"{a}: {text_of(r)}" for a, r in when]
    )
    assert [dict(point.values) for point in grid.points()] == expected
    assert grid.excluded() == len(left_out)
    assert all({*point.values, *point.inactive} == set(names) for point in grid.points())


class PlainResolver:
    def model(self, name, options):
        return name, dict(options), None

    def data(self, options):
        return "made-up", dict(options), "f" * 64


def keys(grid, **more):
    return [draft.key for draft in expand_study(StudySpec(grid=grid, **more), PlainResolver()).drafts]


@given(axes_of_grids(), st.randoms(use_true_random=False))
def test_keys_do_not_depend_on_the_order_of_axes_and_values(axes, random):
    shuffled = [(name, random.sample(values, len(values))) for name, values in axes.items()]
    random.shuffle(shuffled)
    assert set(keys(Grid(dict(shuffled)))) == set(keys(Grid(axes)))


@given(grids())
def test_every_key_is_the_content_address_of_its_trial_and_unique(grid):
    assume(next(grid.points(), None) is not None)
    drafts = expand_study(
        StudySpec(grid=grid, recipe={"model.a": 0, "model.seed": 0, "model.z": 0}), PlainResolver()
    ).drafts
    assert all(draft.key == trial_key(draft.settings, draft.seed) for draft in drafts)
    assert len({draft.key for draft in drafts}) == len(drafts)


@given(st.sampled_from(["lr", "weight_decay"]), st.decimals(min_value="1e-9", max_value="0.99", places=9))
def test_every_spelling_of_a_number_gives_the_same_key(name, number):
    spellings = [
        f"{number}",
        f"{number:e}",
        f"{number:.15f}",
        f"0{number}",
        f"+{number}",
        repr(float(number)),
    ]
    assert len({tuple(keys(Grid.parse([f"{name}={text}"]))) for text in spellings}) == 1


@given(
    st.fixed_dictionaries({}, optional={n: VALUES[n] for n in VALUES if n not in ("model", "model.width")}),
    st.sampled_from([1, 1.0, "1", 2.5, True, "wide", None]),
)
def test_a_value_in_the_recipe_gives_the_key_that_it_gives_in_the_grid(values, width):
    values["model.width"] = width
    assert keys(Grid({name: [value] for name, value in values.items()})) == keys(Grid(), recipe=values)


SCRIPT = """
import sys
from gridsearch.spec import Grid, StudySpec, expand_study
class PlainResolver:
    def model(self, name, options): return name, dict(options), None
    def data(self, options): return "made-up", dict(options), "f" * 64
grid = Grid.parse(sys.argv[1:], exclude=["lr=.1 batch=10"], when=["momentum: optimizer=sgd", "nesterov: momentum=.9"])
drafts = expand_study(StudySpec(grid=grid, seeds=2, recipe={"model.a": 1, "model.b": "x"}), PlainResolver()).drafts
print(grid, *(f"{d.key} {d.axes} {d.inactive}" for d in drafts), sep="\\n")
"""


def test_keys_and_their_order_are_the_same_in_every_process():
    words = [
        "lr=.1,.01",
        "batch=10..30:10",
        "optimizer=sgd,adam",
        "momentum=0,.9",
        "nesterov=true,false",
        "model.z=1,w",
    ]

    def run(hash_seed):
        environment = os.environ | {"PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-c", SCRIPT, *words]
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout

    first = run("1")
    assert first.count("\n") > 50
    assert run("2") == first


def test_the_key_of_a_known_trial_never_changes():
    # Stores of older versions hold these: a change here makes every finished trial a new one.
    settings = ImageSettings(dataset="fmnist", data_fingerprint="0" * 64, lr=0.01, batch=10)
    assert trial_key(settings, 0) == "7eb731f263fd02691f4948d03f3e302fdaa91e956bfdb008bc4f6a7e38a68c28"
