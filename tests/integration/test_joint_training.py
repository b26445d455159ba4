"""The published recipes, each on tiny folders in the real layouts: a step of every data set, and a dry run."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from omg_cli.main import run
from omgvision.data import Batch, Mixture
from omgvision.models.omg_seg.configuration_omg_seg import OmgSegConfig
from omgvision.training.recipes import joint
from omgvision.training.run import build
from omgvision.training.trainer import train
from tests import joint_layouts

JOINT = ("coco-panoptic", "youtube-vis-2019", "vipseg", "cityscapes", "coco-sam")
DATASETS = {
    "joint": JOINT,
    "joint_yt21": (*JOINT, "youtube-vis-2021"),
    "single_machine": JOINT,
    "closed_set": (*JOINT[:-1], "youtube-vis-2021", "ade20k-panoptic"),
    "objects365": ("objects365",),
}
CLIPS = {"coco-panoptic", "youtube-vis-2019", "youtube-vis-2021", "vipseg", "cityscapes", "ade20k-panoptic"}

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable.*:FutureWarning")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Settings that every recipe needs: the data, and a small CLIP."""
    root = tmp_path_factory.mktemp("joint")
    data, clip = joint_layouts.write_all(root / "data"), joint_layouts.write_clip(root / "clip")
    return {"data": str(data), "clip": str(clip), "strict": "true", "workers": "0", "stages.0.size": "64,64"}


@pytest.fixture(autouse=True)
def small_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything above the backbone is of a fixed size in the recipes."""
    sizes: dict[str, Any] = {"hidden_size": 32, "num_attention_heads": 2, "group_norm_groups": 4, "num_queries": 8}
    sizes |= {"encoder_layers": 1, "encoder_ffn_dim": 32, "decoder_layers": 2, "decoder_ffn_dim": 32}
    monkeypatch.setattr(joint, "OmgSegConfig", partial(OmgSegConfig, **sizes, num_loss_points=64))


class EachOnce:
    """A mixture's data sets one after the other, a step each."""

    def __init__(self, mixture: Mixture):
        self.mixture, self.steps = mixture, mixture.kinds_of_steps()
        self.seen: list[Batch] = []

    def batch(self, step: int, **named: Any) -> Batch:
        self.seen.append(self.mixture.batch(self.steps[step], **named))
        return self.seen[-1]


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_of_a_published_recipe_trains(name: str, folders: dict[str, str], tmp_path: Path):
    built = build(name, folders | {"out": str(tmp_path)})
    assert isinstance(built.source, Mixture)
    source = EachOnce(built.source)
    train(built.objective, source, replace(built.recipe, steps=len(source.steps), log_every=1, checkpoint_every=0))
    datasets = [batch.dataset for batch in source.seen]
    assert set(datasets) == set(DATASETS[name])
    assert {batch.dataset for batch in source.seen if batch.pixel_values.dim() == 5} == CLIPS & set(DATASETS[name])
    assert {batch.dataset for batch in source.seen if batch.prompts is not None} == {"coco-sam"} & set(DATASETS[name])
    entries = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert len(entries) == len(DATASETS[name])
    for entry, dataset in zip(entries, datasets[:: built.recipe.accumulation], strict=True):
        losses = {key: entry[key] for key in entry.keys() & {"loss", "objects", "prompts", "gradient_norm"}}
        assert losses.keys() == {"loss", "gradient_norm", "prompts" if dataset == "coco-sam" else "objects"}
        assert all(value is not None and value > 0 for value in losses.values()), dataset


def test_a_published_recipe_is_measured_on_coco(folders: dict[str, str], tmp_path: Path):
    built = build("joint", folders | {"out": str(tmp_path)})
    with torch.inference_mode():
        numbers = built.entry.probe(built.recipe)(built.objective.eval())
    assert numbers.keys() >= {"coco mIoU", "click IoU@1", "click IoU@3"}
    assert all(0 <= value <= 1 for value in numbers.values())


def test_a_dry_run_of_a_published_recipe(folders: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    settings = [f"{key}={value}" for key, value in (folders | {"out": str(tmp_path / "run")}).items()]
    assert run(["train", "joint", *settings, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    for dataset in DATASETS["joint"]:
        assert dataset in shown
    assert "activations" in shown and not (tmp_path / "run").exists()
