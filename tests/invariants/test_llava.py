"""What holds for OMG-LLaVA with any weights and any language model."""

from functools import cache
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    DynamicCache,
    Gemma2Config,
    LogitsProcessor,
    Phi3Config,
    PhiConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
    pipeline,
)

from omgvision import OmgLlavaConfig, OmgLlavaForConditionalGeneration, OmgLlavaModel, OmgLlavaProcessor
from omgvision.models.omg_llava.outputs_omg_llava import OmgLlavaImages
from omgvision.models.omg_llava.square_omg_llava import Square
from tests import golden_llava
from tests.golden_llava import processor, random_llava, text_config, tokenizer

SIDE = 128
SIZES: dict[str, Any] = {"vocab_size": len(tokenizer()), **golden_llava.SIZES}
INTERNLM2: dict[str, Any] = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e6}
LANGUAGE_MODELS: dict[str, PreTrainedConfig] = {
    "llama": text_config(),
    "qwen2, tied": Qwen2Config(**SIZES, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**SIZES, head_dim=8),
    "phi3": Phi3Config(**SIZES),
    "phi": PhiConfig(**SIZES),
    "gemma2, tied": Gemma2Config(**SIZES, head_dim=8),
    "internlm2": text_config(rope_parameters=INTERNLM2, rms_norm_eps=1e-5),
}


class Say(LogitsProcessor):
    """Makes a model answer with these tokens."""

    def __init__(self, text: str):
        self.ids = tokenizer()(text, add_special_tokens=False)["input_ids"]
        self.prompt: int | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if self.prompt is None:
            self.prompt = input_ids.shape[1]
        forced = torch.full_like(scores, -torch.inf)
        step = input_ids.shape[1] - self.prompt
        forced[:, self.ids[step] if step < len(self.ids) else 2] = 0
        return forced


@cache
def pictures() -> tuple[Image.Image, Image.Image]:
    generator = torch.Generator().manual_seed(3)
    noise = torch.randint(0, 256, (2, 60, 90, 3), generator=generator, dtype=torch.uint8).numpy()
    wide, tall = Image.fromarray(noise[0]), Image.fromarray(noise[1]).rotate(90, expand=True)
    return wide, tall


def conversation(picture: Image.Image | None, question: str, *parts: dict[str, Any], answer: str = "") -> list[dict]:
    content = [] if picture is None else [{"type": "image", "image": picture}]
    messages = [{"role": "user", "content": [*content, {"type": "text", "text": question}, *parts]}]
    return messages + ([{"role": "assistant", "content": answer}] if answer else [])


def point(x: float, y: float) -> dict[str, Any]:
    return {"type": "point", "point": (x, y)}


def inputs(*conversations: list[dict], **given: Any) -> Any:
    options: dict[str, Any] = {"add_generation_prompt": True, **given}
    return processor(SIDE).apply_chat_template(list(conversations), tokenize=True, return_dict=True, **options)


def say(model: OmgLlavaForConditionalGeneration, given: Any, text: str, **options: Any) -> Any:
    """An answer that the model is made to give."""
    return model.generate(
        **given,
        logits_processor=[Say(text)],
        output_masks=True,
        **({"max_new_tokens": 40, "do_sample": False, "eos_token_id": 2, "pad_token_id": 2} | options),
    )


def new_text(given: Any, sequences: Tensor) -> list[str]:
    return tokenizer().batch_decode(sequences[:, given["input_ids"].shape[1] :])


@cache
def model() -> OmgLlavaForConditionalGeneration:
    return random_llava()


# --- any language model ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_any_language_model_trains_and_answers(name):
    language_model = random_llava(LANGUAGE_MODELS[name]).train()
    wide, tall = pictures()
    given = inputs(
        conversation(wide, "What is here? ", point(20, 30), answer="<p> A cat </p> [SEG]."),
        conversation(tall, "Who is it?", answer="Nobody."),
        conversation(None, "What is 1 + 1?", answer="2."),
        add_generation_prompt=False,
        return_labels=True,
    )
    masks = processor(SIDE).place_masks(torch.ones(1, 60, 90))
    output = language_model(**given, mask_labels=[masks, masks[:0], masks[:0]])
    assert output.loss_dict.keys() == {"loss_text", "loss_mask", "loss_dice"}
    assert all(value > 0 for value in output.loss_dict.values())
    output.loss.backward()
    for part in (
        language_model.model.projector.query_proj,
        language_model.model.projector.pixel_mlp[0],
        language_model.model.text_to_vision[0],
        language_model.get_input_embeddings(),
    ):
        gradient = part.weight.grad
        assert isinstance(gradient, Tensor) and gradient.isfinite().all() and gradient.abs().sum() > 0
    assert all(parameter.grad is None for parameter in language_model.model.vision_tower.parameters())

    question = inputs(conversation(wide, "Segment the cat."))
    answered = say(language_model.eval(), question, "<p> A cat </p> [SEG].")
    assert new_text(question, answered.sequences) == ["<p> A cat </p> [SEG].</s>"]
    assert [tuple(found.shape) for found in answered.mask_logits] == [(1, SIDE // 4, SIDE // 4)]
    assert tuple(language_model.generate(**question, max_new_tokens=3, min_new_tokens=3).shape) == (
        1,
        question["input_ids"].shape[1] + 3,
    )


def test_losses_of_parts_add_up_to_the_whole():
    """With the counts of the whole step, whatever is how it is divided."""
    wide, tall = pictures()
    messages = [
        conversation(wide, "What is here?", answer="<p> A cat </p> [SEG]."),
        conversation(tall, "And here?", answer="<p> A dog </p> [SEG] and <p> its bone </p> [SEG]."),
    ]
    ours = processor(SIDE)
    masks = [ours.place_masks(torch.ones(1, 60, 90)), ours.place_masks(torch.ones(2, 90, 60))]

    def points(layer: int, logits: Tensor) -> Tensor:
        return torch.linspace(0.1, 0.9, 32).view(1, 16, 2).expand(len(logits), -1, -1)

    def losses(rows: list[int], normalizers: dict[str, Tensor] | None) -> dict[str, Tensor]:
        given = inputs(*(messages[row] for row in rows), add_generation_prompt=False, return_labels=True)
        with torch.no_grad():
            output = model()(
                **given, mask_labels=[masks[row] for row in rows], loss_points=points, normalizers=normalizers
            )
        return output.loss_dict

    given = inputs(*messages, add_generation_prompt=False, return_labels=True)
    counts = {"tokens": (given["labels"] != -100).sum(), "masks": torch.tensor(3)}
    whole, first, second = losses([0, 1], counts), losses([0], counts), losses([1], counts)
    alone = losses([0, 1], None)
    for name, value in whole.items():
        torch.testing.assert_close(first[name] + second[name], value, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(alone[name], value, atol=1e-4, rtol=1e-4)


def test_head_and_embedding_are_one_where_the_language_model_says_so():
    tied = random_llava(LANGUAGE_MODELS["qwen2, tied"])
    assert tied.config.tie_word_embeddings
    assert tied.lm_head.weight is tied.get_input_embeddings().weight


def test_a_language_model_without_our_tokens_gains_rows():
    small = text_config(vocab_size=402)
    grown = random_llava(small)
    grown.resize_token_embeddings(406)
    assert grown.lm_head.out_features == grown.get_input_embeddings().num_embeddings == 406
    # <mark> and <image> have none, and still can be asked with.
    given = inputs(conversation(pictures()[0], "What is ", point(5, 5)))
    assert (given["input_ids"] >= 406).sum() == 2
    found = grown.generate(**given, max_new_tokens=4, repetition_penalty=1.3, no_repeat_ngram_size=2)
    assert torch.equal(found[:, : given["input_ids"].shape[1]], given["input_ids"])


# --- batches and caches ----------------------------------------------------------------------------------------------


def mixed() -> list[list[dict]]:
    wide, tall = pictures()
    return [
        conversation(wide, "What is at ", point(20, 30)),
        conversation(tall, "Describe region1 ", {"type": "box", "box": (5, 5, 40, 60)}, point(3, 3)),
        conversation(None, "What is 1 + 1?"),
    ]


@pytest.mark.parametrize("side", ["left", "right"])
def test_batch_is_singles(side):
    ours = processor(SIDE)
    ours.tokenizer.padding_side = side
    batch = ours.apply_chat_template(mixed(), tokenize=True, return_dict=True, add_generation_prompt=True)
    together = model().generate(**batch, max_new_tokens=6, min_new_tokens=6, do_sample=False, output_masks=True)
    for row, single in enumerate(mixed()):
        given = inputs(single)
        alone = model().generate(**given, max_new_tokens=6, min_new_tokens=6, do_sample=False, output_masks=True)
        width = batch["input_ids"].shape[1]
        assert torch.equal(together.sequences[row, width:], alone.sequences[0, given["input_ids"].shape[1] :])
        torch.testing.assert_close(together.mask_logits[row], alone.mask_logits[0], atol=1e-4, rtol=0)


def test_masks_of_a_batch_are_those_of_singles():
    batch = inputs(*mixed())
    together = say(model(), batch, "a [SEG] b [SEG]")
    assert [len(masks) for masks in together.mask_logits] == [2, 2, 0]  # text alone has no picture to point at
    for row, single in enumerate(mixed()[:2]):
        alone = say(model(), inputs(single), "a [SEG] b [SEG]")
        torch.testing.assert_close(together.mask_logits[row], alone.mask_logits[0], atol=1e-4, rtol=0)


def test_cached_is_uncached():
    given = inputs(mixed()[1])
    options = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False, "output_masks": True}
    cached = model().generate(**given, use_cache=True, **options)
    uncached = model().generate(**given, use_cache=False, **options)
    assert torch.equal(cached.sequences, uncached.sequences)


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 2},
        {"num_beams": 2, "num_return_sequences": 2},
        {"do_sample": True, "num_return_sequences": 3},
        {"prompt_lookup_num_tokens": 2},
        {"prefill_chunk_size": 7},
        {"use_cache": False},
        {"cache_implementation": "static"},
    ],
    ids=str,
)
def test_masks_of_every_way_to_generate(options):
    """Whatever the search, the masks are those that a second reading of the answers gives."""
    given = inputs(conversation(pictures()[0], "Segment it."))
    found = say(model(), given, "x [SEG] y [SEG]", **options)
    images = model().encode_images(given["pixel_values"])
    assert len(found.mask_logits) == len(found.sequences) == options.get("num_return_sequences", 1)
    for sequence, masks in zip(found.sequences, found.mask_logits, strict=True):
        with torch.no_grad():
            again = model()(input_ids=sequence[None], images=images, output_masks=True)
        torch.testing.assert_close(masks, again.mask_logits, atol=1e-4, rtol=0)


def test_pictures_are_seen_once_and_caches_continue(monkeypatch):
    """A second turn over the first one's cache says what a fresh reading of both says."""
    given = inputs(conversation(pictures()[0], "What is at ", point(20, 30)))
    images = model().encode_images(given.pop("pixel_values"))
    seen: list[Tensor] = []
    monkeypatch.setattr(model().model.vision_tower, "encode", lambda pixels: seen.append(pixels))
    cache = DynamicCache(config=model().model.language_model.config)
    options = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}
    first = model().generate(**given, images=images, past_key_values=cache, **options)
    follow = tokenizer()("<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n", add_special_tokens=False)["input_ids"]
    given["input_ids"] = torch.cat((first, torch.tensor([follow])), dim=1)
    given["attention_mask"] = torch.ones_like(given["input_ids"])
    assert cache.get_seq_length() > len(follow)
    continued = model().generate(**given, images=images, past_key_values=cache, **options)
    fresh = model().generate(**given, images=images, **options)
    assert torch.equal(continued, fresh)
    assert seen == []


def test_states_are_observed_as_they_come():
    given = inputs(conversation(pictures()[0], "Hello"))
    states: list[Tensor] = []
    found = say(model(), given, "a b", state_observer=states.append)
    assert len(states) == found.sequences.shape[1] - given["input_ids"].shape[1]
    assert all(state.shape == (1, 32) for state in states)


def test_tokens_of_questions_are_not_answered():
    """An answer brings no picture and points with [SEG] alone; what users suppress stays suppressed beside it."""
    given = inputs(conversation(pictures()[0], "What is this?"))
    config = model().config
    tokens = [config.image_token_id, config.mark_token_id, config.region_token_id]
    options = {"max_new_tokens": 1, "output_scores": True, "return_dict_in_generate": True}
    [scores] = model().generate(**given, **options).scores
    assert scores[0].isneginf().nonzero()[:, 0].tolist() == sorted(tokens)
    [scores] = model().generate(**given, **options, suppress_tokens=[5]).scores
    assert scores[0].isneginf().nonzero()[:, 0].tolist() == [5, *sorted(tokens)]
    [scores] = model().generate(**given, **options, logits_processor=[Say("a")]).scores
    assert scores[0].isfinite().sum() == 1


# --- prompts and pictures --------------------------------------------------------------------------------------------


def prompt_embeddings(*conversations: list[dict]) -> Tensor:
    """What the model reads for these conversations."""
    given = inputs(*conversations)
    images = model().encode_images(given.pop("pixel_values"))
    seen: list[Tensor] = []
    hook = model().model.language_model.register_forward_pre_hook(
        lambda module, arguments, options: seen.append(options["inputs_embeds"]), with_kwargs=True
    )
    with torch.no_grad():
        model()(**given, images=images)
    hook.remove()
    return seen[0]


def test_clicks_on_two_pictures_do_not_mix():
    wide, tall = pictures()
    both = prompt_embeddings(
        conversation(wide, "What is ", point(20, 30)), conversation(tall, "What is ", point(10, 70))
    )
    swapped = prompt_embeddings(
        conversation(tall, "What is ", point(10, 70)), conversation(wide, "What is ", point(20, 30))
    )
    first, second = (
        prompt_embeddings(conversation(*each))
        for each in (
            (wide, "What is ", point(20, 30)),
            (tall, "What is ", point(10, 70)),
        )
    )
    for row, single in enumerate((first, second)):
        torch.testing.assert_close(both[row, : single.shape[1]], single[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(swapped[1 - row, : single.shape[1]], single[0], atol=1e-5, rtol=0)
    moved = prompt_embeddings(
        conversation(wide, "What is ", point(20, 30)), conversation(tall, "What is ", point(50, 20))
    )
    torch.testing.assert_close(moved[0], both[0], atol=1e-5, rtol=0)
    assert not torch.allclose(moved[1], both[1], atol=1e-3)


def test_prompts_come_in_the_order_of_the_text():
    """Whatever their kinds: the model has them kind by kind."""
    wide, _ = pictures()
    box = {"type": "box", "box": (10, 10, 50, 40)}
    one = prompt_embeddings(conversation(wide, "", box, {"type": "text", "text": " and "}, point(70, 20)))[0]
    other = prompt_embeddings(conversation(wide, "", point(70, 20), {"type": "text", "text": " and "}, box))[0]
    differs = (one - other).abs().amax(1) > 1e-4
    first, second = differs.nonzero()[:, 0][[0, -1]].tolist()
    torch.testing.assert_close(one[first], other[second], atol=1e-5, rtol=0)
    torch.testing.assert_close(one[second], other[first], atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(60, 90), (90, 60), (64, 64), (7, 200), (201, 10)])
def test_masks_are_in_the_frame_of_the_picture(size):
    height, width = size
    square = Square(height, width, SIDE)
    painted = torch.zeros(1, height, width, dtype=torch.bool)
    painted[:, height // 4 : height // 2 + 1, width // 3 : 2 * width // 3 + 1] = True
    logits = square.masks(painted).float() * 20 - 10
    restored = processor(SIDE).post_process_masks(logits, size=size)
    assert restored.shape == (1, height, width)
    # Up to the pixels of the network input that the edges fall into.
    edge = int(2 * max(1, 1 / square.scale)) + 1
    differs = (restored != painted)[0].nonzero()
    inside = differs[:, 0].sub(height // 4).abs().minimum(differs[:, 0].sub(height // 2).abs())
    across = differs[:, 1].sub(width // 3).abs().minimum(differs[:, 1].sub(2 * width // 3).abs())
    assert (torch.minimum(inside, across) <= edge).all()
    assert restored.sum() > 0


def test_original_pixels_survive_the_square():
    """A point in the picture lies on the same grey value in the network input."""
    gradient = torch.arange(40).repeat(20, 1).to(torch.uint8) * 6
    picture = Image.fromarray(gradient.numpy()).convert("RGB")
    square = processor(SIDE).square((20, 40))
    pixels = processor(SIDE)(picture, "<image>\n")["pixel_values"][0, 0]
    x, y = square.points(torch.tensor([10.5, 10.5])).long().tolist()
    grey = (pixels[y, x] * 0.2686 + 0.4814) * 255
    assert abs(grey - 60) < 4


# --- saving ----------------------------------------------------------------------------------------------------------


def test_saved_and_loaded(tmp_path):
    model().save_pretrained(tmp_path)
    processor(SIDE).save_pretrained(tmp_path)
    both: Any = OmgLlavaForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    loaded, report = both
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert not any(each.requires_grad for each in loaded.model.vision_tower.parameters())
    assert type(AutoModelForImageTextToText.from_pretrained(tmp_path)) is OmgLlavaForConditionalGeneration
    assert type(OmgLlavaModel.from_pretrained(tmp_path)) is OmgLlavaModel
    ours = AutoProcessor.from_pretrained(tmp_path)
    assert type(ours) is OmgLlavaProcessor
    assert ours.chat_template == processor(SIDE).chat_template
    given = ours.apply_chat_template(mixed(), tokenize=True, return_dict=True, add_generation_prompt=True)
    before = inputs(*mixed())
    assert all(torch.equal(given[name], before[name]) for name in before)
    with torch.no_grad():
        assert torch.equal(loaded.eval()(**given).logits, model()(**given).logits)


def test_pipeline(tmp_path):
    model().save_pretrained(tmp_path)
    processor(SIDE).save_pretrained(tmp_path)
    chat: Any = pipeline("image-text-to-text", model=str(tmp_path), processor=AutoProcessor.from_pretrained(tmp_path))
    messages = conversation(pictures()[0], "What is this?")
    [result] = chat(text=messages, max_new_tokens=4, return_full_text=False)
    given = inputs(messages)
    expected = model().generate(**given, max_new_tokens=4)[:, given["input_ids"].shape[1] :]
    assert result["generated_text"] == tokenizer().decode(expected[0], skip_special_tokens=True)


def test_half_precision_leaves_the_segmenter_exact(tmp_path):
    model().save_pretrained(tmp_path)
    half = OmgLlavaForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert half.lm_head.weight.dtype == half.model.projector.separator.dtype == torch.bfloat16
    assert {each.dtype for each in half.model.vision_tower.parameters()} == {torch.float32}
    found = say(half, inputs(mixed()[0]), "[SEG]")
    assert found.mask_logits[0].isfinite().all() and len(found.mask_logits[0]) == 1


def test_own_decoder_starts_as_the_frozen_one(tmp_path):
    model().save_pretrained(tmp_path)
    own = OmgLlavaForConditionalGeneration.from_pretrained(tmp_path, own_mask_decoder=True).eval()
    frozen = model().model.vision_tower.model.mask_decoder.state_dict()
    assert own.model.mask_decoder is not None
    assert all(torch.equal(tensor, frozen[name]) for name, tensor in own.model.mask_decoder.state_dict().items())
    learning = {name for name, each in own.model.mask_decoder.named_parameters() if each.requires_grad}
    assert learning == frozen.keys() - {"level_embed"}
    given = inputs(mixed()[0])
    ours, theirs = say(own, given, "[SEG]"), say(model(), given, "[SEG]")
    torch.testing.assert_close(ours.mask_logits[0], theirs.mask_logits[0])


def test_training_mode_leaves_the_segmenter_in_evaluation():
    training = random_llava().train()
    assert training.training and not training.model.vision_tower.training
    images = training.encode_images(torch.randn(1, 3, SIDE, SIDE))
    assert isinstance(images, OmgLlavaImages) and images.queries is not None and images.tokens is not None
    assert not images.queries.requires_grad
    assert images.tokens[0].requires_grad


def test_template_round_trip():
    """Text → tokens → text, and an answer is learned with its end."""
    messages = conversation(pictures()[0], "What is this?", answer="A cat.")
    ours = processor(SIDE)
    text = ours.apply_chat_template(messages)
    given = inputs(messages, add_generation_prompt=False, return_labels=True)
    assert tokenizer().decode(given["input_ids"][0]) == text
    assert torch.equal(ours(pictures()[0], text)["input_ids"], given["input_ids"])
    learned = given["labels"][given["labels"] != -100]
    assert tokenizer().decode(learned) == "A cat.<|im_end|>"
    begun = ours.apply_chat_template(
        [*messages[:1], {"role": "assistant", "content": "A c"}], continue_final_message=True
    )
    assert text.startswith(begun) and begun.endswith("A c")


def test_configuration_refuses_what_does_not_fit():
    with pytest.raises(Exception, match="multiple of 64"):
        OmgLlavaConfig(image_size=100)
    with pytest.raises(Exception, match="to differ"):
        OmgLlavaConfig(mark_token_id=1, region_token_id=1)
