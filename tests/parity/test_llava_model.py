"""OMG-LLaVA against the original: what it sees, reads, points at, and its losses."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from omgvision.models.omg_llava.grounding_omg_llava import UncertainPoints, VisualPrompts, mask_losses, sample_points
from omgvision.models.omg_llava.merging_omg_llava import MergedInputs
from omgvision.models.omg_llava.modeling_omg_llava import OmgLlavaForConditionalGeneration
from omgvision.models.omg_llava.outputs_omg_llava import OmgLlavaOutput
from omgvision.models.omg_llava.projector_omg_llava import ownership, perception_prior, pixel_tokens
from tests.closeness import assert_close, assert_features
from tests.golden_llava import SIDE, golden_images, golden_llava, golden_pixels, load, with_image_token

OWN_DECODER = ["seg_frozen_decoder", "seg_own_decoder"]


def finetuned(case: str) -> str:
    return "omg_llava_finetune_decoder" if "own" in case else "omg_llava_finetune"


def golden_prompts() -> VisualPrompts:
    """A region on picture a, two points on picture b."""
    recorded = load("projector_and_prompts")
    points, labels = torch.zeros(3, 2, 1, 2), torch.full((3, 2, 1), -10)
    points[1, :, 0], labels[1] = recorded["points"].float(), 1
    masks = torch.zeros(3, 1, SIDE, SIDE, dtype=torch.bool)
    masks[0, 0] = recorded["regions"][0] > 0
    slots = torch.tensor([[-1, -1, 0], [0, 1, -1], [-1, -1, -1]])
    return VisualPrompts(points, labels, None, masks, slots)


def forward(model: OmgLlavaForConditionalGeneration, **arguments) -> OmgLlavaOutput:
    """The recorded batch through a model; its text-only conversation brings no picture."""
    batch, prompts = load("merged_inputs"), golden_prompts()
    with torch.no_grad():
        return model(
            input_ids=with_image_token(batch["input_ids"]),
            attention_mask=batch["attention_mask_in"].long(),
            labels=batch["labels_in"],
            images=golden_images(),
            input_points=prompts.points,
            input_point_labels=prompts.point_labels,
            input_masks=prompts.masks,
            prompt_slots=prompts.slots,
            **arguments,
        )


# --- seeing ----------------------------------------------------------------------------------------------------------


def test_queries_and_which_are_kept():
    recorded, images = load("encoder"), golden_images()
    assert_features(images.queries, recorded["query_pos_feat"][:3])
    assert images.kept is not None
    assert torch.equal(images.kept, recorded["query_kept"][:3])


def test_pixel_tokens_claims_and_prior():
    model, recorded = golden_llava(), load("encoder")
    tower = model.model.vision_tower
    with torch.no_grad():
        seen = tower(golden_pixels("a"))
        levels = tower.model.backbone(golden_pixels("a")).feature_maps
    encoded = seen.encoder_outputs
    for level, features in enumerate(levels):
        assert_features(features[0], recorded[f"backbone.level{level}.a"])
    assert_features(encoded.clip_features[0, 0], recorded["backbone.level3.a"])
    assert_features(encoded.mask_features[0, :, 0], recorded["pixel_decoder.mask_features.a"])
    for level, memory in enumerate(encoded.memories):
        expected = recorded[f"pixel_decoder.memory{level}.a"]
        assert_features(memory[0], expected.flatten(1).T)
    assert_features(seen.masks_queries_logits[0], recorded["mask_logits_stride4.a"])
    claims = ownership(seen.class_queries_logits, seen.masks_queries_logits, canvas=SIDE, cells=4)
    assert_features(claims[0], recorded["prob_masks_lowres.a"])


@pytest.mark.parametrize(("index", "name"), list(enumerate("abc")))
def test_objects_and_prior_of_every_picture(index, name):
    recorded = load("encoder")
    with torch.no_grad():
        seen = golden_llava().model.vision_tower(golden_pixels(name))
    assert_features(seen.class_queries_logits[0], recorded["cls_logits"][index])
    assert_features(seen.iou_logits[0], recorded["iou_logits"][index, :, 0])
    claims = ownership(seen.class_queries_logits, seen.masks_queries_logits, canvas=SIDE, cells=4)
    pixels = pixel_tokens(seen.encoder_outputs.clip_features[:, 0], block=2)
    prior, kept = perception_prior(claims, recorded["query_pos_feat"][index : index + 1])
    assert_features(torch.cat((pixels, prior), dim=-1)[0], recorded["pixel_feat_with_prior"][index])
    owned = recorded["attn_mask"][index].logical_not()
    assert torch.equal(kept[0], owned.any(1))
    assert torch.equal(claims[0].flatten(1).argmax(0), owned.float().argmax(0))


def test_visual_tokens():
    recorded, tokens = load("projector_and_prompts"), golden_images().tokens
    assert tokens is not None
    for index, found in enumerate(tokens):
        assert_features(found, recorded[f"visual_tokens.{index}"])


def test_the_originals_picture_of_zeros():
    """It has one for each conversation without a picture; we have none. In float64: PyTorch's GroupNorm in the
    channels-last layout loses three digits on pictures without any contrast."""
    recorded, model = load("encoder"), golden_llava()
    with torch.no_grad():
        model.double()
        try:
            images = model.encode_images(torch.zeros(1, 3, SIDE, SIDE, dtype=torch.float64))
            seen = model.model.vision_tower(encoder_outputs=images.encoded)
        finally:
            model.float()
    assert images.queries is not None and images.kept is not None and images.tokens is not None
    assert_features(images.queries[0].float(), recorded["query_pos_feat"][3])
    assert torch.equal(images.kept[0], recorded["query_kept"][3])
    assert_features(seen.iou_logits[0].float(), recorded["iou_logits"][3, :, 0])
    # A class is pooled from the pixels of its query's mask: rounding decides about one pixel of one mask.
    decided = seen.masks_queries_logits[0].abs().amin((1, 2)) > 1e-6
    assert decided.sum() == 19
    assert_features(seen.class_queries_logits[0].float()[decided], recorded["cls_logits"][3][decided])
    assert_features(images.tokens[0].float(), load("projector_and_prompts")["visual_tokens.3"])


def test_panoptic_masks_of_the_demo():
    """Claims at full resolution, each pixel to the query that claims it most among the kept ones."""
    recorded, model = load("vis_masks_a"), golden_llava()
    with torch.no_grad():
        seen = model.model.vision_tower(golden_pixels("a"))
        claims = ownership(seen.class_queries_logits, seen.masks_queries_logits, canvas=SIDE, cells=SIDE)[0]
    kept = recorded["kept"][0]
    owner = claims[kept].argmax(0)
    expected = recorded["vis_binary_masks"][:, 0].bool()
    differs = F.one_hot(owner, int(kept.sum())).permute(2, 0, 1).bool() != expected
    assert differs.float().mean() < 1e-4  # pixels where two queries are equal to the sixth digit


# --- prompts ---------------------------------------------------------------------------------------------------------


def test_points_and_regions():
    recorded, model = load("projector_and_prompts"), golden_llava()
    with torch.no_grad():
        region, points, none = model.model.encode_prompts(golden_prompts(), golden_images())
    assert_features(region, recorded["region_token"])
    assert_features(points, recorded["point_token"])
    assert len(none) == 0


def golden_boxes() -> VisualPrompts:
    """A box on picture a, another on picture c."""
    recorded = load("projector_and_prompts")
    assert recorded["box_batch_idx"].tolist() == [0, 2]
    boxes = torch.zeros(3, 1, 4)
    boxes[[0, 2], 0] = recorded["boxes"]
    return VisualPrompts(None, None, boxes, None, torch.tensor([[0], [-1], [0]]))


def test_boxes_look_from_their_centre_inside_of_themselves():
    with torch.no_grad():
        tokens = golden_llava().model.encode_prompts(golden_boxes(), golden_images())
    assert_features(torch.cat(tokens), load("projector_and_prompts")["box_token"])


def test_decoded_queries_of_prompts(monkeypatch):
    recorded, model, images = load("projector_and_prompts"), golden_llava().model, golden_images()
    project, decoded = model.projector.project_queries, []

    def keep(queries: Tensor) -> Tensor:
        decoded.append(queries)
        return project(queries)

    monkeypatch.setattr(model.projector, "project_queries", keep)
    with torch.no_grad():
        model.encode_prompts(golden_prompts(), images)
        model.encode_prompts(golden_boxes(), images)
    mixed, boxed = decoded  # points come before regions
    assert_features(mixed[0, 2:], recorded["region_query_out"][:, 0])
    assert_features(mixed[1, :2], recorded["point_query_out"][:, 0])
    assert_features(boxed[[0, 2], 0], recorded["box_query_out"][:, 0])


def test_initial_queries_of_prompts():
    recorded, encoded = load("projector_and_prompts"), golden_images().encoded
    encoder = golden_llava().model.vision_tower.model.prompt_encoder
    common = {"image_sizes": encoded.image_sizes[:1], "canvas_size": (SIDE, SIDE)}
    given = {
        "region": {"masks": recorded["regions"][None].bool()},
        "point": {"points": recorded["points"].float()[None, :, None]},
        "box": {"points": ((recorded["boxes"][:, :2] + recorded["boxes"][:, 2:]) / 2)[None, :, None]},
    }
    for kind, prompts in given.items():
        with torch.no_grad():
            queries = encoder(mask_features=encoded.mask_features[:1], **common, **prompts)
        assert_features(queries.features[0], recorded[f"{kind}_query_feat_in"][:, 0])
        assert_features(queries.positions[0], recorded[f"{kind}_query_pos_in"][:, 0])


# --- reading ---------------------------------------------------------------------------------------------------------


def merged() -> MergedInputs:
    batch = load("merged_inputs")
    with torch.no_grad():
        return golden_llava().model.merge_inputs(
            with_image_token(batch["input_ids"]),
            batch["attention_mask_in"].long(),
            batch["labels_in"],
            images=golden_images(),
            prompts=golden_prompts(),
        )


def test_merged_batch():
    recorded, found = load("merged_inputs"), merged()
    assert_features(found.inputs_embeds, recorded["inputs_embeds"])
    assert found.labels is not None
    assert torch.equal(found.labels, recorded["labels"])
    assert torch.equal(found.attention_mask.bool(), recorded["attention_mask"])
    assert torch.equal(found.position_ids, recorded["position_ids"])
    assert found.image_index.tolist() == [0, 1, 2, -1]


def test_logits_and_hidden_states():
    recorded, output = load("llm_forward"), forward(golden_llava(), output_hidden_states=True)
    real = load("merged_inputs")["attention_mask"]
    assert output.logits is not None and output.hidden_states is not None and output.loss_dict is not None
    assert_features(output.logits[real], recorded["logits"][real])
    for layer, states in enumerate(output.hidden_states):
        assert_features(states[real], recorded[f"hidden_states.{layer}"][real])
    assert_close(output.loss_dict["loss_text"], recorded["loss"][0], atol=1e-4)


# --- pointing --------------------------------------------------------------------------------------------------------


@dataclass
class RecordedPoints:
    """Where the original's losses looked."""

    recorded: dict[str, Tensor]

    def __call__(self, layer: int, logits: Tensor) -> Tensor:
        return self.recorded[f"point_coords.layer{layer}"]


@pytest.mark.parametrize("case", OWN_DECODER)
def test_masks_of_all_layers(case):
    recorded, output = load(case), forward(golden_llava(finetuned(case)))
    assert output.mask_logits is not None and output.auxiliary_mask_logits is not None
    assert output.mask_rows is not None
    assert output.mask_rows.tolist() == recorded["seg_batch_idx"].tolist()
    layers = [*output.auxiliary_mask_logits, output.mask_logits]
    assert len(layers) == 5
    for layer, found in enumerate(layers):
        assert_features(found, recorded[f"mask_logits.layer{layer}"][:, 0])


@pytest.mark.parametrize("case", OWN_DECODER)
def test_queries_of_segments(case):
    recorded, model = load(case), golden_llava(finetuned(case))
    with torch.no_grad():
        assert_features(model.model.text_to_vision(recorded["seg_hidden_states"]), recorded["seg_queries"])


@pytest.mark.parametrize("case", OWN_DECODER)
def test_uncertain_points_are_the_originals(case, monkeypatch):
    """With the original's random numbers: 72 candidates nearest to logit 0, and 24 more."""
    recorded = load(case)
    for layer in range(5):
        drawn = iter((recorded[f"rand_oversampled.layer{layer}"], recorded[f"rand_extra.layer{layer}"]))
        monkeypatch.setattr(torch, "rand", lambda *size, drawn=drawn, **_: next(drawn))
        logits = recorded[f"mask_logits.layer{layer}"][:, 0]
        found = UncertainPoints(96, 3.0, 0.75)(layer, logits)
        assert_close(found, recorded[f"point_coords.layer{layer}"], atol=1e-6)


@pytest.mark.parametrize("case", OWN_DECODER)
def test_mask_losses_of_every_layer(case):
    recorded = load(case)
    truth, points = recorded["gt_masks"], RecordedPoints(recorded)
    for layer in range(5):
        logits = recorded[f"mask_logits.layer{layer}"][:, 0]
        at = recorded[f"point_coords.layer{layer}"]
        assert_features(sample_points(logits, at), recorded["sampled_pred"][layer])
        assert_features(sample_points(truth.float(), at), recorded["sampled_gt"][layer])
        mask, dice = mask_losses([logits], truth, lambda layer, logits, at=at: at)
        assert_close(5 * mask, recorded[f"loss_mask.layer{layer}"][0], atol=1e-4)
        assert_close(5 * dice, recorded[f"loss_dice.layer{layer}"][0], atol=1e-4)
    layers = [recorded[f"mask_logits.layer{layer}"][:, 0] for layer in range(5)]
    mask, dice = mask_losses(layers, truth, points)
    assert_close(5 * mask, recorded["loss_mask_sum"][0], atol=1e-4)
    assert_close(5 * dice, recorded["loss_dice_sum"][0], atol=1e-4)
