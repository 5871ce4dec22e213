"""llama.cpp's side of llamacpp_agreement, in an environment of its own: ids and logits of a GGUF file.

Reads a JSON object (file, texts, prompts as ids, tokens, continuations as ids) on stdin; writes one on stdout with the
ids of the texts and greedy continuations, and, to the .npy file that `logits` names, the logits before every id of the
continuations.
"""

import json
import sys

import llama_cpp
import numpy as np

F32 = 0
"""ggml's type of the keys and values, as ours"""


def main() -> None:
    task = json.load(sys.stdin)
    longest = max(map(len, task["prompts"])) + task["tokens"] + 1
    sizes = {
        "n_ctx": longest,
        "n_batch": longest,
        "n_threads": task.get("threads", 1),
        "n_threads_batch": task.get("threads", 1),
    }
    model = llama_cpp.Llama(task["file"], logits_all=True, type_k=F32, type_v=F32, verbose=False, **sizes)
    texts = [model.tokenize(text.encode(), add_bos=False, special=False) for text in task["texts"]]
    ends = {model.token_eos(), int(llama_cpp.llama_vocab_eot(llama_cpp.llama_model_get_vocab(model.model)))}
    greedy = [continue_greedily(model, prompt, task["tokens"], ends) for prompt in task["prompts"]]
    rows = [logits_before(model, prompt, ids) for prompt, ids in zip(task["prompts"], task["continuations"])]
    np.save(task["logits"], np.concatenate(rows))
    json.dump({"texts": texts, "greedy": greedy, "version": llama_cpp.__version__}, sys.stdout)


def continue_greedily(model: llama_cpp.Llama, prompt: list[int], count: int, ends: set[int]) -> list[int]:
    """Return the most likely ids after a prompt, up to an end, which is included."""
    model.reset()
    model.eval(prompt)
    ids: list[int] = []
    while len(ids) < count and not set(ids[-1:]) & ends:
        ids.append(int(np.argmax(model.scores[model.n_tokens - 1])))
        model.eval(ids[-1:])
    return ids


def logits_before(model: llama_cpp.Llama, prompt: list[int], ids: list[int]) -> np.ndarray:
    """Return the logits that predict each of the ids after a prompt, [len(ids), V]."""
    model.reset()
    model.eval(prompt + ids)
    return np.array(model.scores[len(prompt) - 1 : len(prompt) + len(ids) - 1])


if __name__ == "__main__":
    main()
