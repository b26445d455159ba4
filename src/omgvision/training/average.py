"""Segmenters that were trained on from the same start, averaged into one.

    python -m omgvision.training.average nano/weights=0.4 nano_joint/weights=0.6 --out averaged

Wortsman et al. 2022, "Model soups": such an average keeps what its parts are good at, and costs no more than one.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from omgvision.errors import UserError
from omgvision.hub import load
from omgvision.training.export import export_weights


def average(parts: Sequence[tuple[str, float]], folder: Path) -> Path:
    """Writes the average; its vocabulary is that of the last part, with the averaged text tower's embeddings.

    Args:
        parts: Weights as `omgvision.load` takes them, and the share of each; shares add up to 1.
        folder: To be written.

    Raises:
        UserError: Shares that do not add up to 1, or models of different shapes.
    """
    total = sum(share for _, share in parts)
    if abs(total - 1) > 1e-6:
        raise UserError(f"shares: expected a sum of 1, got {total:g}")
    predictors = [load(name, device="cpu", dtype="float32") for name, _ in parts]
    weights = [dict(predictor.model.named_parameters()) for predictor in predictors]
    shapes = [{name: parameter.shape for name, parameter in each.items()} for each in weights]
    for (name, _), other in zip(parts, shapes, strict=True):
        if other != shapes[-1]:
            raise UserError(f"{name} and {parts[-1][0]} are models of different shapes: expected runs of one model")
    last = predictors[-1]
    with torch.no_grad():
        for name, parameter in weights[-1].items():
            pairs = zip(weights, parts, strict=True)
            parameter.copy_(torch.stack([share * each[name] for each, (_, share) in pairs]).sum(0))
    things = last.model.get_buffer("thing_mask").tolist()
    return export_weights(last.model, folder, names=last.classes, things=things, processor=last.processor)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Average the weights of several runs of one model.")
    parser.add_argument("parts", nargs="+", metavar="WEIGHTS=SHARE", help="folder and share; shares add up to 1")
    parser.add_argument("--out", type=Path, required=True, help="folder to be written")
    options = parser.parse_args(arguments)
    parts = []
    for part in options.parts:
        name, _, share = part.rpartition("=")
        try:
            parts.append((name, float(share)))
        except ValueError:
            parser.error(f"{part}: expected WEIGHTS=SHARE, such as runs/nano/weights=0.4")
    try:
        average(parts, options.out)
    except UserError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
