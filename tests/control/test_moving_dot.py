"""The dot moves, and steps towards the middle are rewarded."""

from gymnasium.utils.env_checker import check_env

from amenable.control.moving_dot import MOVES, SIZE, MovingDot


def test_gymnasium_accepts_it() -> None:
    check_env(MovingDot(), skip_render_check=True)


def test_rewards_by_hand() -> None:
    dot = MovingDot()
    image, _ = dot.reset(seed=0)
    assert image.sum() == 25 * 255
    dot.position[:] = (10, SIZE // 2)
    stay, up, right, down, _ = range(len(MOVES))
    assert [dot.step(action)[1] for action in (stay, down, up, right)] == [0, 1, -1, -1]
    dot.position[:] = (2, 2)
    image, reward, ended, cut, _ = dot.step(up)
    assert (reward, ended, cut) == (0, False, False) and image[:5, :5].all() and image.sum() == 25 * 255, (
        "it stops at the edge"
    )
