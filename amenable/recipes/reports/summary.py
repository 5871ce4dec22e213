"""The summary of a report in sentences, each written only where its figures were measured."""

from __future__ import annotations

from amenable.claims.stage_folders import ORDER, Stage
from amenable.recipes.reports import formatting, report_data
from amenable.recipes.reports.report_data import Figures


def summary(figures: Figures, stages: list[Stage]) -> tuple[str, str]:
    """Return the headline and the details, each a few sentences."""
    headline = [progress(figures, stages), *claim_counts(figures), *preference(figures), *gold(figures)]
    return " ".join(headline), " ".join([*conduct(figures), *alignment_tax(figures), *reward_model(figures)])


def progress(figures: Figures, stages: list[Stage]) -> str:
    """Return the sentence on finished stages, model size and time."""
    size = f"a model of {formatting.amount(figures['parameters'])} parameters" if figures["parameters"] else "a model"
    done = sum(stage.finished is not None for stage in stages)
    planned = len(stages) if any(stage.planned for stage in stages) else len(ORDER)
    work = f" and {formatting.duration(figures['seconds'])} of work" if figures["seconds"] is not None else ""
    if figures["unfinished"]:
        return f"Not finished: so far {size} has gone through {done} of {planned} stages{work}."
    return f"In {done} stages{work}, {size} went from raw text to an assistant that learned from preferences."


def claim_counts(figures: Figures) -> list[str]:
    """Return the sentence that counts the claims by verdict, once any was measured."""
    verdicts = [claim["verdict"] for claim in figures["claims"]]
    measured = [verdict for verdict in verdicts if verdict != "not measured"]
    if not measured:
        return []
    holding, failing, undecided = (measured.count(verdict) for verdict in ("holds", "does not hold", "undecided"))
    parts = [f"{holding} hold{'s' if holding == 1 else ''}"]
    parts += [f"{failing} do{'es' if failing == 1 else ''} not"] if failing else []
    parts += [f"{undecided} {'is' if undecided == 1 else 'are'} undecided"] if undecided else []
    return [f"Of the papers’ {len(verdicts)} claims, {len(measured)} were put to the test: {', '.join(parts)}."]


def preference(figures: Figures) -> list[str]:
    """Return the sentences on the aligned model's win rate, and on intervals that leave out one half."""
    pair, judges = report_data.headline_pair(figures), report_data.headline_judges(figures)
    rows = report_data.headline_preferences(figures)
    if pair is None or judges is None or not rows:
        return []
    after, before = map(formatting.display_name, pair)
    shares = " and ".join(
        f"on {formatting.percent(row['wins'])} of prompts ({formatting.interval(row['low'], row['high'])}) "
        f"when both are {decoding}"
        for decoding, row in rows.items()
    )
    verb = "prefers" if judges == "reward" else "prefer"
    sentence = f"{formatting.JUDGES[judges]} {verb} {after}’s answers to {before}’s {shares}."
    remark = verdict(rows) if judges != "reward" else training_judge_warning(figures, after)
    return [sentence, remark] if remark else [sentence]


def training_judge_warning(figures: Figures, after: str) -> str:
    """Return the warning that the judge is the reward model that the policy was trained on."""
    low = figures["reward_model"].get("accuracy_heldout_annotators_low")
    warning = (
        f"{after} was trained to please this very judge, so this shows that it learned to, not that people would agree"
    )
    if low is not None and low <= 0.5:
        warning += "; on people’s comparisons the judge itself is no better than chance"
    return warning + "."


def verdict(rows: dict[str, Figures]) -> str:
    """Return the conclusion that the intervals of win rates by decoding allow."""
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
    """Return the sentence on gold before and after alignment, by decoding."""
    pair = report_data.headline_pair(figures)
    if pair is None:
        return []
    parts, verbs = [], list[str]()
    for decoding in report_data.DECODINGS:
        after, before = (report_data.by_decoding(figures["models"][name], decoding)["gold"] for name in pair)
        if before is None or after is None:
            continue
        verb = trend(before, after)
        start = "" if verb in verbs else f"{verb} "
        verbs.append(verb)
        parts.append(f"{start}from {formatting.decimal(before)} to {formatting.decimal(after)} {decoding}")
    return [f"Gold, the utility that no training sees, {' and '.join(parts)}."] if parts else []


def trend(old: float, new: float) -> str:
    """Return the verb of a change, by the two decimals that are shown."""
    change = round(new, 2) - round(old, 2)
    return "rises" if change > 0 else "falls" if change < 0 else "stays"


def conduct(figures: Figures) -> list[str]:
    """Return the sentence on made-up, rude and harmful answers, sampled."""
    pair = report_data.headline_pair(figures)
    if pair is None:
        return []
    after, before = (figures["models"][name] for name in pair)
    rates = (
        ("answers made up where nothing is known", "hallucination"),
        ("rude answers", "rude"),
        ("help with harmful requests", "harmful"),
    )
    parts = [
        f"{label} from {formatting.percent(before[key])} to {formatting.percent(after[key])}"
        for label, key in rates
        if before[key] is not None and after[key] is not None
    ]
    new, old = map(formatting.display_name, pair)
    return [f"From {old} to {new}, sampled: {'; '.join(parts)}."] if parts else []


def alignment_tax(figures: Figures) -> list[str]:
    """Return the sentence on the bits per byte of raw text before and after."""
    pair, base = report_data.headline_pair(figures), figures["models"].get("base")
    if pair is None or base is None or pair[0] == "base":
        return []
    before, after = base["bpb"], figures["models"][pair[0]]["bpb"]
    if before is None or after is None:
        return []
    bits = f"{formatting.decimal(before, 3)} bits per byte before, {formatting.decimal(after, 3)} after"
    return [f"The price on raw text: {bits}."]


def reward_model(figures: Figures) -> list[str]:
    """Return the sentence on the reward model's accuracy, beside annotators' agreement and the longer-wins baseline."""
    facts = figures["reward_model"]
    accuracy, agreement = facts["accuracy_heldout_annotators"], facts["agreement_heldout"]
    longer = facts["longer_wins_heldout_annotators"]
    if accuracy is None:
        return []
    bounds = {name: facts.get(f"accuracy_heldout_annotators_{name}") for name in ("low", "high")}
    parts = [f"{formatting.share({'wins': accuracy, **bounds})} of pairs"]
    if agreement is not None:
        parts.append(f"they agree among themselves in {formatting.percent(agreement)}")
    if longer is not None:
        parts.append(f"always preferring the longer answer would reach {formatting.percent(longer)}")
    whom = "annotators it never met" if agreement is not None else "those who made the held-out comparisons"
    return [f"The reward model sides with {whom} in {'; '.join(parts)}."]
