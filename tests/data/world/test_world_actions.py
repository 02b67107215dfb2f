"""No single frame reveals the action."""

from functools import cache

import numpy as np
import pytest

from omnistream.data.world import ACTIONS, WorldConfig, render_action
from omnistream.data.world.actions import _RANGE, act

FRAMES = 8
OPPOSITES = [(label, label + 1) for label in range(0, len(ACTIONS), 2)]


@cache
def states(label, count=1000, frames=FRAMES):
    drawn = [act(np.random.default_rng(seed), label, frames) for seed in range(count)]
    return np.stack([s.offset for s in drawn]), np.stack([s.present for s in drawn])


@pytest.mark.parametrize(("one", "other"), OPPOSITES)
def test_opposites_are_each_others_time_reversal(one, other):
    """Every clip of a class, played backwards, is a clip of the opposite class, and vice versa."""

    def clips(label, direction):
        offset, present = states(label, 500, frames=4)
        moving = offset[:, ::direction] / _RANGE
        moving = np.round((moving - moving[:, :1]) * 3).astype(int)  # steps on the grid
        return {(m.tobytes(), p.tobytes()) for m, p in zip(moving, present[:, ::direction].copy(), strict=True)}

    assert clips(one, 1) == clips(other, -1)
    assert clips(one, 1).isdisjoint(clips(other, 1))


@pytest.mark.parametrize(("one", "other"), OPPOSITES)
def test_single_frames_of_opposites_have_the_same_distribution(one, other):
    for array in (0, 1):
        a, b = states(one)[array], states(other)[array]
        a, b = a.reshape(-1, *a.shape[2:]), b.reshape(-1, *b.shape[2:])
        assert np.abs(a.mean(0) - b.mean(0)).max() < 0.07
        assert np.abs(a.std(0) - b.std(0)).max() < 0.07


def test_positions_and_tilts_of_single_frames_are_uniform_over_one_grid_in_all_classes():
    for label in range(len(ACTIONS)):
        offset = states(label)[0]
        for component in range(4):
            for actor in range(2):
                values, counts = np.unique(np.round(offset[:, :, actor, component], 5), return_counts=True)
                assert len(values) == FRAMES
                assert np.abs(counts / counts.sum() * FRAMES - 1).max() < 0.35


def test_a_classifier_of_rendered_single_frames_is_at_chance_within_a_pair():
    """The ball's position in one frame does not distinguish left from right; its positions in two frames do."""
    config = WorldConfig(size=(16, 16), num_frames=4, room_probability=0.0, camera_motion=0.0, camera_turn=0.0)
    clips = [(label, render_action(1000 + i, label, config)) for i in range(130) for label in (0, 1)]
    where, gone, target = [], [], []
    for label, clip in clips:
        column = [np.nonzero(frame == 1)[1] for frame in clip.instances]
        column = np.array([c.mean() if len(c) else np.nan for c in column])
        where.append(column)
        gone.append(column[-1] - column[0])
        target.append(label)
    where, target, gone = np.stack(where), np.array(target), np.array(gone)
    single, label = where.reshape(-1), np.repeat(target, 4)
    known = np.isfinite(single)
    bins = np.digitize(single[known], np.arange(0, 17, 2))
    rate = sum(max((label[known][bins == k] == c).sum() for c in (0, 1)) for k in np.unique(bins)) / known.sum()
    assert rate < 0.58  # the best rule on the position in one frame, fitted to these very frames
    moved = np.abs(gone) > 0.5
    assert ((gone[moved] > 0) == (target[moved] == 1)).all()


@pytest.mark.parametrize(
    ("name", "axis", "sign"),
    [("move_left", 0, -1), ("move_right", 0, 1), ("move_up", 1, -1), ("move_down", 1, 1)],
)
def test_actions_move_as_their_names_say(name, axis, sign):
    config = WorldConfig(size=(48, 48), camera_motion=0.0, camera_turn=0.0, camera_pitch=(3.0, 6.0), fov=(72.0, 84.0))
    for seed in range(5):
        clip = render_action(seed, ACTIONS.index(name), config)
        way = [_centre(clip, -1, actor)[axis] - _centre(clip, 0, actor)[axis] for actor in (1, 2)]
        actor = int(np.abs(way).argmax())
        assert np.sign(way[actor]) == sign
        assert abs(way[actor]) > 4


def _centre(clip, frame, thing):
    rows, columns = np.nonzero(clip.instances[frame] == thing)
    return columns.mean(), rows.mean()


def test_approaching_grows_and_vanishing_hides():
    config = WorldConfig(size=(48, 48), camera_motion=0.0, camera_turn=0.0, camera_pitch=(3.0, 6.0), fov=(72.0, 84.0))
    for seed in range(5):
        for name, grows in (("approach", True), ("recede", False)):
            clip = render_action(seed, ACTIONS.index(name), config)
            areas = [[(clip.instances[t] == k).sum() for t in (0, -1)] for k in (1, 2)]
            ratio = [last / max(first, 1) for first, last in areas]
            assert (max(ratio) > 1.5) if grows else (min(ratio) < 0.67)
        clip = render_action(seed, ACTIONS.index("vanish"), config)
        gone = [(clip.instances[0] == k).any() and not (clip.instances[-1] == k).any() for k in (1, 2)]
        assert sum(gone) == 1


def test_too_short_clips_and_unknown_labels_are_refused():
    with pytest.raises(ValueError, match="at least 4 frames"):
        act(np.random.default_rng(0), 0, 3)
    with pytest.raises(ValueError, match="label below 12"):
        act(np.random.default_rng(0), 12, 8)
