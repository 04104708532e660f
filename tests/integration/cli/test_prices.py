"""`midwatch prices`: needs no running instance, writes one small file whole."""

import json
from pathlib import Path

from .conftest import Midwatch  # noqa: TID252  there is no tests package


def test_a_price_is_set_shown_and_taken_back(midwatch: Midwatch, tmp_path: Path) -> None:
    made = midwatch(
        "prices",
        "set",
        "My-Model",
        "input=0.20/M",
        "output=$0.80/M",
        "batch=50%",
        "--data",
        tmp_path,
    )
    assert (made.code, made.out) == (0, "My-Model: input $0.20/M, output $0.80/M, batch 50%\n")
    file = tmp_path / "gateway" / "prices.json"
    assert json.loads(file.read_text()) == {
        "v": 1,
        "prices": {"My-Model": {"input": "$0.20/M", "output": "$0.80/M", "batch": "50%"}},
    }
    shown = midwatch("prices", "show", "my-model", "--json", "--data", tmp_path)
    assert shown.json["prices"] == [
        {
            "source": "prices set",
            "name": "My-Model",
            "usd": {
                "input_text": "0.20",
                "output_text": "0.80",
                "input_text batch": "0.10",
                "output_text batch": "0.40",
            },
        }
    ]
    again = midwatch("prices", "set", "my-model", "input=1/M", "--data", tmp_path)
    assert again.code == 0
    assert json.loads(file.read_text())["prices"] == {"my-model": {"input": "$1/M"}}
    assert midwatch("prices", "unset", "MY-MODEL", "--data", tmp_path).code == 0
    assert json.loads(file.read_text())["prices"] == {}
    assert [path.name for path in file.parent.iterdir()] == ["prices.json"]


def test_a_running_gateway_is_told_how_it_takes_a_price_over(
    midwatch: Midwatch, data: Path
) -> None:
    made = midwatch("prices", "set", "m", "input=1/M", "--data", data)
    assert "midwatch reload" in made.err


def test_a_wrong_price_writes_nothing_and_says_what_was_expected(
    midwatch: Midwatch, tmp_path: Path
) -> None:
    for words, said in [
        (["input"], "expected KEY=PRICE"),
        (["input=abc"], "$0.20/M"),
        (["inputs=1/M"], "did you mean input?"),
        (["input=1/M", "input=2/M"], "given twice"),
    ]:
        refused = midwatch("prices", "set", "m", *words, "--data", tmp_path)
        assert refused.code == 2
        assert said in refused.err
    assert list(tmp_path.iterdir()) == []
    gone = midwatch("prices", "unset", "m", "--data", tmp_path)
    assert (gone.code, "none is set" in gone.err) == (1, True)


def test_a_damaged_file_is_named_and_kept(midwatch: Midwatch, tmp_path: Path) -> None:
    file = tmp_path / "gateway" / "prices.json"
    file.parent.mkdir()
    file.write_text('{"v": 7}')
    for command in (["set", "m", "input=1/M"], ["unset", "m"], ["show"]):
        refused = midwatch("prices", *command, "--data", tmp_path)
        assert refused.code == 2
        assert "midwatch prices set" in refused.err
    assert file.read_text() == '{"v": 7}'


def test_show_knows_the_lists_and_the_fleet_files_prices(
    midwatch: Midwatch, tmp_path: Path
) -> None:
    (tmp_path / "fleet.json").write_text(
        json.dumps({"models": {"prices": {"night-1": {"input": "$3/M", "output": "$4/M"}}}})
    )
    listed = midwatch("prices", "show", "--data", tmp_path)
    assert listed.code == 0
    lines = listed.out.splitlines()
    assert lines[0].startswith("genai-prices ")
    assert lines[1].startswith("litellm ")
    assert lines[2] == "night-1: input_text 3.00, output_text 4.00 (fleet file)"
    known = midwatch("prices", "show", "gpt-4o-mini", "--data", tmp_path)
    assert "input_text" in known.out
    unknown = midwatch("prices", "show", "qwen-nobody-knows", "--data", tmp_path)
    assert (unknown.code, "midwatch prices set" in unknown.err) == (1, True)


def test_diff_lists_only_what_differs(midwatch: Midwatch) -> None:
    found = midwatch("prices", "diff", "--provider", "mistral", "--json").json
    assert found
    assert {row["provider"] for row in found} == {"mistral"}
    assert all(row["percent"] is None or row["percent"] > 2 for row in found)
    assert midwatch("prices", "diff", "--provider", "nobody", "--json").json == []
