"""Seeds: stable, different by purpose, independent of what ran before."""

import torch

from amenable.seeds import derive_seed, mix, seed_step, seeded_generator, uniforms


def test_seeds_are_stable_and_differ_by_purpose() -> None:
    assert derive_seed(0, "a", 1) == derive_seed(0, "a", 1) == 1_675_891_806_973_429_058
    seeds = {derive_seed(seed, name, step) for seed in (0, 1) for name in ("a", "b") for step in (0, 1)}
    assert len(seeds) == 8 and all(0 <= seed < 2**63 for seed in seeds)


def test_mixed_seeds_differ_by_part() -> None:
    assert mix(3, 1) == mix(3, 1)
    assert len({mix(seed, part) for seed in range(5) for part in range(5)}) == 25


def test_generators_repeat() -> None:
    draws = [torch.rand(3, generator=seeded_generator(5, "x")) for _ in range(2)]
    assert torch.equal(*draws)


def test_uniforms_do_not_depend_on_how_many_are_drawn() -> None:
    assert torch.equal(uniforms(7, 3), uniforms(7, 9)[:3])
    assert uniforms(7, 9).min() >= 0 and uniforms(7, 9).max() < 1


def test_dropout_is_a_function_of_seed_and_step() -> None:
    def drop(step: int) -> torch.Tensor:
        seed_step(1, step)
        return torch.nn.functional.dropout(torch.ones(50), 0.5)

    assert torch.equal(drop(3), drop(3)) and not torch.equal(drop(3), drop(4))
