"""Benchmarks of words with two or three small pictures, in the layouts of the real ones."""

import base64
import io
import json
import pickle
from pathlib import Path
from typing import Any

from omgvision.evaluation.mme import COGNITION, PERCEPTION
from omgvision.evaluation.runner.task import run_lengths

from .layouts import SIZE, dump, masks, picture, save

NAME = "COCO_train2014_{:012d}.jpg"


def _instances(count: int) -> dict[str, Any]:
    images, annotations = [], []
    for number in range(1, count + 1):
        images.append({"id": number, "file_name": NAME.format(number), "height": SIZE[0], "width": SIZE[1]})
        for place, mask in enumerate(masks(number)):
            one = {"id": 10 * number + place, "image_id": number, "category_id": 1, "iscrowd": 0}
            annotations.append(
                {**one, "segmentation": run_lengths(mask), "area": int(mask.sum()), "bbox": [4, 8, 9, 9]}
            )
    return {"images": images, "annotations": annotations}


def ref_seg(root: Path, *, count: int = 3) -> Path:
    """RefCOCO, RefCOCO+, RefCOCOg and gRefCOCO with train2014: two objects a picture, two sentences for the first."""
    folder = root / "ref_seg"
    for number in range(1, count + 1):
        save(picture(number), folder / "train2014" / NAME.format(number))
    names = {"refcoco": "refs(unc).p", "refcoco+": "refs(unc).p", "refcocog": "refs(umd).p"}
    for name, file in names.items():
        dump(_instances(count), folder / name / "instances.json")
        rows = []
        for split in ("val", "test" if name == "refcocog" else "testA", "testB"):
            for number in range(1, count + 1):
                for place, texts in enumerate((["red box", "the left one"], ["blue box"])):
                    sentences = [{"sent": text, "sent_id": len(rows)} for text in texts]
                    keys = {"ref_id": len(rows), "image_id": number, "ann_id": 10 * number + place, "split": split}
                    rows.append({**keys, "sentences": sentences})
        (folder / name / file).write_bytes(pickle.dumps(rows))
    dump(_instances(count), folder / "grefcoco" / "instances.json")
    rows = [
        {"ref_id": 3 * number + place, "image_id": number, "ann_id": ids, "split": "val", "sentences": [{"sent": text}]}
        for number in range(1, count + 1)
        for place, (ids, text) in enumerate(
            (([10 * number, 10 * number + 1], "both boxes"), ([10 * number], "the red box"), ([-1], "the dog"))
        )
    ]
    dump(rows, folder / "grefcoco" / "grefs(unc).json")
    return folder


def reason_seg(root: Path) -> Path:
    folder = root / "ReasonSeg"
    for split in ("val", "test"):
        for number, is_sentence in ((1, True), (2, False)):
            save(picture(number), folder / split / f"{number}.jpg")
            corners = [[8, 8], [27, 8], [27, 39], [8, 39]]
            shapes = [
                {"label": "target", "points": corners},
                {"label": "ignore", "points": [[40, 2], [60, 2], [60, 9]]},
            ]
            text = ["What is warmer in colour?"] if is_sentence else ["the warm colour"]
            dump({"text": text, "is_sentence": is_sentence, "shapes": shapes}, folder / split / f"{number}.json")
    return folder


def grand_f(root: Path) -> Path:
    folder = root / "GranDf"
    images, texts, truth = [], [], []
    for number in (1, 2):
        save(picture(number), folder / "GranDf_HA_images" / "val_test" / f"sa_{number}.jpg")
        identity = f"sa_{number}"
        images.append({"id": identity, "file_name": f"sa_{number}.jpg", "height": SIZE[0], "width": SIZE[1]})
        texts.append(
            {"id": number, "image_id": identity, "caption": "A red box on noise.", "labels": ["A red box", "noise"]}
        )
        for mask in masks(number):
            one = {"id": len(truth) + 1, "image_id": identity, "category_id": 1, "iscrowd": 0, "bbox": [0, 0, 9, 9]}
            truth.append({**one, "segmentation": run_lengths(mask), "area": int(mask.sum())})
    for split in ("val", "test"):
        where = folder / "annotations" / "val_test"
        dump({"images": images, "annotations": texts}, where / f"{split}_gcg_coco_caption_gt.json")
        content = {"images": images, "annotations": truth, "categories": [{"id": 1, "name": "object"}]}
        dump(content, where / f"{split}_gcg_coco_mask_gt.json")
    return folder


def region_captions(root: Path) -> Path:
    """RefCOCOg's with masks, and Visual Genome's with boxes."""
    folder = root / "region_caption"
    content = _instances(2)
    for number, one in enumerate(content["annotations"][::2], start=1):
        one |= {"id": number}
        save(picture(number), root / "train2014" / NAME.format(number))
    content["annotations"] = content["annotations"][::2]
    dump(content, folder / "finetune_refcocog_val_with_mask.json")
    texts = [{"id": number, "image_id": number, "caption": "a red box"} for number in (1, 2)]
    dump({"images": content["images"], "annotations": texts}, folder / "finetune_refcocog_val_captions.json")
    boxes = [{"id": number, "image_id": number, "bbox": [4, 8, 20, 30], "caption": "the red box"} for number in (1, 2)]
    dump({"images": content["images"], "annotations": boxes}, root / "visual_genome" / "test_caption.json")
    for number in (1, 2):
        save(picture(number), root / "visual_genome" / "images" / NAME.format(number))
    return root


def coco_captions(root: Path) -> Path:
    folder = root / "coco"
    images = [{"id": number, "file_name": f"{number}.jpg", "height": SIZE[0], "width": SIZE[1]} for number in (7, 8)]
    texts = [{"id": 2 * one["id"] + n, "image_id": one["id"], "caption": "two boxes"} for one in images for n in (0, 1)]
    dump({"images": images, "annotations": texts}, folder / "annotations" / "captions_val2017.json")
    for one in images:
        save(picture(one["id"] - 6), folder / "val2017" / one["file_name"])
    return folder


def mmbench(root: Path) -> Path:
    """Two questions in two rotations each; the rotations' pictures are those of the first rows."""
    rows = ["index\tquestion\thint\tA\tB\tanswer\tcategory\tl2-category\timage"]
    for number in (1, 2):
        stream = io.BytesIO()
        picture(number).save(stream, "PNG")
        encoded = base64.b64encode(stream.getvalue()).decode()
        text = "哪个颜色" if number == 2 else "Which colour?"
        hint = "Look." if number == 1 else ""
        rows.append(f"{number}\t{text}\t{hint}\tred\tgreen\tA\tcolour\tlogic_reasoning\t{encoded}")
        rows.append(f"{number + 1_000_000}\t{text}\t{hint}\tgreen\tred\tB\tcolour\tlogic_reasoning\t{number}")
    for name in ("MMBench_DEV_EN.tsv", "AI2D_TEST.tsv", "SEEDBench_IMG.tsv", "MMStar.tsv", "ScienceQA_TEST.tsv"):
        (root / "LMUData").mkdir(exist_ok=True)
        (root / "LMUData" / name).write_text("\n".join(rows), encoding="utf-8")
    table = [line.split("\t") for line in rows]
    without = "\n".join("\t".join(cell for place, cell in enumerate(line) if place != 5) for line in table)
    (root / "LMUData" / "MMBench_TEST_EN.tsv").write_text(without, encoding="utf-8")
    return root / "LMUData"


def pope(root: Path) -> Path:
    folder = root / "POPE"
    for number in (1, 2):
        save(picture(number), folder / "val2014" / f"{number}.jpg")
    for kind in ("random", "popular", "adversarial"):
        folder.mkdir(exist_ok=True)
        rows = [
            {"question_id": 2 * number + place, "image": f"{number}.jpg", "text": f"Is there a {what}?", "label": label}
            for number in (1, 2)
            for place, (what, label) in enumerate((("box", "yes"), (kind, "no")))
        ]
        (folder / f"coco_pope_{kind}.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def mme(root: Path) -> Path:
    folder = root / "MME_Benchmark_release_version"
    for place, subtask in enumerate(PERCEPTION + COGNITION):
        is_split = place % 2 == 1
        pictures, texts = (
            folder / subtask / name if is_split else folder / subtask for name in ("images", "questions_answers_YN")
        )
        texts.mkdir(parents=True, exist_ok=True)
        save(picture(1 + place % 2), pictures / f"{place}.jpg")
        lines = "Is there a box? Please answer yes or no.\tYes\nIs there a dog? Please answer yes or no.\tNo\n"
        (texts / f"{place}.txt").write_text(lines)
    return folder
