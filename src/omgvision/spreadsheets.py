"""Spreadsheets (xlsx, ECMA-376), as far as tables of questions and answers need them: the texts of one sheet."""

import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree
from xml.sax.saxutils import escape

MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
STRINGS, SHEET = "xl/sharedStrings.xml", "xl/worksheets/sheet1.xml"
LARGEST = 2**30
"""Bytes of a part, unpacked: more is no table but an attack."""

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff\ud800-\udfff]")
_ESCAPED = re.compile(r"_x([0-9A-Fa-f]{4})_")
_PARTS = {
    "[Content_Types].xml": (
        '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        '<Override PartName="/xl/workbook.xml" '
        'ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/>'
        f'<Override PartName="/{SHEET}" '
        'ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml"/></Types>'
    ),
    "_rels/.rels": (
        '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1" '
        'Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" '
        'Target="xl/workbook.xml"/></Relationships>'
    ),
    "xl/workbook.xml": (
        f'<workbook xmlns="{MAIN[1:-1]}" '
        'xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships">'
        '<sheets><sheet name="Sheet1" sheetId="1" r:id="rId1"/></sheets></workbook>'
    ),
    "xl/_rels/workbook.xml.rels": (
        '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1" '
        'Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/worksheet" '
        'Target="worksheets/sheet1.xml"/></Relationships>'
    ),
}


def read_sheet(path: Path) -> list[list[str | None]]:
    """The cells of the first sheet, row by row; None where there is none. Numbers as they are written in the file.

    Raises:
        ValueError: No file, none of this kind, or an empty sheet.
    """
    try:
        with zipfile.ZipFile(path) as book:
            shared = [_text(one) for one in _root(book, STRINGS)] if STRINGS in book.namelist() else []
            rows = [_cells(row, shared) for row in _root(book, SHEET).iter(f"{MAIN}row")]
    except FileNotFoundError:
        raise ValueError(f"{path}: expected a table, got no file") from None
    except (OSError, zipfile.BadZipFile, ElementTree.ParseError, LookupError, ValueError) as error:
        raise ValueError(f"{path}: expected a spreadsheet (xlsx), got something else ({error})") from None
    if not rows:
        raise ValueError(f"{path}: expected rows, got none")
    return rows


def _root(book: zipfile.ZipFile, name: str) -> ElementTree.Element:
    if book.getinfo(name).file_size > LARGEST:
        raise ValueError(f"{name} is too large")
    return ElementTree.fromstring(book.read(name))


def _cells(row: ElementTree.Element, shared: Sequence[str]) -> list[str | None]:
    cells: list[str | None] = []
    for cell in row.iter(f"{MAIN}c"):
        # Cells that are empty may be left out; the reference ("C7") says which one it is.
        place = _column(cell.get("r")) if cell.get("r") else len(cells)
        cells += [None] * (place + 1 - len(cells))
        value = cell.find(f"{MAIN}v")
        if cell.get("t") == "inlineStr":
            inline = cell.find(f"{MAIN}is")
            cells[place] = None if inline is None else _text(inline)
        elif value is not None and value.text is not None:
            cells[place] = shared[int(value.text)] if cell.get("t") == "s" else value.text
    return cells


def _column(reference: str | None) -> int:
    letters = re.match(r"[A-Z]{1,3}", reference or "")
    if letters is None:
        raise ValueError(f"a cell called {reference!r}")
    number = 0
    for letter in letters[0]:
        number = 26 * number + ord(letter) - ord("A") + 1
    return number - 1


def _text(item: ElementTree.Element) -> str:
    """Plain or rich text; pronunciation is none of it."""
    runs = [part for child in item if child.tag != f"{MAIN}rPh" for part in child.iter(f"{MAIN}t")]
    return _ESCAPED.sub(lambda code: chr(int(code[1], 16)), "".join(part.text or "" for part in runs))


def write_sheet(path: Path, rows: Sequence[Sequence[str | int | None]]) -> None:
    """A spreadsheet of one sheet: the whole file or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as book:
        for name, text in _PARTS.items():
            book.writestr(name, _xml(text))
        lines = "".join(f"<row>{''.join(_written(row))}</row>" for row in rows)
        book.writestr(SHEET, _xml(f'<worksheet xmlns="{MAIN[1:-1]}"><sheetData>{lines}</sheetData></worksheet>'))
    partial.replace(path)


def _xml(text: str) -> str:
    return f'<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n{text}'


def _written(row: Sequence[str | int | None]) -> Iterator[str]:
    for cell in row:
        if cell is None:
            yield "<c/>"
        elif isinstance(cell, int):
            yield f"<c><v>{cell}</v></c>"
        else:
            # What XML cannot hold is left out; what looks like a code stays as it is.
            text = _ESCAPED.sub(r"_x005F_x\1_", _CONTROL.sub("", cell))
            yield f'<c t="inlineStr"><is><t xml:space="preserve">{escape(text)}</t></is></c>'
