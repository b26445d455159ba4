"""Ground truth of referring segmentation from the benchmarks' own folders, for `omg score`."""

from pathlib import Path
from typing import Any

from omgvision.data.datasets.referring import REFERENCES, ReasonSeg, RefCoco
from omgvision.run_lengths import RunLengthMask


def read_samples(folder: Path, *, split: str) -> list[dict[str, Any]]:
    """The samples in the form of `scores.referring`.

    Their ids are `<ref_id>-<number of the sentence, from 0>` of RefCOCO, RefCOCO+, RefCOCOg and gRefCOCO, and the
    name of the picture's file without its suffix of ReasonSeg.

    Args:
        folder: With `refs(unc).p` (or another of `REFERENCES`) and `instances.json`, pictures are not needed; or
            ReasonSeg's, with pictures and jsons in `val` and `test`.
        split: "val", "testA", "test", …

    Raises:
        ValueError: A file that is missing or broken, an unknown split.
    """
    is_referring = any((folder / name).is_file() for name in REFERENCES)
    samples = RefCoco(folder, images=folder, split=split) if is_referring else ReasonSeg(folder, split=split)
    truth = (samples.meant(index) for index in range(len(samples)))
    return [
        {
            "id": one.sample_id,
            "gt": RunLengthMask.encode(one.mask).to_coco(),
            "ignore": RunLengthMask.encode(one.ignore).to_coco(),
        }
        for one in truth
    ]
