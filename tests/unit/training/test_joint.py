"""The published recipes: their numbers, their mixture, and the model over CLIP weights."""

from pathlib import Path

import numpy as np
import pytest
import torch

import omgvision as omg
from omgvision.data import ClipSource, PseudoClips, Sample, Source
from omgvision.data.transforms import ORIGINAL_AUGMENTATION
from omgvision.training.optimizer import learning_rate_factor
from omgvision.training.recipes import joint
from omgvision.training.start import over_clip
from omgvision.training.words import FixedWords
from tests import joint_layouts


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return joint_layouts.write_clip(tmp_path_factory.mktemp("clip"))


def small_config(**fields) -> omg.OmgSegConfig:
    return omg.OmgSegConfig(
        hidden_size=32, num_queries=4, encoder_layers=1, decoder_layers=1, group_norm_groups=8, **fields
    )


def test_head_is_new_and_clip_is_as_it_was(clip_folder):
    model, processor = over_clip(clip_folder, small_config())
    backbone = omg.ClipConvNextBackbone.from_pretrained(clip_folder)
    for name, tensor in backbone.state_dict().items():
        torch.testing.assert_close(model.model.backbone.state_dict()[name], tensor, rtol=0, atol=0)
    trained = {name.split(".")[0] for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {"model", "classifier", "iou_head"}
    assert not any(parameter.requires_grad for parameter in model.model.backbone.parameters())
    words = FixedWords(model, processor=processor)
    embeddings = words(["cat,kitten", "sky"])
    assert embeddings.shape == (2, 2, 16) and not embeddings.requires_grad
    assert words(["cat,kitten", "sky"]) is embeddings


def test_a_thing_and_stuff_of_one_name_have_the_embedding_of_that_name(clip_folder):
    model, processor = over_clip(clip_folder, small_config())
    words = FixedWords(model, processor=processor)
    alone, twice = words(["door", "sky,heaven"]), words(["door", "sky,heaven", "door"])
    torch.testing.assert_close(twice, alone[[0, 1, 0]], rtol=0, atol=0)


def test_closed_set_trains_the_backbone(clip_folder):
    model, _ = over_clip(clip_folder, small_config(freeze_backbone=False))
    assert all(parameter.requires_grad for parameter in model.model.backbone.parameters())


def test_a_folder_without_its_parts_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"clip: expected a folder with config.json.*omg convert"):
        over_clip(tmp_path, small_config())


def test_published_numbers():
    recipe = joint.joint()
    assert (recipe.epochs, recipe.stages[0].size, recipe.stages[0].batch_size) == (12, (736, 1280), 1)
    settings = recipe.optimizer
    assert (settings.learning_rate, settings.weight_decay, settings.clip_norm) == (1e-4, 0.05, 0.01)
    assert (settings.backbone_factor, settings.base_batch_size, settings.warmup_steps) == (0.1, 16, 500)
    after = [learning_rate_factor(settings, step=10**6, share=epoch / 12) for epoch in (7.99, 8, 10.99, 11)]
    assert after == pytest.approx([1, 0.1, 0.1, 0.01])
    assert recipe.with_steps(16_000, processes=8).steps == 12 * 2000
    assert joint.objects365().stages[0].size == (1024, 1024) and joint.objects365().epochs == 4
    assert joint.closed_set().train_backbone and not recipe.train_backbone
    assert (joint.PSEUDO_CLIPS.scale, joint.PSEUDO_CLIPS.crops) == ((0.8, 2.0), "independent")
    assert joint.CITYSCAPES_CLIPS.scale == (0.8, 1.5) and joint.ADE_CLIPS.scale == (0.1, 2.0)
    assert (joint.PROMPTED.scale, joint.PROMPTED.min_area) == ((0.1, 2.0), 32)


class Photographs:
    """Pictures of one class."""

    def __init__(self, name: str, *, thing: bool):
        self.names, self.things = (name,), (thing,)

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Sample:
        return Sample(
            image=torch.zeros(3, 8, 8, dtype=torch.uint8),
            segment_layers=torch.ones(1, 8, 8, dtype=torch.int16),
            labels=torch.tensor([0]),
            names=self.names,
            things=self.things,
            sample_id=str(index),
            dataset=self.names[0],
        )


def test_shares_become_sources_of_one_vocabulary():
    cats, dogs = Photographs("cat,kitten", thing=True), Photographs("kitten", thing=True)
    shares = [
        joint.Share(PseudoClips(cats), cats.names, cats.things, 1, ORIGINAL_AUGMENTATION),
        joint.Share(dogs, dogs.names, dogs.things, 15, ORIGINAL_AUGMENTATION),
    ]
    clips, pictures = joint.merged(shares)
    assert isinstance(clips, ClipSource) and isinstance(pictures, Source)
    assert (clips.repeat, pictures.repeat) == (1, 15)
    # "kitten" is not the first name of the earlier class, yet one of its synonyms.
    assert clips.dataset.clip(0, np.random.default_rng(0)).names == pictures.dataset[0].names == ("cat,kitten",)
