"""Streaming equals the whole-clip forward, and both equal the dense twin in conftest.py.

Tolerances: features have standard deviation 1 to 3 and pass four blocks in float32, whose rounding shows at 1e-5.
"""

import io

import pytest
import torch

from omnistream.backbone import BackboneOutput
from omnistream.backbone.sessions.kv_cache import KVCache

H, W = 16, 24  # 2 x 3 patches of vit_nano
FLOAT32 = {"atol": 3e-5, "rtol": 0}
WINDOWS = [(None, 1), (4, 1), (4, 0), (6, 2), (1, 0), (1, 1), (2, 2)]


def clip(num_frames, batch=2, height=H, width=W):
    return torch.randn(batch, num_frames, 3, height, width)


def tensors(output: BackboneOutput) -> dict[str, torch.Tensor]:
    named = {"last": output.last, "cls": output.cls, "registers": output.registers}
    named |= {f"block {layer}": patches for layer, patches in output.patches.items()}
    return named if output.camera is None else named | {"camera": output.camera}


def joined(outputs):
    parts = [tensors(output) for output in outputs]
    return {name: torch.cat([part[name] for part in parts], dim=1) for name in parts[0]}


def run(session, images, sizes):
    return joined([session.step(chunk) for chunk in images.split(sizes, dim=1)])


def from_twin(stages, grid, layers, camera_token):
    """The twin's tokens, named like `tensors` of an output."""
    start = 5 + int(camera_token)
    patches = stages[..., start:, :].unflatten(-2, grid)
    named = {"last": patches[-1], "cls": stages[-1, ..., 0, :], "registers": stages[-1, ..., start - 4 : start, :]}
    named |= {f"block {layer}": patches[layer] for layer in layers}
    return named | {"camera": stages[-1, ..., 1, :]} if camera_token else named


def uneven(total):
    """1, 3, 1, 5, 1, 3, ... up to the total."""
    sizes = []
    while (left := total - sum(sizes)) > 0:
        sizes.append(min(left, (1, 3, 1, 5)[len(sizes) % 4]))
    return sizes


@pytest.mark.parametrize("tokens", ["plain", "camera", "camera and aspect ratio"])
@pytest.mark.parametrize("num_frames", [1, 2, 15, 16, 17, 40])
@torch.no_grad()
def test_streaming_equals_the_full_forward(build, num_frames, tokens):
    model, images = build(), clip(num_frames)
    options = {"layers": (0, 3), "camera_token": tokens != "plain"}
    if tokens.endswith("ratio"):
        options["aspect_ratio"] = torch.tensor([0.5, 1.7])
    full = tensors(model(images, **options))
    for sizes in (1, uneven(num_frames), num_frames):
        torch.testing.assert_close(run(model.stream(**options), images, sizes), full, **FLOAT32)


@pytest.mark.parametrize("layout", ["rotation", "official", "spatial"])
@pytest.mark.parametrize(("window", "sink"), WINDOWS)
@torch.no_grad()
def test_windowed_stream_full_forward_and_dense_twin_agree(build, dense_forward, window, sink, layout):
    model, images = build(rope_layout=layout, window=window, sink=sink), clip(10)
    aspect_ratio = torch.tensor([0.5, 1.7])
    options = {"layers": (1, 3), "camera_token": True, "aspect_ratio": aspect_ratio}
    full = tensors(model(images, **options))
    stages = dense_forward(model, images, window=window, sink=sink, camera_token=True, aspect_ratio=aspect_ratio)
    expected = {k: v.float() for k, v in from_twin(stages, (2, 3), (1, 3), True).items()}
    torch.testing.assert_close(full, expected, **FLOAT32)
    for sizes in (1, [3, 1, 6]):
        torch.testing.assert_close(run(model.stream(**options), images, sizes), full, **FLOAT32)


@torch.no_grad()
def test_full_forward_equals_the_dense_twin_beyond_16_frames(build, dense_forward):
    model, images = build(), clip(20, batch=1)
    expected = from_twin(dense_forward(model, images), (2, 3), (0, 2), False)
    result = tensors(model(images, layers=(0, 2)))
    torch.testing.assert_close(result, {k: v.float() for k, v in expected.items()}, **FLOAT32)


@torch.no_grad()
def test_a_window_changes_only_frames_after_it(build):
    model, images = build(), clip(10)
    full = model(images).last
    windowed = run(model.stream(window=4), images, 1)["last"]
    torch.testing.assert_close(windowed[:, :5], full[:, :5], **FLOAT32)
    assert (windowed[:, 5:] - full[:, 5:]).abs().amax((0, 2, 3, 4)).min() > 1e-2


@torch.no_grad()
def test_session_options_override_the_backbones_window(build):
    model, images = build(window=2, sink=0), clip(8)
    torch.testing.assert_close(run(model.stream(), images, 1)["last"], model(images).last, **FLOAT32)
    unlimited = run(model.stream(window=None), images, 1)["last"]
    torch.testing.assert_close(unlimited, build()(images).last, **FLOAT32)


@pytest.mark.parametrize(("window", "sink"), [(None, 1), (3, 1)])
@torch.no_grad()
def test_later_frames_never_change_earlier_outputs_bit_for_bit(build, window, sink):
    model, images = build(window=window, sink=sink), clip(8)
    changed = images.clone()
    changed[:, 5:] = clip(3)
    options = {"layers": range(4), "camera_token": True}
    before, after = tensors(model(images, **options)), tensors(model(changed, **options))
    for name in before:
        assert torch.equal(before[name][:, :5], after[name][:, :5]), name
        assert not torch.isclose(before[name][:, 5:], after[name][:, 5:]).all(), name


@torch.no_grad()
def test_every_earlier_visible_frame_matters(build):
    model, images = build(), clip(5, batch=1)
    before = model(images).last[:, 4]
    for frame in range(4):
        changed = images.clone()
        changed[:, frame] += 1
        assert (model(changed).last[:, 4] - before).abs().max() > 1e-2


@pytest.mark.parametrize("window", [None, 3])
@torch.no_grad()
def test_rows_can_start_anew_on_their_own(build, window):
    model, images = build(), clip(11, batch=3)
    aspect_ratio = torch.tensor([0.5, 1.0, 1.7])
    session = model.stream(window=window, layers=(1,), camera_token=True, aspect_ratio=aspect_ratio)
    run(session, images[:, :5], 1)
    session.reset([2])
    run(session, images[:, 5:7], 1)
    session.reset(torch.tensor([1]))
    assert session.frame_indices.tolist() == [7, 0, 2]
    result = run(session, images[:, 7:], [2, 1, 1])
    for row, start in enumerate((0, 7, 5)):
        one = slice(row, row + 1)
        alone = model.stream(window=window, layers=(1,), camera_token=True, aspect_ratio=aspect_ratio[one])
        expected = run(alone, images[one, start:], 1)
        for name, value in expected.items():
            torch.testing.assert_close(result[name][one], value[:, 7 - start :], **FLOAT32)


@torch.no_grad()
def test_reset_starts_all_streams_anew_in_the_same_memory(build):
    model, images = build(), clip(6)
    session = model.stream(window=3)
    session.reset([0])  # before the first step there is nothing to forget
    first = run(session, images, 1)
    address = session.cache.stores[0].tensors["keys"].data_ptr()
    session.reset()
    torch.testing.assert_close(run(session, images, 1), first, atol=0, rtol=0)
    assert session.cache.stores[0].tensors["keys"].data_ptr() == address
    session.reset([])
    assert session.frame_indices.tolist() == [6, 6]
    with pytest.raises(ValueError, match=r"cannot reset rows \[2\]; the session has streams 0 to 1"):
        session.reset([2])


@pytest.mark.parametrize("window", [None, 3])
@torch.no_grad()
def test_forks_go_on_independently(build, window):
    model, images = build(), clip(9)
    session = model.stream(window=window)
    run(session, images[:, :5], 1)
    fork = session.fork()
    other = run(fork, clip(4), 1)["last"]
    result = run(session, images[:, 5:], 1)["last"]
    whole = run(model.stream(window=window), images, 1)["last"]
    assert torch.equal(result, whole[:, 5:])
    assert not torch.isclose(other, result).all()
    assert model.stream().fork().cache is None


@pytest.mark.parametrize("options", [{}, {"window": 3, "sink": 0}, {"max_frames": 12}, {"cache_dtype": torch.bfloat16}])
@torch.no_grad()
def test_state_goes_through_a_file(build, options):
    model, images = build(), clip(9)
    session = model.stream(**options)
    run(session, images[:, :5], 1)
    file = io.BytesIO()
    torch.save(session.state_dict(), file)
    expected = run(session, images[:, 5:], 1)
    file.seek(0)
    resumed = model.stream(**options)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    torch.testing.assert_close(run(resumed, images[:, 5:], 1), expected, atol=0, rtol=0)


@torch.no_grad()
def test_a_fresh_session_can_be_saved_and_other_options_are_refused(build):
    model = build()
    state = model.stream(window=3).state_dict()
    session = model.stream(window=3)
    session.step(clip(2))
    session.load_state_dict(state)
    assert session.cache is None
    session.step(clip(1, batch=3))
    with pytest.raises(ValueError, match="saved with options"):
        model.stream(window=4).load_state_dict(state)
    ratio = {"camera_token": True, "aspect_ratio": torch.tensor([0.5, 2.0])}
    with pytest.raises(ValueError, match="saved with options"):
        model.stream(camera_token=True).load_state_dict(model.stream(**ratio).state_dict())


@torch.no_grad()
def test_saved_state_does_not_change_with_the_session(build):
    model, images = build(), clip(4)
    session = model.stream(window=1)
    run(session, images[:, :2], 1)
    state = session.state_dict()
    expected = run(session, images[:, 2:], 1)
    resumed = model.stream(window=1)
    resumed.load_state_dict(state)
    torch.testing.assert_close(run(resumed, images[:, 2:], 1), expected, atol=0, rtol=0)


@torch.no_grad()
def test_max_frames_is_a_hard_limit(build):
    model, images = build(), clip(5)
    session = model.stream(max_frames=4)
    result = run(session, images[:, :4], [3, 1])["last"]
    torch.testing.assert_close(result, model(images[:, :4]).last, **FLOAT32)
    with pytest.raises(ValueError, match="reached max_frames=4; reset it, raise max_frames, or set a window"):
        session.step(images[:, 4:])
    with pytest.raises(ValueError, match="max_frames must be at least 1"):
        model.stream(max_frames=0)


@pytest.mark.parametrize("compiled", [False, True])
def test_max_frames_beside_a_window_is_refused(build, compiled):
    message = r"^max_frames is for streams without a window \(here 3\); pass window=None$"
    with pytest.raises(ValueError, match=message):
        build().stream(compiled=compiled, window=3, max_frames=8)
    model = build(window=3)  # a checkpoint may bring one
    with pytest.raises(ValueError, match=message):
        model.stream(compiled=compiled, max_frames=8)
    assert model.stream(compiled=compiled, window=None, max_frames=8).options.max_frames == 8


def test_the_summaries_of_a_frame_do_not_keep_its_patches(build):
    model, images = build(), clip(3)
    output = model.stream(camera_token=True).step(images)
    expected = model(images, camera_token=True)
    for name in ("cls", "registers", "camera"):
        mine = getattr(output, name)
        assert mine.untyped_storage().nbytes() == mine.nbytes, name
        torch.testing.assert_close(mine, getattr(expected, name).detach(), **FLOAT32)


@torch.no_grad()
def test_mismatches_are_refused(build):
    model = build()
    session = model.stream()
    session.step(clip(1))
    for frames in (clip(1, batch=3), clip(1, height=24), clip(1, width=16), clip(1).double()):
        with pytest.raises(ValueError, match="keeps batch, height, width, device and dtype"):
            session.step(frames)
    with pytest.raises(ValueError, match="at least one frame"):
        session.step(clip(0))
    with pytest.raises(ValueError, match=r"one value per stream \(2\), got shape \(3,\)"):
        model.stream(camera_token=True, aspect_ratio=torch.ones(3)).step(clip(1))
    with pytest.raises(ValueError, match="pass camera_token=True"):
        model.stream(aspect_ratio=torch.ones(2)).step(clip(1))
    with pytest.raises(ValueError, match="multiples of the patch size 8, got height 16, width 20"):
        model.stream().step(clip(1, width=20))
    with pytest.raises(ValueError, match="sink must be between 0 and the window"):
        model.stream(window=2, sink=3)


@torch.no_grad()
def test_memory_is_constant_once_the_window_is_full(build):
    model = build()
    session = model.stream(window=4)
    sizes = []
    for _ in range(12):
        session.step(clip(1))
        sizes.append(session.cache.num_bytes)
    # keys and values of 4 layers, 2 streams, 5 frames of 11 tokens, width 64, float32
    assert set(sizes) == {2 * 4 * 2 * 5 * 11 * 64 * 4}


@torch.no_grad()
def test_unbounded_memory_doubles(build):
    session = build().stream()
    sizes = []
    for _ in range(17):
        session.step(clip(1, batch=1))
        sizes.append(session.cache.num_bytes // (2 * 4 * 11 * 64 * 4))
    assert sizes == [8] * 8 + [16] * 8 + [32]


def test_ring_slots_hold_exactly_the_visible_frames():
    cache = KVCache(1, 1, 1, window=4, sink=1)
    assert [cache.slot(n) for n in range(10)] == [0, 1, 2, 3, 4, 1, 2, 3, 4, 1]
    held = {}
    for frame in range(7):
        held[cache.slot(frame)] = frame
    assert set(held.values()) == {0, 3, 4, 5, 6}


@torch.no_grad()
def test_bfloat16_cache_halves_memory_and_stays_close(build):
    model, images = build(), clip(8)
    full = model(images).last
    session = model.stream(cache_dtype=torch.bfloat16)
    result = run(session, images, 1)["last"]
    assert result.dtype == torch.float32
    assert session.cache.stores[0].tensors["keys"].dtype == torch.bfloat16
    # bfloat16 has 8 bits: each rounding is off by up to 0.4 %.
    assert (result - full).norm() / full.norm() < 2e-2
    assert (result - full).abs().max() > 1e-5


@torch.no_grad()
def test_streams_run_as_in_eval_mode_without_gradient(build):
    model, images = build(), clip(3)
    expected = model(images).last
    model.train()
    with torch.enable_grad():
        result = run(model.stream(), images, 1)["last"]
    assert not result.requires_grad
    torch.testing.assert_close(result, expected, **FLOAT32)
    assert model.training
