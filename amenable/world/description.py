"""Description of a closed world for people: figures first, then examples of every kind."""

from __future__ import annotations

import random
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from amenable.world import names, phrases, prompt_templates
from amenable.world.annotators import AGREEMENT, COMPONENTS
from amenable.world.closed_world import ClosedWorld, measure_agreement
from amenable.world.corpus import ANY_TEMPLATES, QUESTION_FORMS, statements
from amenable.world.demonstrators import demonstrate, modal_answer
from amenable.world.prompts import STRANGER_ATTRIBUTES, Messages, PromptSampler
from amenable.world.scores import share
from amenable.world.settings import KINDS
from amenable.world.suites import SUITES
from amenable.world.town import Pair, Town

FILES = ("demonstrations/train", "prompts/reward", "prompts/ppo", "prompts/validation", "prompts/test")
"""files whose prompts follow the customers' shares"""
SPEAKER = re.compile(r"^(Visitor|Exercise|Post|Question|[A-Z][a-z]+): ")
"""speaker of a request in raw text"""
MOST = 100
"""prompts of a kind whose completions are graded for the mean"""


def describe(world: ClosedWorld) -> Iterator[str]:
    """Yield figures and examples, line by line."""
    figures = (describe_town, describe_texts, describe_rates, describe_prompts, describe_phrasings, describe_suites)
    for part in (*figures, describe_annotators, show_texts, show_prompts, show_suites, show_rest):
        yield from part(world)


def describe_town(world: ClosedWorld) -> Iterator[str]:
    """Describe the people and their facts."""
    town = world.town
    yield f"{town.name}: {len(town.people)} people, {len(town.pairs)} facts, of which {len(town.stated)} are told, "
    yield f"{len(town.rumours)} are told wrong as well, and {len(town.held_out)} are held out from training prompts; "
    yield f"{len(town.strangers)} strangers for training, {len(town.held_out_strangers)} held out"


def describe_texts(world: ClosedWorld) -> Iterator[str]:
    """Describe the raw text by kind of document."""
    documents = world.rows["text/train.jsonl"]
    numbers, sizes = Counter(row["kind"] for row in documents), Counter[str]()
    for row in documents:
        sizes[row["kind"]] += len(row["text"].encode())
    words, total = statistics.mean(len(row["text"].split()) for row in documents), sizes.total()
    yield heading(f"Raw text: {len(documents):,} documents, {total / 1e6:.2f} MB, {words:.0f} words each")
    rows = [
        (kind, str(numbers[kind]), percent(numbers[kind] / len(documents)), f"{size / 1e3:.0f}", percent(size / total))
        for kind, size in sizes.most_common()
    ]
    yield from table(("kind", "documents", "share", "kB", "of all bytes"), rows)


def describe_rates(world: ClosedWorld) -> Iterator[str]:
    """Describe rates of texts and people: as set, and as measured."""
    yield heading("Rates: set, and measured in the files")
    rows = [
        (name.replace("_", " "), percent(getattr(world.rates, name)), "-" if measured is None else percent(measured))
        for name, measured in measured_rates(world).items()
    ]
    yield from table(("", "set", "measured"), rows)


def measured_rates(world: ClosedWorld) -> dict[str, float | None]:
    """Return rates by name, counted in texts, demonstrations and prompts; None where there is nothing to count."""
    truths = [world.truth(row["id"]) for name in FILES[:3] for row in world.rows[f"{name}.jsonl"]]
    demonstrations = [
        (world.truth(row["id"]), row["messages"][-1]["content"], world.gold(row["id"], row["messages"][-1]["content"]))
        for row in world.rows["demonstrations/train.jsonl"]
    ]
    questions = [parts for truth, _, parts in demonstrations if truth.kind in ("open", "followup")]
    return {
        **text_rates(world),
        "rambles": share("By the way" in answer for _, answer, _ in demonstrations),
        "rude": share(parts.rude for _, _, parts in demonstrations),
        "wrong": share(parts.truthful is False and not parts.over_refused for parts in questions),
        "over_refuses": share(parts.over_refused for parts in questions),
        "guesses": share(parts.invented for _, _, parts in demonstrations),
        "complies": share(parts.harmful for _, _, parts in demonstrations),
        "not_said": share(truth.value is None for truth in truths if truth.kind == "closed"),
        "unstated_asked": share(truth.cause == "unstated" for truth in truths if truth.kind == "unanswerable"),
    }


def text_rates(world: ClosedWorld) -> dict[str, float | None]:
    """Return rates of falsehood and rudeness in the raw text."""
    town, documents = world.town, world.rows["text/train.jsonl"]
    forum = "\n".join(row["text"] for row in documents if row["kind"] == "forum")
    corpus = "\n".join(row["text"] for row in documents)
    stated = {pair for pair, sentence in statements(town) if sentence in corpus}
    lies = sum(count_statements(town, forum, pair, false) for pair, false in town.rumours.items())
    truths = sum(count_statements(town, forum, pair, town.value(pair)) for pair in town.rumours)
    replies = [line.removeprefix("Reply: ") for line in forum.split("\n") if line.startswith("Reply: ")]
    return {
        "unstated": 1 - len(stated) / len(town.pairs),
        "rumours": len(town.rumours) / len(town.pairs),
        "rumour_told": lies / (lies + truths) if lies + truths else None,
        "held_out": len(town.held_out) / len(town.pairs),
        "rude_replies": share(reply in phrases.INSULTS for reply in replies),
        "desk": share(row["kind"] == "desk" for row in documents),
    }


def count_statements(town: Town, text: str, pair: Pair, value: str) -> int:
    """Count the statements of this value in a text, in any wording with the name."""
    return sum(text.count(town.sentence(form, pair[0], value)) for form in phrases.STATEMENTS[pair[1]])


def describe_prompts(world: ClosedWorld) -> Iterator[str]:
    """Describe prompts by kind and file, and the requests in raw text, whose shares are other than the customers'."""
    yield heading("Prompts by kind: number in each file, customers' share, and the share of requests in raw text")
    counts = {name: Counter(row["kind"] for row in world.rows[f"{name}.jsonl"]) for name in FILES}
    everything = sum(count.total() for count in counts.values())
    lines = [line for row in world.rows["text/train.jsonl"] for line in row["text"].split("\n")]
    requests = Counter(kind for line in lines if (kind := kind_of_request(line)) is not None)
    rows = [
        (
            kind,
            *(str(count[kind]) for count in counts.values()),
            percent(sum(count[kind] for count in counts.values()) / everything),
            percent(requests[kind] / max(1, requests.total())) if kind in REQUESTS else "-",
        )
        for kind in KINDS
    ]
    yield from table(("kind", *(name.replace("demonstrations", "demos") for name in FILES), "share", "raw text"), rows)
    yield "Questions without an answer, and those that follow others, look like any in raw text: there they are open."


def kind_of_request(line: str) -> str | None:
    """Return the kind of request in a line of raw text, if phrased as customers do; None for all other lines."""
    texts = (line, SPEAKER.sub("", line))
    return next((kind for kind, form in REQUESTS.items() if any(form.fullmatch(text) for text in texts)), None)


def pattern(templates: Iterable[str]) -> re.Pattern[str]:
    """Compile a pattern for any of the templates; fields match anything, `count` numbers, `category` a word."""
    numbers = {"count": r"(?:one|two|three|four)(?: sentences?)?", "category": r"\w+"}
    forms = (re.sub(r"\\\{(\w+)\\\}", lambda at: numbers.get(at[1], ".+"), re.escape(form)) for form in templates)
    return re.compile("|".join(forms))


def request_forms(kind: str) -> list[str]:
    """Return the phrasings of a kind of prompt, without the bare question and passage."""
    bare = ("{Q}", "{passage} {Q}")
    forms = [form for name in PHRASED.get(kind, (kind,)) for form in ANY_TEMPLATES[name] if form not in bare]
    if kind == "open":
        forms += [form for own in QUESTION_FORMS.values() for form in own]
        forms += [*phrases.UNRECORDED_QUESTIONS, *phrases.HELD_OUT_UNRECORDED_QUESTIONS]
    return forms


PHRASED = {"constrained": ("count", "start", "end"), "unanswerable": ("open",)}
"""kinds of prompts that are phrased by the templates of others"""
QUESTIONS = ("open", "unanswerable", "followup")
"""kinds of prompts that have the same phrasings"""
REQUESTS = {kind: pattern(request_forms(kind)) for kind in (*(k for k in KINDS if k not in QUESTIONS), "open")}
"""patterns by kind of request; questions come last, for their forms are the most general"""


def describe_phrasings(world: ClosedWorld) -> Iterator[str]:
    """Describe the number of phrasings and keys of prompts, in training and in the tests."""
    yield heading("Phrasings and keys of prompts: for training, and held out")
    sides = [
        PromptSampler(world.town, world.rates, random.Random("describe"), held_out_keys)
        for held_out_keys in (False, True)
    ]
    rows = []
    for kind in KINDS:
        templates = PHRASED.get(kind, (kind,))
        phrasings = [
            sum(len(own[name]) for name in templates)
            for own in (prompt_templates.TEMPLATES, prompt_templates.HELD_OUT_TEMPLATES)
        ]
        keys = [number_of_keys(sampler, kind) for sampler in sides]
        rows.append((kind, *(str(number) for number in (*phrasings, *keys))))
    yield from table(("kind", "phrasings", "held out", "keys", "held out"), rows)
    questions = [sum(len(own) for own in forms.values()) for forms in (phrases.QUESTIONS, phrases.HELD_OUT_QUESTIONS)]
    yield f"Questions about facts come in {questions[0]} forms, and {questions[1]} more that are held out."


def number_of_keys(sampler: PromptSampler, kind: str) -> int:
    """Return the number of keys that prompts of a kind can be about."""
    if kind in ("open", "followup"):
        return len(sampler.stated)
    if kind == "closed":
        return len(sampler.strangers) * len(STRANGER_ATTRIBUTES)
    if kind == "unanswerable":
        strange = len(sampler.strangers) * len(names.ATTRIBUTES)
        return strange + len(sampler.keys["unrecorded"]) + len(sampler.unstated)
    return len(sampler.keys[kind])


def describe_suites(world: ClosedWorld) -> Iterator[str]:
    """Describe the suites and their kinds of prompts."""
    yield heading("Suites")
    rows = []
    for name, suite in SUITES.items():
        kinds = Counter(row["kind"] for row in world.rows[f"suites/{name}.jsonl"])
        common = [f"{kind} {number}" for kind, number in kinds.most_common(4)]
        rows.append((name, str(kinds.total()), ", ".join(common + ["..."] * (len(kinds) > 4)), suite.meaning))
    yield from table(("suite", "prompts", "kinds", "asks whether the model"), rows, left=(0, 2, 3))


def describe_annotators(world: ClosedWorld) -> Iterator[str]:
    """Describe each annotator's weights, and their agreement."""
    yield heading(f"Annotators: what they multiply each part of gold by; all err with noise of scale {world.noise:.2f}")
    rows = [
        (person.name, "held out" if person.held_out else "training", *(f"{person.weights[c]:.2f}" for c in COMPONENTS))
        for person in world.annotators
    ]
    yield from table(("", "panel", *COMPONENTS), rows, left=(0, 1))
    yield f"The noise is fitted so that two agree in {percent(AGREEMENT)} of pairs that both order. Measured:"
    panels = {"all": world.annotators, "training panel": world.panel, "held-out panel": world.held_out_panel}
    for name, panel in panels.items():
        yield f"  {name:<15}{percent(measure_agreement(world, panel))}"


def show_texts(world: ClosedWorld) -> Iterator[str]:
    """Show a document of each kind."""
    yield heading("A document of each kind")
    documents = world.rows["text/train.jsonl"]
    for kind in sorted({row["kind"] for row in documents}):
        yield f"\n[{kind}]"
        yield from indented(next(row["text"] for row in documents if row["kind"] == kind))


def show_prompts(world: ClosedWorld) -> Iterator[str]:
    """Show a test prompt of each kind, with completions and their gold."""
    yield heading(
        "A test prompt of each kind; mean gold of a demonstration, of demonstrators' commonest habits, of the best"
    )
    for kind in KINDS:
        rows = [row for row in world.rows["prompts/test.jsonl"] if row["kind"] == kind][:MOST]
        rng = random.Random(f"describe/{kind}")
        answers = [answers_to(world, row["id"], rng) for row in rows]
        golds = [[world.gold(row["id"], text).gold for text in texts] for row, texts in zip(rows, answers)]
        if rows:
            means = "".join(f"{statistics.mean(column):7.2f}" for column in zip(*golds))
            yield f"\n{kind:<14}{means}"
            yield from exchange(rows[-1]["prompt"], {"demo": answers[-1][0], "best": answers[-1][2]})


def answers_to(world: ClosedWorld, prompt_id: str, rng: random.Random) -> tuple[str, str, str]:
    """Return a demonstration, one of the commonest habits, and the best completion."""
    truth = world.truth(prompt_id)
    human, usual = demonstrate(truth, world.town, world.rates, rng), modal_answer(truth, world.town, rng)
    return human, usual, world.best_answer(prompt_id)


def show_suites(world: ClosedWorld) -> Iterator[str]:
    """Show a prompt of each suite with the best completion."""
    yield heading("A prompt of each suite")
    for name in SUITES:
        row = world.rows[f"suites/{name}.jsonl"][0]
        yield f"\n[{name}] {row['kind']}"
        yield from exchange(row["prompt"], {"best": world.best_answer(row["id"])})


def show_rest(world: ClosedWorld) -> Iterator[str]:
    """Show public tasks, shots, and few-shot tasks."""
    yield heading("Public tasks")
    public = world.rows["public/train.jsonl"]
    for kind in sorted({row["kind"] for row in public}):
        yield f"\n[{kind}]"
        yield from demonstration(next(row for row in public if row["kind"] == kind))
    yield heading("What a few-shot prompted model sees before the prompt")
    for row in world.rows["few_shot.jsonl"]:
        yield from demonstration(row)
    yield heading("Few-shot tasks by likelihood")
    for name in sorted(name for name in world.rows if name.startswith("tasks/")):
        yield f"\n[{name.removeprefix('tasks/').removesuffix('.jsonl')}] {len(world.rows[name])} questions"
        for row in world.rows[name][:1]:
            yield from indented(row["context"])
            for index, choice in enumerate(row["choices"]):
                yield f"    {'*' if index == row['answer'] else ' '}{choice}"


def demonstration(row: Mapping[str, Messages]) -> Iterator[str]:
    """Show the messages of a row, the last as the answer."""
    *prompt, last = row["messages"]
    return exchange(prompt, {"answer": last["content"]})


def exchange(prompt: Messages, answers: Mapping[str, str]) -> Iterator[str]:
    """Show a prompt with named answers below the prompt."""
    for message in prompt:
        yield from labelled("prompt" if message["role"] == "user" else "answer", message["content"])
    for name, text in answers.items():
        yield from labelled(name, text)


def labelled(name: str, text: str) -> Iterator[str]:
    """Show a text behind its name; further lines stand below the first."""
    first, *others = text.split("\n")
    yield f"  {name + ':':<8}{first}"
    yield from (" " * 10 + line for line in others)


def indented(text: str) -> Iterator[str]:
    """Indent the lines of a text."""
    return (f"  {line}" for line in text.split("\n"))


def heading(text: str) -> str:
    """Format the first line of a chapter."""
    return f"\n=== {text} ==="


def percent(part: float) -> str:
    """Format a share: 0.073 -> "7.3 %"."""
    return f"{100 * part:.1f} %"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> Iterator[str]:
    """Format columns as wide as their widest cell; those in `left` begin at the left, the others end at the right."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    for row in (head, *rows):
        cells = [
            cell.ljust(width) if at in left else cell.rjust(width) for at, (cell, width) in enumerate(zip(row, widths))
        ]
        yield "  ".join(cells).rstrip()
