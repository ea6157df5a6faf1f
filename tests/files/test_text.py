"""Text from outside: bounded, regular, whole; and names with accents of two spellings."""

from __future__ import annotations

import os
import time
import unicodedata
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from customize.files.parse import parse_json, parse_toml, parse_yaml
from customize.files.spelling import as_stored
from customize.files.text import MOST_BYTES, Unreadable, read_text

LAUGHS = "\n".join(
    ["a: &a [x, x, x, x, x, x, x, x, x]"]
    + [f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]" for old, new in pairwise("abcdefghi")]
)


@pytest.mark.parametrize(
    ("parse", "text", "found"),
    [
        (parse_json, '{"a": 1, "a": 2}', "'a' given twice"),
        (parse_json, '{"rows": [{"a": 1, "a": 2}]}', "'a' given twice"),
        (parse_yaml, "b:\n  a: 1\n  a: 2", "'a' given twice"),
        (parse_json, f'{{"weight": {"9" * 400}}}', "a number of 400 digits"),
        (parse_json, '{"weight": 1e999}', "the number 1e999"),
        (parse_json, '{"weight": NaN}', "NaN, which is no number"),
        (parse_yaml, f"weight: {'9' * 400}", "more than 64 bits"),
        (parse_yaml, f"weight: {'9' * 9000}", "not YAML"),
        (parse_toml, f"weight = {'9' * 400}", "more than 64 bits"),
        (parse_json, r'{"a": "\ud800"}', r"half of a character \(\\ud800\)"),
        (parse_json, r'{"\udfff": "a"}', r"half of a character \(\\udfff\)"),
        (parse_yaml, r'a: "\ud800"', "half of a character"),
        (parse_json, "[" * 100_000, "nested more than 32 deep"),
        (parse_json, "[" * 40 + "]" * 40, "nested more than 32 deep"),
        (parse_json, b'{"a": "\xff"}', "not UTF-8 text"),
        (parse_json, '{"seed": 9223372036854775808}', "more than 64 bits"),
        (parse_yaml, "a: " + "[" * 40 + "]" * 40, "nested more than 32 deep"),
        (parse_yaml, "[" * 100_000, "nested too deeply"),
        (parse_toml, "a = " + "[" * 50_000, "not TOML"),
        (parse_yaml, LAUGHS, "more than 20000 values, aliases counted each time"),
        (parse_yaml, "- [[[[[[[[[[[[[]]]]]]]]]]]]]\n" * 6000, "more than 20000 values"),
        (parse_yaml, "a: &a [*a]", "an alias to what it stands in"),
        (parse_yaml, "a: !!python/object/apply:os.system [true]", "not YAML"),
        (parse_yaml, r'pairs: "C:\Users\me"', "not YAML"),
        (parse_toml, 'pairs = "C:\\me"', "not TOML"),
    ],
)  # fmt: skip
def test_what_nothing_can_hold_is_refused_at_once(
    parse: Callable[[str], Any], text: str, found: str
) -> None:
    start = time.process_time()
    with pytest.raises(Unreadable, match=found):
        parse(text)
    assert time.process_time() - start < 10


def test_what_people_write_is_read() -> None:
    assert parse_json(r'["\ud83d\ude00", 1, -0.5, null]') == ["😀", 1, -0.5, None]
    shared = "shared: &all {lr: 1}\nfirst:\n  <<: *all\n  steps: 2"
    assert parse_yaml(shared)["first"] == {"lr": 1, "steps": 2}
    assert parse_yaml("") is None
    assert parse_toml("a = [1, 2]") == {"a": [1, 2]}


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse_yaml, r'pairs: "C:\Users\me\dog"'),
        (parse_yaml, r'pairs: "C:\U\dog"'),
        (parse_yaml, r'pairs: "C:\my\dog"'),
        (parse_toml, r'pairs = "C:\Users\me"'),
        (parse_toml, r'pairs = "C:\my\dog"'),
        (parse_json, r'{"source": "C:\Users\me"}'),
        (parse_json, r'{"source": "C:\my\dog.png"}'),
    ],
)
def test_windows_paths_in_double_quotes_are_told_how_to_be_written(
    parse: Callable[[str], Any], text: str
) -> None:
    with pytest.raises(Unreadable) as caught:
        parse(text)
    assert "forward slashes" in caught.value.cure


def test_only_files_of_a_reasonable_size_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "long").write_bytes(b"a" * (MOST_BYTES + 1))
    (tmp_path / "latin").write_bytes("ä".encode("latin-1"))
    for name, found in (
        ("pipe", "a named pipe"),
        ("long", "more than 0.2 MB of text"),
        ("latin", "not UTF-8"),
        ("none", "no such file"),
        (".", "a folder"),
        ("zero\0byte", "a name that no file can have"),
    ):
        with pytest.raises(Unreadable, match=found):
            read_text(tmp_path / name)
    with pytest.raises(Unreadable, match="a device"):
        read_text(Path("/dev/zero"))
    (tmp_path / "marked").write_bytes(b"\xef\xbb\xbfhello")
    assert read_text(tmp_path / "marked") == "hello"


def test_names_are_found_however_their_accents_are_stored(tmp_path: Path) -> None:
    one, two = (unicodedata.normalize(form, "Hündin/Rüde é.png") for form in ("NFC", "NFD"))
    (tmp_path / two).parent.mkdir()
    (tmp_path / two).touch()
    assert as_stored(tmp_path / one) == tmp_path / two
    assert as_stored(tmp_path / two) == tmp_path / two
    assert as_stored(tmp_path / "Hündchen") == tmp_path / "Hündchen"
    beside = (tmp_path / one).with_name("new é.png")  # to be written where the others are
    assert as_stored(beside) == (tmp_path / two).with_name("new é.png")
    (tmp_path / one).parent.mkdir(exist_ok=True)
    (tmp_path / one).touch()
    assert as_stored(tmp_path / one) == tmp_path / one  # what is there is never another
