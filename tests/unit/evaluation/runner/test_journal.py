import json

import pytest

from omgvision.errors import UserError
from omgvision.evaluation.runner.journal import Journal


def test_what_is_written_is_found_again(tmp_path):
    journal = Journal(tmp_path / "samples", writer="000")
    assert not (tmp_path / "samples").exists()
    journal.append("b", {"file": "ü.png"}, 0.5)
    journal.append("a", {}, None)
    for opened in (journal, Journal(tmp_path / "samples", writer="001")):
        assert (len(opened), "a" in opened, "c" in opened) == (2, True, False)
        assert opened["b"] == {"file": "ü.png"}
        assert (opened.quality("b"), opened.quality("a")) == (0.5, None)


def test_the_files_of_all_processes_are_one_run_and_a_repeated_sample_counts_once(tmp_path):
    first = Journal(tmp_path, writer="000")
    first.append("a", {"from": 0}, 0.1)
    first.append("a", {"from": "again"}, 0.9)
    other = Journal(tmp_path / "other", writer="001")
    other.append("a", {"from": 1}, 0.2)
    other.append("b", {"from": 1}, 0.3)
    (tmp_path / "other" / "001.jsonl").rename(tmp_path / "001.jsonl")
    both = Journal(tmp_path, writer="000")
    assert len(both) == 2
    assert (both["a"], both["b"]) == ({"from": 0}, {"from": 1})


@pytest.mark.parametrize(
    "torn", ['{"id": "b", "qual', '{"id": "b", "quality": 1, "record": {}}', '{"id": "b"}\n', "é\n"]
)
def test_a_torn_last_line_is_written_again(tmp_path, caplog, torn):
    Journal(tmp_path, writer="000").append("a", {"n": 1}, 1.0)
    with (tmp_path / "000.jsonl").open("a") as stream:
        stream.write(torn)
    journal = Journal(tmp_path, writer="000")
    assert "torn" in caplog.text
    assert "b" not in journal
    journal.append("b", {"n": 2}, None)
    again = Journal(tmp_path, writer="000")
    assert (again["a"], again["b"]) == ({"n": 1}, {"n": 2})
    assert [json.loads(line)["id"] for line in (tmp_path / "000.jsonl").read_text().splitlines()] == ["a", "b"]


def test_a_torn_line_of_another_process_stays_as_it_is(tmp_path):
    (tmp_path / "001.jsonl").write_text('{"id": "x"')
    journal = Journal(tmp_path, writer="000")
    journal.append("x", {}, None)
    assert (tmp_path / "001.jsonl").read_text() == '{"id": "x"'
    assert len(Journal(tmp_path, writer="000")) == 1


def test_damage_in_the_middle_is_no_torn_line(tmp_path):
    (tmp_path / "000.jsonl").write_text('nonsense\n{"id": "a", "quality": null, "record": {}}\n')
    with pytest.raises(UserError, match="line 1"):
        Journal(tmp_path, writer="000")
