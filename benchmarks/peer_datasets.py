"""Tokenize a .jsonl file of texts by `datasets.map`: run in the peers' environment by tokenizing.py.

python peer_datasets.py texts.jsonl tokenizer.json CACHE    prints the processor seconds as JSON
"""

import json
import sys
import time

import datasets
from tokenizers import Tokenizer


def main(data: str, tokenizer: str, cache: str) -> None:
    """Print the processor seconds of `load_dataset`, and of `map` in batches of a thousand, into Arrow files."""
    backend = Tokenizer.from_file(tokenizer)
    datasets.disable_progress_bars()

    def encode(rows: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        encodings = backend.encode_batch_fast(rows["text"], add_special_tokens=False)
        return {"input_ids": [encoding.ids for encoding in encodings]}

    begun = time.process_time()
    rows = datasets.load_dataset("json", data_files=data, split="train", cache_dir=cache)
    loaded = time.process_time()
    mapped = rows.map(encode, batched=True, remove_columns=["text"])
    done = time.process_time()
    print(json.dumps({"load": loaded - begun, "map": done - loaded, "rows": len(mapped)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
