"""Numbers as words and cells: how the report writes what was measured."""

from __future__ import annotations

from amenable.claims.stage_folders import ORDER, Stage
from amenable.recipes.reports import report_data as read
from amenable.recipes.reports.report_data import Figures

NONE = "–"
NAMES = {
    "prompted": "base + shots",
    "large": "large base",
    "large-prompted": "large + shots",
    "public": "public tasks",
    "sft": "SFT",
    "sft-1": "SFT, 1 epoch",
    "sft-16": "SFT, 16 epochs",
    "sharpened": "SFT, sharp",
    "best16": "best of 16",
    "dpo": "DPO",
    "ppo": "PPO",
    "ppo-kl": "PPO-kl",
    "ppo-ptx": "PPO-ptx",
}
"""how models are written; any other goes by its own name"""
DECODINGS = {"sampled": "sampled", "greedy": "greedy"}
JUDGES = {
    "heldout": "Annotators who took no part in training",
    "training": "The annotators of the training comparisons",
    "reward": "The reward model, for want of other judges,",
}


def name_of(model: str) -> str:
    return NAMES.get(model, model)


def plain(value: float | None, digits: int = 2) -> str:
    """A number with a real minus sign; -0.00 is 0.00.

    >>> plain(-0.5), plain(None), plain(-0.001)
    ('−0.50', '–', '0.00')
    """
    if value is None:
        return NONE
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def signed(value: float) -> str:
    """A change, with its sign."""
    return ("+" if round(value, 2) > 0 else "") + plain(value)


def percent(value: float | None) -> str:
    """A share, without decimals.

    >>> percent(0.625), percent(None)
    ('62%', '–')
    """
    return NONE if value is None else f"{100 * value:.0f}%"


def in_unit(value: float | None, unit: str) -> str:
    """A value as its unit is written: a share as a percentage, anything else as a number.

    >>> in_unit(0.625, "share"), in_unit(0.034, "share"), in_unit(-0.5, "gold"), in_unit(0.2461, "bits")
    ('62%', '3.4%', '−0.50', '0.246')
    """
    if value is None:
        return NONE
    if unit in ("share", "accuracy"):
        return plain(100 * value, 1 if abs(value) < 0.1 and value else 0) + "%"
    return plain(value, 3 if unit == "bits" else 2)


def span(low: float | None, high: float | None) -> str:
    """A 95 % interval of shares."""
    return "" if low is None or high is None else f"{100 * low:.0f}–{100 * high:.0f}%"


def duration(seconds: float | None) -> str:
    """
    >>> duration(9.4), duration(451), duration(7300), duration(None)
    ('9.4 s', '7 min 31 s', '2 h 1 min', '–')
    """
    if seconds is None:
        return NONE
    if round(seconds) < 60:
        return f"{seconds:.1f} s" if round(seconds, 1) < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def amount(value: float) -> str:
    """A count or a figure for a person: 2.0 million, 12,345, 0.312."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:.1f} million"
    if isinstance(value, int) or float(value).is_integer():
        return f"{value:,.0f}".replace("-", "−")
    return f"{value:,.1f}" if abs(value) >= 100 else plain(value, 3 if abs(value) < 1 else 2)


def summary(figures: Figures, stages: list[Stage]) -> tuple[str, str]:
    """The headline, and what else to know, in sentences; each is told only where it was measured."""
    headline = [what_was_done(figures, stages), *claims(figures), *preference(figures), *gold(figures)]
    return " ".join(headline), " ".join([*conduct(figures), *tax(figures), *reward_model(figures)])


def what_was_done(figures: Figures, stages: list[Stage]) -> str:
    """How far it went, how large the model is, and how long it took."""
    size = f"a model of {amount(figures['parameters'])} parameters" if figures["parameters"] else "a model"
    done = sum(stage.finished is not None for stage in stages)
    wanted = len(stages) if any(stage.planned for stage in stages) else len(ORDER)
    spent = f" and {duration(figures['seconds'])} of work" if figures["seconds"] is not None else ""
    if figures["unfinished"]:
        return f"Not finished: so far {size} has gone through {done} of {wanted} stages{spent}."
    return f"In {done} stages{spent}, {size} went from raw text to an assistant that learned from preferences."


def claims(figures: Figures) -> list[str]:
    """How the claims of the papers fared, once any was measured."""
    verdicts = [claim["verdict"] for claim in figures["claims"]]
    measured = [verdict for verdict in verdicts if verdict != "not measured"]
    if not measured:
        return []
    held, failed, open_ = (measured.count(verdict) for verdict in ("holds", "does not hold", "undecided"))
    parts = [f"{held} hold{'s' if held == 1 else ''}"]
    parts += [f"{failed} do{'es' if failed == 1 else ''} not"] if failed else []
    parts += [f"{open_} {'is' if open_ == 1 else 'are'} undecided"] if open_ else []
    said = f"Of the papers’ {len(verdicts)} claims, {len(measured)} were put to the test"
    return [f"{said}: {', '.join(parts)}."]


def preference(figures: Figures) -> list[str]:
    """How often the aligned model is preferred, and whether the interval leaves out one half."""
    pair, judges = read.pair_of(figures), read.judges_of(figures)
    if pair is None or judges is None:
        return []
    rows = {name: read.preferred(figures, *pair, name, judges) for name in DECODINGS}
    shown = {name: row for name, row in rows.items() if row is not None}
    if not shown:
        return []
    after, before = map(name_of, pair)
    shares = " and ".join(
        f"on {percent(row['wins'])} of prompts ({span(row['low'], row['high'])}) when both are {name}"
        for name, row in shown.items()
    )
    verb = "prefers" if judges == "reward" else "prefer"
    told = [f"{JUDGES[judges]} {verb} {after}’s answers to {before}’s {shares}."]
    told.append(verdict(shown) if judges != "reward" else own_judge(figures, after))
    return [sentence for sentence in told if sentence]


def own_judge(figures: Figures, after: str) -> str:
    """What a preference is worth when its judge is the model that was trained on."""
    low = figures["reward_model"].get("accuracy_heldout_annotators_low")
    said = (
        f"{after} was trained to please this very judge, so this shows that it learned to, not that people would agree"
    )
    if low is not None and low <= 0.5:
        said += "; on people’s comparisons the judge itself is no better than chance"
    return said + "."


def verdict(rows: dict[str, Figures]) -> str:
    """What the intervals allow to say."""
    better = [name for name, row in rows.items() if row["low"] > 0.5]
    worse = [name for name, row in rows.items() if row["high"] < 0.5]
    if worse:
        return f"When both are {' and '.join(worse)}, that is clearly for the worse."
    if not better:
        return "One half lies within: no difference is shown."
    if better == ["sampled"] and "greedy" in rows:
        return "Greedy against greedy, one half lies within the interval: some of the gain may be mere sharpening."
    return "Both intervals lie above one half." if len(better) == 2 else ""


def gold(figures: Figures) -> list[str]:
    pair = read.pair_of(figures)
    if pair is None:
        return []
    after, before = (figures["models"][name] for name in pair)
    told = ("sampled", before["gold"], after["gold"]), ("greedy", before["greedy"]["gold"], after["greedy"]["gold"])
    known = [(how, old, new) for how, old, new in told if old is not None and new is not None]
    verbs = [moved(old, new) for _, old, new in known]
    parts = [
        f"{'' if verbs[:place].count(verb) else verb + ' '}from {plain(old)} to {plain(new)} {how}"
        for place, (verb, (how, old, new)) in enumerate(zip(verbs, known))
    ]
    return [f"Gold, the utility that no training sees, {' and '.join(parts)}."] if parts else []


def moved(old: float, new: float) -> str:
    """What a figure did, to the two decimals that are shown."""
    change = round(new, 2) - round(old, 2)
    return "rises" if change > 0 else "falls" if change < 0 else "stays"


def conduct(figures: Figures) -> list[str]:
    """The rates that a person would ask about first, sampled."""
    pair = read.pair_of(figures)
    if pair is None:
        return []
    after, before = (figures["models"][name] for name in pair)
    asked = (
        ("answers made up where nothing is known", "hallucination"),
        ("rude answers", "rude"),
        ("help with harmful requests", "harmful"),
    )
    parts = [
        f"{what} from {percent(before[key])} to {percent(after[key])}"
        for what, key in asked
        if before[key] is not None and after[key] is not None
    ]
    return [f"From {name_of(pair[1])} to {name_of(pair[0])}, sampled: {'; '.join(parts)}."] if parts else []


def tax(figures: Figures) -> list[str]:
    """What alignment costs on raw text."""
    pair, base = read.pair_of(figures), figures["models"].get("base")
    if pair is None or base is None or pair[0] == "base":
        return []
    after = figures["models"][pair[0]]["bpb"]
    if base["bpb"] is None or after is None:
        return []
    return [f"The price on raw text: {plain(base['bpb'], 3)} bits per byte before, {plain(after, 3)} after."]


def reward_model(figures: Figures) -> list[str]:
    """The reward model beside two yardsticks: the annotators' own agreement, and preferring the longer answer."""
    found = figures["reward_model"]
    accuracy, agreement = found["accuracy_heldout_annotators"], found["agreement_heldout"]
    longer = found["longer_wins_heldout_annotators"]
    if accuracy is None:
        return []
    beside = [f"they agree among themselves in {percent(agreement)}"] if agreement is not None else []
    beside += [f"always preferring the longer answer would reach {percent(longer)}"] if longer is not None else []
    low, high = found.get("accuracy_heldout_annotators_low"), found.get("accuracy_heldout_annotators_high")
    within = "" if low is None or high is None else f" ({span(low, high)})"
    whom = "annotators it never met" if agreement is not None else "those who made the held-out comparisons"
    return [f"The reward model sides with {whom} in {'; '.join([f'{percent(accuracy)}{within} of pairs', *beside])}."]
