"""Writes the tables of measured numbers into README and docs, from the result files alone.

A page holds `<!-- results:NAME:begin -->` and `<!-- results:NAME:end -->`; what is between them is made here.

    python benchmarks/make_tables.py            # write
    python benchmarks/make_tables.py --check    # exit 1 if a page differs from the results
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
BLOCK = re.compile(r"<!-- results:(?P<name>[\w-]+):begin -->\n.*?<!-- results:(?P=name):end -->", re.DOTALL)


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join([_row(*header), _row(*rule), *[_row(*row) for row in rows]])


def segment(report: dict[str, Any]) -> str:
    """Times, memory and ratios of benchmarks/segment.py."""
    names = {"ours": "omgvision", "plain": "omgvision, shortcuts off", "mask2former": "transformers' Mask2Former head"}
    stages = ("backbone", "pixel decoder", "decoder", "post-processing", "whole")
    parts = []
    for size, by_survivors in report["seconds"].items():
        for survivors, by_path in by_survivors.items():
            rows = []
            for path, name in names.items():
                median = by_path[path]["median"]
                peak = report["peak_bytes_above_weights"][size][survivors][path]
                rows.append([name, *[f"{median[stage]:.2f}" for stage in stages], f"{peak / 2**20:.0f}"])
            ratio = report["ratios"][size][survivors]
            late = "decoder and post-processing"
            for other in ("plain", "mask2former"):
                cells = [f"{ratio[f'{stage}: {other} over ours']:.1f}×" for stage in stages[1:]]
                rows.append(
                    [f"{names[other]}, over omgvision", "", *cells, f"{1 / ratio[f'memory: ours over {other}']:.1f}×"]
                )
            title = f"{size.replace('x', '×')}, {survivors} queries hold a segment"
            parts.append(f"**{title}**\n\n" + _table(["seconds", *stages, "peak MiB above weights"], rows))
            parts.append(
                f"Decoder and post-processing together: {ratio[f'{late}: plain over ours']:.1f} times faster than with "
                f"the shortcuts off, {ratio[f'{late}: mask2former over ours']:.1f} times faster than transformers'. "
                f"The whole takes {ratio['whole over backbone']:.2f} times the backbone alone."
            )
    machine = report["machine"]
    parts.append(
        f"{machine['cpu']}, {machine['threads']} threads, float32, torch {machine['torch']}, transformers "
        f"{machine['transformers']}; medians of {report['repeats']} alternating runs by `{report['command']}`."
    )
    return "\n\n".join(parts)


def segment_summary(report: dict[str, Any]) -> str:
    """The whole and the part behind the backbone of benchmarks/segment.py, one row a size and number of segments."""
    paths = ("omgvision", "shortcuts off", "Mask2Former head")
    header = ["", *paths, "decoder + post-processing faster", "peak memory smaller"]
    rows = []
    for size, by_survivors in report["seconds"].items():
        for survivors, by_path in by_survivors.items():
            ratio = report["ratios"][size][survivors]
            others = ("plain", "mask2former")
            late = [f"{ratio[f'decoder and post-processing: {other} over ours']:.1f}×" for other in others]
            memory = [f"{1 / ratio[f'memory: ours over {other}']:.1f}×" for other in others]
            seconds = [f"{by_path[path]['median']['whole']:.2f} s" for path in ("ours", *others)]
            title = f"{size.replace('x', '×')}, {survivors} queries hold a segment"
            rows.append([title, *seconds, ", ".join(late), ", ".join(memory)])
    machine = report["machine"]
    return (
        f"{_table(header, rows)}\n\n{machine['cpu']}, {machine['threads']} threads, float32, torch {machine['torch']}, "
        f"transformers {machine['transformers']}; medians of {report['repeats']} alternating runs by "
        f"`{report['command']}`. Faster and smaller than the two others, in their order."
    )


def training(report: dict[str, Any]) -> str:
    """Times and memory of benchmarks/training.py, stage by stage."""
    losses, peaks, waiting = report["losses"], report["peak_bytes"], report["waiting"]
    stages = ("matcher", "loss", "backward", "whole")
    names = {"ours": "omgvision", "transformers": "transformers' Mask2FormerLoss"}
    rows = [
        [name, *[f"{losses['median'][who][stage]:.2f}" for stage in stages], _mebibytes(peaks[who])]
        for who, name in names.items()
    ]
    ratio = losses["transformers over ours"]
    peak = max(peaks["transformers"].values()) / max(peaks["ours"].values())
    rows.append(["the second over the first", *[f"{ratio[stage]:.1f}×" for stage in stages], f"{peak:.1f}×"])
    sizes = ", ".join(f"{report[name]} {name}" for name in ("queries", "classes", "predictions", "points", "segments"))
    parts = [
        f"**Matcher and losses: {sizes}, {report['size'][1]}×{report['size'][0]}**",
        _table(["seconds", *stages, "peak MiB"], rows),
        f"Matcher and loss together: {ratio['matcher and loss']:.1f} times faster.",
    ]
    stages = ("data", "forward", "matcher", "loss", "backward", "optimizer", "whole")
    rows = []
    for name, title in (("head", "full-size head on given features"), ("nano", "recipe nano, last resolution")):
        entry = report[name]
        seconds, peak = entry["median"], peaks[name]
        rows.append([f"{title}: seconds", *[f"{seconds[stage]:.2f}" if stage in seconds else "" for stage in stages]])
        speeds = entry["images_per_second"]
        rows.append(["images a second", *[f"{speeds[stage]:.2f}" if stage in speeds else "" for stage in stages]])
        cells = [f"{peak[stage] / 2**20:.0f}" if stage in peak else "" for stage in stages[:-1]]
        rows.append(["peak MiB", *cells, _mebibytes(peak)])
    parts.append("**A training step, stage by stage**")
    parts.append(_table(["", *stages], rows))
    machine = report["machine"]
    parts.append(
        f"The loop of nano waits for batches {100 * waiting['share']:.1f} % of its time. {machine['cpu']}, "
        f"{machine['threads']} threads, float32, torch {machine['torch']}, transformers {machine['transformers']}; "
        f"medians of {report['repeats']} alternating runs of the losses by `{report['command']}`."
    )
    return "\n\n".join(parts)


def _mebibytes(peaks: dict[str, int]) -> str:
    """The highest of the stages."""
    return f"{max(peaks.values()) / 2**20:.0f}"


def nano(report: dict[str, Any]) -> str:
    """Held-out numbers of the bundled weights beside the same model untrained and the best trivial baseline."""
    columns = {"trained": "omg-seg-nano", "untrained": "random initialisation", "trivial": "best trivial baseline"}
    rows = [
        [row["metric"], row["data"], *[f"{100 * row[column]:.1f}" for column in columns], row["trivial_is"]]
        for row in report["rows"]
    ]
    table = _table(["in percent", "held-out data", *columns.values(), "that baseline"], rows)
    return f"{table}\n\n{report['note']}"


def chat_nano(report: dict[str, Any]) -> str:
    """Answers of the bundled chat weights about held-out photographs, beside the best trivial ones."""
    rows = [
        [row["what"], f"{row['questions']}", row["metric"], f"{row['value']:.3f}", f"{row['trivial']:.3f}"]
        + [row["trivial_is"]]
        for row in report["rows"]
    ]
    return _table(["asked", "questions", "metric", "omg-llava-nano", "best trivial answer", "that answer"], rows)


def finetuning(report: dict[str, Any]) -> str:
    """Held-out numbers before and after fine-tuning, one row a way to do it."""
    metrics = ("AP", "AP50", "PQ", "SQ", "RQ")
    names = {"masks": "folder of masks", "coco": "COCO json", "lora": "folder of masks, adapters (`lora`)"}
    rows = [["bundled weights, asked for the class", *[f"{100 * report['before'][name]:.1f}" for name in metrics]]]
    rows[0] += ["", "", "", ""]
    for part, title in names.items():
        if part in report["parts"]:
            run = report["parts"][part]
            size = run.get("adapter_megabytes", run["weights_megabytes"])
            numbers = [f"{100 * run['after'][name]:.1f}" for name in metrics]
            trained = f"{run['trained_parameters'] / 1e6:.1f}M"
            rows.append([title, *numbers, f"{run['steps']:,}", f"{run['minutes']:.0f}", trained, f"{size:.1f}"])
    machine, held_out = report["machine"], report["held_out"]
    header = ["in percent", *metrics, "steps", "minutes", "trained", "MB"]
    best = ", ".join(f"{100 * value:.0f} at `image_size={size}`" for size, value in report["best_possible"].items())
    return (
        f"{_table(header, rows)}\n\n{held_out['pictures']} held-out pictures with {held_out['objects']:,} objects, at "
        "full size; MB is the file that one keeps (of adapters: `adapter/`). Masks are predicted on every fourth pixel "
        f"of the scaled picture: the annotated ones, seen so, have an AP of {best}. {machine['cpu']}, "
        f"{machine['threads']} threads, torch {machine['torch']}; by `{report['command']}`.\n\n"
        "![AP, AP50 and PQ over the minutes of training](pictures/finetuning/curves.png)\n\n"
        "![Held-out pictures, their annotation, and what the weights find before and after]"
        "(pictures/finetuning/before_after.jpg)"
    )


def video(report: dict[str, Any]) -> str:
    """Memory and time over a long stream, speed by size and length, stages of a frame, of benchmarks/video.py."""
    parts = []
    if "stream" in report:
        stream = report["stream"]
        height, width = stream["size"]
        rows = [
            [f"{int(frame):,}", f"{resident / 2**20:.1f}", f"{stream['milliseconds'][frame]:.1f}"]
            for frame, resident in stream["resident_bytes"].items()
        ]
        parts.append(f"**A stream of {stream['frames']:,} frames of {width}×{height}**")
        parts.append(_table(["after frame", "resident MiB", "milliseconds a frame"], rows))
        parts.append(
            f"Memory at the end is {stream['memory: last over first']:.3f} times that after the first "
            f"{stream['block']:,} frames, time a frame {stream['time: last over first']:.2f} times."
        )
    if "identities" in report:
        found = report["identities"]
        parts.append(
            f"In its {found['frames']:,} frames, the {found['objects_throughout']:.0f} objects that are always to be "
            f"seen are found in {100 * found['followed_throughout']:.1f} % (`everything`, IoU over 0.5), their id "
            f"changed {found['switches_throughout']:.0f} times; all {found['objects']:.0f}, which leave, return and "
            f"pass behind one another, are found in {100 * found['followed']:.1f} % of those in which they are seen, "
            f"with {found['switches']:.0f} changes."
        )
    if "speed" in report:
        rows = [
            [size.replace("x", "×"), length, f"{one['frames_per_second']:.1f}", f"{one['peak_bytes'] / 2**20:.0f}"]
            for size, by_length in report["speed"].items()
            for length, one in by_length.items()
        ]
        parts.append("**Speed by size and length**")
        parts.append(_table(["frames of", "how many", "frames a second", "peak MiB above weights"], rows))
    if "stages" in report:
        stages = ("backbone", "pixel decoder", "mask decoder", "rest", "whole")
        names = {"segment": "one picture by itself", "feed": "one frame of a video"}
        rows = []
        for size, by_path in report["stages"].items():
            for path, median in by_path.items():
                title = names.get(path, f"{path} frames")
                cells = [f"{1000 * median[stage]:.1f}" for stage in stages]
                ratios = [f"{median[f'{stage}: over segment']:.2f}×" for stage in ("mask decoder", "whole")]
                rows.append([f"{size.replace('x', '×')}: {title}", *cells, *ratios])
        parts.append("**Milliseconds a frame, stage by stage**")
        parts.append(_table(["", *stages, "mask decoder over a picture's", "whole over a picture's"], rows))
    measured: dict[str, list[str]] = {}
    for part, machine in report["machines"].items():
        setup = f"{machine['cpu']}, {machine['threads']} threads, torch {machine['torch']}"
        measured.setdefault(setup, []).append(part)
    where = "; ".join(f"{', '.join(some)}: {setup}" for setup, some in measured.items())
    parts.append(
        f"Bundled weights in float32, {where}. Rendered videos, panoptic where nothing else is said, by "
        f"`{report['command']}`."
    )
    return "\n\n".join(parts)


def video_quality(report: dict[str, Any]) -> str:
    """Held-out numbers on videos beside the same weights on every frame by itself, some also in small clips."""
    rows = []
    for row in report["rows"]:
        values = [row[who] for who in ("tracked", "clips", "per_frame") if who in row]
        cells = [f"{value:.0f}" if row["is_count"] else f"{100 * value:.1f}" for value in values]
        if "clips" not in row:
            cells.insert(1, "")
        rows.append([row["metric"], f"{row['data']}: {row['videos']} videos, {row['frames']:,} frames", *cells])
    columns = ("tracked", f"in clips of {report['clip_frames']}", "frame by frame")
    table = _table(["in percent, or how many", "held-out data", *columns], rows)
    return f"{table}\n\n{report['note']}"


def video_objects(report: dict[str, Any]) -> str:
    """J&F of ways to follow an object of the first frame, and what each costs, of benchmarks/video_objects.py."""
    rows = [
        [
            name,
            *[f"{100 * numbers[metric]:.1f}" for metric in ("J&F", "J", "F", "J-Recall", "J-Decay")],
            f"{report['milliseconds a frame'][name]:.0f}",
        ]
        for name, numbers in report["numbers"].items()
    ]
    table = _table(["", "J&F", "J", "F", "J recall", "J decay", "milliseconds a frame"], rows)
    encoder, machine = report["milliseconds a frame"]["encoder"], report["machine"]
    return (
        f"{table}\n\n{report['data']}. Encoding a frame takes {encoder:.0f} ms more, once for all of them. Bundled "
        f"weights, {machine['cpu']}, one thread, torch {machine['torch']}; by `{report['command']}`."
    )


def chat(report: dict[str, Any]) -> str:
    """What the first word, the first mask, a token and a follow-up cost, of benchmarks/chat.py."""
    alone, ours = report["decoding"]["alone"], report["decoding"]["chat"]
    first = report["first_turn"]
    rows = [
        ["seeing the picture", f"{1000 * first['picture']:.0f} ms"],
        ["first word of the first answer, the picture seen", f"{1000 * first['word']:.0f} ms"],
        ["first mask, after its [SEG]", f"{1000 * first['mask']:.0f} ms"],
        ["first word of a follow-up", f"{1000 * report['follow_up']['word']:.0f} ms"],
        ["tokens a second in a conversation", f"{1 / ours:.1f}"],
        ["tokens a second of the language model alone", f"{1 / alone:.1f}"],
        ["decoding in a conversation, over the language model alone", f"{report['decoding']['overhead']:.3f}×"],
        ["peak memory above weights", f"{report['peak_bytes_above_weights'] / 2**20:.0f} MiB"],
    ]
    machine = report["machine"]
    return (
        f"{_table(['', 'median'], rows)}\n\nIn {report['turns']} turns the picture was seen {report['seen']} time"
        f"{'' if report['seen'] == 1 else 's'}. {report['model']}: {report['parameters'] / 1e6:.0f}M parameters, "
        f"pictures of {report['side']}×{report['side']}. {machine['cpu']}, {machine['threads']} threads, float32, "
        f"torch {machine['torch']}; medians of {report['repeats']} alternating runs by `{report['command']}`."
    )


def metrics(report: dict[str, Any]) -> str:
    """Processor seconds of the image metrics beside the official tools, of benchmarks/metrics_images.py."""
    rows = [
        [row["metric"], f"{row['ours_s']:.2f} s", f"{row['official_s']:.2f} s", f"{row['ratio']:.1f}×"]
        for row in report["rows"]
    ]
    return _table(["", "omgvision", "official tool", "faster"], rows)


def metrics_video(report: dict[str, Any]) -> str:
    """Seconds of the video metrics beside TrackEval, or where it has none a plain program, of metrics_video.py."""
    rows = [
        [
            f"{name} ({one['plain is']})",
            *[f"{1000 * one[who]:.1f} ms" for who in ("ours", "plain")],
            f"{one['ratio']:.1f}×",
        ]
        for name, one in report["seconds_a_frame"].items()
    ]
    height, width = report["size"]
    return _table([f"a frame of {width}×{height}", "omgvision", "the other", "faster"], rows)


def metrics_language(report: dict[str, Any]) -> str:
    """Processor seconds of caption metrics beside pycocoevalcap, of benchmarks/metrics_language.py."""
    cells = [report["metric"], f"{report['ours_s']:.1f} s", f"{report['official_s']:.1f} s", f"{report['ratio']:.1f}×"]
    return _table(["", "omgvision", "pycocoevalcap", "faster"], [cells])


def evaluation(report: dict[str, Any]) -> str:
    """Numbers of `omg evaluate` on what is held out, of benchmarks/evaluation.py."""
    rows = []
    for row in report["rows"]:
        numbers = ", ".join(
            f"{name} {'–' if value is None else f'{100 * value:.1f}'}" for name, value in row["numbers"].items()
        )
        whole = row["samples"] == row["samples_in_all"]
        samples = f"{row['samples']}" if whole else f"{row['samples']} of {row['samples_in_all']}"
        rows.append([f"`{row['benchmark']}`", row["title"], samples, numbers])
    model, environ = report["model"], report["environment"]
    [digest] = model["sha256"].values()
    versions = environ["versions"]
    table = _table(["benchmark", "data", "samples", "in percent"], rows)
    return (
        f"{table}\n\n`{model['name']}`, weights sha256 `{digest[:12]}`, {environ['device']}, {environ['dtype']}, torch "
        f"{versions['torch']}, transformers {versions['transformers']}; by `omg evaluate`."
    )


SOURCES: dict[str, tuple[Path, Callable[[dict[str, Any]], str]]] = {
    "segment": (ROOT / "benchmarks" / "results" / "segment.json", segment),
    "segment-summary": (ROOT / "benchmarks" / "results" / "segment.json", segment_summary),
    "training": (ROOT / "benchmarks" / "results" / "training.json", training),
    "video": (ROOT / "benchmarks" / "results" / "video.json", video),
    "video-quality": (ROOT / "docs" / "results" / "video.json", video_quality),
    "video-objects": (ROOT / "benchmarks" / "results" / "video_objects.json", video_objects),
    "chat": (ROOT / "benchmarks" / "results" / "chat.json", chat),
    "nano": (ROOT / "docs" / "results" / "nano.json", nano),
    "chat-nano": (ROOT / "docs" / "results" / "llava_nano.json", chat_nano),
    "metrics": (ROOT / "benchmarks" / "results" / "metrics.json", metrics),
    "metrics-video": (ROOT / "benchmarks" / "results" / "metrics_video.json", metrics_video),
    "metrics-language": (ROOT / "benchmarks" / "results" / "metrics_language.json", metrics_language),
    "evaluation": (ROOT / "docs" / "results" / "evaluation.json", evaluation),
    "finetuning": (ROOT / "benchmarks" / "results" / "finetuning.json", finetuning),
}


def render(page: str) -> str:
    """The page with every block made anew; a block whose result file does not exist yet says so."""

    def block(match: re.Match[str]) -> str:
        name = match["name"]
        path, make = SOURCES[name]
        body = make(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else "(not measured yet)"
        return f"<!-- results:{name}:begin -->\n{body}\n<!-- results:{name}:end -->"

    return BLOCK.sub(block, page)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Tables of measured numbers in README and docs.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a page differs")
    options = parser.parse_args(arguments)
    stale = []
    for path in PAGES:
        page = path.read_text(encoding="utf-8")
        made = render(page)
        if made != page:
            stale.append(path)
            if not options.check:
                path.write_text(made, encoding="utf-8")
    for path in stale:
        print(f"{'differs from the results' if options.check else 'written'}: {path.relative_to(ROOT)}")
    return 1 if options.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
