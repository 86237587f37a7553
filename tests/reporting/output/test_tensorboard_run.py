"""TensorBoard runs, read back with TensorBoard's own reader."""

import math
import struct
import subprocess
import sys

import pytest

from gridsearch.records import EpochEnded, TrialState
from gridsearch.reporting import TensorBoardRun, quick_confusion_png
from gridsearch.reporting.output.tensorboard import SCALARS


def read(folder):
    from tensorboard.backend.event_processing import event_accumulator

    reader = event_accumulator.EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    return reader.Reload()


def hparams(folder, tag, field):
    from tensorboard.plugins.hparams import metadata, plugin_data_pb2

    content = read(folder).SummaryMetadata(getattr(metadata, tag)).plugin_data.content
    return getattr(plugin_data_pb2.HParamsPluginData.FromString(content), field)


PARAMS = {"lr": 0.001, "batch": 20, "norm": "standard", "nesterov": True, "dropout": None, "seed": 0}


def write(folder, study, *, params=PARAMS):
    builder = study({"lr": [0.001]}, epochs=3)
    run = TensorBoardRun(folder)
    run.start(params)
    for row in builder.epochs[0]:
        run.epoch(row)
    run.finish({"val_accuracy": 0.9, "balanced_accuracy": 0.89}, epochs=3)
    return builder.epochs[0]


def test_every_epoch_is_there_under_the_same_tags(tmp_path, study):
    rows = write(tmp_path / "0", study)
    reader = read(tmp_path / "0")
    assert set(SCALARS) <= set(reader.Tags()["scalars"])
    for tag, name in SCALARS.items():
        points = reader.Scalars(tag)
        assert [p.step for p in points] == [1, 2, 3]
        assert [p.value for p in points] == pytest.approx([getattr(r, name) for r in rows])
    assert reader.Scalars("final/balanced_accuracy")[0].value == pytest.approx(0.89)


def test_hparams_are_written_once_with_the_full_key_set_and_their_types(tmp_path, study):
    write(tmp_path / "0", study)
    held = hparams(tmp_path / "0", "SESSION_START_INFO_TAG", "session_start_info").hparams
    assert set(held) == set(PARAMS)
    assert held["lr"].number_value == 0.001
    assert held["nesterov"].bool_value is True
    assert held["norm"].string_value == "standard"
    assert held["dropout"].string_value == "none"


@pytest.mark.parametrize(
    ("state", "status"), [(TrialState.COMPLETE, 1), (TrialState.DIVERGED, 1), (TrialState.FAILED, 2)]
)
def test_the_session_ends_with_its_status(tmp_path, state, status):
    run = TensorBoardRun(tmp_path / "0")
    run.start({"lr": 0.1})
    run.finish({}, state=state)
    assert hparams(tmp_path / "0", "SESSION_END_INFO_TAG", "session_end_info").status == status


def test_the_confusion_matrix_is_an_image(tmp_path, study, predictions, fashion):
    png = quick_confusion_png(predictions(10), class_names=fashion, title="t")
    write(tmp_path / "0", study)
    TensorBoardRun(tmp_path / "0").pictures({"confusion": png}, epochs=3)
    image = read(tmp_path / "0").Images("confusion")[0]
    assert image.encoded_image_string == png
    assert (image.width, image.height) == struct.unpack(">II", png[16:24])


def test_a_run_can_be_read_while_it_is_written(tmp_path, study):
    run = TensorBoardRun(tmp_path / "0")
    run.start({"lr": 0.1})
    rows = study({"lr": [0.1]}, epochs=2).epochs[0]
    run.epoch(rows[0])
    assert len(read(tmp_path / "0").Scalars("loss/val")) == 1
    run.epoch(rows[1])
    assert len(read(tmp_path / "0").Scalars("loss/val")) == 2


def test_an_event_of_a_worker_serves_as_well_as_a_stored_row(tmp_path):
    run = TensorBoardRun(tmp_path / "0")
    run.start({})
    run.epoch(
        EpochEnded(
            trial=7, attempt=1, epoch=1, train_loss=math.nan, train_accuracy=0.1, val_loss=None, val_accuracy=None,
            lr=0.1, seconds=1.0, images_per_second=10.0,
        )
    )  # fmt: skip
    reader = read(tmp_path / "0")
    assert "loss/val" not in reader.Tags()["scalars"]
    assert math.isnan(reader.Scalars("loss/train")[0].value)


def test_another_process_goes_on_with_the_same_run(tmp_path, study):
    rows = study({"lr": [0.1]}, epochs=2).epochs[0]
    first = TensorBoardRun(tmp_path / "0")
    first.start({"lr": 0.1})
    first.epoch(rows[0])
    TensorBoardRun(tmp_path / "0").epoch(rows[1])
    assert [p.step for p in read(tmp_path / "0").Scalars("lr")] == [1, 2]
    assert len(list((tmp_path / "0").iterdir())) == 1


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_record_that_a_crash_cut_off_does_not_hide_later_ones(tmp_path, study, cut):
    rows = study({"lr": [0.1]}, epochs=3).epochs[0]
    run = TensorBoardRun(tmp_path / "0")
    run.start({"lr": 0.1})
    run.epoch(rows[0])
    run.epoch(rows[1])
    (file,) = (tmp_path / "0").iterdir()
    file.write_bytes(file.read_bytes()[:-cut])
    TensorBoardRun(tmp_path / "0").epoch(rows[2])
    assert [p.step for p in read(tmp_path / "0").Scalars("lr")] == [1, 3]


def test_starting_again_forgets_the_attempt_before(tmp_path, study):
    write(tmp_path / "0", study)
    write(tmp_path / "0", study)
    assert [p.step for p in read(tmp_path / "0").Scalars("lr")] == [1, 2, 3]


def test_tensorboard_lists_the_runs_as_one_experiment_with_all_keys(tmp_path, study):
    from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins import base_plugin
    from tensorboard.plugins.hparams import backend_context

    for number, rate in enumerate([0.1, 0.01]):
        write(tmp_path / str(number), study, params=PARAMS | {"lr": rate})
    multiplexer = plugin_event_multiplexer.EventMultiplexer().AddRunsFromDirectory(str(tmp_path))
    multiplexer.Reload()
    provider = data_provider.MultiplexerDataProvider(multiplexer, str(tmp_path))
    backend = backend_context.Context(base_plugin.TBContext(data_provider=provider))
    request = RequestContext()
    content = backend.hparams_metadata(request, "")
    experiment = backend.experiment_from_metadata(
        request, "", True, content, backend.hparams_from_data_provider(request, "", 100)
    )
    assert {i.name for i in experiment.hparam_infos} == set(PARAMS)
    (lr,) = [i for i in experiment.hparam_infos if i.name == "lr"]
    assert (lr.domain_interval.min_value, lr.domain_interval.max_value) == (0.01, 0.1)
    assert {m.name.tag for m in experiment.metric_infos} >= set(SCALARS)
    assert sorted(content) == ["0", "1"]


def test_writing_needs_neither_torch_nor_tensorflow(tmp_path):
    code = (
        "import sys; from pathlib import Path; from gridsearch.reporting import TensorBoardRun\n"
        f"run = TensorBoardRun(Path({str(tmp_path / '0')!r})); run.start({{'lr': .1}}); run.finish({{'a': 1.0}})\n"
        "print(sorted({'torch', 'tensorflow', 'matplotlib', 'pandas'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
