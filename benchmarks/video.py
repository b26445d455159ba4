"""What following a video costs: memory and time over 10,000 frames, speed by size and length, the decoder's share.

* ``stream``: a rendered video without end, fed to a ``VideoSession`` frame by frame. Resident memory and milliseconds a
  frame on the way; rendering is not counted. For this part the machine is to have nothing else to do.
* ``identities``: how often objects of the same stream change their id. The task of both is "everything": an id that
  stays can only be counted of objects that are found, and small weights hardly find these by 120 words.
* ``speed``: frames a second and peak memory above the weights for some lengths and sizes, each in a process of its own.
* ``stages``: where the time goes for a frame that is fed, alone or in a clip of several, and how many times that of
  ``Predictor.segment`` on the same frame it is. Repeats alternate; medians are reported.

The weights are the bundled ones. Parts are written as they are done; those that are not asked for stay in the file as
they were.

    python -m benchmarks.video                              # an hour and a quarter of one core
    python -m benchmarks.video --only stream --frames 2000  # one part, shorter
    python -m benchmarks.video --quick                      # tiny, seconds: shows that it runs, measures nothing
"""

import argparse
import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import transformers
from PIL import Image

import omgvision as omg
from benchmarks import make_tables
from benchmarks.segment import Clock, machine, resident_bytes
from omgvision.data import Sample, SyntheticVideo
from omgvision.evaluation.evaluate import picture
from omgvision.evaluation.identity_switches import IdentitySwitches
from omgvision.evaluation.video_benchmarks import true_frame
from omgvision.output_files import write_json
from omgvision.predictor import Predictor
from omgvision.results import Result

HERE = Path(__file__).resolve().parent

Part = Literal["stream", "identities", "speed", "stages"]
PARTS: tuple[Part, ...] = ("stream", "identities", "speed", "stages")
STAGES = ("backbone", "pixel decoder", "mask decoder", "rest")


@dataclass(frozen=True)
class Setup:
    """What is measured.

    Attributes:
        frames, size: Of the stream, which the network sees at this size (height, width).
        blocks: Of how many frames one median is taken.
        lengths, sizes: Of the videos whose speed is measured.
        clips: Frames that are decoded together, two or more.
        repeats: Of the stages.
    """

    frames: int
    size: tuple[int, int]
    block: int
    lengths: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...]
    clips: tuple[int, ...]
    repeats: int


def full_setup(*, frames: int, repeats: int) -> Setup:
    return Setup(
        frames=frames,
        size=(240, 320),
        block=1000,
        lengths=(50, 400),
        sizes=((120, 160), (240, 320), (480, 640)),
        clips=(2, 4, 8),
        repeats=repeats,
    )


def quick_setup() -> Setup:
    return Setup(frames=6, size=(64, 96), block=2, lengths=(2, 4), sizes=((64, 96),), clips=(2,), repeats=1)


def predictor_at(size: tuple[int, int]) -> Predictor:
    """The bundled weights, for frames of (height, width) that the network sees as they are."""
    predictor = omg.load(device="cpu", dtype="float32")
    predictor.processor.image_processor.size = {"longest_edge": max(size), "shortest_edge": min(size)}
    return predictor


def words_of(video: SyntheticVideo) -> dict[str, Any]:
    """The vocabulary of rendered scenes, as `Predictor` takes it."""
    things = [name for name, thing in zip(video.names, video.things, strict=True) if thing]
    return {"classes": video.names, "things": things}


class Watched:
    """A rendered video under the eyes of a `VideoSession`; iterating feeds it and yields results and truth.

    Attributes:
        milliseconds: Of each frame that was fed.
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        size: tuple[int, int],
        length: int,
        task: Literal["panoptic", "everything"] = "panoptic",
    ) -> None:
        self.video = SyntheticVideo(seed=0, size=size, objects=6, staying=3)
        self.length = length
        self.milliseconds: list[float] = []
        words = words_of(self.video) if task == "panoptic" else {}
        self.session = predictor.open_video(task=task, **words)

    def __iter__(self) -> Iterator[tuple[Result, Sample]]:
        for index in range(self.length):
            sample = self.video.frame(index)
            image = picture(sample)
            start = time.perf_counter()
            result = self.session.feed(image)
            self.milliseconds.append(1000 * (time.perf_counter() - start))
            yield result, sample


def stream(setup: Setup) -> Watched:
    return Watched(predictor_at(setup.size), size=setup.size, length=setup.frames, task="everything")


def measure_stream(setup: Setup) -> dict[str, Any]:
    watched = stream(setup)
    resident: dict[str, int] = {}
    blocks: dict[str, float] = {}
    for index, _ in enumerate(watched, start=1):
        if index % setup.block == 0:
            gc.collect()
            resident[str(index)] = resident_bytes("VmRSS")
            blocks[str(index)] = statistics.median(watched.milliseconds[-setup.block :])
            print(f"frame {index}: {resident[str(index)] / 2**20:.1f} MiB, {blocks[str(index)]:.1f} ms", flush=True)
    first, last = next(iter(resident)), list(resident)[-1]
    return {
        "frames": setup.frames,
        "size": list(setup.size),
        "block": setup.block,
        "resident_bytes": resident,
        "milliseconds": blocks,
        "memory: last over first": resident[last] / resident[first],
        "time: last over first": blocks[last] / blocks[first],
    }


def measure_identities(setup: Setup) -> dict[str, Any]:
    watched = stream(setup)
    switches = IdentitySwitches(dict(enumerate(watched.video.things)))
    found = (({segment.id: segment.mask for segment in result}, true_frame(sample)) for result, sample in watched)
    switches.update_overlapping("stream", found)
    return {"frames": setup.frames, "size": list(setup.size), **switches.compute()}


def measure_speed(size: tuple[int, int], length: int) -> dict[str, float]:
    """Frames a second, the first one left out, and peak bytes above the weights; to be called in a fresh process."""
    watched = Watched(predictor_at(size), size=size, length=length)
    gc.collect()
    loaded = resident_bytes("VmRSS")
    reset = Path("/proc/self/clear_refs")
    if reset.exists():
        reset.write_text("5")  # the peak starts again from what is resident now
    for _ in watched:
        pass
    seconds = sum(watched.milliseconds[1:]) / 1000
    return {"frames_per_second": (length - 1) / seconds, "peak_bytes": resident_bytes("VmHWM") - loaded}


def measure_speed_apart(setup: Setup) -> dict[str, dict[str, dict[str, float]]]:
    """{size: {length: numbers}}."""
    report: dict[str, dict[str, dict[str, float]]] = {}
    for size in setup.sizes:
        for length in setup.lengths:
            command = [sys.executable, "-m", "benchmarks.video", "--speed-of", *map(str, (*size, length))]
            finished = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=HERE.parent)
            numbers = json.loads(finished.stdout.splitlines()[-1])
            report.setdefault(_name(size), {})[str(length)] = numbers
            print(f"{_name(size)}, {length} frames: {numbers['frames_per_second']:.1f} a second", flush=True)
    return report


def measure_stages(setup: Setup) -> dict[str, dict[str, dict[str, float]]]:
    """{size: {"segment" | "feed" | "clip of n": {stage: seconds a frame, and two of them over those of "segment"}}}."""
    return {_name(size): stages_at(size, setup) for size in setup.sizes}


def stages_at(size: tuple[int, int], setup: Setup) -> dict[str, dict[str, float]]:
    predictor = predictor_at(size)
    watched = Watched(predictor, size=size, length=0)
    words = words_of(watched.video)
    paths: dict[str, tuple[int, Callable[[list[Image.Image]], object]]] = {
        "segment": (1, lambda images: predictor.segment(images[0], task="panoptic", **words)),
        "feed": (1, lambda images: watched.session.feed(images[0])),
    }
    for length in setup.clips:
        paths[f"clip of {length}"] = (length, predictor.open_video(task="panoptic", **words).feed_clip)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in paths}
    for repeat in range(setup.repeats + 1):
        images = [picture(watched.video.frame(repeat + index)) for index in range(max(setup.clips))]
        for name, (frames, run) in paths.items():
            seconds = timed(predictor, run, images[:frames])
            if repeat:  # the first time, memory is asked for
                runs[name].append({stage: seconds[stage] / frames for stage in seconds})
    median = {
        name: {stage: statistics.median(one[stage] for one in times) for stage in (*STAGES, "whole")}
        for name, times in runs.items()
    }
    for one in median.values():
        for stage in ("mask decoder", "whole"):
            one[f"{stage}: over segment"] = one[stage] / median["segment"][stage]
    shown = {name: round(1000 * one["whole"], 1) for name, one in median.items()}
    print(f"{_name(size)}: milliseconds a frame {shown}", flush=True)
    return median


def timed(
    predictor: Predictor, run: Callable[[list[Image.Image]], object], images: list[Image.Image]
) -> dict[str, float]:
    """Seconds of each stage of a call, and of the whole."""
    clock, parts = Clock(), predictor.model.model
    gc.collect()
    with (
        clock.calls(parts.backbone, "backbone"),
        clock.calls(parts.pixel_decoder, "pixel decoder"),
        clock.calls(parts.mask_decoder, "mask decoder"),
    ):
        start = time.perf_counter()
        run(images)
        whole = time.perf_counter() - start
    return {**clock.seconds, "rest": whole - sum(clock.seconds.values()), "whole": whole}


MEASURES: dict[Part, Callable[[Setup], dict[str, Any]]] = {
    "stream": measure_stream,
    "identities": measure_identities,
    "speed": measure_speed_apart,
    "stages": measure_stages,
}


def _name(size: Sequence[int]) -> str:
    return f"{size[1]}x{size[0]}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Time and memory of following videos.")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that everything runs")
    parser.add_argument("--only", choices=PARTS, action="append", help="this part; may be repeated")
    parser.add_argument("--frames", type=int, default=10_000, help="of the stream, a multiple of 1000")
    parser.add_argument("--repeats", type=int, default=10, help="of the stages")
    parser.add_argument("--output", type=Path, help="JSON file; benchmarks/results/video.json unless --quick")
    parser.add_argument("--speed-of", type=int, nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    transformers.logging.set_verbosity_error()
    if options.speed_of:
        height, width, length = options.speed_of
        print(json.dumps(measure_speed((height, width), length)))
        return

    setup = quick_setup() if options.quick else full_setup(frames=options.frames, repeats=options.repeats)
    if setup.frames < setup.block or setup.frames % setup.block:
        parser.error(f"--frames: expected a multiple of {setup.block}, got {setup.frames}")
    output = options.output or (None if options.quick else HERE / "results" / "video.json")
    report = json.loads(output.read_text(encoding="utf-8")) if output is not None and output.exists() else {}
    report["command"] = "python -m benchmarks.video" + (" --quick" if options.quick else "")
    machines = report.setdefault("machines", {})
    for part in options.only or PARTS:
        report[part] = MEASURES[part](setup)
        machines[part] = machine()  # a part that is measured again may be so elsewhere
        if output is not None:
            write_json(output, report)
            print(f"wrote {part} into {output}", flush=True)
    print(make_tables.video(report))


if __name__ == "__main__":
    main()
