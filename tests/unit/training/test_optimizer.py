"""Parameter groups, the learning rate's course, averaged weights."""

import pytest
import torch
from torch import nn

from omgvision.training.optimizer import AveragedWeights, learning_rate_factor, parameter_groups
from omgvision.training.recipe import OptimizerSettings


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(1, 4))
        self.text_model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4))
        self.head = nn.Linear(4, 2)
        self.frozen = nn.Linear(4, 2).requires_grad_(False)
        self.queries = nn.Parameter(torch.zeros(7, 4))


def test_groups_cover_every_trainable_parameter_once():
    model = Model()
    settings = OptimizerSettings(learning_rate=1.0, weight_decay=0.1, backbone_factor=0.5, text_factor=0.25)
    groups = parameter_groups(model, settings)
    found = {id(parameter): (group["lr"], group["weight_decay"]) for group in groups for parameter in group["params"]}
    assert len(found) == sum(len(group["params"]) for group in groups)
    expected = {
        "backbone.0.weight": (0.5, 0.1),
        "backbone.0.bias": (0.5, 0.0),
        "backbone.1.weight": (0.5, 0.0),
        "backbone.1.bias": (0.5, 0.0),
        "text_model.0.weight": (0.25, 0.0),
        "text_model.1.weight": (0.25, 0.1),
        "text_model.1.bias": (0.25, 0.0),
        "head.weight": (1.0, 0.1),
        "head.bias": (1.0, 0.0),
        "queries": (1.0, 0.0),
    }
    names = {name: found[id(parameter)] for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert names == expected


def test_groups_of_the_original():
    """Norms, learned queries and the level embedding do not decay; biases do."""
    model = Model()
    model.query_features, model.level_embed = nn.Parameter(torch.zeros(7, 4)), nn.Parameter(torch.zeros(3, 4))
    groups = parameter_groups(model, OptimizerSettings(weight_decay=0.1, decayed="original"))
    undecayed = {id(parameter) for group in groups if not group["weight_decay"] for parameter in group["params"]}
    names = {name for name, parameter in model.named_parameters() if id(parameter) in undecayed}
    assert names == {"backbone.1.weight", "backbone.1.bias", "query_features", "level_embed"}


def test_cosine_starts_low_peaks_and_falls():
    settings = OptimizerSettings(warmup_steps=10, final_factor=0.1)
    assert learning_rate_factor(settings, step=0, share=0.0) == pytest.approx(0.001)
    assert learning_rate_factor(settings, step=10, share=0.0) == pytest.approx(1.0)
    assert learning_rate_factor(settings, step=500, share=0.5) == pytest.approx(0.55)
    assert learning_rate_factor(settings, step=999, share=1.0) == pytest.approx(0.1)


def test_steps_fall_at_the_milestones():
    settings = OptimizerSettings(schedule="steps", warmup_steps=0, milestones=(0.5, 0.75))
    rates = [learning_rate_factor(settings, step=100, share=share) for share in (0.49, 0.5, 0.75)]
    assert rates == pytest.approx([1, 0.1, 0.01])


def test_average_is_exponential_and_swaps_back():
    weight = torch.zeros(1)
    averaged = AveragedWeights([weight], 0.5)
    averaged.updates = 100  # beyond the ramp of the decay
    weight.fill_(1.0)
    averaged.update([weight])
    averaged.update([weight])
    assert averaged.values[0].item() == pytest.approx(0.75)
    with averaged.applied([weight]):
        assert weight.item() == pytest.approx(0.75)
    assert weight.item() == 1.0
    assert averaged.values[0].item() == pytest.approx(0.75)


def test_averages_of_half_precision_are_single():
    weight = torch.ones(1, dtype=torch.bfloat16)
    averaged = AveragedWeights([weight], 0.999)
    averaged.updates = 10**6
    weight.fill_(2.0)
    averaged.update([weight])
    assert averaged.values[0].item() == pytest.approx(1.001)
