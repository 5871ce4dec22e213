"""The page that shows single tokens: what it holds, what it refuses, how large it grows."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from amenable import cli
from amenable.cli import from_yaml
from amenable.errors import InputError
from amenable.recipes import inspect

SCRIPT = "</script><script>alert('a model said this')</script>"


def a_run(folder: Path, rows: list[dict], finished: bool = True, watched: int = 6, command: str = "ppo") -> Path:
    folder.mkdir(parents=True)
    traced = f"num_traced_prompts: {watched}\n" if command == "ppo" else ""
    (folder / "config.yaml").write_text(f"command: {command}\n{traced}")
    if rows:
        (folder / "traces.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    if finished:
        (folder / "finished.json").write_text("{}")
    return folder


@pytest.fixture
def ppo(tmp_path: Path, a_row: Callable) -> Path:
    """A run of three iterations and two prompts."""
    return a_run(tmp_path / "ppo", [a_row(step, place) for step in (1, 5, 9) for place in range(2)])


def test_the_page_holds_every_number(
    ppo: Path, capsys: pytest.CaptureFixture[str], a_row: Callable, data_of: Callable
) -> None:
    out = inspect.run(inspect.Config(run=ppo))
    assert out == ppo / "inspect.html"
    assert capsys.readouterr().out == f"3 iterations: {out}\n"
    film = data_of(out.read_text("utf-8"))
    assert film["steps"] == [1, 5, 9] and film["last"] == 9
    assert [prompt["text"] for prompt in film["prompts"]] == ["What is 0?", "What is 1?"]
    for i, step in enumerate((1, 5, 9)):
        for place in range(2):
            row, report = a_row(step, place), film["answers"][i][place]
            assert [film["pieces"][piece] for piece in report["tokens"]] == row["tokens"]
            for key in ("logps", "rewards", "kl", "values", "advantages", "ratios"):
                assert report[key] == pytest.approx(row[key], abs=5.1e-4), key
            top = [[[film["pieces"][piece], p] for piece, p in place] for place in report["top"]]
            assert [[piece for piece, _ in place] for place in top] == [[p for p, _ in place] for place in row["top"]]
            assert (report["score"], report["score_index"], report["ended"]) == (1.25, 7, True)


def test_nothing_is_fetched_and_a_model_can_write_no_script(tmp_path: Path, a_row: Callable, data_of: Callable) -> None:
    row = a_row(1, 0)
    row["tokens"][0], row["prompt"], row["prompt_tokens"][2], row["top"][0][0][0] = SCRIPT, SCRIPT, SCRIPT, SCRIPT
    html = inspect.run(inspect.Config(run=a_run(tmp_path / "<b>run</b>", [row]))).read_text("utf-8")
    assert SCRIPT not in html and "<b>run" not in html and data_of(html)["prompts"][0]["text"] == SCRIPT
    assert html.count("<script") == html.count("</script>") == 2
    assert not re.findall(r"https?://|//\w+\.|@import|url\(", html)
    assert "default-src 'none'" in html and "innerHTML" not in html


def test_ten_iterations_of_six_long_answers_stay_small(tmp_path: Path, a_row: Callable) -> None:
    rows = [a_row(step, place, tokens=64) for step in range(10) for place in range(6)]
    out = inspect.run(inspect.Config(run=a_run(tmp_path / "ppo", rows)))
    assert out.stat().st_size < 1_000_000


def test_a_run_that_is_still_going_shows_what_is_there(tmp_path: Path, a_row: Callable, data_of: Callable) -> None:
    """The second iteration is half written, and its last line torn."""
    run = a_run(tmp_path / "ppo", [a_row(1, 0), a_row(1, 1), a_row(5, 0)], finished=False)
    with (run / "traces.jsonl").open("a") as file:
        file.write('{"step": 5, "id": "p1", "tok')
    film = data_of(inspect.run(inspect.Config(run=run)).read_text("utf-8"))
    assert film["steps"] == [1, 5]
    assert [[answer is not None for answer in answers] for answers in film["answers"]] == [[True, True], [True, False]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        ({"command": "dpo"}, "no run of an online algorithm; name a folder"),
        ({"watched": 0}, "keeps no traces; run it again with --num-traced-prompts 6"),
        ({}, "keeps no traces; run it again with --num-traced-prompts 6"),
        ({"finished": False}, "no traces yet"),
        ({"finished": False, "watched": 0}, "keeps no traces; run it again with --num-traced-prompts 6"),
    ],
)
def test_a_folder_without_traces_says_what_to_do(tmp_path: Path, make: dict, message: str) -> None:
    run = a_run(tmp_path / "run", [], **make)
    with pytest.raises(InputError, match=re.escape(message)):
        inspect.run(inspect.Config(run=run))
    assert not (run / "inspect.html").exists()


def test_a_folder_that_is_not_there_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run of an online algorithm"):
        inspect.run(inspect.Config(run=tmp_path / "nowhere"))
    assert not (tmp_path / "nowhere").exists()


def test_the_command_takes_the_run_as_it_stands(
    ppo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], data_of: Callable
) -> None:
    out = tmp_path / "new" / "page.html"
    assert cli.main(["inspect", str(ppo), "--out", str(out)]) == 0
    assert data_of(out.read_text("utf-8"))["steps"] == [1, 5, 9]
    assert cli.main(["inspect", str(tmp_path)]) == 2
    assert "is no run of an online algorithm" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert cli.main(["inspect", str(ppo), "--out", str(tmp_path / "file" / "page.html")]) == 2
    assert "give --out another file" in capsys.readouterr().err


def test_options_come_from_yaml(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("run: runs/mine\n")
    assert from_yaml(inspect.Config, tmp_path / "config.yaml") == inspect.Config(run=Path("runs/mine"))


def test_the_same_run_gives_the_same_page(ppo: Path) -> None:
    first = inspect.run(inspect.Config(run=ppo)).read_bytes()
    assert inspect.run(inspect.Config(run=ppo)).read_bytes() == first
