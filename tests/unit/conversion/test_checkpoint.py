"""Checkpoint files: what is read, and what is refused without being run."""

import os
import pickle
import sys
import types
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from omgvision.conversion import load_checkpoint
from omgvision.conversion.checkpoint import read_checkpoint

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.bfloat16)}


def assert_weights(loaded):
    assert loaded.keys() == WEIGHTS.keys()
    for key, tensor in WEIGHTS.items():
        assert torch.equal(loaded[key], tensor)
        assert loaded[key].dtype == tensor.dtype


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", ["model.pth", "open_clip_pytorch_model.bin", "checkpoint"])
def test_pytorch_file(tmp_path, name, zipped):
    torch.save(WEIGHTS, tmp_path / name, _use_new_zipfile_serialization=zipped)
    assert_weights(load_checkpoint(tmp_path / name))


@pytest.mark.parametrize("name", ["model.safetensors", "blob"])
def test_safetensors_file(tmp_path, name):
    save_file(WEIGHTS, tmp_path / name)
    assert_weights(load_checkpoint(tmp_path / name))


def test_data_parallel_prefix_is_removed(tmp_path):
    torch.save(
        {"epoch": 3, "state_dict": {f"module.{key}": value for key, value in WEIGHTS.items()}}, tmp_path / "a.pt"
    )
    assert_weights(load_checkpoint(tmp_path / "a.pt"))


class HistoryBuffer:
    """As mmengine's: two NumPy arrays and a length."""

    def __init__(self):
        self.max_length = 1000
        self._log_history = np.array([1.5, 2.5])
        self._count_history = np.array([1, 1])


@pytest.fixture
def mmengine_checkpoint(tmp_path, monkeypatch):
    """What `mmengine.runner.Runner.save_checkpoint` writes, made with a fake mmengine that is gone afterwards."""
    path = tmp_path / "epoch_12.pth"
    with monkeypatch.context() as patch:
        for name in ("mmengine", "mmengine.logging", "mmengine.logging.history_buffer"):
            patch.setitem(sys.modules, name, types.ModuleType(name))
        buffer = sys.modules["mmengine.logging.history_buffer"]
        patch.setattr(buffer, "HistoryBuffer", HistoryBuffer, raising=False)
        patch.setattr(HistoryBuffer, "__module__", "mmengine.logging.history_buffer")
        torch.save(
            {
                "meta": {"epoch": 12, "cfg": "model = dict()", "hook_msgs": {"best_score": np.float64(0.5)}},
                "state_dict": WEIGHTS,
                "message_hub": {"log_scalars": {"train/loss": HistoryBuffer()}, "runtime_info": {"iter": 7}},
                "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]},
                "param_schedulers": [{"last_step": 3, "_global_step": 4}],
            },
            path,
        )
    assert "mmengine" not in sys.modules
    return path


def test_training_checkpoint_of_mmengine(mmengine_checkpoint):
    assert torch.serialization.get_unsafe_globals_in_checkpoint(mmengine_checkpoint)  # plain weights_only refuses it
    with pytest.raises(pickle.UnpicklingError):
        torch.load(mmengine_checkpoint, weights_only=True)

    assert_weights(load_checkpoint(mmengine_checkpoint))
    assert "mmengine" not in sys.modules
    with pytest.raises(pickle.UnpicklingError):  # the stand-ins are not left behind in torch's list
        torch.load(mmengine_checkpoint, weights_only=True)

    _, left_out = read_checkpoint(mmengine_checkpoint)
    assert set(left_out) == {"meta", "message_hub", "optimizer", "param_schedulers"}


class RunsCode:
    """Unpickling calls os.system with a command that makes a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("layout", ["zip", "legacy", "inside state_dict", "bare pickle", "bare pickle, protocol 2"])
def test_pickle_with_code_is_refused_and_does_not_run(tmp_path, layout):
    path, marker = tmp_path / "model.pth", tmp_path / "it-ran"
    content = {"a": torch.zeros(2), "b": RunsCode(marker)}
    if layout == "inside state_dict":
        content = {"state_dict": content, "meta": {}}
    if layout.startswith("bare"):
        path.write_bytes(pickle.dumps(RunsCode(marker), protocol=2 if "2" in layout else 4))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=layout != "legacy")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # one line on stderr, not two
        with pytest.raises(ValueError, match="refused, because its pickle") as error:
            load_checkpoint(path)
    assert not marker.exists()
    assert "\n" not in str(error.value)
    if layout == "zip":
        assert "system" in str(error.value)


def test_stand_ins_do_not_open_a_way_to_code(tmp_path, monkeypatch):
    """A name below mmengine that would be a function is never resolved, even when such a module can be imported."""

    class Calls:
        def __reduce__(self):
            return harmless_looking, ("echo it-ran",)

    def harmless_looking(command):
        raise AssertionError("must not run")

    package, module = types.ModuleType("mmengine"), types.ModuleType("mmengine.evil")
    harmless_looking.__module__, harmless_looking.__qualname__ = "mmengine.evil", "harmless_looking"
    module.harmless_looking = harmless_looking  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "mmengine", package)
    monkeypatch.setitem(sys.modules, "mmengine.evil", module)
    torch.save({"state_dict": WEIGHTS, "message_hub": Calls()}, tmp_path / "model.pth")
    assert_weights(load_checkpoint(tmp_path / "model.pth"))


@pytest.mark.parametrize("name", ["model.pth", "model.safetensors"])
def test_truncated(tmp_path, name):
    path = tmp_path / name
    if name.endswith("pth"):
        torch.save(WEIGHTS, path)
    else:
        save_file(WEIGHTS, path)
    content = path.read_bytes()
    for size in (len(content) // 2, len(content) - 1, 12):
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match="truncated") as error:
            load_checkpoint(path)
        assert "\n" not in str(error.value)


def test_truncated_legacy(tmp_path):
    torch.save(WEIGHTS, tmp_path / "model.pth", _use_new_zipfile_serialization=False)
    content = (tmp_path / "model.pth").read_bytes()
    (tmp_path / "model.pth").write_bytes(content[: len(content) - 4])
    with pytest.raises(ValueError, match="truncated"):
        load_checkpoint(tmp_path / "model.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty one"),
        (b"just a text, not weights at all", "another kind of file"),
        (b"PK\x03\x04 something that only starts like an archive", "not a checkpoint"),
    ],
)
def test_not_a_checkpoint(tmp_path, content, message):
    (tmp_path / "model.pth").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_checkpoint(tmp_path / "model.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(2)], "a dict of tensors, got a list"),
        ({"epoch": 3}, "got 1 entries without any"),
        ({"state_dict": [1, 2]}, "state_dict"),
    ],
)
def test_checkpoint_without_weights(tmp_path, content, message):
    torch.save(content, tmp_path / "model.pth")
    with pytest.raises(ValueError, match=message):
        load_checkpoint(tmp_path / "model.pth")


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(ValueError, match="No such file"):
        load_checkpoint(tmp_path / "absent.pth")
    with pytest.raises(ValueError, match="Is a directory"):
        load_checkpoint(tmp_path)
