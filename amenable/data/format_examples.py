"""A row of each published format, written anew: for the table of formats and its tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

QUESTION, GOOD, BAD = "Who keeps the ferry?", "Tolan keeps it.", "Nobody does."
USER = {"role": "user", "content": QUESTION}
BETTER, WORSE = ({"role": "assistant", "content": text} for text in (GOOD, BAD))
SHARE = [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": GOOD}]
TOOLS = '[{"name": "ferries", "description": "List ferries.", "parameters": {"type": "object", "properties": {}}}]'
DIALOGUE = f"\n\nHuman: {QUESTION}\n\nAssistant: "
POST = {"id": "t3_1", "post": "I keep a ferry.", "title": "Ferry", "subreddit": "boats"}
HELPSTEER = {"prompt": QUESTION, "correctness": 3, "coherence": 4, "complexity": 1, "verbosity": 2}
MODELS = {"model_a": "north", "model_b": "south"}


@dataclass(frozen=True)
class FormatExample:
    """Rows of a published format."""

    name: str
    rows: tuple[dict[str, Any], ...]


def ultrafeedback(text: str, score: float) -> dict[str, Any]:
    """Return a completion of UltraFeedback."""
    names = ("helpfulness", "honesty", "instruction_following", "truthfulness")
    annotations = {name: {"Rating": str(round(score)), "Rationale": "It says so."} for name in names}
    scores = {"overall_score": score, "fine-grained_score": score, "critique": "Fine."}
    return {"model": "north", "response": text, "annotations": annotations, "principle": "honesty", **scores}


def summary(text: str, overall: int) -> dict[str, Any]:
    """Return a row of summarize-from-feedback's `axis`."""
    axes = {"overall": overall, "accuracy": 7, "coverage": 3, "coherence": 7}
    return {"info": POST, "summary": {"text": f" {text}", "policy": "sup2", "axes": axes}, "worker": "w7"}


def example(name: str, *rows: dict[str, Any]) -> FormatExample:
    """Return the example of a format."""
    return FormatExample(name, rows)


EXAMPLES = (
    example("TRL: language modeling", {"text": "The ferry is kept by Tolan."}),
    example("TRL: language modeling, conversational; OpenAI chat", {"messages": [USER, BETTER]}),
    example("TRL: prompt-only", {"prompt": QUESTION}),
    example("TRL: prompt-only, conversational", {"prompt": [USER]}),
    example("TRL: prompt-completion", {"prompt": QUESTION, "completion": GOOD}),
    example("TRL: prompt-completion, conversational", {"prompt": [USER], "completion": [BETTER]}),
    example("TRL: preference, explicit prompt", {"prompt": QUESTION, "chosen": GOOD, "rejected": BAD}),
    example("TRL: preference, implicit prompt", {"chosen": f"{QUESTION} {GOOD}", "rejected": f"{QUESTION} {BAD}"}),
    example("TRL: preference, conversational", {"prompt": [USER], "chosen": [BETTER], "rejected": [WORSE]}),
    example("TRL: preference, conversational, implicit prompt", {"chosen": [USER, BETTER], "rejected": [USER, WORSE]}),
    example("TRL: preference with margin", {"prompt": QUESTION, "chosen": GOOD, "rejected": BAD, "margin": 2.0}),
    example(
        "TRL: unpaired preference",
        {"prompt": QUESTION, "completion": GOOD, "label": True},
        {"prompt": QUESTION, "completion": BAD, "label": False},
    ),
    example(
        "TRL: stepwise supervision",
        {"prompt": "What is 2 + 2 + 1?", "completions": ["2 + 2 is 4,", "4 + 1 is 6."], "labels": [True, False]},
    ),
    example(
        "Alpaca",
        {"instruction": "Sort.", "input": "b a", "output": "a b", "system": "Be brief.", "history": [["Hi", "Hello"]]},
    ),
    example("Alpaca, preference", {"instruction": QUESTION, "input": "", "chosen": GOOD, "rejected": BAD}),
    example("ShareGPT", {"conversations": SHARE, "system": "Be brief.", "tools": TOOLS}),
    example(
        "ShareGPT, preference (Llama-Factory)",
        {"conversations": SHARE[:1], "chosen": SHARE[1], "rejected": {"from": "gpt", "value": BAD}},
    ),
    example(
        "ShareGPT, kto_tag (Llama-Factory)",
        {"conversations": SHARE, "kto_tag": True},
        {"conversations": SHARE, "kto_tag": False},
    ),
    example("OpenAI: turns with weight", {"messages": [USER, {**WORSE, "weight": 0}, USER, {**BETTER, "weight": 1}]}),
    example(
        "OpenAI: preference fine-tuning",
        {"input": {"messages": [USER]}, "preferred_output": [BETTER], "non_preferred_output": [WORSE]},
    ),
    example(
        "completions with a score, such as votes",
        {"prompt": QUESTION, "completion": GOOD, "score": 12},
        {"prompt": QUESTION, "completion": BAD, "score": -1},
    ),
    example("K completions with scores", {"prompt": QUESTION, "completions": [GOOD, BAD], "scores": [12, -1]}),
    example("Dolly", {"instruction": QUESTION, "context": "", "response": GOOD, "category": "closed_qa"}),
    example("GSM8K", {"question": "What is 2 + 2?", "answer": "2 + 2 is <<2+2=4>>4\n#### 4"}),
    example("HH-RLHF", {"chosen": DIALOGUE + GOOD, "rejected": DIALOGUE + BAD}),
    example("Orca DPO pairs", {"system": "Be brief.", "question": QUESTION, "chosen": GOOD, "rejected": BAD}),
    example(
        "UltraFeedback",
        {
            "source": "evol_instruct",
            "instruction": QUESTION,
            "models": ["north", "south"],
            "completions": [ultrafeedback(GOOD, 7.5), ultrafeedback(BAD, 6.0)],
        },
    ),
    example(
        "UltraFeedback, binarized",
        {"prompt": QUESTION, "prompt_id": "7", "chosen": [USER, BETTER], "rejected": [USER, WORSE]}
        | {"messages": [USER, BETTER], "score_chosen": 8.0, "score_rejected": 3.0},
    ),
    example(
        "SHP",
        {"post_id": "p", "domain": "askboats_train", "history": QUESTION, "human_ref_A": BAD, "human_ref_B": GOOD}
        | {"labels": 0, "score_A": 3, "score_B": 9, "score_ratio": 3.0},
    ),
    example(
        "HelpSteer, HelpSteer2",
        {**HELPSTEER, "response": GOOD, "helpfulness": 4},
        {**HELPSTEER, "response": BAD, "helpfulness": 1},
    ),
    example(
        "HelpSteer2-Preference",
        {"split": "train", "prompt": QUESTION, "response_1": GOOD, "response_2": BAD, "preference_strength": -2}
        | {"preference_statement": "The first is right.", "preference_elaboration": "It names him."},
    ),
    example(
        "HelpSteer3",
        {"domain": "general", "language": "english", "context": [USER], "response1": BAD, "response2": GOOD}
        | {"overall_preference": 3, "individual_preference": [{"score": 3, "reasoning": "The second."}]},
    ),
    example(
        "summarize-from-feedback, comparisons",
        {"info": POST, "choice": 1, "worker": "w7", "batch": "batch9", "extra": {"confidence": 7}}
        | {"summaries": [{"text": f" {text}", "policy": "sup2"} for text in (BAD, GOOD)]},
    ),
    example("summarize-from-feedback, axis", summary(GOOD, 6), summary(BAD, 3)),
    example(
        "Nectar",
        {"prompt": DIALOGUE, "source": ["lmsys-chat-1m"], "turns": 1, "good_natured": True}
        | {"answers": [{"answer": text, "model": "north", "rank": rank} for text, rank in ((GOOD, 1.0), (BAD, 2.0))]},
    ),
    example(
        "WebGPT comparisons",
        {"question": {"dataset": "eli5", "id": "9", "full_text": QUESTION}, "answer_0": BAD, "answer_1": GOOD}
        | {"score_0": -0.5, "score_1": 0.5},
    ),
    example(
        "Stack Exchange, paired",
        {"qid": 3, "question": QUESTION, "date": "2020/01/01", "response_j": GOOD, "response_k": BAD},
    ),
    example(
        "Chatbot Arena",
        {"question_id": "q1", **MODELS, "winner": "model_a", "judge": "arena_user_7", "language": "English"}
        | {"conversation_a": [USER, BETTER], "conversation_b": [USER, WORSE]},
        {"question_id": "q2", **MODELS, "winner": "tie (bothbad)", "judge": "arena_user_8"}
        | {"conversation_a": [USER, BETTER], "conversation_b": [USER, WORSE]},
    ),
    example(
        "LMSYS, Kaggle",
        {"id": 30192, **MODELS, "prompt": f'["{QUESTION}"]', "response_a": f'["{BAD}"]', "response_b": f'["{GOOD}"]'}
        | {"winner_model_a": 0, "winner_model_b": 1, "winner_tie": 0},
    ),
    example(
        "AlpacaEval",
        {"instruction": QUESTION, "output_1": BAD, "generator_1": "north", "output_2": GOOD, "generator_2": "south"}
        | {"annotator": "judge", "preference": 2.0},
    ),
    example("LLMBar", {"input": QUESTION, "output_1": BAD, "output_2": GOOD, "label": 2}),
    example("RewardBench", {"prompt": QUESTION, "chosen": GOOD, "rejected": BAD, "subset": "alpacaeval-easy"}),
    example("K completions, ranked", {"prompt": QUESTION, "completions": [GOOD, BAD], "ranking": [1, 2]}),
    example(
        "K completions with ranks (NeMo)",
        {"context": QUESTION, "completions": [{"rank": 1, "completion": BAD}, {"rank": 0, "completion": GOOD}]},
    ),
)
