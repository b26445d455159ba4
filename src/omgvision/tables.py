"""Questions and answers as rows: tab- or comma-separated values, xlsx, a json list, or one json object a line."""

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

from omgvision.spreadsheets import read_sheet

NOTHING = frozenset(
    ["", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"]
    + ["<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"]
)
"""Cells of text tables that pandas, which official tools read them with, takes for missing."""

LONGEST_CELL = 2**30
"""Pictures lie in such tables too, as base64."""


def read_rows(
    path: Path, *, keys: tuple[str, ...], omit: tuple[str, ...] = (), keep: tuple[str, ...] = ()
) -> list[dict[str, Any]]:
    """The rows of a table, column → cell; cells that are missing are left out.

    Args:
        path: `.tsv` or `.csv` with a header, whose cells are texts; `.xlsx`, the first sheet; anything else is json.
        keys: What every row must have.
        omit: Columns that nobody needs.
        keep: Columns whose missing cells are empty texts instead.

    Raises:
        ValueError: No file, another form, no rows, a row that lacks a key.
    """
    if path.suffix == ".xlsx":
        cells = read_sheet(path)
        rows = [dict(zip(cells[0], _padded(row, len(cells[0])), strict=False)) for row in cells[1:]]
        rows = [{key: None if cell in NOTHING else cell for key, cell in row.items() if key} for row in rows]
    else:
        text = _read_text(path)
        rows = _read_cells(path, text) if path.suffix in (".tsv", ".csv") else _read_objects(path, text)
    if not rows:
        raise ValueError(f"{path}: expected rows, got none")
    rows = [{key: "" if key in keep and _is_missing(cell) else cell for key, cell in row.items()} for row in rows]
    kept = [{key: cell for key, cell in row.items() if not _is_missing(cell) and key not in omit} for row in rows]
    for number, row in enumerate(kept, start=1):
        lacking = [key for key in keys if key not in row]
        if lacking:
            raise ValueError(f"{path}: expected {', '.join(keys)} in every row, got no {lacking[0]} in row {number}")
    return kept


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ValueError(f"{path}: expected a table, got no file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path}: expected tab-separated values or json as UTF-8 text, got something else ({error})"
        ) from None


def _padded(row: list[str | None], length: int) -> list[str | None]:
    return row + [None] * (length - len(row))


def _read_cells(path: Path, text: str) -> list[dict[str, str | None]]:
    before = csv.field_size_limit(LONGEST_CELL)
    try:
        table = csv.DictReader(io.StringIO(text), delimiter="\t" if path.suffix == ".tsv" else ",")
        return [
            {key: None if cell in NOTHING else cell for key, cell in row.items() if isinstance(key, str)}
            for row in table
        ]
    except csv.Error as error:
        raise ValueError(f"{path}: expected a table with a header, got one that cannot be read ({error})") from None
    finally:
        csv.field_size_limit(before)


def _read_objects(path: Path, text: str) -> list[dict[str, Any]]:
    is_list = text.lstrip().startswith("[")
    try:
        rows = json.loads(text) if is_list else [json.loads(line) for line in text.split("\n") if line.strip()]
    except ValueError as error:
        raise ValueError(f"{path}: expected a json list or one json object a line, got neither ({error})") from None
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{path}: expected rows that are json objects, got others")
    return rows


def _is_missing(cell: Any) -> bool:
    return cell is None or (isinstance(cell, float) and math.isnan(cell))
