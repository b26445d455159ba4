"""`omg convert`: checkpoints of others → a `from_pretrained` folder."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from . import options


def convert(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE… OUTPUT",
            help="Checkpoint files (and the folder of a language model), then the folder to make.",
        ),
    ],
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="JSON with fields of our configuration that no weight's shape tells."),
    ] = None,
    merge_lora: Annotated[
        bool, typer.Option("--merge-lora", help="Add the adapters of OMG-LLaVA to the weights that they adapt.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Write nothing: say what becomes of every key. A JSON of names and shapes will do for a checkpoint.",
        ),
    ] = False,
) -> None:
    """Convert original OMG-Seg, OMG-LLaVA and OpenCLIP weights.

    [bold]omg convert omg_seg_convl.pth open_clip_pytorch_model.bin folder/[/bold]

    The published OMG-Seg file holds no backbone: give the OpenCLIP file it was trained with as well.

    [bold]omg convert finetuned_gcg.pth omg_seg_convl.pth open_clip_pytorch_model.bin classes.pth llm/ folder/[/bold]

    OMG-LLaVA needs all its parts: the trained file, the segmenter, its class embeddings, and the language model.

    [bold]omg convert omg_seg_convl.pth open_clip_pytorch_model.bin folder/ --dry-run[/bold]

    Checks names and shapes without reading the weights, and writes nothing.
    """
    if len(paths) < 2:
        raise options.complain("expected at least one checkpoint and the output folder: omg convert SOURCE… OUTPUT")
    *sources, output = paths
    overrides = None if config is None else _read_config(config)

    from huggingface_hub.errors import StrictDataclassError

    from omgvision.conversion.checkpoint import read_checkpoint, read_shapes
    from omgvision.conversion.folder import REPORT_NAME, check_is_new, read_conversion
    from omgvision.conversion.omg_llava_folder import is_llava, read_llava_conversion

    options.quiet_libraries()
    if merge_lora and not is_llava(sources):
        raise options.complain("--merge-lora: expected the files of OMG-LLaVA with the folder of its language model")
    check_is_new(output)
    read = read_shapes if dry_run else read_checkpoint
    try:
        if is_llava(sources):
            conversion = read_llava_conversion(sources, output, overrides, merge_lora=merge_lora, read=read)
        else:
            conversion = read_conversion(sources, overrides, read=read)
    except (TypeError, StrictDataclassError) as error:
        if overrides is None:
            raise
        raise options.complain(f"--config: a value in {config} has the wrong type ({error})") from None
    if dry_run:
        print(conversion.report)
        for folder, part in conversion.parts.items():
            print(f"would be written: {output / folder} ({part})")
        for name in conversion.tensors:
            print(f"would be written: {output / name}")
        return
    conversion.write(output)
    print(conversion.report)
    print(f"written: {output} (the whole report: {output / REPORT_NAME})")


def _read_config(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise options.complain(f"--config: cannot read {path}: {error.strerror}") from None
    except ValueError:
        raise options.complain(f"--config: {path} is not JSON") from None
    if not isinstance(fields, dict):
        raise options.complain(f"--config: expected an object of field names and values in {path}")
    return fields
