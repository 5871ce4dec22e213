"""Does lm_eval find the same of a model by transformers and over the API? One task of its own, likelihoods and texts.

    make bench-lm-eval                                              # sets .venv-lm-eval up, then runs this
    python -m benchmarks.lm_eval_agreement --model runs/demo/pretrain

lm_eval's `hf` opens the model's folder; its `local-completions` asks `amenable serve` (fp32), once by ids and once by
text. `hf` begins a text with BOS where the tokenizer does so, and so does the server with a text, but ids are taken as
they are: by ids lm_eval needs `add_bos_token=True`. A model with a chat template is also asked in its format: by ids,
which lm_eval renders, and by messages (`local-chat-completions`, texts alone, since a chat has no likelihoods). Nothing
is fetched: the task is written here.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from amenable.serve import serve
from amenable.serve.conversation import load_model
from amenable.serve.openai import app_state
from amenable.train.runtime import DeviceOptions, start_runtime
from benchmarks.serving import serving

PEER = Path(".venv-lm-eval/bin/python")
TOLERANCE = 2e-3
"""of a log-likelihood in nats: sums of some dozens of fp32 numbers"""
QUESTIONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("The town is", (" old and quiet.", " a song.", " seventy, and blue.")),
    ("Question: who is the baker?\n", ("Question: who is the miller?", "The baker is old.", "A rose")),
    ("The rose is", (" red.", " green.", " white, as snow is.")),
    ("In the caf\u00e9 they said \u201cgood day\u201d and", (" left.", " smiled \U0001f642", " \u4f60\u597d")),
    ("1, 2, 3,", (" 4, 5", " 9, 9", " four")),
    ("She lives in", (" the old house by the river.", " 12", "\n\nQuestion:")),
)
LIKELIHOODS = {
    "output_type": "multiple_choice",
    "doc_to_text": "{{context}}",
    "doc_to_choice": "{{choices}}",
    "doc_to_target": 0,
    "target_delimiter": "",
    "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
}
TEXTS = {
    "output_type": "generate_until",
    "doc_to_text": "{{context}}",
    "doc_to_target": "{{choices[0]}}",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 16, "do_sample": False},
    "metric_list": [{"metric": "exact_match"}],
}
TASKS: Mapping[str, Mapping[str, Any]] = {"amenable_likelihoods": LIKELIHOODS, "amenable_texts": TEXTS}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line a task and way; the exit code, 1 where one does not agree with `hf`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("runs/demo/pretrain"))
    parser.add_argument("--peer", type=Path, default=PEER, help="the interpreter of an environment with lm_eval")
    options = parser.parse_args(arguments)
    folder = options.model.resolve()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        write_tasks(work / "tasks")
        names, agreed = tuple(TASKS), True
        plain = f"pretrained={folder},dtype=float32"
        hf = evaluate(options.peer, work, "hf", plain, names)
        runtime = start_runtime(DeviceOptions(device="cpu", precision="fp32"))
        model = load_model(folder, runtime, "m")
        ours = serve.make_scheduler(model, max_batch_size=32, max_queue=64)
        chat = model.tokenizer.chat_template is not None
        with serving(app_state.ServedModel(model, ours)) as url:
            usual = f"model=m,base_url={url}/v1/completions,tokenizer={folder},tokenizer_backend=huggingface"
            usual = f"{usual},max_length={model.decoder.config.context_length}"
            by_ids, by_text = f"{usual},add_bos_token=True", f"{usual},tokenized_requests=False"
            ways = [
                ("by ids", hf, "local-completions", by_ids, names),
                ("by text", hf, "local-completions", by_text, names),
            ]
            if chat:
                rendered = evaluate(options.peer, work, "hf", f"{plain},add_bos_token=False", names, chat=True)
                messages = f"model=m,base_url={url}/v1/chat/completions"
                ways.append(("in the chat format by ids", rendered, "local-completions", usual, names))
                ways.append(("by messages", rendered, "local-chat-completions", messages, ("amenable_texts",)))
            for way, expected, kind, model_options, tasks in ways:
                in_chat = expected is not hf
                results = evaluate(options.peer, work, kind, model_options, tasks, 1 if in_chat else 4, in_chat)
                for task in tasks:
                    differences = compare(expected[task], results[task])
                    agreed = agreed and not differences
                    print(f"{task} {way}: {'; '.join(differences) or 'as by transformers'}", flush=True)
        ours.close()
    return 0 if agreed else 1


def write_tasks(folder: Path) -> None:
    """The tasks' files as lm_eval reads them, and the rows of both."""
    folder.mkdir(parents=True)
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps({"context": c, "choices": list(e)}) + "\n" for c, e in QUESTIONS), "utf-8")
    for name, settings in TASKS.items():
        files = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(rows)}}, "test_split": "test"}
        # JSON is YAML too
        (folder / f"{name}.yaml").write_text(json.dumps({"task": name, **files, **settings}), "utf-8")


def evaluate(
    peer: Path, work: Path, model: str, options: str, tasks: Sequence[str], batch: int = 1, chat: bool = False
) -> dict[str, list[Any]]:
    """Run lm_eval. By task: of every row the log-likelihoods and whether they are greedy, or the text."""
    out = Path(tempfile.mkdtemp(dir=work))
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(work / "cache"), "TOKENIZERS_PARALLELISM": "false"}
    command = [str(peer), "-m", "lm_eval", "run", "--model", model, "--model_args", options, "--device", "cpu"]
    command += ["--include_path", str(work / "tasks"), "--tasks", ",".join(tasks), "--batch_size", str(batch)]
    command += ["--output_path", str(out), "--log_samples", *(["--apply_chat_template"] if chat else [])]
    done = subprocess.run(command, env={**os.environ, **offline}, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"lm_eval failed:\n{done.stderr[-2000:]}")
    return {task: answers_of(next(out.rglob(f"samples_{task}_*.jsonl"))) for task in tasks}


def answers_of(samples: Path) -> list[Any]:
    """The answers to a task's rows, in order: texts, or lists of (log-likelihood, whether it is greedy)."""
    rows = sorted(map(json.loads, samples.read_text("utf-8").splitlines()), key=lambda row: row["doc_id"])
    return [[as_number(answer) for answer in row["filtered_resps"]] for row in rows]


def as_number(answer: Any) -> Any:
    """A log-likelihood and its flag, which lm_eval writes as texts; a text as it is."""
    return answer if isinstance(answer, str) else (float(answer[0]), str(answer[1]) == "True")


def compare(expected: Sequence[Any], actual: Sequence[Any]) -> list[str]:
    """The differences, a line a row."""
    if len(expected) != len(actual):
        return [f"{len(actual)} rows for {len(expected)}"]
    return [f"row {i}: {a} is {b}" for i, (a, b) in enumerate(zip(expected, actual)) if not same(a, b)]


def same(expected: Any, actual: Any) -> bool:
    """Test texts and flags for equality, and numbers within the tolerance."""
    if isinstance(expected, float):
        return abs(expected - actual) <= TOLERANCE
    if isinstance(expected, (list, tuple)):
        return len(expected) == len(actual) and all(map(same, expected, actual))
    return bool(expected == actual)


if __name__ == "__main__":
    sys.exit(main())
