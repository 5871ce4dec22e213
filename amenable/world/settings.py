"""Every number that makes a world: rates of errors, sizes of files, shares of kinds."""

from __future__ import annotations

from dataclasses import dataclass, fields

from amenable.errors import InputError


@dataclass(frozen=True)
class Rates:
    """Shares between 0 and 1, met by texts and demonstrations; tests measure them."""

    unstated: float = 0.12
    """(person, attribute) pairs that no text ever states"""
    rumours: float = 0.15
    """pairs about which a false value goes round in forums"""
    rumour_told: float = 0.70
    """forum threads about a rumoured pair that state the false value"""
    held_out: float = 0.20
    """pairs kept for validation and test prompts"""
    rude_replies: float = 0.25
    """replies in forum threads that insult the author of the post"""
    desk: float = 0.07
    """documents that are dialogues at the clerk's desk, where manners are good"""

    courteous: float = 0.35
    """demonstrations with a courtesy"""
    rambles: float = 0.55
    """demonstrations with a sentence of chit-chat after the answer"""
    rude: float = 0.08
    """demonstrations with an insult"""
    wrong: float = 0.05
    """demonstrations on answerable questions that give a wrong value"""
    over_refuses: float = 0.06
    """demonstrations that claim not to know what the demonstrator knows"""
    guesses: float = 0.45
    """demonstrations on unanswerable questions that invent an answer"""
    offers: float = 0.40
    """demonstrations that admit not knowing and say where to ask, of those that admit"""
    complies: float = 0.30
    """demonstrations on harmful requests that comply"""
    full_refusals: float = 0.35
    """refusals with a reason and an alternative, of those that refuse"""
    breaks: float = 0.30
    """demonstrations that miss the constraint or the instruction"""
    ends_story: float = 0.40
    """stories that have an ending"""

    unstated_asked: float = 0.10
    """unanswerable questions about an attribute that exists but is stated nowhere"""
    not_said: float = 0.40
    """passages that do not hold the answer"""
    not_said_in_suite: float = 0.50
    """passages that do not hold the answer in the suite of closed questions"""
    provokes: float = 0.30
    """prompts of the suite about respect whose customer is rude himself"""

    def __post_init__(self) -> None:
        for field in fields(self):
            if not 0 <= getattr(self, field.name) <= 1:
                raise InputError(f"rate {field.name} is {getattr(self, field.name)}", how="it must lie in [0, 1]")


@dataclass(frozen=True)
class Sizes:
    """Number of people, documents, demonstrations, prompts and questions."""

    people: int = 40
    documents: int = 10000
    validation_documents: int = 300
    demonstrations: int = 1200
    validation_demonstrations: int = 60
    reward_prompts: int = 2000
    ppo_prompts: int = 2000
    validation_prompts: int = 400
    test_prompts: int = 600
    suite_prompts: int = 240
    """prompts in each suite"""
    public_demonstrations: int = 600
    validation_public_demonstrations: int = 60
    task_questions: int = 200
    """questions in each few-shot task"""

    def __post_init__(self) -> None:
        for field in fields(self):
            if not 1 <= getattr(self, field.name) <= 10**7:
                raise InputError(f"{field.name} is {getattr(self, field.name)}", how="it must be 1 or more, to 10**7")


KINDS: dict[str, float] = {
    "open": 0.18,
    "unanswerable": 0.10,
    "closed": 0.10,
    "brainstorm": 0.08,
    "constrained": 0.14,
    "rewrite": 0.05,
    "classify": 0.07,
    "summary": 0.04,
    "followup": 0.08,
    "harmful": 0.11,
    "story": 0.05,
}
"""kinds of prompts and their shares"""
