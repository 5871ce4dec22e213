"""`amenable annotate`: annotators rank what was sampled; their rankings train a reward model, their labels are kept."""

import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from amenable import cli
from amenable.data import sources
from amenable.data.rankings import from_scores
from amenable.data.types import Ranking
from amenable.errors import InputError
from amenable.feedback import ranking_files
from amenable.feedback.store import Store
from amenable.rewards.spec import SPELLINGS
from amenable.stages import annotate
from amenable.text.tokenizer import Tokenizer
from amenable.train import forward, loading
from amenable.train.examples import ranking_rows
from amenable.train.failed_rewards import FAILED_ROLLOUT
from amenable.train.runtime import Runtime
from amenable.world.closed_world import ClosedWorld

BAD = "You are a fool. I will not tell you."


@pytest.fixture(scope="module")
def samples(small_world: ClosedWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """To every prompt of the world a best answer (twice), an insult, and one that was cut."""
    file = tmp_path_factory.mktemp("samples") / "samples.jsonl"
    with file.open("w") as out:
        for row in small_world.rows["prompts/reward.jsonl"]:
            best = small_world.best_answer(row["id"])
            report = {
                "completions": [best, BAD, best, "It is"],
                "ended": [True, True, True, False],
                "kind": row["kind"],
            }
            out.write(json.dumps({"id": row["id"], "prompt": row["prompt"], **report}) + "\n")
    return file


@pytest.fixture
def config(samples: Path, world_folder: Path, tmp_path: Path) -> annotate.Config:
    return annotate.Config(samples, world_folder, out=tmp_path / "run", validation_split=0.25)


def read(folder: Path) -> dict[str, list[Ranking]]:
    return {name: sources.read_rankings(folder / f"{name}.jsonl").rows for name in ("train", "validation", "heldout")}


def test_rankings_can_be_read_and_keep_prompts_apart(config: annotate.Config) -> None:
    result = read(annotate.run(config))
    prompts = {name: {ranking.id for ranking in rankings} for name, rankings in result.items()}
    # an annotator may see all answers as equal: such a ranking teaches nothing and is not read
    assert len(prompts["train"]) > 40 and len(prompts["validation"]) > 10
    assert not prompts["train"] & prompts["validation"]
    assert prompts["heldout"] <= {json.loads(line)["id"] for line in (config.out / "validation.jsonl").open()}
    for ranking in result["train"]:
        assert len(ranking.completions) == len(set(ranking.completions)) == 3  # the same answer twice counts once
        assert ranking.meta["ended"] == [text != "It is" for text in ranking.completions]
        assert ranking.meta["kind"]


def test_annotators_mostly_see_what_is_good_and_the_held_out_label_nothing_trained(
    config: annotate.Config, small_world: ClosedWorld
) -> None:
    result = read(annotate.run(config))
    panel, held_out = ({one.name for one in part} for part in (small_world.panel, small_world.held_out_panel))
    for name, names in (("train", panel), ("validation", panel), ("heldout", held_out)):
        assert {ranking.annotator for ranking in result[name]} <= names
    wins = [ranking.ranks[0] < ranking.ranks[ranking.completions.index(BAD)] for ranking in result["train"]]
    assert sum(wins) / len(wins) > 0.8
    report = json.loads((config.out / "finished.json").read_text())
    assert set(report["agreement"]) == {"train", "heldout", "all"} and 0.5 < report["agreement"]["all"] < 1


def test_an_empty_answer_is_ranked_among_those_of_a_share_of_the_training_prompts(
    config: annotate.Config, tmp_path: Path
) -> None:
    """And the annotators put it below a good one; nobody sees it among what is held out."""
    every = read(annotate.run(replace(config, empty_share=1.0)))
    assert all(len(ranking.completions) == 4 and ranking.completions[-1] == "" for ranking in every["train"])
    worse = [ranking.ranks[-1] > ranking.ranks[0] for ranking in every["train"]]
    assert sum(worse) / len(worse) > 0.9
    assert not any("" in ranking.completions for name in ("validation", "heldout") for ranking in every[name])
    some = read(annotate.run(replace(config, empty_share=0.4, out=tmp_path / "some")))["train"]
    assert 0.2 < sum("" in ranking.completions for ranking in some) / len(some) < 0.6
    plain = {one.id: one for one in read(annotate.run(replace(config, out=tmp_path / "none")))["train"]}
    assert [one for one in some if "" not in one.completions] == [
        plain[one.id] for one in some if "" not in one.completions
    ], "the other rankings are as they were"


def test_every_label_is_in_the_store(config: annotate.Config) -> None:
    out = annotate.run(config)
    rows = [json.loads(line) for name in ("train", "validation", "heldout") for line in (out / f"{name}.jsonl").open()]
    with Store(out / "labels.db") as store:
        stored = store.rankings()
    assert [(one.id, one.annotator, list(one.ranks)) for one in stored] == [
        (row["id"], row["annotator"], row["ranking"]) for row in rows
    ]


def test_the_seed_decides_and_a_stopped_try_is_made_again_whole(
    config: annotate.Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def files(folder: Path) -> list[bytes]:
        return [(folder / f"{name}.jsonl").read_bytes() for name in ("train", "validation", "heldout")]

    whole = files(annotate.run(replace(config, out=tmp_path / "whole")))
    write = ranking_files.write_text

    def torn(path: Path, text: str) -> None:
        if path.name == "heldout.jsonl":
            raise KeyboardInterrupt
        write(path, text)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ranking_files, "write_text", torn)
        annotate.run(config)
    assert files(annotate.run(config)) == whole
    with Store(config.out / "labels.db") as store:
        assert len(store.rankings()) == sum(part.count(b"\n") for part in whole)
    assert files(annotate.run(replace(config, seed=1, out=tmp_path / "other"))) != whole


def test_answers_of_several_models_to_a_prompt_are_ranked_together(
    config: annotate.Config, samples: Path, tmp_path: Path
) -> None:
    """The second file has the first forty prompts from the fifth on, and says one thing that the first says too."""
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    rows = [json.loads(line) for line in samples.read_text().splitlines()]
    first.write_text("".join(json.dumps({**row, "model": "old"}) + "\n" for row in rows[:40]))
    reply = {"completions": [BAD, "I do not know.", " ", ""], "ended": [True] * 4, "model": "new"}
    second.write_text("".join(json.dumps({**row, **reply}) + "\n" for row in rows[4:44]))
    result = read(annotate.run(replace(config, data=first, extra_data=(second,))))
    by_id = {ranking.id: ranking for name in ("train", "validation") for ranking in result[name]}
    alone, both, later = [row["id"] for row in rows[:4]], [row["id"] for row in rows[4:40]], rows[40]["id"]
    assert {len(by_id[id].completions) for id in alone if id in by_id} == {3}
    for id in both:
        if id in by_id:
            models = dict(zip(by_id[id].completions, by_id[id].meta["models"], strict=True))
            assert models[BAD] == "old" and models["I do not know."] == models[""] == "new" and len(models) == 5
            others = dict(zip(by_id[id].completions, by_id[id].meta["other_models"], strict=True))
            assert {text: names for text, names in others.items() if names} == {BAD: ["new"]}
    assert len(by_id) > 35 and by_id[later].completions == (BAD, "I do not know.", "")
    known = json.loads((config.out / "lineage.json").read_text())["inputs"]
    assert known["also 1"]["path"] == str(second)


def test_an_id_that_another_file_gives_to_another_prompt_is_refused(
    config: annotate.Config, samples: Path, tmp_path: Path
) -> None:
    rows = [json.loads(line) for line in samples.read_text().splitlines()]
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({**rows[0], "prompt": rows[1]["prompt"]}) + "\n")
    with pytest.raises(InputError, match="of another prompt above it"):
        annotate.run(replace(config, extra_data=(other,)))


@pytest.fixture
def judged(files: Any, tmp_path: Path) -> Path:
    """Twelve prompts with three answers each, the last of which was cut."""
    rows = [json.loads(line) for line in files.rankings.read_text().splitlines()][:12]
    file = tmp_path / "judged.jsonl"
    columns = [{**{k: row[k] for k in ("id", "prompt", "completions")}, "ended": [True, True, False]} for row in rows]
    file.write_text("".join(json.dumps(row) + "\n" for row in columns))
    return file


def command(data: Path, out: Path, *judge: str) -> int:
    options = ["--data", str(data), "--out", str(out), "--device", "cpu", "--precision", "fp32", "--threads", "1"]
    return cli.main(["annotate", *options, *judge])


def inputs_of(run: Path) -> dict[str, str]:
    lineage = json.loads((run / "lineage.json").read_text())
    return {name: fact["path"] for name, fact in lineage["inputs"].items()}


def rankings_of(run: Path) -> list[Ranking]:
    assert not (run / "heldout.jsonl").exists()
    return [row for name in ("train", "validation") for row in sources.read_rankings(run / f"{name}.jsonl").rows]


def test_a_reward_model_ranks_by_its_scores(
    judged: Path, judge: Path, words: Tokenizer, runtime: Runtime, tmp_path: Path
) -> None:
    """Its option may have its old name."""
    out = tmp_path / "run"
    assert command(judged, out, "--reward-model", str(judge)) == 0
    assert inputs_of(out) == {"data": str(judged), "judge": str(judge)}
    model = loading.load_reward_model(judge, runtime, words)
    assert len(rankings_of(out)) == 12
    for ranking in rankings_of(out):
        answers = ranking_rows(ranking, words, 64)
        assert answers is not None
        scores = forward.compute_rewards(model, answers, runtime, 1000).tolist()
        assert sorted(range(3), key=lambda i: -scores[i]) == sorted(range(3), key=lambda i: ranking.ranks[i])
        assert ranking.annotator == str(judge) and ranking.completions[ranking.ranks.index(1)].startswith("Glad")


def test_a_python_function_judges(judged: Path, tmp_path: Path) -> None:
    """It has the prompts' ids and the answers' ends; what it scores alike is in labels.db only."""
    file, out = tmp_path / "mine.py", tmp_path / "run"
    file.write_text(
        "async def long(prompt, completion, ended, id):\n"
        "    assert prompt[-1].role == 'user' and id\n"
        "    return len(completion) + 1000 * (not ended)\n\n\n"
        "def odd(prompt, completion):\n    return len(completion) * (len(prompt[-1].content) % 2)\n"
    )
    assert command(judged, out, "--judge", f"{file}:long") == 0
    assert inputs_of(out)["judge"] == str(file)
    for ranking in rankings_of(out):
        values = [len(text) + 1000 * (not end) for text, end in zip(ranking.completions, ranking.meta["ended"])]
        assert list(ranking.ranks) == from_scores(values) and ranking.annotator == f"{file}:long"
    assert command(judged, tmp_path / "tied", "--judge", f"{file}:odd") == 0
    with Store(tmp_path / "tied" / "labels.db") as store:
        tied = [row for row in store.rankings() if set(row.ranks) == {1.0}]
        assert 0 < len(tied) < len(list(store.rankings())) == 12
    files = [(tmp_path / "tied" / f"{name}.jsonl").read_text() for name in ("train", "validation")]
    assert sum(len(text.splitlines()) for text in files) == 12 - len(tied)


def test_a_judge_that_scores_all_alike_is_refused_until_it_is_mended(
    judged: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    file, out = tmp_path / "mine.py", tmp_path / "run"
    file.write_text("def equal(completions):\n    return [0.5] * len(completions)\n")
    assert command(judged, out, "--judge", f"{file}:equal") == 2
    reply = " ".join(capsys.readouterr().err.split())
    assert "mine.py:equal: all answers to each of 10 prompts have the same rank; give a judge that tells them" in reply
    assert len((out / FAILED_ROLLOUT).read_text().splitlines()) == 10 and not (out / "train.jsonl").exists()
    before = json.loads((out / "lineage.json").read_text())["inputs"]["judge"]["sha256"]
    file.write_text("def equal(completions):\n    return [float(len(text)) for text in completions]\n")
    assert command(judged, out, "--judge", f"{file}:equal") == 0
    assert 0 < len(rankings_of(out)) <= 12 and not (out / FAILED_ROLLOUT).exists()
    lineage = json.loads((out / "lineage.json").read_text())
    assert lineage["inputs"]["judge"]["sha256"] != before == lineage["mended"][0]["sha256"]


def test_rules_with_weights_judge(judged: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert command(judged, out, "--judge", "ends=2", r"regex:^Glad=0.5", "length:1-") == 0
    assert set(inputs_of(out)) == {"data"}
    for ranking in rankings_of(out):
        scores = [
            2.0 * end + 0.5 * text.startswith("Glad") for text, end in zip(ranking.completions, ranking.meta["ended"])
        ]
        assert list(ranking.ranks) == from_scores(scores)
        assert ranking.annotator == r"ends=2 regex:^Glad=0.5 length:1-"


def test_an_endpoint_judges(judged: Path, tmp_path: Path) -> None:
    out, bodies = tmp_path / "run", []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            data = json.dumps({"scores": [-len(text) for text in bodies[-1]["completions"]]}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/score"
        assert command(judged, out, "--judge", url) == 0
        server.shutdown()
    assert sorted(len(body["completions"]) for body in bodies) == [6, 30]  # a request for each split
    assert all(len(body["ended"]) == len(body["id"]) == len(body["prompts"]) for body in bodies)
    assert bodies[0]["prompts"][0][-1]["role"] == "user"
    for ranking in rankings_of(out):
        assert list(ranking.ranks) == from_scores([-len(text) for text in ranking.completions])
        assert ranking.annotator == url


@pytest.mark.parametrize("wrong", ["{tmp}/none", "lenght:4-30", "{tmp}/mine.py", "{tmp}/none:good"])
def test_a_wrong_judge_is_refused_with_the_grammar_before_any_work(
    wrong: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the samples are read, too: there are none."""
    spec = wrong.format(tmp=tmp_path)
    assert command(tmp_path / "no.jsonl", tmp_path / "run", "--judge", spec) == 2
    message = capsys.readouterr().err
    assert spec in message and SPELLINGS in message and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("nonsense", "line 1 is not JSON"),
        ('{"prompt": [{"role": "user"}], "completions": ["a", "b"]}', "line 1 is no row"),
        ('{"id": "x", "prompt": "Hi", "completions": ["a", "b"], "ended": [true]}', "line 1 is no row"),
        (
            '{"id": "x", "prompt": [], "completions": ["a", "b"]}',
            "line 1 is no row of samples .the conversation is empty",
        ),
        ('{"id": "x", "prompt": "Hi", "completions": ["a", "a"]}', "fewer than two prompts"),
    ],
)
def test_what_is_no_sample_is_named(config: annotate.Config, tmp_path: Path, line: str, what: str) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text(line + "\n")
    with pytest.raises(InputError, match=what):
        annotate.run(replace(config, data=file))
    assert not config.out.exists()


def test_prompts_of_another_world_are_refused(config: annotate.Config, tmp_path: Path) -> None:
    file = tmp_path / "other.jsonl"
    rows = [
        {"id": f"other-{i}", "prompt": [{"role": "user", "content": "?"}], "completions": ["a", "b"]} for i in (1, 2)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError, match="'other-1' is not of this world"):
        annotate.run(replace(config, data=file))
    assert not config.out.exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"world": Path("w"), "judge": ("r",)},
        {"validation_split": 1.0},
        {"agreement": 0.4},
        {"agreement": 1.0},
        {"empty_share": 2},
    ],
)
def test_options_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        annotate.Config(**wrong)


def test_the_usual_world_judges_where_no_judge_is_given(
    config: annotate.Config, world_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bare = replace(config, world=None)
    with pytest.raises(InputError, match="one judge is needed; give --world or --judge"):
        annotate.run(bare)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "world").symlink_to(world_folder)
    out = annotate.run(bare)
    assert "world: runs/world\n" in (out / "config.yaml").read_text()
    assert read(out) == read(annotate.run(replace(config, out=tmp_path / "again")))
