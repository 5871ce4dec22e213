"""Mistakes, made through the command line: exit code 2, a line that says what, where and how, and nothing changed."""

import dataclasses
import gzip
import importlib
import inspect
import json
import math
import shlex
import shutil
import socket
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from amenable import cli
from amenable.errors import InputError
from amenable.models.decoder import Decoder
from amenable.text.tokenizer import Tokenizer
from amenable.train.loading import save_model

ASKED = {"role": "user", "content": "Ann asks: name a red thing."}
ANSWERED = {"role": "assistant", "content": "a rose"}
PAIR = {"prompt": [ASKED], "chosen": "a rose", "rejected": "a frog"}
TEXTS = '{"text": "The rose is red."}\n' * 9
SQUEEZED = gzip.compress(TEXTS.encode())


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


FILES = {
    "labels.jsonl": lines(
        *({"prompt": [ASKED], "completion": f"a {word}", "label": True} for word in ("rose", "frog"))
    ),
    "classes.jsonl": lines(*({"text": f"It is {i}.", "label": ("bad", "good")[i % 2]} for i in range(9))),
    "one_class.jsonl": lines(*({"text": f"It is {i}.", "label": 1} for i in range(10))),
    "blank.jsonl": lines({"sentence": "  ", "label": 1}),
    "two_texts.jsonl": lines({"sentence1": "A rose.", "sentence2": "A sea.", "label": 1}),
    "mixed.jsonl": lines(
        *({"sentence1": f"{i}", "sentence2": "A sea.", "label": 2.5 if i else "alike"} for i in range(9))
    ),
    "decimals.jsonl": lines({"text": "A rose.", "label": 0.5}),
    "no_choice.jsonl": lines({"question": "Who?", "choices": ["a", "b"], "answer": "D"}),
    "long_texts.jsonl": lines(*({"text": f"{i} a rose " * 90, "label": i % 2} for i in range(9))),
    "cut.jsonl.gz": SQUEEZED[:-9],
    "torn.jsonl.gz": SQUEEZED[:12] + bytes(8) + SQUEEZED[20:],
    "plain.jsonl.gz": TEXTS,
    "torn.parquet": "PAR1 and no more",
    "torn.arrow": "ARROW1 and no more",
    "plain.jsonl.zst": TEXTS,
    "ragged.csv": "text,n\nThe rose is red.,1\nThe sea is blue.\n",
    "latin.csv": b"text,n\nCaf\xe9,1\n",
    "two_prompts.jsonl": lines({**PAIR, "question": "Which thing?"}),
    "some.jsonl": TEXTS + '{"text": "The sea is blue"\n',
    "some.json": json.dumps([{"text": "The rose is red."}] * 9 + [{"txt": "The sea is blue."}]),
    "some_latin.jsonl": TEXTS.encode() + b'{"text": "caf\xe9"}\n',
    "lists.jsonl": "[1, 2]\n",
    "numbers.jsonl": lines({"text": 7}),
    "opinions.jsonl": lines({"question": "A goat?", "choices": ["yes", "no"], "opinions": ["I think yes."]}),
    "surrogate.jsonl": '{"text": "\\ud800"}\n',
    "systems.jsonl": lines({"messages": [{"role": "system", "content": "Be kind."}] * 2 + [ASKED, ANSWERED]}),
    "late_system.jsonl": lines({"messages": [ASKED, {"role": "system", "content": "Be kind."}, ANSWERED]}),
    "no_turns.jsonl": lines({"messages": []}),
    "long.jsonl": lines({"prompt": "name a red thing, " * 90}),
    "long_pairs.jsonl": lines(*[{"prompt": f"{i}?", "chosen": "a rose " * 90, "rejected": "a"} for i in range(9)]),
    "long_answers.jsonl": lines(*[{"prompt": "a thing? " * 90, "completion": "a rose"}] * 9),
    "silent_prompt.jsonl": lines({"prompt": " "}),
    "one_answer.jsonl": lines({"prompt": [ASKED], "completions": ["a rose"], "ranking": [1]}),
    "empty_answer.jsonl": lines({**PAIR, "chosen": ""}),
    "margin.jsonl": '{"prompt": "a thing?", "chosen": "a rose", "rejected": "a frog", "margin": NaN}\n',
    "word_rank.jsonl": lines({"prompt": [ASKED], "completions": ["a", "b"], "ranking": ["first", "last"]}),
    "unlike.jsonl": lines({"chosen": [ASKED, ANSWERED], "rejected": [{**ASKED, "content": "a thing?"}, ANSWERED]}),
    "ids.jsonl": lines({"id": "a", "prompt": "a red thing?"}, {"id": "a", "prompt": "a blue thing?"}),
    "pair_ids.jsonl": lines({**PAIR, "id": "a"}, {**PAIR, "id": "a", "prompt": "a blue thing?"}),
    "sample_ids.jsonl": lines(
        {"id": "a", "prompt": [ASKED], "completions": ["a", "b"]}, {"id": "a", "prompt": "x", "completions": ["a", "b"]}
    ),
    "same_samples.jsonl": lines({"id": "a", "prompt": [ASKED], "completions": ["a", "a"]}),
    "list.yaml": "- 1\n",
    "choice.yaml": "keep_weights: best\n",
    "share.yaml": "max_bad_rows: 2\n",
    "latin.yaml": b"caf\xe9: 1\n",
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
    ("no utf-8", "tokenizer --data {d}/latin.txt", "latin.txt: not UTF-8 (line 1, byte 4 is 0xE9)|iconv"),
    ("no data in folder", "tokenizer --data {d}/nodata", "nodata: no data files in this folder|.jsonl"),
    ("no reader", "tokenizer --data {d}/nodata/readme.md", "no reader for '.md'"),
    ("small vocabulary", "tokenizer --data {text} --vocab-size 100", "vocab_size is 100|262 or more"),
    ("no tokenizer", "pretrain --data {text} --tokenizer {d}/thesis", "thesis: no tokenizer.json|amenable tokenizer"),
    ("no preset", "pretrain {pretrain} --model nanoo", "no preset is called 'nanoo'; did you mean 'nano'"),
    ("warm-up below 0", "pretrain {pretrain} --warmup-steps -1", "warmup_steps is -1"),
    ("context of 1", "pretrain {pretrain} --context 1", "context is 1|2 or more"),
    ("no tokens", "pretrain {pretrain} --tokens-per-step -5", "tokens_per_step is -5"),
    ("steps below 0", "pretrain {pretrain} --max-steps -3", "max_steps is -3"),
    ("all held out", "pretrain {pretrain} --validation-split 1.0", "validation_split is 1.0|between 0 and 1"),
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
    ("no reward", "sft {sft} --keep-weights score", "--keep-weights score needs a reward|give --reward"),
    ("wrong reward", "sft {sft} --reward lenght:4-30", "'lenght:4-30' is no reward|did you mean 'length:4-30'"),
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
    ("out below a file", "sft {sft} --out {d}/file/run", "run: cannot be created"),
    ("bad temperature", "sample {sample} --sampling.temperature -0.5", "temperature is -0.5|use 0 (greedy) or more"),
    ("top-p of 0", "sample {sample} --sampling.top-p 0", "top_p is 0.0"),
    ("no room", "sample {sample} --sampling.max-new-tokens 64", "prompts is within 0 tokens|lower the number"),
    ("limit below 0", "sample {sample} --max-prompts -1", "max_prompts is -1; it must be 0 or more"),
    ("rankings without answers", "reward {reward} --data {demonstrations}", "no columns 'chosen' and 'rejected'"),
    ("all tied", "reward {reward} --data {d}/tied.jsonl", "tied.jsonl|all completions are tied"),
    ("ranks of another number", "reward {reward} --data {d}/ranks.jsonl", "ranking is not a list of 2 ranks"),
    ("no demonstrations", "reward {reward} --demonstrations {d}/none.jsonl", "none.jsonl: no such file"),
    ("more layers than there are", "reward {reward} --frozen-layers 3", "frozen_layers is 3 and the model has 2"),
    (
        "halves in one process",
        "reward {reward} --tensor-parallel 2",
        "1 process was started; start a multiple, such as",
    ),
    ("halves of adapters", "reward {reward} --tensor-parallel 2 --lora.rank 2", "tensor_parallel is 2 with adapters"),
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
    ("no held-out prompts", "ppo {ppo} --keep-weights score", "--keep-weights score needs|give --validation"),
    ("reward that is nothing", "ppo {ppo} --reward length:x", "is no range of words"),
    ("reward given twice", "ppo {ppo} --reward ends ends=2", "is given twice"),
    ("reward of weight 0", "ppo {ppo} --reward ends=0", "has the weight 0"),
    ("reward function that is not there", "ppo {ppo} --reward nowhere.py:polite", "no such file"),
    (
        "language model as scorer",
        "ppo {ppo} --reward {base}",
        "a language model, not a reward model|amenable reward",
    ),
    ("beta below 0", "dpo {dpo} --beta -1", "beta is -1.0|above 0"),
    ("beta that holds nothing", "dpo {dpo} --beta 1e-9", "nothing is learned at beta 1e-09|give 0.0001 to 1000"),
    ("beta that allows nothing", "kto --model {assistant} --beta 1e6", "nothing is learned at beta 1e+06|ends at once"),
    ("half of the labels", "dpo {dpo} --label-smoothing 0.5", "label_smoothing is 0.5"),
    (
        "smoothing of a loss without",
        "dpo {dpo} --loss ipo --label-smoothing 0.1",
        "loss is ipo|sigmoid, robust, exo, aot",
    ),
    ("loss that needs a reference", "dpo {dpo} --loss bco --reference none", "reference is none and loss is bco"),
    ("labels for dpo", "dpo {dpo} --data {d}/labels.jsonl", "labels.jsonl|'amenable kto' trains on these"),
    ("pairs for kto", "kto --model {assistant} --data {d}/same.jsonl", "same.jsonl|'amenable dpo' trains on"),
    (
        "labels of one prompt",
        "kto --model {assistant} --data {d}/labels.jsonl",
        "labels.jsonl: no completion of another",
    ),
    ("texts of one class", "classify {classify} --data {d}/one_class.jsonl", "all 9 training rows have the label '1'"),
    (
        "classes that nothing trains",
        "classify {classify} --validation {d}/one_class.jsonl",
        "label '1' is no training row",
    ),
    ("text that is empty", "classify {classify} --data {d}/blank.jsonl", "blank.jsonl|line 1: sentence is empty"),
    ("two texts as one", "classify {classify} --data {d}/two_texts.jsonl", "are two texts, for --task entailment"),
    ("one text as two", "classify {classify} --task entailment", "no two texts (premise and hypothesis"),
    (
        "numbers and names",
        "classify {classify} --task similarity --data {d}/mixed.jsonl",
        "the label is 'alike', and those",
    ),
    ("labels with decimals", "classify {classify} --data {d}/decimals.jsonl", "label is 0.5, not the number or name"),
    (
        "choice that is none",
        "classify {classify} --task multiple-choice --data {d}/no_choice.jsonl",
        "no_choice.jsonl|line 1: the answer 'D' is none of its 2 choices",
    ),
    ("long texts", "classify {classify} --data {d}/long_texts.jsonl", "none of the 8 examples is within 64 tokens"),
    ("names of other classes", "classify {classify} --labels a b c", "--labels: 3 names for 2 labels; name each of"),
    (
        "classifier with two kinds of virtual tokens",
        "classify {classify} --prompt-tuning 4 --prefix-tuning 4",
        "prefix_tuning is 4 with prompt_tuning|leave one out",
    ),
    ("chosen as rejected", "dpo {dpo} --data {d}/same.jsonl", "same.jsonl|chosen and rejected are the same"),
    (
        "model without a name",
        "evaluate {evaluate} --models {assistant}",
        "not a model|write name=folder",
    ),
    ("no world", "evaluate {evaluate} --world {d}/thesis", "not a closed world|amenable world"),
    ("temperature of the samples", "evaluate {evaluate} --temperature 0", "temperature is 0"),
    ("report of no tests", "quality --models sft={base}", "nothing to measure|give --data with files of tests"),
    ("report on no model", "quality --models sft={d}/thesis --world {d}", "thesis: holds no model"),
    ("report on other rows", "quality --models sft={base} --data {d}/margin.jsonl", "no known task|the nearest form"),
    ("opinion without a choice", "quality --models sft={base} --data {d}/opinions.jsonl", "an opinion for each"),
    ("report by a reward", "quality --models sft={base} --reward {judge}", "no test reads the reward|judge:URL:MODEL"),
    ("demonstrations of no tasks", "task-demonstrations", "no tasks are given|give --tasks FILE"),
    ("tasks of no file", "task-demonstrations --tasks {d}/no.jsonl", "no such file or folder"),
    ("classes without names", "task-demonstrations --tasks {d}/one_class.jsonl", "its labels are numbers: 1|--labels"),
    ("a single way to tune", "compare-peft --model {base} --ways full", "fewer than two ways|give some of full top"),
    ("rate of no way", "compare-peft --model {base} --learning-rates lra=1", "'lra=1'|write WAY=RATE"),
    (
        "ways without data",
        "compare-peft --model {base} --base-run {d}",
        "there is no world/world.json|--demonstrations",
    ),
    ("two judges", "annotate --data {prompts} --world {d} --judge {judge}", "one judge is needed"),
    (
        "judge without a model",
        "annotate --data {samples} --world None --judge {d}/thesis",
        "thesis: holds no model",
    ),
    (
        "judge of words",
        "annotate --data {samples} --world None --judge {base}",
        "a language model, not a reward",
    ),
    (
        "prompts as samples",
        "annotate --data {prompts} --world None --judge {judge}",
        "line 1 is no row of samples",
    ),
    ("gzip cut short", "tokenizer --data {d}/cut.jsonl.gz", "cut.jsonl.gz: the file is cut short; fetch it again"),
    ("gzip torn", "tokenizer --data {d}/torn.jsonl.gz", "torn.jsonl.gz: damaged, or no gzip file|fetch it again"),
    ("gzip that is none", "tokenizer --data {d}/plain.jsonl.gz", "plain.jsonl.gz: damaged, or no gzip file"),
    ("torn parquet", "tokenizer --data {d}/torn.parquet", "torn.parquet: "),
    ("torn arrow", "tokenizer --data {d}/torn.arrow", "torn.arrow: no arrow file, or damaged: |fetch it again"),
    ("no zstd", "tokenizer --data {d}/plain.jsonl.zst", "plain.jsonl.zst: damaged, or no zstd file"),
    ("ragged csv", "tokenizer --data {d}/ragged.csv", "ragged.csv: line 3 has 1 values, and there are 2 columns"),
    ("csv not utf-8", "tokenizer --data {d}/latin.csv", "latin.csv: not UTF-8 (line 2, byte 4 is 0xE9)|iconv"),
    (
        "two prompts",
        "reward {reward} --data {d}/two_prompts.jsonl",
        "line 1: prompt and question are different prompts; --columns prompt=prompt chosen=chosen rejected=rejected or",
    ),
    (
        "mapping to no column",
        "reward {reward} --data {d}/two_prompts.jsonl --columns prompt=questoin chosen=chosen rejected=rejected",
        "two_prompts.jsonl: no column 'questoin', which --columns reads as prompt; the nearest is 'question'",
    ),
    ("mapping of two", "reward {reward} --columns prompt=a prompt=b", "--columns: two columns for prompt: 'a' and 'b'"),
    ("bad json at a line", "tokenizer --data {d}/some.jsonl", "some.jsonl:10: not JSON|1 of 10 rows|--max-bad-rows"),
    ("bad row of a list", "tokenizer --data {d}/some.json", "some.json:10: no column 'text' among txt|1 of 10 rows"),
    ("no utf-8 at a line", "tokenizer --data {d}/some_latin.jsonl", "some_latin.jsonl:10: not UTF-8|mend the rows"),
    (
        "more bad rows than allowed",
        "tokenizer --data {d}/some.jsonl --max-bad-rows 0.09",
        "1 of 10 rows cannot be used, above a share of 0.09; mend the rows, or raise --max-bad-rows",
    ),
    ("bad rows limited by a word", "tokenizer --data {text} --max-bad-rows few", "few"),
    (
        "bad rows limited beyond all",
        "tokenizer --data {text} --max-bad-rows 1.5",
        "max_bad_rows is 1.5|it must lie in [0, 1]",
    ),
    ("no checkpoint kept", "sft {sft} --keep-checkpoints 0", "keep_checkpoints is 0|1 or more"),
    ("row that is no object", "tokenizer --data {d}/lists.jsonl", "line 1: the row is not an object"),
    ("number for text", "tokenizer --data {d}/numbers.jsonl", "text is a number, not text"),
    ("half a character", "tokenizer --data {d}/surrogate.jsonl", "half of a surrogate pair"),
    ("two system messages", "sft {sft} --data {d}/systems.jsonl", "systems.jsonl|line 1: two system messages"),
    ("late system message", "sft {sft} --data {d}/late_system.jsonl", "the system message is not the first"),
    ("no turns", "sft {sft} --data {d}/no_turns.jsonl", "the conversation is empty"),
    (
        "long demonstrations",
        "sft {sft} --data {d}/long_answers.jsonl",
        "long_answers.jsonl: none of the 8 conversations is within 64",
    ),
    (
        "prompt longer than the context",
        "sample {sample} --data {d}/long.jsonl",
        "long.jsonl: none of the 1 prompts is within 56",
    ),
    (
        "sampler that is not installed",
        "ppo {ppo} --sampler vllm",
        "--sampler vllm needs vLLM|pip install 'amenable[vllm]'",
    ),
    (
        "sampler with nothing at its address",
        "ppo {ppo} --sampler vllm --sampler-url http://127.0.0.1:9",
        "http://127.0.0.1:9: cannot be reached|start the server",
    ),
    (
        "reference with nothing at its address",
        "ppo {ppo} --reference-url http://127.0.0.1:9/x",
        "http://127.0.0.1:9/x: cannot be reached|start the server",
    ),
    (
        "reference whose weights are needed here",
        "rloo --reference-url http://127.0.0.1:9/x --kl-in loss --kl-estimator full",
        "kl_estimator full with --reference-url|leave one out",
    ),
    ("resources without a cluster", "sft {sft} --cluster-resources {d}/file", "without a cluster; add --cluster ray"),
    ("sampler without its name", "ppo {ppo} --sampler-url http://127.0.0.1:9", "add --sampler vllm"),
    ("sampler of samples that is not installed", "sample {sample} --sampler vllm", "--sampler vllm needs vLLM"),
    (
        "sampler of an evaluation with nothing at its address",
        "evaluate {evaluate} --sampler vllm --sampler-url http://127.0.0.1:9",
        "http://127.0.0.1:9: cannot be reached|start the server",
    ),
    (
        "sampler of an evaluation without its name",
        "evaluate {evaluate} --sampler-url http://127.0.0.1:9",
        "add --sampler vllm",
    ),
    ("long prompt for ppo", "ppo {ppo} --data {d}/long.jsonl", "long.jsonl: none of the 1 prompts is within 56 tokens"),
    (
        "long prompt to compare",
        "evaluate {evaluate} --data {d}/long.jsonl",
        "none of the 1 prompts is within 56 tokens",
    ),
    ("long answers", "evaluate {evaluate} --max-new-tokens 64", "answers of 64 tokens leave no room for a prompt"),
    ("long rankings", "reward {reward} --data {d}/long_pairs.jsonl", "none of the 8 rankings is within 64 tokens"),
    ("long pairs", "dpo {dpo} --data {d}/long_pairs.jsonl", "long_pairs.jsonl: none of the 8 rankings is within"),
    ("empty prompt", "sample {sample} --data {d}/silent_prompt.jsonl", "silent_prompt.jsonl|prompt is empty"),
    ("ranking of one", "reward {reward} --data {d}/one_answer.jsonl", "completions is not a list of two or more"),
    ("empty answer in a pair", "dpo {dpo} --data {d}/empty_answer.jsonl", "chosen is empty, and an empty completion"),
    ("NaN margin", "reward {reward} --data {d}/margin.jsonl", "margin.jsonl|line 1: margin is nan, not a number"),
    ("rank that is a word", "reward {reward} --data {d}/word_rank.jsonl", "rank 'first' is not a number"),
    ("pair of two prompts", "dpo {dpo} --data {d}/unlike.jsonl", "chosen and rejected differ before the last reply"),
    ("two prompts of one id", "sample {sample} --data {d}/ids.jsonl", "ids.jsonl:2: the id 'a' belongs to another|:1"),
    ("two pairs of one id", "dpo {dpo} --data {d}/pair_ids.jsonl", "pair_ids.jsonl:2: the id 'a' belongs to another"),
    (
        "samples of one id",
        "annotate --data {d}/sample_ids.jsonl --world None --judge {judge}",
        "sample_ids.jsonl: line 2 has the id 'a' of another prompt|an id of its own",
    ),
    (
        "samples all the same",
        "annotate --data {d}/same_samples.jsonl --world None --judge {judge}",
        "fewer than two prompts have different answers|sample more",
    ),
    ("one demonstration", "sft {sft} --data {d}/one_demonstration.jsonl", "1 rows cannot be divided"),
    ("shapes that do not fit", "sft {sft} --model {d}/shapes", "shapes: |.weight is [|where config.json says ["),
    ("layers that are missing", "sft {sft} --model {d}/layers", "layers: lacks |does config.json belong"),
    ("architecture that we do not have", "sft {sft} --model {d}/mamba", "model_type is 'mamba'|supported are "),
    ("pickled weights", "sft {sft} --model {d}/pickled", "pickled: has no model.safetensors|convert them"),
    ("tokenizer that is no json", "sft {sft} --model {d}/unspoken", "unspoken"),
    ("torn reward model", "ppo {ppo} --reward {d}/torn_judge", "torn_judge/model.safetensors: not a whole"),
    ("reward model as policy", "ppo {ppo} --model {judge}", "holds a reward model, not a language model"),
    ("no reward model", "ppo {ppo} --reward {d}/none", "none: no such model folder|amenable reward"),
    ("watcher that is nothing", "ppo {ppo} --eval-reward-model regex:[", "is no regular expression"),
    ("all layers frozen", "ppo {ppo} --frozen-layers 99", "frozen_layers is 99 and the model has 2 layers|fewer"),
    ("top-p above 1", "sample {sample} --sampling.top-p 1.2", "top_p is 1.2|above 0, up to 1"),
    ("top-p below 0", "sample {sample} --sampling.top-p -0.1", "top_p is -0.1"),
    ("top-p that is no number", "sample {sample} --sampling.top-p nan", "top_p is nan"),
    ("min-p above 1", "sample {sample} --sampling.min-p 2", "min_p is 2.0|from 0 to 1"),
    ("top-k below 0", "sample {sample} --sampling.top-k -5", "top_k is -5"),
    ("suite without a name", "evaluate {evaluate} --suites {prompts}", "not a suite|write name=path"),
    ("two suites of a name", "evaluate {evaluate} --suites a=x a=y", "two suites are called 'a'"),
    (
        "out is the data's folder",
        "tokenizer --data {d} --out {d}",
        "lies inside the data that is read|folder of its own",
    ),
    (
        "out inside the data",
        "tokenizer --data {d}/more --out {d}/more/run",
        "more/run: lies inside the data that is read",
    ),
    ("out around the data", "tokenizer --data {d}/thesis/chapter.txt --out {d}/thesis", "thesis: holds the data that"),
    ("out inside the model", "sft {sft} --out {base}/sft", "sft: lies inside the model that is read|its own"),
    ("out around the model", "sft {sft} --model {d}/torn --out {d}", "holds the model that is read"),
    (
        "weights of sources",
        "sample {sample} --data {d}/one.jsonl=2 {d}/some.jsonl",
        "data has weights|name the sources",
    ),
    ("a prompt file twice", "ppo {ppo} --data {d}/ids.jsonl=2 {d}/ids.jsonl", "ids.jsonl: is given twice|SOURCE=2"),
    ("no such CUDA device", "sample {sample} --device cuda:77", "CUDA device"),
    ("a device that is no place", "sample {sample} --device meta", "device 'meta'|cpu"),
    ("too many threads", "sample {sample} --threads 1000000", "threads is 1000000"),
    ("precision of a word", "sample {sample} --precision fp7", "fp7"),
    ("choice of a task that is none", "sft {sft} --keep-weights best", "best"),
    ("a port in use", "label --data {samples} --labels-db {d}/labels.db --port {port}", "{port}|give another --port"),
    ("a port that is none", "label --data {samples} --labels-db {d}/labels.db --port 99999", "port is 99999"),
    ("list for yaml", "sft --config {d}/list.yaml", "list.yaml: a configuration is a mapping"),
    ("yaml that is not utf-8", "sft --config {d}/latin.yaml", "latin.yaml: not readable as YAML"),
    (
        "choice in yaml",
        "sft --config {d}/choice.yaml",
        "choice.yaml: 'keep_weights' is 'best'|one of last, loss, score",
    ),
    ("share in yaml", "sft --config {d}/share.yaml", "max_bad_rows is 2.0"),
    ("no file after config", "sft --config", "--config needs a file"),
    ("no such device", "sample {sample} --device toaster", "no device is called 'toaster'|cpu"),
    ("threads below 0", "sample {sample} --threads -2", "threads is -2"),
    ("unknown command", "retrain", "there is no command 'retrain'; did you mean 'pretrain'"),
    ("unknown option", "sft {sft} --epoch 3", "--epoch"),
    ("no yaml", "sft --config {d}/none.yaml", "none.yaml: no such configuration file"),
    ("unknown key", "sft --config {d}/key.yaml", "key.yaml: unknown option 'epochz'; did you mean 'epochs'"),
    ("unknown nested key", "sft --config {d}/nested.yaml", "did you mean 'optimizer.learning_rate'"),
    ("wrong type", "sft --config {d}/type.yaml", "'epochs' is 'many', not int"),
]


@pytest.fixture(scope="module")
def busy_port() -> Iterator[int]:
    """A port that somebody else listens on."""
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        door.listen(1)
        yield door.getsockname()[1]


def altered(model: Path, folder: Path, change: dict[str, Any]) -> None:
    """A copy of a model whose config.json says something else."""
    shutil.copytree(model, folder)
    facts = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**facts, **change}))


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
    busy_port: int,
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
    (d / "one_demonstration.jsonl").write_text(lines({"messages": [ASKED, ANSWERED]}))
    (d / "more").mkdir()
    (d / "more" / "some.jsonl").write_text(TEXTS)
    for name, change in (("shapes", {"hidden_size": 48}), ("layers", {"num_hidden_layers": 5})):
        altered(base, d / name, change)
    altered(base, d / "mamba", {"model_type": "mamba"})
    altered(base, d / "pickled", {})
    (d / "pickled" / "model.safetensors").rename(d / "pickled" / "pytorch_model.bin")
    altered(base, d / "unspoken", {})
    (d / "unspoken" / "tokenizer.json").write_text("{")
    altered(judge, d / "torn_judge", {})
    (d / "torn_judge" / "model.safetensors").write_bytes((judge / "model.safetensors").read_bytes()[:99])
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
    ppo = f"--model {assistant} --reward {judge} --data {files.prompts} --prompts-per-step 8 --max-new-tokens 8"
    return paths | {
        "samples": str(samples),
        "classes": str(d / "classes.jsonl"),
        "port": str(busy_port),
        "pretrain": f"--data {files.text} --tokenizer {tokenizer_folder} --model nano --context 64",
        "sft": f"--model {base} --data {files.demonstrations}",
        "classify": f"--model {base} --data {d}/classes.jsonl",
        "sample": f"--model {assistant} --data {files.prompts} --sampling.max-new-tokens 8",
        "reward": f"--model {assistant} --data {files.rankings} --demonstrations {files.demonstrations}",
        "ppo": ppo,
        "dpo": f"--model {assistant} --data {files.rankings}",
        "evaluate": f"--models sft={assistant} --data {files.prompts} --reward {judge} --lm-data None "
        "--world None --max-new-tokens 8",
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
    if "--out" not in arguments and "--config" not in arguments and len(arguments) > 1 and arguments[0] != "label":
        arguments += ["--out", "new/run"]
    folders = [names["d"], names["base"], names["assistant"], names["judge"], tmp_path]
    before = contents(*folders)
    assert cli.main(arguments) == 2
    report = capsys.readouterr()
    assert contents(*folders) == before
    for part in said.format(**names).split("|"):
        assert part in report.err, report.err
    assert "Traceback" not in report.err + report.out
    explained = [line for line in report.err.strip().splitlines() if not line.startswith("data  ")]
    assert 0 < len(explained) <= 2, report.err


def test_there_are_enough_cases_and_each_is_another() -> None:
    assert len({command for _, command, _ in CASES}) == len({name for name, _, _ in CASES}) == len(CASES) >= 60


BAD_ROWS = lines({"txt": "The sea is blue."}) + '{"text": "caf\n'


def test_bad_rows_within_the_limit_are_listed_with_their_reasons(
    tmp_path: Path, capsys: pytest.CaptureFixture, files: Any
) -> None:
    data, out = tmp_path / "data.jsonl", tmp_path / "run"
    data.write_text(TEXTS + BAD_ROWS + TEXTS)
    arguments = ["tokenizer", "--data", str(data), "--out", str(out), "--vocab-size", "270"]
    assert cli.main(arguments) == 2
    report = capsys.readouterr().err
    assert f"{data}:10: no column 'text' among txt; 2 of 20 rows cannot be used" in report and not out.exists()
    assert cli.main([*arguments, "--max-bad-rows", "0.1"]) == 0
    report = [line for line in capsys.readouterr().err.splitlines() if "rejected" in line]
    assert len(report) == 1 and f"18 rows from 1 file, 2 rejected (first: {data}:10 no column 'text'" in report[0]
    rejected = [json.loads(line) for line in (out / "rejected.jsonl").read_text().splitlines()]
    assert [(row["file"], row["line"]) for row in rejected] == [(str(data), 10), (str(data), 11)]
    assert rejected[1]["reason"].startswith("not JSON")
    assert "rejected.jsonl" in json.loads((out / "manifest.json").read_text())


def test_good_data_leave_no_list(tokenizer_folder: Path) -> None:
    assert not (tokenizer_folder / "rejected.jsonl").exists()


SPOILT = "{not json\n"
READS = {
    "pretrain": ("data", "validation"),
    "sft": ("data", "validation"),
    "classify": ("data", "validation"),
    "sample": ("data", "shots"),
    "reward": ("data", "validation", "heldout_annotators", "demonstrations"),
    "ppo": ("data", "validation", "ptx_data"),
    "dpo": ("data", "validation"),
    "evaluate": ("data", "lm_data", "demonstrations", "shots"),
}
KIND_OF = {"demonstrations": "demonstrations", "shots": "demonstrations", "lm_data": "text", "ptx_data": "text"}
KINDS = {"pretrain": "text", "sft": "demonstrations", "classify": "classes", "reward": "rankings", "dpo": "rankings"}


@pytest.mark.parametrize(("stage", "option"), [(stage, option) for stage in READS for option in READS[stage]])
def test_every_stage_counts_the_bad_rows_of_all_it_reads(
    stage: str, option: str, names: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    kind = KIND_OF.get(option) or KINDS.get(stage, "prompts")
    spoilt = tmp_path / "spoilt.jsonl"
    spoilt.write_text(Path(names[kind]).read_text() + 9 * SPOILT)
    arguments = [*shlex.split(f"{stage} {names[stage]}"), f"--{option.replace('_', '-')}", str(spoilt)]
    arguments += ["--ptx-coef", "1"] if option == "ptx_data" else []
    arguments += ["--models", f"sft={names['assistant']}@few-shot"] if (stage, option) == ("evaluate", "shots") else []
    assert cli.main([*arguments, "--out", str(tmp_path / "run")]) == 2
    report = capsys.readouterr().err.splitlines()[-1]
    assert f"{spoilt}:" in report and "9 of " in report and "--max-bad-rows" in report
    assert not (tmp_path / "run").exists()


class Number(NamedTuple):
    """A numeric option: of which stage, its path in the Config, and what it is by default."""

    stage: str
    path: tuple[str, ...]
    default: float

    def config(self, value: float) -> Any:
        """The stage's Config with another value there."""
        config = config_of(self.stage)()
        holders = [config]
        for name in self.path[:-1]:
            holders.append(getattr(holders[-1], name))
        for name, holder in zip(reversed(self.path), reversed(holders)):
            value = dataclasses.replace(holder, **{name: value})
        return value


def config_of(stage: str) -> Any:
    return importlib.import_module(f"amenable.stages.{stage.replace('-', '_')}").Config


def numbers_of(stage: str, options: Any, path: tuple[str, ...] = ()) -> Iterator[Number]:
    """Every number among a stage's options, those of its parts included, and those that follow from the model."""
    hints = typing.get_type_hints(type(options))
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if value is None:
            value = {float | None: 0.5, int | None: 5}.get(hints[field.name])
        if dataclasses.is_dataclass(value):
            yield from numbers_of(stage, value, (*path, field.name))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield Number(stage, (*path, field.name), value)


STAGES = [cli.command_of(file) for file in cli.command_files()["stages"]]
NUMBERS = [number for stage in STAGES for number in numbers_of(stage, config_of(stage)())]
HUGE = 10**12
ZERO_MEANS_SOMETHING = """
    head_learning_rate lm_coef
    learning_rate muon_learning_rate weight_decay max_grad_norm beta1 beta2 critic_learning_rate final_lr_frac
    eval_episodes
    threads max_prompts save_steps pairs_per_prompt eval_prompts num_traced_prompts frozen_layers warmup_steps
    attack_queries num_shots task_rows self_consistency
    first_labels label_lag reward_weight_decay label_noise holdout judge_rationality judge_error_rate judge_discount
    prompt_tuning prefix_tuning ngram.vocab_size num_samples
    pretrain.max_steps dropout label_smoothing agreement empty_share max_bad_rows min_p top_k kl_coef adaptive_kl_target
    target_kl max_kl kl_budget code_workers rpo_alpha dpo.margin online-dpo.margin gamma lam
    cliprange cliprange_high dual_clip cliprange_value overlong_buffer overlong_penalty dynamic_sampling pass_at_k
    max_staleness n_steps baseline_decay cg_damping fisher_answers
    vf_coef entropy_coef missing_eos_penalty score_clip ptx_coef lora.rank lora.bits
    dpo.ld_alpha f_alpha_divergence_coef center_rewards_coefficient score_penalty combination_coefficient
"""
"""as small as can be, or none, or, of a limit, all"""
LEGAL: dict[str, tuple[float, ...]] = {
    **{name: (0,) for name in ZERO_MEANS_SOMETHING.split()},
    "seed": (-1, 0, HUGE),  # any whole number
    "keep_checkpoints": (HUGE,),  # all of them; whether the disk has room is asked when the run begins
    "sampling.temperature": (0, HUGE),  # the likeliest token, and any token
    "evaluate.temperature": (HUGE,),
    "resample.kl_coef": (),
    "distill-context.temperature": (0,),
    "sampling.repetition_penalty": (HUGE,),  # nothing is said twice
    "sampling.top_k": (0, HUGE),  # all tokens
    "world.seed": (0, HUGE),
    "control.max_grad_norm": (0,),
    "max_grad_norm": (0, HUGE),  # no gradient is scaled down
    "optimizer.learning_rate": (0, HUGE),  # weights that overflow stop the run in its first steps
    "muon_learning_rate": (0, HUGE),
    "weight_decay": (0, HUGE),
}
"""what is extreme and means something; a name with a dot goes before one without"""


def legal(number: Number) -> tuple[float, ...]:
    if number.path[0] == "rates":
        return (0,)
    name = number.path[-1]
    owner = number.path[-2] if len(number.path) > 1 else number.stage
    return LEGAL.get(f"{owner}.{name}", LEGAL.get(name, ()))


def extremes(number: Number) -> tuple[float, ...]:
    return (-1, 0, HUGE) if isinstance(number.default, int) else (-1.0, 0.0, 1e12, math.inf, -math.inf, math.nan)


def by_declaration(numbers: list[Number]) -> list[list[Number]]:
    """Numbers in groups: an option is one and the same in all stages that have it from one dataclass."""
    groups: dict[Any, list[Number]] = {}
    for number in numbers:
        options = config_of(number.stage)()
        for name in number.path[:-1]:
            options = getattr(options, name)
        owner = next(kind for kind in type(options).__mro__ if number.path[-1] in inspect.get_annotations(kind))
        groups.setdefault((owner, number.path), []).append(number)
    return list(groups.values())


@pytest.mark.parametrize(
    "group", by_declaration(NUMBERS), ids=lambda group: f"{group[0].stage}-{'.'.join(group[0].path)}"
)
def test_a_number_is_refused_unless_it_is_known_to_mean_something(
    group: list[Number], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in group:
        allowed = legal(number)
        for value in extremes(number):
            if value in allowed:
                number.config(value)
                continue
            with pytest.raises(InputError, match=number.path[-1]) as caught:
                number.config(value)
            assert caught.value.how, "how to mend it"
    number = group[0]
    option = f"--{'.'.join(number.path).replace('_', '-')}"
    assert cli.main([number.stage, option, "-1" if -1 not in legal(number) else "many"]) == 2
    report = capsys.readouterr().err
    assert number.path[-1].replace("-", "_") in report.replace("-", "_") and 0 < len(report.splitlines()) <= 2
    assert not list(tmp_path.iterdir())


def test_the_table_of_legal_extremes_names_options_that_exist() -> None:
    known = {name for n in NUMBERS for name in (n.path[-1], f"{([n.stage, *n.path])[-2]}.{n.path[-1]}")}
    assert set(LEGAL) <= known
    assert len(NUMBERS) > 100


def test_no_cuda_is_said(names: dict[str, str], capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    arguments = shlex.split(f"sample {names['sample']} --device cuda --out {tmp_path / 'run'}")
    assert cli.main(arguments) == 2
    assert "no CUDA device; use --device cpu" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_debug_shows_where_it_was_found(names: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="no such file"):
        cli.main(["tokenizer", "--data", f"{names['d']}/none.jsonl", "--debug"])
