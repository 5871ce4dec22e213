"""Assumptions of a plan are listed with their numbers."""

from dataclasses import replace

from amenable.models.published_shapes import PUBLISHED
from amenable.recipes.planning.assumptions import GPU_HOURS, lines
from amenable.recipes.planning.gpus import parse_gpus
from amenable.recipes.planning.search import PlanRequest
from amenable.recipes.planning.step_time import Assumptions
from amenable.recipes.planning.workload import StepWork

SHAPE = PUBLISHED["Qwen3-8B"]
TASK = PlanRequest(StepWork("ppo", 512, 512, 512), SHAPE, SHAPE, (0, 16), Assumptions(0.4, 0.7))


def test_assumptions_have_their_numbers() -> None:
    text = "\n".join(lines(TASK, parse_gpus("8xH100"), (8, 1024)))
    for part in ("40 % of 989 TFLOP/s", "70 % of computing", "80 % of 450 GB/s", "50 GB/s a GPU", "vLLM", "on paper"):
        assert part in text
    assert "one of 1,024 GPUs would every 49 hours" in text and round(GPU_HOURS / 1024) == 49


def test_lengths_of_completions_are_assumed() -> None:
    cluster = parse_gpus("8xH100")
    assert any("as long as they may be" in line for line in lines(TASK, cluster))
    longer = replace(TASK, work=replace(TASK.work, longest=4096))
    assert any("one completion has 4,096 tokens" in line for line in lines(longer, cluster))


def test_a_single_gpu_and_a_processor_assume_less() -> None:
    sft = replace(TASK, work=StepWork("sft", 512, 512, 512), ranks=(0,))
    alone = "\n".join(lines(sft, parse_gpus("H100")))
    assert "links" not in alone and "sampler" not in alone and "adapters" not in alone
    assert "our own sampler on a processor" in "\n".join(lines(TASK, parse_gpus("cpu")))
    dpo = replace(sft, work=StepWork("dpo", 512, 512, 512, group=2))
    assert any("computed once, before the first step" in line for line in lines(dpo, parse_gpus("H100")))
    ahead = replace(TASK, assumed=Assumptions(0.4, max_staleness=1))
    assert any("--max-staleness" in line for line in lines(ahead, parse_gpus("8xH100")))
