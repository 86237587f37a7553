import copy
import itertools
import math
import pickle
import shlex
import tracemalloc

import numpy as np
import pytest

from gridsearch.errors import SpecError
from gridsearch.spec import Grid


def values(word):
    grid = Grid.parse([word])
    (axis,) = grid.axes
    return list(grid.values[axis])


def problems(*words, exclude=(), when=()):
    with pytest.raises(SpecError) as caught:
        Grid.parse(words, exclude=exclude, when=when)
    return list(caught.value.problems)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("lr=.01,.001", [0.01, 0.001]),
        ("lr= .01 , .001 ", [0.01, 0.001]),
        ("learning_rate=.01", [0.01]),
        ("batch_size=10", [10]),
        ("normalization=none,standard", ["none", "standard"]),
        ("nesterov=true,false", [True, False]),
        ("dropout=none,.5", [None, 0.5]),
        ("augment=flip+shift", ["flip+shift"]),
        ("batch=10..50:10", [10, 20, 30, 40, 50]),
        ("batch=50..10:-20", [50, 30, 10]),
        ("batch=7..7:1", [7]),
        ("batch=1,2,10..30:10", [1, 2, 10, 20, 30]),
        ("batch=1e1..3e1:1e1", [10, 20, 30]),
        ("lr=.1...5:.1", [0.1, 0.2, 0.3, 0.4, 0.5]),
        ("lr=1...5:-.25", [1.0, 0.75, 0.5]),
        ("momentum=0...9:.3", [0.0, 0.3, 0.6, 0.9]),
        ("weight_decay=0..1e-3:5e-4", [0.0, 0.0005, 0.001]),
        ("lr=1e-4..1e-1:4log", [0.0001, 0.001, 0.01, 0.1]),
        ("lr=1e-1..1e-4:4log", [0.1, 0.01, 0.001, 0.0001]),
        ("lr=1..2:3log", [1.0, 1.41421356237, 2.0]),
        ("weight_decay=1000000000000001..1000000000000004:1", [1e15 + 1, 1e15 + 2, 1e15 + 3, 1e15 + 4]),
        ("lr=1.0000000000001..1.0000000000003:1e-13", [1.0000000000001, 1.0000000000002, 1.0000000000003]),
        ("lr=1..1.000000000001:3log", [1.0, 1.0000000000005, 1.000000000001]),
        ("batch=16..256:5log", [16, 32, 64, 128, 256]),
        ("model=lenet,my_net.py:Net", ["lenet", "my_net.py:Net"]),
        ("model=./dir/my net.py:Net,../a..b.py:C", ["./dir/my net.py:Net", "../a..b.py:C"]),
        ("model=pkg.mod:Net=2", ["pkg.mod:Net=2"]),
        ('model="a,b.py:Net",lenet', ["a,b.py:Net", "lenet"]),
        ("model.width=1,2.5,true,none,wide,1e2", [1, 2.5, True, None, "wide", 100]),
        ("model.width=.5..1.5:.5", [0.5, 1, 1.5]),
        ('model.tag="1","none","a\\"b",""', ["1", "none", 'a"b', ""]),
        ("model.path=../x/y", ["../x/y"]),
        ("model.flag=1,true", [1, True]),
        ("data.size=8..32:8", [8, 16, 24, 32]),
    ],
)
def test_a_word_gives_its_values(word, expected):
    result = values(word)
    assert result == expected
    assert list(map(type, result)) == list(map(type, expected))


@pytest.mark.parametrize(
    ("word", "problem"),
    [
        ("lr=abc", "lr must be a number, not 'abc'"),
        ("lr=", "no value"),
        ("lr= ", "no value"),
        ("lr=.1,,.2", "no value"),
        ("lr=.1,", "no value"),
        ("lr=-1", "lr must be above 0, not -1"),
        ("lr=nan", "lr must be finite, not nan"),
        ("lr=.1,inf", "lr must be finite, not inf"),
        ("batch=2.5", "batch must be a whole number, not 2.5"),
        ("batch=0", "batch must be at least 1, not 0"),
        ("epochs=0", "epochs must be at least 1, not 0"),
        ("optimizer=adm", "unknown optimizer 'adm'; did you mean 'adam'?"),
        ("lrr=.1", "unknown axis 'lrr'; did you mean 'lr'?"),
        ("=1", "names no axis; write it as AXIS=VALUES"),
        ("momentun", "is not AXIS=VALUES; did you mean 'momentum'?"),
        ("lr", "has no values"),
        ("val=.1", "'val' is not an axis: it is one for the whole study"),
        ("split_seed=1,2", "'split_seed' is not an axis: it is one for the whole study"),
        ("data_fingerprint=x", "'data_fingerprint' is not an axis: it is one for the whole study"),
        ("batch=10..55:10", "the range 10..55:10 misses its end 55; steps of 10 hit 50 and 60"),
        ("lr=0.1..1:.4", "the range 0.1..1:.4 misses its end 1; steps of .4 hit 0.9 and 1.3"),
        ("batch=10..50", "the range 10..50 has no step; write 10..50:STEP"),
        ("batch=10..50:", "the range 10..50: has no step; write 10..50:STEP"),
        ("batch=10..50:0", "the step of the range 10..50:0 is 0"),
        ("batch=50..10:10", "the range 50..10:10 steps away from its end"),
        ("batch=10..50:x", "the step 'x' of the range 10..50:x is neither a number nor COUNTlog"),
        ("batch=0..10:5", "batch must be at least 1, not 0"),
        ("batch=1..2:.5", "batch must be a whole number, not in steps of .5"),
        ("batch=1.5..2.5:1", "batch must be a whole number, not 1.5"),
        ("batch=8..129:4log", "batch must be a whole number, not 20.2110973888 (value 2 of 8..129:4log)"),
        ("batch=x..5:1", "'x..5:1' is not a range; write FIRST..LAST:STEP or FIRST..LAST:COUNTlog"),
        ("momentum=0..1:.5", "momentum must be below 1, not 1"),
        ("weight_decay=1e-324..1:3log", "the range 1e-324..1:3log is in log: both its ends must be above 0"),
        ("weight_decay=0..1:3log", "the range 0..1:3log is in log: both its ends must be above 0"),
        ("lr=.1..1:1log", "the range .1..1:1log is in log: it needs two different ends and 2 values or more"),
        ("lr=1..1:3log", "the range 1..1:3log is in log: it needs two different ends and 2 values or more"),
        ("lr=1..1e999999999:1", "1e999999999 is out of the range of a number"),
        ("lr=1..2:1e-999999999", "1e-999999999 is out of the range of a number"),
        ("model.width=1..1e999999999:1", "1e999999999 is out of the range of a number"),
        ("lr,batch=.01/100,.001", "'.001' has 1 of the 2 values of lr,batch (a/b for a pair)"),
        ("lr,batch=.01/100/3", "'.01/100/3' has 3 of the 2 values of lr,batch (a/b for a pair)"),
        ("lr,batch=", "no value"),
        ("lr,batch=.01/", "no value"),
        ("lr,batch=.01/1..5:1", "a range (1..5:1) cannot stand here"),
        ("lr,lr=.01/.1", "lr is given twice"),
        ("lr,learning_rate=.01/.1", "lr is given twice"),
        ("lr,=.01/.1", "names no axis; write it as AXIS=VALUES"),
        ("lr,seed=.1/0", "seeds are replicates of every point and cannot be paired"),
        ("seed=-1", "seed must be at least 0, not -1"),
        ('model.tag="a"b', '"a"b is not a quoted word: "...", with \\" for a quote inside'),
    ],
)
def test_a_wrong_word_is_told_with_its_place(word, problem):
    assert problems(word) == [f"--grid {word.strip()}: {problem}"]


def test_all_problems_are_told_at_once():
    assert problems(
        "lr=abc", "batch=2.5", "norm=standrd", "foo=1", exclude=["epochs=0"], when=["momentum"]
    ) == [
        "--grid lr=abc: lr must be a number, not 'abc'",
        "--grid batch=2.5: batch must be a whole number, not 2.5",
        "--grid norm=standrd: unknown norm 'standrd'; did you mean 'standard'?",
        *problems("foo=1"),
        "--exclude 'epochs=0': epochs must be at least 1, not 0",
        "--when 'momentum': write it as 'AXIS: OTHER=VALUE'",
    ]


def test_a_flood_of_problems_is_cut_short():
    told = problems(*(f"lr{i}=1" for i in range(50)))
    assert len(told) == 21
    assert told[-1] == "and 30 more"


def test_an_empty_grid_on_the_command_line_is_an_error():
    assert problems() == ["--grid: names no axis"]


def test_an_axis_given_twice_is_an_error_under_any_of_its_names():
    assert problems("lr=.1", "learning_rate=.2") == ["--grid learning_rate=.2: lr is given twice"]
    assert problems("lr,batch=.1/2", "batch=4") == ["--grid batch=4: batch is given twice"]


@pytest.mark.parametrize(
    ("words", "count"),
    [
        (["batch=1..1000000000000:1"], "1,000,000,000,000"),
        (["lr=1..1000000:1", "batch=1..1000000:1"], "1,000,000,000,000"),
        (["lr=1e-9..1:1000000000000log"], "1,000,000,000,000"),
        (["batch=1..1001:1", "epochs=1..1000:1"], "1,001,000"),
        (["batch=1,2..1000001:1"], "1,000,001"),
        (["model.width=1..9e18:1"], "9,000,000,000,000,000,000"),
        (["lr=1e-300..1e300:1e-300"], f"{10**600:,}"),
    ],
)
def test_a_grid_too_large_is_refused_with_its_size_without_being_built(words, count):
    tracemalloc.start()
    (problem,) = problems(*words)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert problem.endswith(f"the grid has {count} points, and at most 1,000,000 are taken")
    assert peak < 1_000_000


def test_a_grid_of_exactly_a_million_points_is_taken():
    assert Grid.parse(["batch=1..1000:1", "epochs=1..1000:1"]).size == 1_000_000


def test_what_is_written_twice_does_not_count_towards_the_size():
    grid = Grid.parse(["batch=1..1000:1,1..1000:1", "epochs=1..1000:1"])
    assert grid.size == 1_000_000


def test_too_many_seeds_are_refused_without_being_built():
    assert problems("lr=.1", "seed=0..1000000000000:1") == [
        "--grid seed=0..1000000000000:1: 1,000,000,000,001 seeds, and at most 10,000 are taken"
    ]


def test_duplicate_values_are_one_value_with_a_warning():
    grid = Grid.parse(["lr=1,1.0,1e0,.5", "batch=10..30:10,20"])
    assert grid.values == {"lr": (1.0, 0.5), "batch": (10, 20, 30)}
    assert grid.warnings == (
        "--grid lr=1,1.0,1e0,.5: lr=1 is given twice, and counts once",
        "--grid lr=1,1.0,1e0,.5: lr=1 is given twice, and counts once",
        "--grid batch=10..30:10,20: batch=20 is given twice, and counts once",
    )


def test_a_duplicate_pair_is_one_pair_with_a_warning():
    grid = Grid.parse(["lr,batch=.1/10,.10/1e1,.1/20"])
    assert grid.size == 2
    assert grid.warnings == (
        "--grid lr,batch=.1/10,.10/1e1,.1/20: lr,batch=0.1/10 is given twice, and counts once",
    )


def test_generated_values_have_twelve_significant_digits():
    for word in ("lr=1e-4..3:50log", "lr=.1..7.3:.3", "model.x=.123456..987.654:31log"):
        for value in values(word)[1:-1]:
            assert float(f"{value:.12g}") == value


def test_the_ends_of_a_range_are_exactly_as_written():
    result = values("lr=.12345678901234567..2:5log")
    assert (result[0], result[-1]) == (0.12345678901234567, 2.0)


def test_values_in_log_have_equal_ratios():
    result = values("lr=1e-5..1:11log")
    ratios = [math.log(b / a) for a, b in itertools.pairwise(result)]
    assert ratios == pytest.approx([math.log(1e5) / 10] * 10, rel=1e-10)


def test_seeds_are_no_axis():
    grid = Grid.parse(["lr=.1,.2", "seed=0,1,2"])
    assert grid.axes == ("lr",)
    assert grid.seeds == (0, 1, 2)
    assert grid.size == 2
    assert Grid.parse(["lr=.1"]).seeds is None


def test_points_come_in_row_major_order():
    grid = Grid.parse(["lr=.1,.2", "batch=1,2"])
    assert [dict(point.values) for point in grid.points()] == [
        {"lr": 0.1, "batch": 1},
        {"lr": 0.1, "batch": 2},
        {"lr": 0.2, "batch": 1},
        {"lr": 0.2, "batch": 2},
    ]


def test_paired_axes_give_pairs_not_a_product():
    grid = Grid.parse(["lr,batch=.01/100,.001/20", "norm=none,standard"])
    assert grid.axes == ("lr", "batch", "norm")
    assert grid.size == 4
    assert [tuple(point.values.values()) for point in grid.points()] == [
        (0.01, 100, "none"),
        (0.01, 100, "standard"),
        (0.001, 20, "none"),
        (0.001, 20, "standard"),
    ]


def test_a_path_in_a_pair_is_quoted():
    grid = Grid.parse(['batch,model=10/"./my nets/a,b.py:Net",20/lenet'])
    assert list(grid.values["model"]) == ["./my nets/a,b.py:Net", "lenet"]


def test_python_takes_lists_texts_arrays_ranges_and_single_values():
    grid = Grid(
        {"model.width": range(1, 4), "lr,batch": [(0.01, 100), (0.001, 20)]},
        epochs=2,
        dropout=np.array([0.25, 0.5]),
        momentum="0...9:.3",
        norm=("none",),
        seed=[3, 4],
    )
    assert grid.values == {
        "model.width": (1, 2, 3),
        "lr": (0.01, 0.001),
        "batch": (100, 20),
        "epochs": (2,),
        "dropout": (0.25, 0.5),
        "momentum": (0.0, 0.3, 0.6, 0.9),
        "norm": ("none",),
    }
    assert grid.seeds == (3, 4)


def test_python_and_the_command_line_give_equal_grids():
    words = ["lr=1e-2,1e-3", "batch=10,20,30,40,50"]
    rules = {"exclude": ["lr=.01 batch=10"], "when": ["lr: batch=10,20"]}
    assert Grid(lr=[0.01, 0.001], batch="10..50:10", **rules) == Grid.parse(words, **rules)
    assert Grid(lr=[0.01, 0.001], batch="10..50:10") != Grid.parse(words, **rules)
    assert (
        Grid({"lr,batch": [".01/100"]})
        == Grid.parse(["lr,batch=.01/100"])
        == Grid({"lr,batch": [[0.01, 100]]})
    )


@pytest.mark.parametrize(
    ("axes", "problem"),
    [
        ({"lr": []}, "lr=[]: no value"),
        ({"lr": ""}, "lr='': no value"),
        ({"lr": {0.1}}, "lr={0.1}: takes a list of values, not a set"),
        ({"lr": {"a": 1}}, "lr={'a': 1}: takes a list of values, not a dict"),
        ({"lr": [[0.1]]}, "lr=[[0.1]]: lr must be a number, not list"),
        ({"batch": ["1..5:1"]}, "batch=['1..5:1']: a range (1..5:1) cannot stand here"),
        ({"lr": [True]}, "lr=[True]: lr must be a number, not true"),
        ({"lr,batch": [0.1]}, "lr,batch=[0.1]: a row of paired axes is a list of 2 values, not 0.1"),
        ({"lr,batch": [(0.1,)]}, "lr,batch=[(0.1,)]: [0.1] has 1 of the 2 values of lr,batch"),
    ],
)
def test_a_wrong_value_in_python_is_told_with_its_axis(axes, problem):
    with pytest.raises(SpecError) as caught:
        Grid(axes)
    assert caught.value.problems == (problem,)


def test_a_grid_without_axes_is_one_point():
    assert Grid().size == 1
    assert [dict(point.values) for point in Grid().points()] == [{}]


def test_a_grid_cannot_be_changed_but_copied_and_pickled():
    grid = Grid({"lr,batch": ".1/2"}, norm="none,standard", when="norm: lr=.1", seed=3)
    with pytest.raises(AttributeError, match="immutable"):
        grid.axes = ()
    with pytest.raises(AttributeError, match="immutable"):
        grid._parts = None
    assert pickle.loads(pickle.dumps(grid)) == grid == copy.deepcopy(grid)
    assert hash(pickle.loads(pickle.dumps(grid))) == hash(grid)


def test_grids_with_true_and_with_one_are_not_equal():
    assert Grid({"model.flag": [1]}) != Grid({"model.flag": [True]})
    assert Grid({"model.tag": ['"1"']}) != Grid({"model.tag": [1]})


def test_the_text_of_a_grid_is_what_one_would_type():
    grid = Grid.parse(
        ["lr=1e-2,.001", "batch=10..50:10", "epochs=1,2,4", "model=my nets/a.py:Net"],
        exclude=["lr=.01 batch=10,20"],
        when=["epochs: model='x'".replace("'x'", '"my nets/a.py:Net"')],
    )
    assert str(grid) == shlex.join(
        [
            "--grid",
            "lr=0.01,0.001",
            "batch=10..50:10",
            "epochs=1,2,4",
            "model=my nets/a.py:Net",
            "--exclude",
            "lr=0.01 batch=10,20",
            "--when",
            'epochs: model="my nets/a.py:Net"',
        ]
    )


def test_a_merged_grid_takes_the_other_ones_axes():
    base = Grid(lr=[0.1, 0.2], batch=[1, 2], exclude=["lr=.1 batch=1", "lr=.2 batch=1,2"], seed=[0, 1])
    merged = base.merged(Grid(lr=[0.2, 0.3], norm=["none"], seed=[7]))
    assert merged.values == {"lr": (0.2, 0.3), "batch": (1, 2), "norm": ("none",)}
    assert merged.seeds == (7,)
    assert merged.to_json()["exclude"] == ["lr=0.2 batch=1,2"]
    assert merged.warnings == ("exclude 'lr=0.1 batch=1' is dropped: the grid no longer has such a point",)
    assert base.merged(Grid(batch=[1])).seeds == (0, 1)


def test_replacing_one_of_a_pair_parts_the_pair():
    merged = Grid({"lr,batch": ".1/10,.2/10,.3/20"}).merged(Grid(lr=[0.5]))
    assert merged.values == {"lr": (0.5,), "batch": (10, 20)}
    assert merged.warnings == ("lr,batch are no longer paired, since one of them is replaced",)


def test_a_merged_grid_too_large_is_refused():
    with pytest.raises(SpecError, match="2,000,000 points"):
        Grid(batch="1..1000:1").merged(Grid(epochs="1..2000:1"))


@pytest.mark.parametrize("word", ["水平翻转と回転", "élastique", 'ein "Wort", und mehr', "\u202ehidden"])
def test_a_command_shows_letters_of_any_script_and_escapes_what_cannot_be_seen(word):
    grid = Grid({"model.tag": [word, "b"]})
    (_, argument) = grid.arguments()
    assert Grid.parse([argument]).values == grid.values
    assert argument.isprintable()
    assert not word.isprintable() or word.replace('"', '\\"') in argument
