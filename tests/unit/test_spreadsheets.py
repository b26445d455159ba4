"""Spreadsheets: what is written is read again, and what others write is read."""

import zipfile

import pytest

from omgvision.spreadsheets import MAIN, SHEET, STRINGS, read_sheet, write_sheet
from omgvision.tables import read_rows


def test_what_is_written_is_read_again(tmp_path):
    rows = [["index", "A", "prediction"], [7, "a <b> & c", "two\nlines"], [8, None, "\x00控 _x0041_"], [9, "", "'=1+1"]]
    write_sheet(tmp_path / "a.xlsx", rows)
    read = read_sheet(tmp_path / "a.xlsx")
    assert read[:2] == [["index", "A", "prediction"], ["7", "a <b> & c", "two\nlines"]]
    assert read[2] == ["8", None, "控 _x0041_"]
    assert read_rows(tmp_path / "a.xlsx", keys=("index",), keep=("A",))[2] == {
        "index": "9",
        "A": "",
        "prediction": "'=1+1",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["a.xlsx"]


def test_shared_texts_and_places(tmp_path):
    """As Excel and openpyxl write: texts in a table of their own, empty cells left out, rich text in runs."""
    space = MAIN[1:-1]
    with zipfile.ZipFile(tmp_path / "a.xlsx", "w") as book:
        texts = "<si><t>index</t></si><si><r><t>pre</t></r><r><t>diction</t></r></si>"
        book.writestr(STRINGS, f'<sst xmlns="{space}">{texts}</sst>')
        first = '<c r="A1" t="s"><v>0</v></c><c r="C1" t="s"><v>1</v></c>'
        second = '<c r="A2"><v>3</v></c><c r="C2" t="str"><v>B</v></c>'
        rows = f"<row>{first}</row><row>{second}</row>"
        book.writestr(SHEET, f'<worksheet xmlns="{space}"><sheetData>{rows}</sheetData></worksheet>')
    assert read_sheet(tmp_path / "a.xlsx") == [["index", None, "prediction"], ["3", None, "B"]]
    assert read_rows(tmp_path / "a.xlsx", keys=("index",)) == [{"index": "3", "prediction": "B"}]


def test_what_is_no_spreadsheet(tmp_path):
    with pytest.raises(ValueError, match="expected a table, got no file"):
        read_sheet(tmp_path / "none.xlsx")
    (tmp_path / "a.xlsx").write_text("index,prediction")
    with pytest.raises(ValueError, match=r"a\.xlsx: expected a spreadsheet"):
        read_sheet(tmp_path / "a.xlsx")
    with zipfile.ZipFile(tmp_path / "b.xlsx", "w") as book:
        book.writestr("a.txt", "")
    with pytest.raises(ValueError, match=r"b\.xlsx: expected a spreadsheet"):
        read_sheet(tmp_path / "b.xlsx")
