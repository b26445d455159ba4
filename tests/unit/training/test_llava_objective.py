"""The objective of OMG-LLaVA: a step divided in any way gives the same losses and gradients."""

import pytest
import torch

from omgvision.data.conversation_batches import collate_conversations
from omgvision.training.llava_objective import ConversationObjective
from tests.golden_llava import processor, random_llava
from tests.unit.data.test_conversation_batches import SIDE, conversations

SEEDS = [11, 22, 33]


@pytest.fixture(scope="module")
def objective():
    model = random_llava()
    model.config.projection_loss_weight = 10.0
    return ConversationObjective(model).train()


def batch_of(*numbers):
    samples = conversations()
    return collate_conversations([samples[number] for number in numbers], processor(SIDE), max_length=500)


def gradients(objective):
    found = {
        name: parameter.grad.clone() for name, parameter in objective.named_parameters() if parameter.grad is not None
    }
    objective.zero_grad(set_to_none=True)
    return found


def test_normalizers_count_what_is_trained(objective):
    batch = batch_of(0, 1, 2)
    counts = {name: int(count) for name, count in objective.normalizers(batch).items()}
    labelled = int((batch.inputs["labels"] != -100).sum())
    assert counts == {"tokens": labelled, "masks": 2, "pictures": 2, "batches": 1}


def test_a_divided_step_is_the_whole_step(objective):
    whole, parts = batch_of(0, 1, 2), [batch_of(0), batch_of(1), batch_of(2)]
    together = objective(whole, objective.normalizers(whole), SEEDS)
    together["loss"].backward()
    expected = gradients(objective)
    assert all(together[name] > 0 for name in ("text", "mask", "dice", "projection"))
    totals: dict[str, torch.Tensor] = {}
    for part in parts:
        for name, count in objective.normalizers(part).items():
            totals[name] = totals.get(name, torch.zeros(())) + count
    summed: dict[str, torch.Tensor] = {}
    for part, seed in zip(parts, SEEDS, strict=True):
        losses = objective(part, totals, [seed])
        losses["loss"].backward()
        for name, loss in losses.items():
            summed[name] = summed.get(name, torch.zeros(())) + loss.detach()
    found = gradients(objective)
    for name, loss in together.items():
        torch.testing.assert_close(summed[name], loss.detach(), atol=2e-4, rtol=2e-4)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-3, rtol=1e-3, msg=name)


def test_the_segmenter_stays_as_it_is(objective):
    objective(batch_of(1), None, [1])["loss"].backward()
    trained = gradients(objective)
    assert trained and not any("vision_tower" in name for name in trained)


def test_seeds_decide_the_points(objective):
    batch = batch_of(1)
    with torch.no_grad():
        first, again, other = (objective(batch, None, [seed])["mask"] for seed in (1, 1, 2))
    assert first == again and first != other


def test_text_alone_has_no_mask_losses(objective):
    with torch.no_grad():
        losses = objective(batch_of(0))
    assert losses["mask"] == 0 and losses["dice"] == 0 and losses["loss"] == losses["text"] > 0
