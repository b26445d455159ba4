"""The data mixes of OMG-LLaVA: every data set is read from its published layout, as often as published."""

from dataclasses import replace

import numpy as np
import pytest

from omgvision.data.conversations import Conversation
from omgvision.data.datasets.coco_stuff import CocoStuff
from omgvision.errors import UserError
from omgvision.training.recipes import llava_mix
from omgvision.training.recipes.llava import finetune, published_mix
from tests.llava_layouts import write_all


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("data"))


def test_every_data_set_is_read(root):
    for ingredient in (*llava_mix.PRETRAIN, *llava_mix.FINETUNE):
        [source] = llava_mix.opened([ingredient], root, strict=True).sources
        conversation = source.dataset.draw(0, np.random.default_rng(0))
        assert isinstance(conversation, Conversation) and conversation.image is not None, ingredient.name


def test_mixes_and_repeats_are_the_published_ones():
    repeats = {one.name: one.repeat for one in llava_mix.FINETUNE}
    assert len(repeats) == 29 and sum(repeats.values()) == 29 + 9 + 6 * 2
    assert repeats["grand_f"] == 10 and repeats["llava"] == 1
    assert {name for name, times in repeats.items() if times == 3} == {
        "ade20k",
        "coco_stuff",
        "refcoco",
        "refcoco+",
        "refcocog",
        "refclef",
    }
    assert [one.name for one in llava_mix.REFERRING] == ["refcoco", "refcoco+", "refcocog", "refclef"]
    assert [one.name for one in llava_mix.GROUNDED] == ["flickr", "refcocog_captions", "grand_f", "open_psg"]
    assert len(llava_mix.POINTS) == 16


def test_what_is_missing_is_one_line(root, tmp_path):
    with pytest.raises(UserError, match=r"^data: expected the files of llava, flickr.* and \d+ more$"):
        llava_mix.opened(llava_mix.FINETUNE, tmp_path)
    (tmp_path / "ref_seg").mkdir()
    for name in ("refcoco", "refcoco+", "saiapr_tc-12"):
        (tmp_path / "ref_seg" / name).symlink_to(root / "ref_seg" / name)
    (tmp_path / "glamm_data").symlink_to(root / "glamm_data")
    with pytest.raises(UserError) as caught:
        llava_mix.opened(llava_mix.REFERRING, tmp_path)
    assert str(caught.value) == (
        f"data: expected the files of refcocog, refclef in {tmp_path}, missing ref_seg/refcocog, ref_seg/refclef; "
        "datasets=refcoco,refcoco+ trains without them"
    )
    mix = llava_mix.opened(llava_mix.REFERRING, tmp_path, chosen=("refcoco", "refcoco+"))
    assert [source.repeat for source in mix.sources] == [3, 3]


def test_a_data_set_that_is_not_in_the_mix(root):
    with pytest.raises(UserError, match=r"^datasets: expected some of flickr, .*, got llava$"):
        llava_mix.opened(llava_mix.GROUNDED, root, chosen=("llava",))


def test_conversations_are_held_back_where_they_are_measured(root):
    recipe = replace(finetune(), data=root, datasets=("llava",), validate=1)
    trained = published_mix(recipe, ingredients=llava_mix.FINETUNE)
    assert trained.held == () and len(trained.sources[0].dataset) == 2
    divided = published_mix(replace(recipe, evaluate_every=5), ingredients=llava_mix.FINETUNE)
    [kept], [held] = divided.sources, divided.held
    generator = np.random.default_rng(0)
    ids = [part.draw(0, generator).sample_id for part in (kept.dataset, held)]
    assert len(kept.dataset) == len(held) == 1 and sorted(ids) == ["0", "1"]


def test_coco_stuff_leaves_out_names_with_a_dash(root):
    stuff = root / "semantic_seg" / "coco_stuff" / "stuffthingmaps_trainval2017" / "train2017"
    dataset = CocoStuff(root / llava_mix.COCO17, maps=stuff, strict=True)
    sample = dataset[0]
    assert [sample.names[label] for label in sample.labels] == ["dog"]
    assert sample.masks[0, :, :48].all() and not sample.masks[0, :, 48:].any()
    assert dataset.things[dataset.names.index("dog")] and not dataset.things[dataset.names.index("sea")]


def test_coco_stuff_without_its_folder(root, tmp_path):
    with pytest.raises(ValueError, match="maps: no such folder"):
        CocoStuff(root / llava_mix.COCO17, maps=tmp_path / "none")
