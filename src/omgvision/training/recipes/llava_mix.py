"""The data sets of OMG-LLaVA's stages, where they lie and how often each is seen.

Zhang et al., 2024, "OMG-LLaVA"; folders, files and repeats are those of the published configurations. Mapillary,
Pascal-Part and PACO, which these have code for, are in none of the mixes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from omgvision.data.conversation_batches import ConversationSource
from omgvision.data.conversation_makers import MadeConversations
from omgvision.data.conversations import Conversation, ConversationDataset, Outline
from omgvision.data.datasets.ade20k import Ade20kSemantic
from omgvision.data.datasets.coco_stuff import CocoStuff
from omgvision.data.datasets.conversations.grounded import flickr, grand_f, refcocog
from omgvision.data.datasets.conversations.llava import LlavaConversations
from omgvision.data.datasets.conversations.referring import ReferringConversations
from omgvision.data.datasets.conversations.regions import MdpvConversations, OspreyConversations, OspreyDescriptions
from omgvision.data.datasets.referring import RefCoco
from omgvision.data.mixture import SampleDataset
from omgvision.errors import UserError

SHOWN = 3
"""Missing files that a message names."""

COCO14, COCO17 = "glamm_data/images/coco2014/train2014", "glamm_data/images/coco2017/train2017"
FLICKR = "glamm_data/images/flickr30k/Flickr30K"
ADE20K = "semantic_seg/ADEChallengeData2016"
VISUAL_GENOME = "llava_data/llava_images/vg/VG_100K"


@dataclass(frozen=True)
class Files:
    """What a data set consists of, below the folder of all.

    Attributes:
        root: that folder.
        names: files and folders of the data set.
    """

    root: Path
    names: tuple[str, ...]

    def __getitem__(self, index: int) -> Path:
        return self.root / self.names[index]


@dataclass(frozen=True)
class Ingredient:
    """A data set of a mix.

    Attributes:
        name: what `datasets=` calls it.
        names: its files and folders, below the folder of all.
        read: its files, whether faults raise → its conversations.
        repeat: how often an epoch goes through it.
    """

    name: str
    names: tuple[str, ...]
    read: Callable[[Files, bool], ConversationDataset]
    repeat: int = 1


@dataclass(frozen=True)
class Mix:
    """Data sets with repeats, opened.

    Attributes:
        sources: what is trained on.
        held: what is measured on.
    """

    sources: tuple[ConversationSource, ...]
    held: tuple[ConversationDataset, ...] = ()

    def holding_back(self, count: int) -> "Mix":
        """With about `count` conversations held back, from each data set as many as it has a part in the mix.

        They are evenly spread; at most every other one of a data set.
        """
        total = sum(len(one.dataset) * one.repeat for one in self.sources)
        kept, held = [], []
        for one in self.sources:
            length = len(one.dataset)
            number = min(max(1, round(count * length * one.repeat / total)), length // 2)
            places = np.linspace(0, length - 1, number).astype(int).tolist()
            kept.append(ConversationSource(Part(one.dataset, sorted({*range(length)} - {*places})), one.repeat))
            if places:
                held.append(Part(one.dataset, places))
        return Mix(tuple(kept), tuple(held))


class Part:
    """Some of the conversations of a data set.

    Attributes:
        name: the data set's.
    """

    def __init__(self, dataset: ConversationDataset, places: Sequence[int]) -> None:
        self.name, self._dataset, self._places = dataset.name, dataset, places

    def __len__(self) -> int:
        return len(self._places)

    def outline(self, index: int) -> Outline:
        return self._dataset.outline(self._places[index])

    def draw(self, index: int, generator: np.random.Generator) -> Conversation:
        return self._dataset.draw(self._places[index], generator)


def opened(mix: Sequence[Ingredient], root: Path, *, chosen: Sequence[str] = (), strict: bool = False) -> Mix:
    """Opens the data sets of a mix.

    Args:
        mix: The data sets.
        root: The folder of all of them.
        chosen: Names of those to take; none: all.
        strict: What would be left out as faulty raises instead.

    Raises:
        UserError: A name that is not in the mix, files that are missing.
        ValueError: What a reader raises.
    """
    known = [one.name for one in mix]
    unknown = sorted(set(chosen) - set(known))
    if unknown:
        raise UserError(f"datasets: expected some of {', '.join(known)}, got {unknown[0]}")
    taken = [one for one in mix if not chosen or one.name in chosen]
    missing = {one.name: [name for name in one.names if not (root / name).exists()] for one in taken}
    files = list(dict.fromkeys(name for names in missing.values() for name in names))
    if files:
        lacking = [name for name, names in missing.items() if names]
        more = f" and {len(files) - SHOWN} more" if len(files) > SHOWN else ""
        rest = [name for name in known if name not in lacking]
        remedy = f"; datasets={','.join(rest)} trains without them" if rest else ""
        raise UserError(
            f"data: expected the files of {', '.join(lacking)} in {root}, missing {', '.join(files[:SHOWN])}{more}"
            f"{remedy}"
        )
    return Mix(tuple(ConversationSource(one.read(Files(root, one.names), strict), one.repeat) for one in taken))


# --- readers ---


def _semantic(dataset: SampleDataset, name: str) -> ConversationDataset:
    """A picture an item; one of its classes, drawn anew each time."""
    return MadeConversations(dataset, name=name, weights={"semantic": 1.0}, turns=(1, 1))


def _referring(name: str, images: str) -> Ingredient:
    """Three times, as in the original."""

    def read(files: Files, strict: bool) -> ConversationDataset:
        return ReferringConversations(RefCoco(files[0], images=files[1], split="train", strict=strict, name=name))

    return Ingredient(name, (f"ref_seg/{name}", images), read, repeat=3)


def _mdpv(name: str, file: str, *images: str) -> Ingredient:
    """Pictures are looked for in each of the folders; Visual Genome's second one need not be there."""

    def read(files: Files, strict: bool) -> ConversationDataset:
        folders = [files.root / folder for folder in images]
        return MdpvConversations(files[0], images=folders, strict=strict, name=f"mdpv_{name}")

    return Ingredient(f"mdpv_{name}", (f"mdpv_point/{file}.json", images[0]), read)


_VG = (VISUAL_GENOME, f"{VISUAL_GENOME}_2")

LLAVA_PRETRAIN = Ingredient(
    "llava_pretrain",
    ("llava_data/LLaVA-Pretrain/blip_laion_cc_sbu_558k.json", "llava_data/LLaVA-Pretrain/images"),
    lambda files, strict: LlavaConversations(files[0], images=files[1], strict=strict, name="llava_pretrain"),
)

LLAVA = Ingredient(
    "llava",
    ("llava_data/LLaVA-Instruct-150K/llava_v1_5_mix665k.json", "llava_data/llava_images"),
    lambda files, strict: LlavaConversations(files[0], images=files[1], strict=strict),
)

GROUNDED = (
    Ingredient(
        "flickr",
        ("glamm_data/annotations/flickr_mergedGT_GCG_train.json", FLICKR),
        lambda files, strict: flickr(files[0], images=files[1], strict=strict),
    ),
    Ingredient(
        "refcocog_captions",
        ("glamm_data/annotations/RefCOCOg_GCG_train.json", COCO14),
        lambda files, strict: refcocog(files[0], images=files[1], strict=strict),
    ),
    Ingredient(
        "grand_f",
        ("glamm_data/annotations/GranDf_HA_GCG_train.json", "glamm_data/images/grandf/train"),
        lambda files, strict: grand_f(files[0], images=files[1], strict=strict),
        repeat=10,
    ),
    Ingredient(
        "open_psg",
        ("glamm_data/annotations/OpenPsgGCG_train.json", "glamm_data/images/coco2017"),
        lambda files, strict: grand_f(files[0], images=files[1], strict=strict, name="open_psg"),
    ),
)

SEMANTIC = (
    Ingredient(
        "ade20k",
        (ADE20K,),
        lambda files, strict: _semantic(Ade20kSemantic(files[0], strict=strict), "ade20k"),
        repeat=3,
    ),
    Ingredient(
        "coco_stuff",
        (COCO17, "semantic_seg/coco_stuff/stuffthingmaps_trainval2017/train2017"),
        lambda files, strict: _semantic(CocoStuff(files[0], maps=files[1], strict=strict), "coco_stuff"),
        repeat=3,
    ),
)

REFERRING = (
    _referring("refcoco", COCO14),
    _referring("refcoco+", COCO14),
    _referring("refcocog", COCO14),
    _referring("refclef", "ref_seg/saiapr_tc-12"),
)

REGIONS = (
    Ingredient(
        "osprey_descriptions",
        ("region_caption/osprey/osprey_detail_description.json", COCO14),
        lambda files, strict: OspreyDescriptions(files[0], images=files[1], strict=strict),
    ),
    Ingredient(
        "osprey_conversations",
        ("region_caption/osprey/osprey_conversation.json", COCO14),
        lambda files, strict: OspreyConversations(files[0], images=files[1], strict=strict),
    ),
)

POINTS = (
    _mdpv("detailed_ade20k", "gpt4v_ade20k_detailed_caption_point", f"{ADE20K}/images/training"),
    _mdpv("detailed_coco_10k", "gpt4v_cocostuff_10k_detailed_caption_point", COCO14),
    _mdpv("detailed_coco_164k", "gpt4v_cocostuff_164k_detailed_caption_point", COCO17),
    _mdpv("detailed_vg", "gpt4v_vg_detailed_caption_point", *_VG),
    _mdpv("brief_lvis", "gpt4v_lvis_brief_caption_point", COCO17),
    _mdpv("brief_vg", "gpt4v_vg_brief_caption_point", *_VG),
    _mdpv("brief_ade20k", "gpt4v_ade20k_brief_caption_point", f"{ADE20K}/images/training"),
    _mdpv("brief_coco_10k", "gpt4v_cocostuff_10k_brief_caption_point", COCO14),
    _mdpv("brief_coco_164k", "gpt4v_cocostuff_164k_brief_caption_point", COCO17),
    _mdpv("qa_vg", "gpt4v_vg_QA_point", *_VG),
    _mdpv("qa_lvis", "gpt4v_lvis_QA_point", COCO17),
    _mdpv("qa_ade20k", "gpt4v_ade20k_QA_point", f"{ADE20K}/images/training"),
    _mdpv("qa_coco_10k", "gpt4v_cocostuff_10k_QA_point", COCO14),
    _mdpv("qa_coco_164k", "gpt4v_cocostuff_164k_QA_point", COCO17),
    _mdpv("points_flickr", "Flicker30K_multi_points_to_caption", FLICKR),
    _mdpv("points_open_psg", "OpenPsgGCG_train_multi_points_to_caption", COCO17),
)

PRETRAIN = (LLAVA_PRETRAIN,)
FINETUNE = (LLAVA, *GROUNDED, *SEMANTIC, *REFERRING, *REGIONS, *POINTS)
