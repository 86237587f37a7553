import codecs

import pytest

from gridsearch.errors import SpecError, UsageError
from gridsearch.spec import Grid, build, load_toml

EXAMPLE = """
study   = "fmnist"
dataset = "fmnist"
model   = "lenet"
seeds   = 3
exclude = ["lr=.01 batch=10"]
when    = ["momentum: optimizer=sgd"]
[grid]
lr    = [0.01, 0.001]
batch = "10..50:10"
norm  = ["none", "standard"]
[recipe]
epochs    = 20
optimizer = "adam"
"""


@pytest.fixture
def write(tmp_path):
    def write(text):
        file = tmp_path / "study.toml"
        file.write_text(text)
        return file

    return write


def problems(file):
    with pytest.raises(SpecError) as caught:
        load_toml(file)
    return [line.removeprefix(f"{file}: ") for line in caught.value.problems]


def test_the_documented_example_is_18_points_with_3_seeds(write):
    spec = build(file=write(EXAMPLE))
    assert spec.grid.size == 20
    assert spec.grid.survey(spec.fixed())[1] == 2
    assert (spec.name, spec.seed_list, spec.recipe.epochs) == ("fmnist", (0, 1, 2), 20)
    assert spec.grid.axes == ("lr", "batch", "norm")


def test_a_file_says_the_same_as_the_command_line(write):
    file = write(
        """
        [grid]
        "lr,batch" = [".01/100", ".001/20"]
        epochs = 3
        dropout = ["none", 0.5]
        "model.width" = [1, 2]
        model.act = "relu,none"
        """
    )
    assert build(file=file).grid == Grid.parse(
        ["lr,batch=.01/100,.001/20", "epochs=3", "dropout=none,.5", "model.width=1,2", "model.act=relu,none"]
    )


def test_pairs_may_be_rows_of_plain_values(write):
    assert build(file=write('[grid]\n"lr,batch" = [[0.01, 100], [0.001, 20]]\n')).grid == Grid.parse(
        ["lr,batch=.01/100,.001/20"]
    )


@pytest.mark.parametrize(
    "text", ['[recipe]\n"model.width" = 2\n', "[recipe]\nmodel.width = 2\n", "[recipe.model]\nwidth = 2\n"]
)
def test_an_option_of_the_model_may_be_quoted_dotted_or_a_table(write, text):
    assert build(file=write(text)).recipe.model == {"width": 2}


def test_the_options_of_a_study_stand_at_the_top(write):
    spec = build(file=write("val = 0.25\nsubset = 1000\nseeds = [3, 5]\n"))
    assert (spec.val, spec.subset, spec.seed_list) == (0.25, 1000, (3, 5))


def test_a_file_without_a_grid_is_one_point(write):
    assert build(file=write("seeds = 1\n")).grid == Grid()


def test_all_problems_of_a_file_are_told_at_once_with_their_place(write):
    file = write(
        """
        studdy = "x"
        study = "a/b"
        val = 2
        epochs = 3
        seeds = 0
        exclude = ["lr=.5", "foo=1", 3]
        when = "momentum"
        [grid]
        lr = [0.1, -1]
        batch = "10..55:10"
        optimizer = ["adm"]
        lrr = 1
        norm = []
        [recipe]
        epoch = 3
        dropout = "x"
        [recipes]
        """
    )
    assert problems(file) == [
        "unknown key 'studdy'; did you mean 'study'?",
        "study: the study's name 'a/b' may hold letters, digits, '.', '_' and '-' only",
        "val: val must be below 1, not 2",
        "'epochs' is a key of the recipe and stands there ([recipe])",
        "seeds: seeds must be a whole number of at least 1, not 0",
        "unknown key 'recipes'; did you mean 'recipe'?",
        "[recipe] epoch: unknown key 'epoch'; did you mean 'epochs'?",
        "[recipe] dropout: dropout must be a number, not 'x'",
        "[grid] lr: lr must be above 0, not -1",
        "[grid] batch: the range 10..55:10 misses its end 55; steps of 10 hit 50 and 60",
        "[grid] optimizer: unknown optimizer 'adm'; did you mean 'adam'?",
        "[grid] lrr: unknown axis 'lrr'; did you mean 'lr'?",
        "[grid] norm: no value",
        "exclude 'foo=1': " + unknown("foo"),
        "exclude 3: must be a text, not int",
        "when 'momentum': write it as 'AXIS: OTHER=VALUE'",
    ]


def unknown(name):
    with pytest.raises(SpecError) as caught:
        Grid({name: [1]})
    return caught.value.problems[0].partition(": ")[2]


def test_a_string_means_the_same_in_the_grid_and_in_the_recipe(write):
    text = """objective = "f.py:f"
[grid]
a = ["10", '"10"', "true", "none", "ten"]
[recipe]
b = "10"
c = '"10"'
d = "true"
e = "none"
f = "ten"
"""
    found = load_toml(write(text))
    assert found.grid.values()["a"] == (10, "10", True, None, "ten")
    assert found.recipe == {"b": 10, "c": "10", "d": True, "e": None, "f": "ten"}


@pytest.mark.parametrize("text", ["", "\n", "# nothing yet\n"])
def test_a_file_that_says_nothing_is_refused_unless_the_command_line_says_what_to_search(write, text):
    file = write(text)
    with pytest.raises(SpecError, match="is empty; a study file has a \\[grid\\] of axes"):
        build(file=file)
    assert build(file=file, words=["lr=.1"]).grid.axes == ("lr",)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[grid]\n", "[grid]: names no axis; leave the table out for a single point"),
        ("grid = 3\n", "grid: must be a table ([grid])"),
        ("recipe = []\n", "recipe: must be a table ([recipe])"),
        ("[grid]\nlr = [true]\n", "[grid] lr: lr must be a number, not true"),
        ("[grid]\nlr = [nan]\n", "[grid] lr: lr must be finite, not nan"),
        ("[grid]\nlr = 2024-01-01\n", "[grid] lr: lr must be a number, not date"),
        ("[grid]\nlr = {a = 1}\n", "[grid] lr: takes a list of values, not a dict"),
        ('[grid]\nbatch = ["1..5:1"]\n', "[grid] batch: a range (1..5:1) cannot stand here"),
        ('[grid]\nlr = ""\n', "[grid] lr: no value"),
        (
            '[grid]\nbatch = "1..10000000:1"\n',
            "[grid] batch: the grid has 10,000,000 points, and at most 1,000,000 are taken",
        ),
        ("[recipe]\nlr = [0.1]\n", "[recipe] lr: lr takes one value; several go into the grid"),
        ("seeds = 2\n[grid]\nseed = [1]\n", "seeds: the seeds are given in [grid] as well"),
        (
            'exclude = ["lr=.5"]\n[grid]\nlr = [0.1]\n',
            "exclude 'lr=.5': 0.5 is not a value of lr in this grid; known: 0.1",
        ),
        ("model = 3\n", "model: model must be a name, not 3"),
    ],
)
def test_a_wrong_file_is_told_with_its_place(write, text, problem):
    assert problems(write(text)) == [problem]


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("lr = [.1, 0.2]", "0.1, not .1"),
        ("lr = -.5", "0.1, not .1"),
        ("lr = [1., 2.]", "0.1, not .1"),
        ("batch = 10..50:10", '"10..50:10"'),
        ("norm = [none, standard]", '"none"'),
        ("norm = ['none', standard]", '"none"'),
        ("nesterov = [True, False]", '"none"'),
        ("lr = [1e-3, 0.1 0.2]", ""),
        ('norm = ["none" "standard"]  # .1', ""),
    ],
)
def test_what_the_command_line_takes_and_toml_does_not_is_told_with_its_form(tmp_path, line, meant):
    path = tmp_path / "study.toml"
    path.write_text(f"[grid]\n{line}\n")
    with pytest.raises(SpecError, match="line 2, column") as refused:
        load_toml(path)
    assert meant in str(refused.value)
    assert bool(meant) == (";" in str(refused.value))


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("study = \n", "line 1, column 9: "),
        ('study = "x"\n[grid\n', "line 2, column 6: "),
        ("lr = 1\nlr = 2\n", "line 2, column 7: "),
        ('study = "x', "end of document: "),
    ],
)
def test_a_syntax_error_is_told_with_its_line(write, text, start):
    (problem,) = problems(write(text))
    assert problem.startswith(start)
    assert len(problem) > len(start)
    assert "(at " not in problem


def test_a_file_that_is_no_text_is_told(tmp_path):
    file = tmp_path / "s.toml"
    file.write_bytes(b"study = '\xff'")
    assert problems(file) == ["not a text in UTF-8 (byte 9); save it as UTF-8"]


WRITTEN = 'study = "s"\ndataset = "digits"\n[grid]\nlr = [0.1, 0.2]\n[recipe]\nepochs = 3\n'


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_file_means_the_same_whatever_marks_its_beginning_and_its_lines(tmp_path, mark, end):
    plain, other = tmp_path / "plain.toml", tmp_path / "other.toml"
    plain.write_text(WRITTEN)
    other.write_bytes(mark + WRITTEN.replace("\n", end).encode())
    assert build(file=other) == build(file=plain)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
def test_text_in_another_encoding_of_unicode_is_refused_by_its_name(tmp_path, encoding):
    file = tmp_path / "s.toml"
    file.write_bytes(WRITTEN.encode(encoding))
    name = encoding[:6].upper()
    assert problems(file) == [f"the file is in {name}; save it as UTF-8"]


def test_a_file_that_cannot_be_read_is_a_usage_error(tmp_path):
    for file, reason in ((tmp_path / "none.toml", "no such file"), (tmp_path, "Is a directory")):
        with pytest.raises(UsageError) as caught:
            load_toml(file)
        assert caught.value.message == f"study file {str(file)!r}: {reason}"


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("csv:labels.csv", "csv:studies/labels.csv"),
        ("csv:/none.csv", "csv:/none.csv"),
        ("hf:mnist", "hf:mnist"),
    ],
)
def test_a_list_of_images_beside_the_file_is_named_relative_to_it(tmp_path, monkeypatch, written, found):
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "labels.csv").touch()
    (tmp_path / "studies" / "s.toml").write_text(f'dataset = "{written}"\n[grid]\nlr = [0.1, 0.2]\n')
    monkeypatch.chdir(tmp_path)
    assert build(file="studies/s.toml").dataset == found


def test_what_lies_beside_the_file_is_named_relative_to_it(tmp_path, monkeypatch):
    (tmp_path / "studies" / "flowers").mkdir(parents=True)
    (tmp_path / "studies" / "net.py").touch()
    (tmp_path / "studies" / "s.toml").write_text(
        'dataset = "folder:flowers"\nmodel = "net.py:Net"\nexclude = "model=net.py:A lr=.1"\n'
        'when = "lr: model=net.py:A,other.py:B"\n[grid]\nmodel = ["net.py:A", "other.py:B", "lenet"]\nlr = [0.1, 0.2]\n'
    )
    monkeypatch.chdir(tmp_path)
    spec = build(file="studies/s.toml")
    assert spec.dataset == "folder:studies/flowers"
    assert spec.model == "studies/net.py:Net"
    assert spec.grid == Grid(
        model=["studies/net.py:A", "other.py:B", "lenet"],
        lr=[0.1, 0.2],
        exclude="model=studies/net.py:A lr=.1",
        when="lr: model=studies/net.py:A,other.py:B",
    )
