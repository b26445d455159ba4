"""Classes that share a name become one, and samples speak the merged vocabulary."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from omgvision.data import PseudoClips, Sample, SyntheticScenes, load_class_list
from omgvision.data.class_lists import ClassListName
from omgvision.data.merged import Relabelled, RelabelledClips, merge_vocabularies, relabelled, spelt_alike
from omgvision.data.sample import layers_from_masks

STREET = (("Person", "wall_or_fence", "car", "sky"), (True, False, True, False))
VIDEO = (("giant_panda", "vehicle/car", "fence", "person,human", "wall"), (True, True, False, True, True))


def test_spelling() -> None:
    assert spelt_alike("Wall_or_Brick/stone_wall") == ["wall", "brick", "stone wall"]
    assert spelt_alike("tv, television,") == ["tv", "television"]


def test_a_shared_synonym_joins_things_with_things_and_stuff_with_stuff() -> None:
    merged = merge_vocabularies([STREET, VIDEO])
    # "wall" of the second is a thing, so it does not join the stuff of that name.
    assert merged.names == ("person,human", "car,vehicle", "giant panda", "wall", "wall,fence", "sky")
    assert merged.things == (True, True, True, True, False, False)
    assert merged.counts == (4, 2)
    assert [table.tolist() for table in merged.tables] == [[0, 4, 1, 5, -1], [2, 1, 4, 0, 3, -1]]
    assert all(table.dtype == torch.int64 for table in merged.tables)


def test_a_class_joins_the_first_that_fits_and_only_by_its_own_names() -> None:
    merged = merge_vocabularies([(["a", "b"], [True] * 2), (["b,a"], [True]), (["b,c"], [True]), (["c"], [True])])
    assert [table[:-1].tolist() for table in merged.tables] == [[0, 1], [0], [1], [2]]
    assert merged.names == ("a,b", "b,c", "c")


def test_merging_with_itself_changes_nothing() -> None:
    coco = load_class_list("coco")
    merged = merge_vocabularies([(coco.names, coco.things)] * 2)
    alone = merge_vocabularies([(coco.names, coco.things)])
    assert merged.names == alone.names
    assert torch.equal(merged.tables[0], merged.tables[1])
    assert merged.counts == (80, 53)


def test_class_agnostic_data_has_no_classes() -> None:
    merged = merge_vocabularies([STREET, ((), ())])
    assert merged.counts == (2, 2)
    assert merged.tables[1].tolist() == [-1]
    with pytest.raises(ValueError, match="number 0 has 1 names and 0 things"):
        merge_vocabularies([(("a",), ())])


def sample(labels: list[int]) -> Sample:
    """Stripes of two rows each, one a segment, of VIDEO's classes."""
    masks = [np.zeros((12, 8), dtype=bool) for _ in labels]
    for number, mask in enumerate(masks):
        mask[2 * number : 2 * number + 2] = True
    return Sample(
        image=torch.zeros((3, 12, 8), dtype=torch.uint8),
        segment_layers=layers_from_masks(masks, 12, 8),
        labels=torch.tensor(labels, dtype=torch.int64),
        names=VIDEO[0],
        things=VIDEO[1],
        sample_id="0",
        dataset="video",
    )


def test_samples_speak_the_merged_vocabulary() -> None:
    merged = merge_vocabularies([STREET, VIDEO])
    before = sample([3, 2, 1, -1, 3])
    after = relabelled(before, merged, 1)
    assert after.labels.tolist() == [0, 4, 1, -1, 0]
    assert (after.names, after.things) == (merged.names, merged.things)
    assert torch.equal(after.masks, before.masks)
    assert relabelled(sample([]), merged, 1).labels.tolist() == []


def test_stuff_that_became_one_class_is_one_segment() -> None:
    vocabulary = (("grass", "field,grass", "dog", "cat,dog"), (False, False, True, True))
    merged = merge_vocabularies([vocabulary])
    assert merged.names == ("dog,cat", "grass,field")
    before = sample([2, 1, 3, 0])
    after = relabelled(before, merged, 0)
    assert after.labels.tolist() == [0, 1, 0], "dog and cat can be counted, so both stay"
    assert torch.equal(after.masks[1], before.masks[1] | before.masks[3])
    assert torch.equal(after.masks[[0, 2]], before.masks[[0, 2]])


def test_wrapped_datasets() -> None:
    class Oriented(SyntheticScenes):
        portrait = (True, False)

    scenes = Oriented(size=(32, 32), length=2)
    merged = merge_vocabularies([STREET, (scenes.names, scenes.things)])
    images = Relabelled(scenes, vocabulary=merged, number=1)
    clips = RelabelledClips(PseudoClips(scenes), vocabulary=merged, number=1)
    assert len(images) == len(clips) == 2
    assert images.portrait == clips.portrait == (True, False)
    frame = clips.clip(1, np.random.default_rng(0)).frames[1]
    assert [merged.names[label] for label in images[1].labels] == [scenes.names[label] for label in scenes[1].labels]
    assert torch.equal(images[1].labels, frame.labels)
    assert images[1].names == frame.names == merged.names


@pytest.mark.parametrize(
    ("lists", "ours", "originals"),
    [
        (("coco", "youtube_vis_2019", "vipseg", "cityscapes"), (138, 102), (136, 101)),
        (("coco", "youtube_vis_2019", "youtube_vis_2021", "vipseg", "cityscapes"), (141, 102), (139, 101)),
        (
            ("coco", "ade20k", "youtube_vis_2019", "youtube_vis_2021", "vipseg", "cityscapes"),
            (200, 124),
            (196, 124),
        ),
    ],
)
def test_counts_of_the_joint_recipes(
    lists: tuple[ClassListName, ...],
    ours: tuple[int, int],
    originals: tuple[int, int],
    record_property: Callable[[str, object], None],
) -> None:
    """Near the original's (facts, section 13), whose lists have synonyms that the datasets' own names lack."""
    classes = [load_class_list(name) for name in lists]
    merged = merge_vocabularies([(one.names, one.things) for one in classes])
    record_property("counts", f"{' + '.join(lists)}: {merged.counts}, the original {originals}")
    assert merged.counts == ours
    assert np.abs(np.subtract(merged.counts, originals)).max() <= 4
    training = (Path(__file__).parents[3] / "docs" / "training.md").read_text(encoding="utf-8")
    assert f"{merged.counts[0]} + {merged.counts[1]}" in training and f"{originals[0]} + {originals[1]}" in training
