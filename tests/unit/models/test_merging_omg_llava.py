"""Text, pictures and prompts in one sequence, and all that does not fit."""

import pytest
import torch
from torch import Tensor

from omgvision.models.omg_llava.merging_omg_llava import IGNORED, MergedInputs, merge

IMAGE, MARK, REGION = 90, 91, 92
WIDTH = 3


def embed(ids: Tensor) -> Tensor:
    assert (ids < 50).all()  # placeholders have no row
    return ids[:, None].float().expand(-1, WIDTH)


def visual(start: int, count: int) -> Tensor:
    return torch.arange(start, start + count)[:, None].float().expand(-1, WIDTH)


def merged(rows: list[list[int]], images: list[Tensor], prompts: list[Tensor] | None = None, **options) -> MergedInputs:
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return merge(
        ids,
        mask,
        options.pop("labels", None),
        embed=embed,
        image_tokens=images,
        prompt_tokens=prompts or (),
        image_token_id=IMAGE,
        prompt_token_ids=(MARK, REGION),
        padding_side=options.pop("padding_side", "right"),
    )


def test_everything_in_its_place():
    found = merged(
        [[1, IMAGE, 2, MARK, 3, REGION], [4, 5]],
        [visual(100, 3)],
        [visual(200, 2)],
        labels=torch.tensor([[1, 1, 2, 2, 3, 3], [4, 5, 7, 7, 7, 7]]),
    )
    assert found.inputs_embeds[..., 0].tolist() == [[1, 100, 101, 102, 2, 200, 3, 201], [4, 5, 0, 0, 0, 0, 0, 0]]
    assert found.labels is not None
    none = IGNORED
    assert found.labels.tolist() == [
        [1, none, none, none, 2, none, 3, none],
        [4, 5, none, none, none, none, none, none],
    ]
    assert found.attention_mask.tolist() == [[1] * 8, [1, 1, 0, 0, 0, 0, 0, 0]]
    assert found.position_ids.tolist() == [list(range(8)), [0, 1, 0, 0, 0, 0, 0, 0]]
    assert found.token_ids[0].tolist() == [1, IMAGE, IMAGE, IMAGE, 2, MARK, 3, REGION]
    assert found.image_index.tolist() == [0, -1]


def test_padding_on_the_left():
    found = merged([[1, 2, 3], [IMAGE]], [visual(100, 2)], padding_side="left")
    assert found.inputs_embeds[..., 0].tolist() == [[1, 2, 3], [0, 100, 101]]
    assert found.position_ids.tolist() == [[0, 1, 2], [0, 0, 1]]
    assert found.attention_mask.tolist() == [[1, 1, 1], [0, 1, 1]]


def test_pictures_belong_to_image_tokens_in_order():
    found = merged([[IMAGE, 1], [2], [3, IMAGE]], [visual(100, 1), visual(200, 2)])
    assert found.image_index.tolist() == [0, -1, 1]
    assert found.inputs_embeds[..., 0].tolist() == [[100, 1, 0], [2, 0, 0], [3, 200, 201]]


@pytest.mark.parametrize(
    ("rows", "images", "prompts", "say"),
    [
        ([[IMAGE, 1, IMAGE]], 2, None, "at most one image token in a conversation, got 2"),
        ([[IMAGE], [IMAGE]], 1, None, "got 2 tokens and 1 pictures"),
        ([[1, 2]], 1, None, "got 0 tokens and 1 pictures"),
        ([[1, MARK]], 0, None, "expected a picture in conversation 0, which speaks of 1 prompts"),
        ([[IMAGE, MARK, REGION]], 1, 1, "one for each of 2 placeholders in conversation 0, got 1"),
        ([[IMAGE, MARK]], 1, 2, "one for each of 1 placeholders in conversation 0, got 2"),
        ([[IMAGE, MARK]], 1, None, "one for each of 1 placeholders in conversation 0, got 0"),
        ([[IMAGE, 1]], 1, 1, "one for each of 0 placeholders in conversation 0, got 1"),
    ],
)
def test_what_does_not_fit_is_said(rows, images, prompts, say):
    """The original cuts or repeats prompts and switches the loss of the whole batch off; we complain."""
    given = None if prompts is None else [visual(200, prompts)] * images
    with pytest.raises(ValueError, match=say):
        merged(rows, [visual(100, 2)] * images, given)


def test_gradients_reach_pictures_and_prompts():
    picture, prompt = visual(100, 2).clone().requires_grad_(), visual(200, 1).clone().requires_grad_()
    merged([[1, IMAGE, MARK]], [picture], [prompt]).inputs_embeds.sum().backward()
    assert picture.grad is not None and prompt.grad is not None
    assert picture.grad.tolist() == [[1.0] * WIDTH] * 2
    assert prompt.grad.tolist() == [[1.0] * WIDTH]
