"""GPUs by name."""

import pytest

from amenable.errors import InputError
from amenable.recipes.planning.gpus import GIB, GPUS, USABLE, find_gpu, parse_gpus


def test_a_cluster_is_read_from_a_number_and_a_name() -> None:
    cluster = parse_gpus("16xh100")
    assert (cluster.gpu.name, cluster.count, cluster.per_node, cluster.nodes) == ("H100", 16, 8, 2)
    assert cluster.usable == pytest.approx(USABLE * 79.1 * GIB)
    assert str(cluster) == "16 x H100 (79.1 GiB each) in 2 nodes"
    assert (parse_gpus("H200").count, parse_gpus("4 x A100").gpu.name, parse_gpus("2xA100-40").gpu.bandwidth) == (
        1,
        "A100-80",
        1.555e12,
    )
    other = parse_gpus("8xL40S", per_node=4, network=200)
    assert (other.nodes, other.gpu.network) == (2, 25e9)


def test_a_processor_has_the_memory_that_is_free() -> None:
    cluster = parse_gpus("cpu")
    assert cluster.usable == cluster.gpu.memory > 0 and cluster.per_node == 1
    assert parse_gpus("2xcpu").nodes == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("8xH1000", "no GPU is known as 'H1000'; did you mean 'H100'"),
        ("quantum", "known are H200, H100"),
        ("0xH100", "has 0 of them; 1 to 100,000"),
        ("9999999xH100", "has 9,999,999 of them"),
        ("12xH100", "12 GPUs are not nodes of 8; give a multiple"),
        ("", "give a number and a GPU, such as 8xH100"),
    ],
)
def test_what_is_no_cluster_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_gpus(text)


@pytest.mark.parametrize("gpu", GPUS, ids=lambda gpu: gpu.name)
def test_numbers_have_a_source_and_are_of_their_kind(gpu: object) -> None:
    known = find_gpu(gpu.name)  # type: ignore[attr-defined]
    assert known.source and 0 < known.efficiency < 1 and 0 < known.decoding < 1
    assert known.flops > 100 * known.bandwidth / 10 > known.link / 10 >= known.network / 100
