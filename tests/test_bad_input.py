"""Mistakes, made through the command line: exit code 2, a line that says what, where and how, and nothing changed."""

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from amenable import cli
from amenable.models.decoder import Decoder
from amenable.text.tokenizer import Tokenizer
from amenable.train.artifacts import save_model

ASKED = {"role": "user", "content": "Ann asks: name a red thing."}
FILES = {
    "empty.jsonl": "",
    "nonsense.jsonl": "{not json\nnor this\n",
    "columns.jsonl": '{"body": "a text"}\n',
    "one.jsonl": '{"text": "The rose is red."}\n',
    "latin.txt": b"caf\xe9 au lait",
    "silent.jsonl": json.dumps({"prompt": [ASKED], "completion": " "}),
    "role.jsonl": json.dumps({"messages": [ASKED, {"role": "wizard", "content": "a rose"}]}),
    "unanswered.jsonl": json.dumps({"messages": [ASKED]}),
    "tied.jsonl": json.dumps({"prompt": [ASKED], "completions": ["a", "b"], "ranking": [1, 1]}),
    "ranks.jsonl": json.dumps({"prompt": [ASKED], "completions": ["a", "b"], "ranking": [1, 2, 3]}),
    "same.jsonl": json.dumps({"prompt": [ASKED], "chosen": "a rose", "rejected": "a rose"}),
    "file": "a file",
    "thesis/chapter.txt": "precious",
    "nodata/readme.md": "nothing to read here",
    "unfinished/config.yaml": "command: sft\n",
    "garbage/config.yaml": "a: [",
    "key.yaml": "epochz: 3\n",
    "type.yaml": "epochs: many\n",
    "nested.yaml": "optimizer: {learning_rat: 0.1}\n",
}

# name of the case, the command, and words of the answer: what is wrong, where, or how to mend it
CASES = [
    ("no such file", "tokenizer --data {d}/nonsens.jsonl", "nonsens.jsonl: no such file|nearest is"),
    ("empty file", "tokenizer --data {d}/empty.jsonl", "empty.jsonl: no text can be read (it is empty)"),
    ("no json", "tokenizer --data {d}/nonsense.jsonl", "nonsense.jsonl|line 1: not JSON"),
    ("wrong column", "tokenizer --data {d}/columns.jsonl", "columns.jsonl|no column 'text' among body"),
    ("no utf-8", "tokenizer --data {d}/latin.txt", "latin.txt: not UTF-8 (line 1, byte 3)"),
    ("no data in folder", "tokenizer --data {d}/nodata", "nodata: no data files in this folder|.jsonl"),
    ("no reader", "tokenizer --data {d}/nodata/readme.md", "no reader for '.md'"),
    ("small vocabulary", "tokenizer --data {text} --vocab-size 100", "vocab_size is 100|262 or more"),
    ("no tokenizer", "pretrain --data {text} --tokenizer {d}/thesis", "thesis: no tokenizer.json|amenable tokenizer"),
    ("no preset", "pretrain {pretrain} --model nanoo", "no preset is called 'nanoo'; did you mean 'nano'"),
    ("long warm-up", "pretrain {pretrain} --warmup-steps 50 --max-steps 9", "warm-up of 50 steps in a run of 9|lower"),
    ("warm-up below 0", "pretrain {pretrain} --warmup-steps -1", "warmup_steps is -1"),
    ("context of 1", "pretrain {pretrain} --context 1", "context is 1|2 or more"),
    ("no tokens", "pretrain {pretrain} --tokens-per-step -5", "tokens_per_step is -5"),
    ("steps below 0", "pretrain {pretrain} --max-steps -3", "max_steps is -3"),
    ("all held out", "pretrain {pretrain} --held-out 1.0", "a share of 1.0 to hold out|between 0 and 1"),
    ("one document", "pretrain {pretrain} --data {d}/one.jsonl", "1 rows cannot be divided|held-out ones of their own"),
    ("dropout of 1", "pretrain {pretrain} --dropout 1", "dropout is 1.0"),
    ("learning rate below 0", "pretrain {pretrain} --optimizer.learning-rate -1", "learning_rate is -1.0"),
    ("empty completion", "sft {sft} --data {d}/silent.jsonl", "silent.jsonl|the answer is empty"),
    ("unknown role", "sft {sft} --data {d}/role.jsonl", "role.jsonl|unknown role 'wizard'|known: "),
    ("no answer", "sft {sft} --data {d}/unanswered.jsonl", "does not end with an answer"),
    ("text as demonstrations", "sft {sft} --data {text}", "text.jsonl|no column messages"),
    ("no model", "sft {sft} --model {d}/none", "none: no such model folder; make it with 'amenable pretrain'"),
    ("model of an unfinished run", "sft {sft} --model {d}/unfinished", "its run has not finished"),
    (
        "vocabulary that does not fit",
        "sft {sft} --model {d}/misfit",
        "misfit: the tokenizer has 320 tokens and the model 300",
    ),
    ("torn weights", "sft {sft} --model {d}/torn", "torn/model.safetensors"),
    ("config that is no json", "sft {sft} --model {d}/unread", "unread/config.json"),
    ("reward model as model", "sft {sft} --model {judge}", "holds a reward model, not a language model"),
    ("no judge", "sft {sft} --select reward", "--select reward needs a judge|give --reward-model"),
    ("judge of another tokenizer", "sft {sft} --reward-model {other}", "another tokenizer|from the same base model"),
    ("no epochs", "sft {sft} --epochs 0", "epochs is 0|1 or more"),
    ("a word for a number", "sft {sft} --epochs many", "many"),
    (
        "run directory of something else",
        "sft {sft} --out {d}/thesis",
        "thesis: holds something that is not a run|another",
    ),
    (
        "run directory with a file of that name",
        "sft {sft} --out {d}/garbage",
        "garbage: holds something that is not a run",
    ),
    ("run directory of another stage", "sft {sft} --out {base}", "holds a run of 'pretrain'|give --out another folder"),
    (
        "run with other options",
        "sft {sft} --batch-size 8 --out {d}/begun",
        "begun with other options: |batch_size was 4 and is 8",
    ),
    ("out is a file", "sft {sft} --out {d}/file", "file: is a file|folder"),
    ("out below a file", "sft {sft} --out {d}/file/run", "run: cannot be made"),
    ("bad temperature", "sample {sample} --sampling.temperature -0.5", "temperature is -0.5|use 0 (greedy) or more"),
    ("top-p of 0", "sample {sample} --sampling.top-p 0", "top_p is 0.0"),
    ("no room", "sample {sample} --sampling.max-new-tokens 64", "no prompt is within 0 tokens|lower the number"),
    ("limit below 0", "sample {sample} --limit -1", "a limit of -1 rows"),
    ("rankings without answers", "reward {reward} --data {demonstrations}", "no columns 'chosen' and 'rejected'"),
    ("all tied", "reward {reward} --data {d}/tied.jsonl", "tied.jsonl|all completions are tied"),
    ("ranks of another number", "reward {reward} --data {d}/ranks.jsonl", "ranking is not a list of 2 ranks"),
    ("no demonstrations", "reward {reward} --demonstrations {d}/none.jsonl", "none.jsonl: no such file"),
    ("frozen below 0", "reward {reward} --frozen-layers -1", "frozen_layers is -1"),
    (
        "batch that does not divide",
        "ppo {ppo} --num-mini-batches 3",
        "num_mini_batches 3 does not divide the 8 samples",
    ),
    ("no minibatch", "ppo {ppo} --num-mini-batches 0", "num_mini_batches is 0"),
    ("temperature of 0", "ppo {ppo} --temperature 0", "temperature is 0.0|above 0"),
    ("kl below 0", "ppo {ppo} --kl-coef -0.1", "kl_coef is -0.1"),
    ("no raw text", "ppo {ppo} --ptx-coef 1.0", "--ptx-coef needs raw text|give --ptx-data"),
    ("no held-out prompts", "ppo {ppo} --select score", "--select score needs|give --validation"),
    ("scorer of another tokenizer", "ppo {ppo} --reward-model {other}", "another tokenizer than the policy"),
    (
        "language model as scorer",
        "ppo {ppo} --reward-model {base}",
        "a language model, not a reward model|amenable reward",
    ),
    ("ppo warm-up", "ppo {ppo} --warmup-steps 9 --max-steps 4", "warm-up of 9 steps in a run of 4"),
    ("beta below 0", "dpo {dpo} --beta -1", "beta is -1.0|above 0"),
    ("half of the labels", "dpo {dpo} --label-smoothing 0.5", "label_smoothing is 0.5"),
    ("chosen as rejected", "dpo {dpo} --data {d}/same.jsonl", "same.jsonl|chosen and rejected are the same"),
    ("model without a name", "evaluate {evaluate} --models {assistant}", "is no model; write name=folder"),
    ("no world", "evaluate {evaluate} --world {d}/thesis", "not a closed world|amenable world"),
    ("temperature of the samples", "evaluate {evaluate} --temperature 0", "temperature is 0"),
    ("two judges", "annotate --data {prompts} --world {d} --reward-model {judge}", "one judge is needed"),
    (
        "judge without a model",
        "annotate --data {samples} --world None --reward-model {d}/thesis",
        "thesis: holds no model",
    ),
    (
        "judge of words",
        "annotate --data {samples} --world None --reward-model {base}",
        "a language model, not a reward",
    ),
    (
        "prompts as samples",
        "annotate --data {prompts} --world None --reward-model {judge}",
        "line 1 is no row of samples",
    ),
    ("no such device", "sample {sample} --machine.device toaster", "no device is called 'toaster'|cpu"),
    ("threads below 0", "sample {sample} --machine.threads -2", "threads is -2"),
    ("unknown command", "retrain", "there is no command 'retrain'; did you mean 'pretrain'"),
    ("unknown option", "sft {sft} --epoch 3", "--epoch"),
    ("no yaml", "sft --config {d}/none.yaml", "none.yaml: no such configuration file"),
    ("unknown key", "sft --config {d}/key.yaml", "key.yaml: unknown option 'epochz'; did you mean 'epochs'"),
    ("unknown nested key", "sft --config {d}/nested.yaml", "did you mean 'optimizer.learning_rate'"),
    ("wrong type", "sft --config {d}/type.yaml", "'epochs' is 'many', not int"),
]


@pytest.fixture(scope="module")
def names(
    files: Any,
    tokenizer_folder: Path,
    base: Path,
    assistant: Path,
    judge: Path,
    other_judge: Path,
    make_decoder: Callable[..., Decoder],
    words: Tokenizer,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, str]:
    """Good files and models, bad ones in {d}, and the options of a good command for each stage."""
    d = tmp_path_factory.mktemp("bad")
    for name, content in FILES.items():
        (d / name).parent.mkdir(exist_ok=True)
        (d / name).write_bytes(content.encode() if isinstance(content, str) else content)
    save_model(d / "misfit", make_decoder(vocab_size=300), words)
    shutil.copytree(base, d / "torn")
    (d / "torn" / "model.safetensors").write_bytes((base / "model.safetensors").read_bytes()[:-100])
    shutil.copytree(base, d / "unread")
    (d / "unread" / "config.json").write_text("{")
    shutil.copytree(assistant, d / "begun")
    (d / "begun" / "config.yaml").write_text(
        (d / "begun" / "config.yaml").read_text().replace("batch_size: 8", "batch_size: 4")
    )
    samples = d / "samples.jsonl"
    samples.write_text(2 * (json.dumps({"id": "x", "prompt": [ASKED], "completions": ["a", "b"]}) + "\n"))
    paths = {name: str(getattr(files, name)) for name in ("text", "demonstrations", "prompts", "rankings")}
    paths |= {
        "d": str(d),
        "base": str(base),
        "assistant": str(assistant),
        "judge": str(judge),
        "other": str(other_judge),
    }
    ppo = f"--model {assistant} --reward-model {judge} --data {files.prompts} --prompts-per-step 8 --max-new-tokens 8"
    return paths | {
        "samples": str(samples),
        "pretrain": f"--data {files.text} --tokenizer {tokenizer_folder} --model nano --context 64",
        "sft": f"--model {base} --data {files.demonstrations}",
        "sample": f"--model {assistant} --data {files.prompts} --sampling.max-new-tokens 8",
        "reward": f"--model {assistant} --data {files.rankings} --demonstrations {files.demonstrations}",
        "ppo": ppo,
        "dpo": f"--model {assistant} --data {files.rankings}",
        "evaluate": f"--models sft={assistant} --data {files.prompts} --reward-model {judge} --text None --world None",
    }


def contents(*folders: str | Path) -> dict[str, bytes]:
    files = (path for folder in folders for path in sorted(Path(folder).rglob("*")))
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in files}


@pytest.mark.parametrize(("command", "said"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_mistake_is_explained_and_changes_nothing(
    names: dict[str, str],
    command: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = shlex.split(command.format(**names))
    if "--out" not in arguments and "--config" not in arguments and len(arguments) > 1:
        arguments += ["--out", "new/run"]
    folders = [names["d"], names["base"], names["assistant"], names["judge"], tmp_path]
    before = contents(*folders)
    assert cli.main(arguments) == 2
    told = capsys.readouterr()
    assert contents(*folders) == before
    for part in said.split("|"):
        assert part in told.err, told.err
    assert "Traceback" not in told.err + told.out
    assert 0 < len(told.err.strip().splitlines()) <= 2, told.err


def test_no_cuda_is_said(names: dict[str, str], capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    arguments = shlex.split(f"sample {names['sample']} --machine.device cuda --out {tmp_path / 'run'}")
    assert cli.main(arguments) == 2
    assert "no CUDA device; use --device cpu" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_debug_shows_where_it_was_found(names: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="no such file"):
        cli.main(["tokenizer", "--data", f"{names['d']}/none.jsonl", "--debug"])
