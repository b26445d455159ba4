"""`omg track`: a video → an overlay that plays, and the result files of the benchmarks of videos."""

import signal
import sys
import time
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer

from . import options
from .pointing import Pointed, read_prompts

if TYPE_CHECKING:
    from omgvision.results import Result
    from omgvision.video_inputs import VideoSource
    from omgvision.video_outputs import VideoOutputs

Format = Literal["mp4", "png", "youtube-vis", "vipseg", "vspw", "davis", "mots"]
FORMATS: tuple[Format, ...] = get_args(Format)
INTERRUPTED = 130


class Task(str, Enum):
    """What to look for."""

    panoptic = "panoptic"
    instance = "instance"
    semantic = "semantic"
    everything = "everything"
    objects = "objects"


class Mode(str, Enum):
    """When to answer."""

    stream = "stream"
    offline = "offline"


DEFAULT_FORMATS: dict[Task, tuple[Format, ...]] = {
    Task.panoptic: ("mp4", "vipseg"),
    Task.instance: ("mp4", "youtube-vis"),
    Task.semantic: ("mp4", "vspw"),
    Task.everything: ("mp4", "youtube-vis"),
    Task.objects: ("mp4", "davis"),
}


def track(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="Video file, folder of frames, pattern, http(s) or rtsp address, or webcam:0."
        ),
    ],
    task: Annotated[
        Task | None,
        typer.Option(help="As of omg segment; objects = what you point at. By default panoptic, or objects if you do."),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Words of your choice, a file with one class a line, or a list's name."),
    ] = None,
    things: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Which of the classes are countable; by default known ones, others are."),
    ] = None,
    threshold: Annotated[float | None, typer.Option(metavar="0…1", help="Leave out segments of lower score.")] = None,
    clip_fusion: Annotated[
        bool, typer.Option("--clip-fusion", help="Mix in CLIP's opinion of each mask (CLIP backbones).")
    ] = False,
    point: Annotated[
        list[str] | None,
        typer.Option(metavar="[ID:]X,Y[@FRAME]", help="A pixel on an object. Without IDs all are of one object."),
    ] = None,
    negative: Annotated[
        list[str] | None,
        typer.Option(metavar="[ID:]X,Y[@FRAME]", help="A pixel beside the object."),
    ] = None,
    box: Annotated[
        list[str] | None,
        typer.Option(metavar="[ID:]X0,Y0,X1,Y1[@FRAME]", help="A box around an object; repeat for more objects."),
    ] = None,
    mask: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[ID:]FILE[@FRAME]",
            help="An object as a picture of the frames' size, not black inside; a palette PNG has an object a value.",
        ),
    ] = None,
    mode: Annotated[
        Mode, typer.Option(help="Answer frame by frame, or after the last one (holds the whole video in memory).")
    ] = Mode.stream,
    clip_frames: Annotated[
        int, typer.Option(min=1, metavar="N", help="Frames of a stream that are decoded, and answered, together.")
    ] = 1,
    every: Annotated[int, typer.Option(min=1, metavar="N", help="Look at every n-th frame only.")] = 1,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Stop after so many frames.")] = None,
    fps: Annotated[
        float | None, typer.Option(metavar="RATE", help="Frames a second of a folder of frames; by default 25.")
    ] = None,
    model: options.Model = None,
    backbone: options.Backbone = None,
    out: options.Out = Path("omg_out"),
    format: Annotated[
        str | None,
        typer.Option(
            "--format", metavar="KINDS", help=f"Some of {','.join(FORMATS)}; by default mp4 and what fits the task."
        ),
    ] = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
) -> int:
    """Segment a video and keep the identity of what is in it; or follow what you point at.

    [bold]omg track street.mp4 --classes "person,car,road,sky"[/bold]

    [bold]omg track horse.mp4 --point 120,80@0 --point 130,95@40[/bold]

    Ctrl-C ends the work early: what was done is on disk and plays.
    """
    pointed = [
        *(Pointed.read(text, "--point") for text in point or ()),
        *(Pointed.read(text, "--negative") for text in negative or ()),
        *(Pointed.read(text, "--box") for text in box or ()),
        *(Pointed.read(text, "--mask") for text in mask or ()),
    ]
    chosen = task or (Task.objects if pointed else Task.panoptic)
    if chosen is Task.objects and not pointed:
        raise options.complain("nothing to follow: task objects needs --point, --box or --mask")
    if chosen is not Task.objects and pointed:
        raise options.complain(
            f"--task {chosen.value} finds its segments by itself: leave --point, --box and --mask out"
        )
    formats = DEFAULT_FORMATS[chosen] if format is None else _read_formats(format)
    names = None if classes is None else options.read_names(classes)
    countable = None if things is None else options.split_names(things)

    from omgvision import load
    from omgvision.data.class_lists import load_class_list
    from omgvision.video_inputs import open_video
    from omgvision.video_outputs import VideoOutputs

    options.quiet_libraries()
    # What cannot be read or written is reported before the weights are loaded.
    with open_video(source, every=every, limit=limit, rate=fps) as video:
        outputs = VideoOutputs(
            out,
            formats=formats,
            name=video.name,
            rate=None if video.rate is None else video.rate / every,
            sound=video.sound,
            category_ids=load_class_list(names).category_ids if isinstance(names, str) else None,
            reads=video.reads,
        )
        prompts = read_prompts(pointed, video) if pointed else None
        predictor = load(model, device=device, dtype=dtype, backbone=backbone)  # type: ignore[arg-type]
        results = predictor.track(
            video,
            task=chosen.value,
            classes=names,
            things=countable,
            threshold=threshold,
            clip_fusion=clip_fusion,
            prompts=prompts,
            mode=mode.value,
            clip_frames=clip_frames,
        )
        return _write(results, video, outputs)


def _write(results: "Iterator[Result]", video: "VideoSource", outputs: "VideoOutputs") -> int:
    """All results to their files, with a progress bar; what was done is kept whatever happens."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("tracking"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"))
    tracks: dict[int, str] = {}
    done, interrupted, start = 0, False, time.perf_counter()
    try:
        with (
            outputs,
            Progress(
                *columns, TimeRemainingColumn(), console=Console(stderr=True), disable=not sys.stderr.isatty()
            ) as progress,
        ):
            bar = progress.add_task("", total=video.length, speed="")
            try:
                for result in results:
                    outputs.write(result)
                    done += 1
                    tracks |= {segment.id: segment.label for segment in result}
                    speed = done / (time.perf_counter() - start)
                    progress.update(bar, advance=1, speed=f"{speed:.1f} frames/s")
            except KeyboardInterrupt:
                # The process ends now. A second Ctrl-C, while the files are finished, must not cost what was done.
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                interrupted = True
    finally:
        if outputs.written:
            seconds = time.perf_counter() - start
            frames = f"{done} frame{'' if done == 1 else 's'} in {seconds:.1f} s ({done / seconds:.1f} a second)"
            print(f"{video.name}: {frames}, {options.summary(list(tracks.values()))}")
            print(f"written: {', '.join(map(str, outputs.written))}")
    if interrupted:
        print(f"omg: interrupted after {done} frames, which are written", file=sys.stderr)
        return INTERRUPTED
    return 0


def _read_formats(text: str) -> list[Format]:
    wanted = {name.strip() for name in text.split(",") if name.strip()}
    unknown = sorted(wanted - set(FORMATS))
    if unknown or not wanted:
        raise options.complain(f"--format: expected some of {','.join(FORMATS)}, got {unknown[0] if unknown else ''!r}")
    return [name for name in FORMATS if name in wanted]
