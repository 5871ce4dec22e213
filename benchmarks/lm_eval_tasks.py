"""Published tests beside lm_eval's hf backend in one run: the same figures on the same rows, and seconds.

    python -m benchmarks.lm_eval_tasks --model runs/demo/pretrain              # agreement
    python -m benchmarks.lm_eval_tasks --model models/smollm2 --num-shots 2    # with examples, the first of a file
    python -m benchmarks.lm_eval_tasks --shapes gpt2 --rows 8                  # speed at 124M, random weights
    python -m benchmarks.lm_eval_tasks --shapes tiny --context 48              # rows longer than the context are cut

lm_eval reads its own prompts (its task files, with the rows of ours in place of the Hub's). Rows are made here, in the
data sets' columns. Seconds are of the tasks alone, without imports and loading; one thread unless --threads says more.
`make bench-lm-eval` sets .venv-lm-eval up.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from amenable.evaluation.answering import GenerationConfig, LoadedModel
from amenable.evaluation.entries import ModelEntry
from amenable.evaluation.prompting import PromptingOptions
from amenable.evaluation.tasks.form import Examinee
from amenable.evaluation.tasks.forms import read_tasks
from amenable.models import presets
from amenable.models.decoder import Decoder
from amenable.text.tokenizer import Tokenizer
from amenable.train.loading import save_model
from amenable.train.log import silent
from amenable.train.runtime import DeviceOptions, start_runtime

PEER = Path(".venv-lm-eval/bin/python")
MAX_NEW_TOKENS = 256
"""of a generated answer, as in lm_eval"""
WORDS = (
    "the",
    "town",
    "is",
    "old",
    "and",
    "a",
    "rose",
    "red",
    "blue",
    "caf\u00e9",
    "river",
    "\u201cday\u201d",
    "king",
    "4,5",
    "snow",
)


def texts(generator: random.Random, least: int, most: int) -> str:
    """Random words of the vocabulary."""
    return " ".join(generator.choices(WORDS, k=generator.randint(least, most)))


def make_rows(form: str, count: int, purpose: str = "") -> list[dict[str, Any]]:
    """Rows of a form, the same for the same count and purpose."""
    generator, rows = random.Random(form + purpose), []
    for i in range(count):
        choices = [f"{texts(generator, 1, 9)}{letter}" for letter in "wxyz"]
        question, passage = texts(generator, 5, 20), texts(generator, 30, 60)
        targets = {"choices": choices, "labels": [1, 0, 0, 0]}
        row: dict[str, Any] = {
            "arc": {
                "question": question,
                "choices": {"text": choices, "label": list("ABCD")},
                "answerKey": "ABCD"[i % 4],
            },
            "hellaswag": {
                **{"activity_label": "Cooking", "ctx_a": passage, "ctx_b": question},
                **{"endings": choices, "label": str(i % 4)},
            },
            "mmlu": {"question": question, "choices": choices, "answer": i % 4, "subject": "abstract_algebra"},
            "race": {
                "article": passage,
                "problems": repr(
                    [
                        {"question": f"{choices[0]}  _  .", "answer": "B", "options": choices},
                        {"question": f"{choices[1]}?", "answer": "C", "options": choices},
                        {"question": question, "answer": "ABCD"[i % 4], "options": choices},
                    ]
                ),
            },
            "piqa": {"goal": question, "sol1": choices[0], "sol2": choices[1], "label": i % 2},
            "boolq": {"passage": passage, "question": question, "label": i % 2},
            "truthfulqa": {
                **{"question": question, "mc1_targets": targets},
                "mc2_targets": {**targets, "labels": [1, 0, 1, 0]},
            },
            "gsm8k": {"question": question, "answer": f"{texts(generator, 3, 9)}\n#### {generator.randint(1, 50)}"},
            "lambada": {"text": f"{passage} {generator.choice(WORDS)}"},
            "crows-pairs": {"sent_more": choices[0], "sent_less": choices[1]},
        }[form]
        rows.append(row)
    return rows


def make_examples(form: str, rows: int, count: int) -> list[dict[str, Any]]:
    """Examples of a form, none of which is one of the first `rows` rows of the test: sentences of a word may be."""
    tested = {prompt_of(row) for row in make_rows(form, rows)}
    examples = (row for row in make_rows(form, count + rows, "shots") if prompt_of(row) not in tested)
    return list(itertools.islice(examples, count))


def prompt_of(row: Mapping[str, Any]) -> str:
    """The sentence that tells rows of pairs apart, or all of a row."""
    return str(row.get("sent_more", row))


TASKS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "arc": ("arc/arc_easy.yaml", {"acc": "acc", "acc_norm": "acc_norm"}),
    "hellaswag": ("hellaswag/hellaswag.yaml", {"acc": "acc", "acc_norm": "acc_norm"}),
    "mmlu": ("mmlu/default/mmlu_abstract_algebra.yaml", {"acc": "acc"}),
    "race": ("race/race.yaml", {"acc": "acc"}),
    "piqa": ("piqa/piqa.yaml", {"acc": "acc", "acc_norm": "acc_norm"}),
    "boolq": ("super_glue/boolq/default.yaml", {"acc": "acc"}),
    "truthfulqa": ("truthfulqa/truthfulqa_mc2.yaml", {"mc2": "acc"}),
    "gsm8k": (
        "gsm8k/gsm8k.yaml",
        {"strict": "exact_match,strict-match", "flexible": "exact_match,flexible-extract"},
    ),
    "lambada": ("lambada/lambada_openai.yaml", {"acc": "acc", "perplexity": "perplexity"}),
    "crows-pairs": (
        "crows_pairs/crows_pairs_english.yaml",
        {"pct_stereotype": "pct_stereotype", "likelihood_diff": "likelihood_diff"},
    ),
}
"""by form: lm_eval's task file, and its name of each of our metrics"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line a form; the exit code, 1 where a figure differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", type=Path, default=Path("runs/demo/pretrain"), help="model, or tokenizer of --shapes"
    )
    parser.add_argument("--shapes", default="", help="preset of a model with random weights")
    parser.add_argument("--context", type=int, default=0, help="of --shapes, in tokens; 0 takes the preset's")
    parser.add_argument("--peer", type=Path, default=PEER, help="the interpreter of an environment with lm_eval")
    parser.add_argument("--rows", type=int, default=40)
    parser.add_argument("--forms", nargs="*", default=list(TASKS))
    parser.add_argument("--num-shots", type=int, default=0, help="examples before every row")
    parser.add_argument("--batch-size", type=int, default=8, help="of lm_eval")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        folder = options.model
        if options.shapes:
            folder = random_model(options.shapes, options.model, work / "model", options.context)
        length = options.context // 2 or MAX_NEW_TOKENS
        write_tasks(work, options.forms, options.rows, options.peer, options.num_shots, length)
        names = ",".join(f"local_{form.replace('-', '_')}" for form in options.forms)
        script = str(Path(__file__).with_name("peer_lm_eval.py"))
        command = [str(options.peer), script, str(folder.resolve()), str(work / "yaml"), names]
        command += [str(options.batch_size), str(options.threads)]
        done = subprocess.run(command, capture_output=True, text=True, env=offline(work))
        if done.returncode:
            raise SystemExit(f"lm_eval failed:\n{done.stderr[-2000:]}")
        theirs = json.loads(done.stdout.splitlines()[-1])
        ours = evaluate(folder, work, options.forms, options.threads, options.num_shots, length)
    agreed = True
    for form in options.forms:
        peer = theirs[f"local_{form.replace('-', '_')}"]
        pairs = [
            (metric, ours[form]["metrics"][metric][0], peer["figures"][name]) for metric, name in TASKS[form][1].items()
        ]
        same = all(abs(a - b) <= 1e-4 * max(1.0, abs(b)) for _, a, b in pairs)
        agreed = agreed and same
        figures = ", ".join(f"{metric} {a:.4f} (lm_eval {b:.4f})" for metric, a, b in pairs)
        ratio = peer["seconds"] / ours[form]["seconds"]
        times = f"{ours[form]['seconds']:.2f} s beside {peer['seconds']:.2f} s: {ratio:.1f}x"
        verdict = f"{ours[form]['cut']} of {ours[form]['prompts']} prompts cut; {'same' if same else 'DIFFERENT'}"
        print(f"{form}: {figures}; {verdict}; {times}", flush=True)
    return 0 if agreed else 1


def random_model(shapes: str, tokenizer: Path, folder: Path, context: int = 0) -> Path:
    """Save a model of a preset's shapes, or another context, with random weights and a folder's tokenizer."""
    words = Tokenizer.load(tokenizer)
    config = presets.preset(shapes, words.vocab_size)
    decoder = Decoder(replace(config, context_length=context or config.context_length))
    decoder.init_weights(torch.Generator().manual_seed(0))
    save_model(folder, decoder.eval(), words)
    return folder


def write_tasks(work: Path, forms: Sequence[str], rows: int, peer: Path, num_shots: int, length: int) -> None:
    """Write the rows and the examples, and task files of lm_eval that read them; generated answers have at most
    `length` tokens."""
    find = "import lm_eval, pathlib; print(pathlib.Path(lm_eval.__file__).parent / 'tasks')"
    library = subprocess.run([str(peer), "-c", find], capture_output=True, text=True, check=True).stdout.strip()
    (work / "yaml").mkdir()
    for form in forms:
        files = {"test": work / f"{form}.jsonl", "shots": work / f"{form}-shots.jsonl"}
        for split, chosen in (("test", make_rows(form, rows)), ("shots", make_examples(form, rows, max(num_shots, 1)))):
            files[split].write_text("".join(json.dumps(row) + "\n" for row in chosen), "utf-8")
        splits = {"training_split": None, "validation_split": None, "fewshot_split": "shots", "test_split": "test"}
        splits |= {"num_fewshot": num_shots, "fewshot_config": {"sampler": "first_n", "split": "shots"}}
        task = {
            **{
                "include": f"{library.splitlines()[-1]}/{TASKS[form][0]}",
                "task": f"local_{form.replace('-', '_')}",
                "tag": None,
            },
            **{
                "dataset_path": "json",
                "dataset_name": None,
                "dataset_kwargs": {"data_files": {split: str(file) for split, file in files.items()}},
            },
            **splits,
        }
        if form == "gsm8k":  # its own settings, and the length
            stops = ["Question:", "</s>", "<|im_end|>"]
            task["generation_kwargs"] = {"until": stops, "do_sample": False, "temperature": 0.0, "max_gen_toks": length}
        (work / "yaml" / f"{form}.yaml").write_text(json.dumps(task), "utf-8")  # JSON is YAML too


def offline(work: Path) -> dict[str, str]:
    """The environment of lm_eval without a network."""
    own = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(work / "cache"), "TOKENIZERS_PARALLELISM": "false"}
    return {**os.environ, **own}


def evaluate(
    folder: Path, work: Path, forms: Sequence[str], threads: int, shots: int, length: int
) -> dict[str, dict[str, Any]]:
    """Our metrics and seconds by form."""
    runtime = start_runtime(DeviceOptions("cpu", "fp32", threads))
    model = LoadedModel.load(ModelEntry("m", folder), runtime)
    report = {}
    for form in forms:
        start = time.perf_counter()
        prompting = PromptingOptions((work / f"{form}-shots.jsonl",), shots) if shots else None
        (task,) = read_tasks([str(work / f"{form}.jsonl")], prompting=prompting).values()
        metrics = task.evaluate(Examinee(model, 2048, GenerationConfig(max_new_tokens=length), silent))
        report[form] = {**metrics, "prompts": len(task.rows), "seconds": time.perf_counter() - start}
    return report


if __name__ == "__main__":
    sys.exit(main())
