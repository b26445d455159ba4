"""Every key of the original's files maps, on key lists of the 7B model and on the recorded tiny one."""

import pytest
import torch
from torch import Tensor

from omgvision import OmgLlavaConfig, OmgLlavaForConditionalGeneration, UserError
from omgvision.conversion import convert_omg_llava
from omgvision.conversion.omg_llava import read_omg_llava, split_adapter
from omgvision.conversion.report import ConversionReport
from tests.golden import read_json as read_omg_seg_json
from tests.golden_llava import load, read_json

FINETUNE = "omg_llava_7b_finetune_8gpus.pth (require_omg_decoder=False)"
PRETRAIN = "omg_llava_7b_pretrain_8gpus.pth"
DECODER = "finetuned_refseg.pth / finetuned_gcg.pth (require_omg_decoder=True): keys in addition to the finetune set"
LISTS = {"pretrain": [PRETRAIN], "finetune": [FINETUNE], "refseg, gcg": [FINETUNE, DECODER]}


def on_meta(*names: str) -> dict[str, Tensor]:
    lists = read_json("state_keys")
    return {key: torch.empty(shape, device="meta") for name in names for key, (shape, _) in lists[name].items()}


def open_clip() -> dict[str, Tensor]:
    keys = read_omg_seg_json("keys_text_convl")["raw_open_clip_CLIP_model"]["keys"]
    return {key: torch.empty(value["shape"], device="meta") for key, value in keys.items()}


def dry_run(
    *names: str, merge: bool = False, more: dict[str, Tensor] | None = None
) -> tuple[OmgLlavaConfig, dict[str, Tensor], ConversionReport]:
    return read_omg_llava(
        on_meta(*names) | (more or {}),
        on_meta('omg_seg_convl.pth["state_dict"]') | open_clip(),
        on_meta("internlm2-chat-7b (base LLM)"),
        torch.empty(133, 5, 768, device="meta"),
        merge=merge,
    )


def shapes(state: dict[str, Tensor]) -> dict[str, list[int]]:
    return {key: list(tensor.shape) for key, tensor in state.items()}


@pytest.mark.parametrize("case", LISTS)
def test_published_files_map_completely(case):
    config, state, report = dry_run(*LISTS[case])
    assert report.unexpected == []
    weights, adapter = split_adapter(state)
    with torch.device("meta"):
        model = OmgLlavaForConditionalGeneration(config)
    assert shapes(weights) == shapes(model.state_dict())  # 0 missing, 0 unexpected, shapes equal
    # Queries, keys and values have an adapter each, where the original's packed projection has one.
    assert len(adapter) == (0 if case == "pretrain" else 2 * (32 * 7 + 1))
    assert config.own_mask_decoder == (case == "refseg, gcg")


def test_defaults_are_the_published_model():
    config, _, _ = dry_run(FINETUNE)
    published = OmgLlavaConfig()
    ours, theirs = config.to_dict(), published.to_dict()
    for name in (
        "image_size",
        "pixel_shuffle",
        "segment_token_id",
        "region_token_id",
        "mark_token_id",
        "image_token_id",
    ):
        assert ours[name] == theirs[name], name
    sizes = ("vocab_size", "hidden_size", "num_hidden_layers", "num_key_value_heads", "rope_parameters", "rms_norm_eps")
    assert {name: ours["text_config"][name] for name in sizes} == {name: theirs["text_config"][name] for name in sizes}
    assert ours["vision_config"]["num_classes"] == 133


def test_merged_adapters_leave_no_names():
    _, state, _ = dry_run(FINETUNE, merge=True)
    assert split_adapter(state)[1] == {}


def test_unknown_keys_are_reported():
    """The published fine-tuned file has 110 keys more than the original's code explains."""
    more = {f"llm.base_model.model.model.layers.{index}.mystery": torch.empty(1, device="meta") for index in range(3)}
    more |= {"visual_encoder.buffer": torch.empty(2, device="meta")}
    more |= {
        f"llm.base_model.model.model.vision_tower.lora_{factor}.default.weight": torch.empty(1, 1, device="meta")
        for factor in "AB"
    }
    _, state, report = dry_run(FINETUNE, more=more)
    assert sorted(report.unexpected) == sorted(more)
    assert not set(more) & set(report.matched)
    assert shapes(state) == shapes(dry_run(FINETUNE)[1])


def test_the_text_tower_is_left_out_and_said():
    _, _, report = dry_run(FINETUNE)
    assert any("text tower" in reason for reason in report.ignored.values())


def tiny(name: str = "omg_llava_finetune", **parts) -> dict:
    given = {
        "finetuned": load(f"tiny/{name}"),
        "encoder": load("tiny/omg_seg_encoder"),
        "llm": load("tiny/llm/model"),
        "class_embeddings": load("tiny/ov_class_embed")["class_embed"],
        "config": {"image_size": 256, "text_config": read_json("tiny/llm/config")},
    }
    return given | parts


@pytest.mark.parametrize("merge", [True, False])
@pytest.mark.parametrize("finetuned", ["omg_llava_pretrain", "omg_llava_finetune", "omg_llava_finetune_decoder"])
def test_tiny_files_load_strictly(finetuned, merge):
    config, state = convert_omg_llava(**tiny(finetuned), merge_lora=merge)
    model = OmgLlavaForConditionalGeneration(config)
    model.load_state_dict(split_adapter(state)[0], strict=True)
    assert torch.equal(model.model.vision_tower.class_embeddings, tiny()["class_embeddings"])


def test_own_decoder_takes_its_levels_from_the_frozen_one():
    _, state = convert_omg_llava(**tiny("omg_llava_finetune_decoder"))
    name = "mask_decoder.level_embed"
    assert torch.equal(state[f"model.{name}"], state[f"model.vision_tower.model.{name}"])
    weight = "mask_decoder.post_norm.weight"
    assert not torch.equal(state[f"model.{weight}"], state[f"model.vision_tower.model.{weight}"])


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match=r"class embeddings: expected .* 32\]"):
        convert_omg_llava(**tiny(class_embeddings=torch.zeros(12, 3, 16)))
    with pytest.raises(UserError, match="not an OMG-LLaVA checkpoint"):
        convert_omg_llava(**tiny(finetuned={"weight": torch.zeros(1)}))
    with pytest.raises(UserError, match="not an InternLM2 checkpoint"):
        convert_omg_llava(**tiny(llm=load("tiny/omg_seg_encoder")))
    wide = tiny()["finetuned"] | {"projector.model.model_feat.0.weight": torch.zeros(64, 700)}
    with pytest.raises(UserError, match="segmenter that it was trained with"):
        convert_omg_llava(**tiny(finetuned=wide))
    with pytest.raises(UserError, match="has no field side"):
        convert_omg_llava(**tiny(config={"side": 3, "text_config": read_json("tiny/llm/config")}))
    halved = {key: value for key, value in tiny()["finetuned"].items() if "output.lora_B" not in key}
    with pytest.raises(UserError, match="lora_A and lora_B"):
        convert_omg_llava(**tiny(finetuned=halved))
