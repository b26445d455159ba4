"""The average of two runs: its parameters, its vocabulary, and what cannot be averaged."""

from pathlib import Path

import pytest
import torch

import omgvision
from omgvision.training import average
from omgvision.training.export import export_weights, processor_for
from tests.models import random_model, small_text_config


def written(folder: Path, names: list[str], *, factor: float, queries: int = 6) -> str:
    """A model of which every parameter is `factor` times that of another call."""
    model = random_model(text_config=small_text_config(), num_queries=queries)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(factor)
    things = [name != "sky" for name in names]
    export_weights(model, folder, names=names, things=things, processor=processor_for(64), dtype=torch.float32)
    return str(folder)


def test_parameters_are_averaged_and_words_embedded_anew(tmp_path):
    first = written(tmp_path / "first", ["cat", "sky", "car"], factor=1.0)
    second = written(tmp_path / "second", ["dog", "sky"], factor=2.0)
    average.main([f"{first}=0.25", f"{second}=0.75", "--out", str(tmp_path / "out")])
    one, both = (omgvision.load(folder, device="cpu", dtype="float32") for folder in (first, tmp_path / "out"))
    for (name, before), after in zip(one.model.named_parameters(), both.model.parameters(), strict=True):
        torch.testing.assert_close(after, 1.75 * before, rtol=2e-3, atol=1e-5, msg=name)
    assert both.classes == ["dog", "sky"]
    assert both.model.get_buffer("thing_mask").tolist() == [True, False]
    embedded = both.processor.encode_vocabulary(["dog", "sky"], model=both.model)
    torch.testing.assert_close(both.model.get_buffer("class_embeddings"), embedded, rtol=2e-3, atol=2e-3)


def test_what_cannot_be_averaged(tmp_path, capsys):
    first = written(tmp_path / "first", ["cat"], factor=1.0)
    other = written(tmp_path / "other", ["cat"], factor=1.0, queries=7)
    for parts, say in (
        ([f"{first}=0.5", f"{first}=0.4"], "expected a sum of 1, got 0.9"),
        ([f"{first}=0.5", f"{other}=0.5"], "models of different shapes"),
        ([first], "expected WEIGHTS=SHARE"),
    ):
        with pytest.raises(SystemExit) as stopped:
            average.main([*parts, "--out", str(tmp_path / "out")])
        assert stopped.value.code == 2
        assert say in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
