"""Choices: kept whole, read carefully, and counted with honest intervals."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from builders.choices import choose, made
from builders.pairs import scene

from customize.cli.main import main
from customize.errors import FaultsError
from customize.scoring.choices.keep import ChoiceFolder
from customize.scoring.choices.read import read_choices
from customize.scoring.choices.win_rate import duels, first_place, wilson


def test_what_is_kept_comes_back(tmp_path: Path) -> None:
    choices = choose(tmp_path, ("a", "c", "first"), ("", "a", "neither"))
    kept = read_choices(tmp_path)
    assert kept == read_choices(choices.table) == choices.read()
    assert kept[0].winner == kept[0].first
    assert kept[0].loser == kept[0].second
    assert kept[1].winner is None
    assert [used.sha256[0] for used in kept[0].second.settings.adapters] == ["c"]
    assert kept[0].first.settings.seed != kept[0].second.settings.seed
    assert all(path.is_file() for path in (kept[0].source, kept[1].second.picture))
    assert ChoiceFolder(tmp_path / "none").read() == []


def test_many_may_choose_at_once_and_a_line_cut_short_is_dropped(tmp_path: Path) -> None:
    folder = choose(tmp_path, ("a", "c", "first"))
    with folder.table.open("a") as file:
        file.write('{"format": "customize-cho')
    with ThreadPoolExecutor(4) as pool:
        for seed in range(12):
            args = (scene(seed), "make it red", made("a", seed), made("c", seed + 1), "tie")
            pool.submit(folder.add, *args)
    assert len(folder.read()) == 13


def test_every_fault_is_told_at_once_and_no_path_leads_out(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"x")
    folder = choose(tmp_path / "c", *[("a", "c", "first")] * 7)
    rows = [json.loads(line) for line in folder.table.read_text().splitlines()]
    rows[0]["source"] = "../secret.png"
    rows[1]["first"]["picture"] = str(tmp_path / "secret.png")
    rows[2]["won"] = "left"
    rows[3]["second"]["settings"]["seed"] = "many"
    rows[4]["instruction"] = "x" * 3000
    rows[5]["format"] = "customize-choice 2"
    (tmp_path / "c" / "link.png").symlink_to(tmp_path / "secret.png")
    rows[6]["source"] = "link.png"
    folder.table.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(FaultsError) as caught:
        read_choices(tmp_path / "c")
    assert [fault.place for fault in caught.value.faults] == [
        f"choices.jsonl:{number}" for number in range(1, 8)
    ]
    assert str(caught.value).count("is outside of the table's folder") == 3
    for text in (
        "won is 'left'",
        "second.settings.seed",
        "1 to 2000 letters",
        "customize-choice 1",
    ):
        assert text in str(caught.value)
    with pytest.raises(FaultsError, match="no such file"):
        read_choices(tmp_path)


def test_wilsons_interval_is_the_published_one() -> None:
    # Newcombe 1998 (Statistics in Medicine 17, table I): 81 of 263, method 3
    interval = wilson(81, 263)
    assert (round(interval.low, 4), round(interval.high, 4)) == (0.2553, 0.3662)
    assert (wilson(0, 20).low, round(wilson(0, 20).high, 4)) == (0.0, 0.1611)


def test_duels_count_wins_whichever_side_they_were_shown_on(tmp_path: Path) -> None:
    folder = choose(
        tmp_path,
        *[("a", "c", "first"), ("c", "a", "second"), ("c", "a", "first"), ("a", "c", "tie")],
        *[("a", "c", "neither"), ("a", "a", "first"), ("", "a", "second")],
    )
    first, second = duels(folder.read())
    assert (first.won, first.lost, first.ties, first.neither) == (2, 1, 1, 1)
    assert first.rate == wilson(2.5, 4)
    assert (second.one, second.other, second.won, second.lost) == ("adapter a", "base alone", 1, 0)
    assert first_place(folder.read()) == wilson(3, 5)


def test_the_command_prints_rates_and_names_what_it_has_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = choose(tmp_path, ("a", "c", "first"), ("a", "", "first"))
    choose(tmp_path, ("c", "a", "first"), by="judge embedded")
    assert main(["score", "choices", str(folder.table)]) == 0
    assert "adapter a  adapter c   1        1" in capsys.readouterr().out
    asked = ["score", "choices", str(tmp_path), "--by", "person", "--between"]
    assert main([*asked, "adapter c", "adapter a"]) == 0
    assert "adapter c  adapter a  0        1" in capsys.readouterr().out
    assert main([*asked, "adapter c", "base alone"]) == 2
    assert "never met" in capsys.readouterr().err
    assert main([*asked, "adapter c", "adapter d"]) == 2
    assert "expected one of adapter a, adapter c, base alone" in capsys.readouterr().err


def test_counting_choices_needs_no_torch(tmp_path: Path) -> None:
    folder = choose(tmp_path, ("a", "c", "first"))
    program = (
        "import sys; from customize.cli.main import main; "
        f"main(['score', 'choices', {str(folder.table)!r}]); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
