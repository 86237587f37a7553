"""The layer table: whatever a model is made of, its rows say what runs and its parameters add up."""

from __future__ import annotations

import textwrap

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - as everybody writes it

from gridsearch import plugins
from gridsearch.errors import PluginError
from gridsearch.training.layer_table import LayerRow, layer_table


def consistent(table, model):
    """Hold for every model: rows add up to the total, and the total is torch's own count."""
    return (
        sum(row.parameters for row in table.rows) == table.total == sum(p.numel() for p in model.parameters())
    )


def test_the_table_of_a_built_in_network_reads_like_its_description():
    model = plugins.find("lenet", plugins.MODELS).build(
        in_channels=1, num_classes=10, image_size=(28, 28), options={}
    )
    table = layer_table(model, (1, 28, 28))
    assert table.rows == (
        LayerRow("conv1", "Conv2d", (6, 24, 24), 156),
        LayerRow("relu1", "ReLU", (6, 24, 24), 0),
        LayerRow("pool1", "MaxPool2d", (6, 12, 12), 0),
        LayerRow("conv2", "Conv2d", (12, 8, 8), 1_812),
        LayerRow("relu2", "ReLU", (12, 8, 8), 0),
        LayerRow("pool2", "MaxPool2d", (12, 4, 4), 0),
        LayerRow("flatten", "Flatten", (192,), 0),
        LayerRow("fc1", "Linear", (120,), 23_160),
        LayerRow("relu3", "ReLU", (120,), 0),
        LayerRow("fc2", "Linear", (60,), 7_260),
        LayerRow("relu4", "ReLU", (60,), 0),
        LayerRow("out", "Linear", (10,), 610),
    )
    assert (table.total, table.trainable) == (32_998, 32_998)


@pytest.mark.parametrize("name", plugins.installed(plugins.MODELS))
def test_the_rows_of_every_installed_model_add_up(name):
    plugin = plugins.find(name, plugins.MODELS)
    size = max((32, 32), plugin.smallest_input or (1, 1))
    model = plugin.build(in_channels=3, num_classes=5, image_size=size, options={})
    table = layer_table(model, (3, *size))
    assert consistent(table, model)
    assert table.rows[-1].output_shape == (5,)


class CalledTwice(nn.Module):
    def __init__(self):
        super().__init__()
        self.pool = nn.MaxPool2d(2)
        self.conv = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x):
        return self.pool(self.conv(self.pool(self.conv(x)))).flatten(1)


def test_a_module_called_twice_has_one_row_with_both_shapes_and_its_parameters_once():
    table = layer_table(CalledTwice(), (1, 8, 8))
    assert table.rows == (
        LayerRow("conv", "Conv2d", (1, 8, 8), 10, other_shapes=((1, 4, 4),), calls=2),
        LayerRow("pool", "MaxPool2d", (1, 4, 4), 0, other_shapes=((1, 2, 2),), calls=2),
    )


class SeveralOutputs(nn.Module):
    def forward(self, x):
        return {"mean": x.mean(dim=(2, 3)), "parts": (x, [x[:, :1]]), "text": "no tensor"}


def test_every_tensor_of_several_outputs_is_shown():
    model = nn.Sequential(nn.Identity(), SeveralOutputs())
    row = layer_table(model, (2, 4, 4)).rows[1]
    assert (row.output_shape, row.other_shapes) == ((2,), ((2, 4, 4), (1, 4, 4)))


class FunctionalOnly(nn.Module):
    def __init__(self):
        super().__init__()
        self.kernel = nn.Parameter(torch.zeros(4, 1, 3, 3))
        self.weight = nn.Parameter(torch.zeros(10, 4))

    def forward(self, x):
        return F.linear(F.relu(F.conv2d(x, self.kernel)).mean(dim=(2, 3)), self.weight)


def test_a_model_of_functions_and_own_parameters_is_one_row():
    table = layer_table(FunctionalOnly(), (1, 8, 8))
    assert table.rows == (LayerRow("(model)", "FunctionalOnly", (10,), 36 + 40),)
    assert table.total == 76


class OwnAndChildren(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        return self.scale * self.fc(x.flatten(1))


def test_a_module_with_children_has_a_row_only_for_parameters_of_its_own():
    model = nn.Sequential(OwnAndChildren(), nn.Sequential(nn.ReLU()))
    assert [(row.name, row.parameters) for row in layer_table(model, (1, 2, 2)).rows] == [
        ("0", 1),
        ("0.fc", 10),
        ("1.0", 0),
    ]


class OnlyWeightUsed(nn.Module):
    def __init__(self):
        super().__init__()
        self.used = nn.Linear(4, 2)
        self.unused = nn.Linear(3, 3)
        self.silent = nn.ReLU()

    def forward(self, x):
        return F.linear(x.flatten(1), self.used.weight, self.used.bias)


def test_parameters_of_modules_that_are_never_called_are_counted_without_a_shape():
    model = OnlyWeightUsed()
    table = layer_table(model, (1, 2, 2))
    assert table.rows == (
        LayerRow("used", "Linear", None, 10, calls=0),
        LayerRow("unused", "Linear", None, 12, calls=0),
    )
    assert consistent(table, model)


class TiedWeights(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4, bias=False)
        self.outer = nn.Linear(4, 4)
        self.outer.weight = self.inner.weight

    def forward(self, x):
        return self.outer(self.inner(x.flatten(1)))


def test_a_shared_parameter_counts_once_at_the_first_row_that_holds_it():
    model = TiedWeights()
    table = layer_table(model, (1, 2, 2))
    assert [(row.name, row.parameters) for row in table.rows] == [("inner", 16), ("outer", 4)]
    assert consistent(table, model)


def test_frozen_parameters_are_in_the_total_but_not_trainable():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Linear(3, 2))
    model[1].requires_grad_(requires_grad=False)
    table = layer_table(model, (1, 2, 2))
    assert (table.total, table.trainable) == (15 + 8, 8)


def test_a_lazy_layer_is_shown_with_the_shape_it_finds_and_an_uncalled_one_with_none():
    class Lazy(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.LazyLinear(3)
            self.unused = nn.LazyLinear(7)

        def forward(self, x):
            return self.fc(x.flatten(1))

    table = layer_table(Lazy(), (1, 2, 2))
    assert table.rows == (
        LayerRow("fc", "Linear", (3,), 15),
        LayerRow("unused", "LazyLinear", None, 0, calls=0),
    )
    assert table.total == 15


class CountsItsCalls(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.norm = nn.BatchNorm2d(1)
        self.drop = nn.Dropout(0.5).eval()

    def forward(self, x):
        self.calls += 1
        return self.drop(self.norm(x + torch.rand(()))).flatten(1)


def test_the_model_its_modes_and_the_random_generator_are_left_as_they_were():
    model = CountsItsCalls().train()
    model.drop.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    layer_table(model, (1, 4, 4))
    assert torch.equal(torch.rand(4), expected)
    assert [module.training for module in model.modules()] == modes == [True, True, False]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(p.grad is None for p in model.parameters())


def test_a_model_without_storage_or_in_double_precision_gets_a_batch_of_its_own_kind():
    with torch.device("meta"):
        huge = nn.Sequential(nn.Flatten(), nn.Linear(3 * 512 * 512, 100_000))
    assert layer_table(huge, (3, 512, 512)).total == 3 * 512 * 512 * 100_000 + 100_000
    double = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).double()
    assert layer_table(double, (1, 2, 2)).rows[1].output_shape == (2,)


def test_a_dimension_in_front_of_the_batch_is_kept():
    class TimeFirst(nn.Module):
        def forward(self, x):
            return x.flatten(1).expand(5, -1, -1)

    assert layer_table(TimeFirst(), (1, 2, 2)).rows[0].output_shape == (5, 3, 4)


USERS_FILE = """
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self, num_classes, hidden=16):
            super().__init__()
            self.body = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
            self.head = nn.Linear(4, num_classes)

        def forward(self, x):
            return self.head(self.body(x.mean(dim=1, keepdim=True)))

    class Wrong(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(100, 10)

        def forward(self, x):
            return self.fc(x.flatten(1))
"""


@pytest.fixture
def users_file(tmp_path):
    path = tmp_path / "my_net.py"
    path.write_text(textwrap.dedent(USERS_FILE))
    return path


def users_model(locator, **options):
    plugin = plugins.find(locator, plugins.MODELS)
    return plugin.build(in_channels=3, num_classes=7, image_size=(9, 9), options=options)


def test_a_users_own_module_is_found_in_its_file_and_gets_only_the_arguments_that_it_takes(users_file):
    table = layer_table(users_model(f"{users_file}:Net"), (3, 9, 9))
    assert table.rows == (
        LayerRow("body.0", "AdaptiveAvgPool2d", (1, 2, 2), 0),
        LayerRow("body.1", "Flatten", (4,), 0),
        LayerRow("head", "Linear", (7,), 35),
    )


def test_a_model_that_raises_is_one_line_with_its_reason_and_leaves_no_hook_behind(users_file):
    model = users_model(f"{users_file}:Wrong").train()
    with pytest.raises(
        PluginError, match=r"raised on images of 3x9x9: RuntimeError: mat1 and mat2"
    ) as caught:
        layer_table(model, (3, 9, 9))
    assert "\n" not in caught.value.message
    assert model.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
