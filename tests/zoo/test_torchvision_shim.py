"""torchvision imports through one module of ours beside any build of torch."""

import subprocess
import sys
import textwrap

import pytest


def run(program):
    out = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False
    )
    assert out.returncode == 0, out.stderr
    return out.stdout.split()


def test_torchvision_imports_and_datasets_transforms_and_models_are_there():
    out = run("""
        from gridsearch.zoo import torchvision as shim
        had = shim.compiled_operators()
        vision = shim.load()
        import torch, torchvision, torchvision.transforms.v2
        assert vision is torchvision and shim.load() is vision
        assert torchvision.models.vgg16 and torchvision.datasets.FashionMNIST
        flipped = torchvision.transforms.v2.functional.horizontal_flip(torch.arange(4.).reshape(1, 2, 2))
        assert flipped.flatten().tolist() == [1, 0, 3, 2]
        assert had == shim.compiled_operators() == torchvision.extension._has_ops()
        print(*shim.mirrors("MNIST"), *shim.mirrors("FashionMNIST"))
        shim.load.cache_clear(); shim.compiled_operators.cache_clear()
        assert shim.load() is vision  # a torchvision that is there is taken as it is
    """)
    assert len(out) >= 2
    assert all(address.startswith("http") and address.endswith("/") for address in out)


def test_importing_the_door_imports_neither_torch_nor_torchvision():
    program = (
        "import sys, gridsearch.zoo.torchvision; print('torch' in sys.modules, 'torchvision' in sys.modules)"
    )
    assert run(program) == ["False", "False"]


def test_without_torchvision_it_is_an_import_error_in_one_line(monkeypatch):
    pytest.importorskip("torch")
    out = run("""
        import importlib.util as util
        real = util.find_spec
        util.find_spec = lambda name, *a: None if name == "torchvision" else real(name, *a)
        from gridsearch.zoo import torchvision as shim
        try:
            shim.load()
        except ImportError as error:
            print(str(error).replace(" ", "_"))
    """)
    assert out == ["torchvision_is_not_installed"]
