"""The bounds the project set itself for streaming, each with what was measured: met, missed or not run."""

from common import factor

CPU = "CPU, vit_small, 224 px"
GPU = "GPU, vit_large, 224 px"
OURS_ON_GPU = ("growing-bf16", "compiled-bf16")


def at_least(what, limit, value):
    """A row of the table of bounds; no value means it was not run."""
    verdict = "not run" if value is None else "met" if value >= limit else "missed"
    return [what, f"at least {limit}", factor(value), verdict]


def at_most(what, limit, value, unit=""):
    """As `at_least`, for an upper bound."""
    verdict = "not run" if value is None else "met" if value <= limit else "missed"
    return [what, f"at most {limit}{unit}", factor(value) + (unit if value is not None else ""), verdict]


def cpu_bounds(results):
    """Ratios at T = 64 and flat latency with a window."""

    def ratio(slow, fast):
        return results.ratio(224, 64, slow, fast)

    rows = [
        at_least(f"{CPU}, T = 64: concat-fp32 / growing-fp32", 1.7, ratio("concat-fp32", "growing-fp32")),
        at_least(f"{CPU}, T = 64: recompute-fp32 / growing-fp32", 30, ratio("recompute-fp32", "growing-fp32")),
        at_least(f"{CPU}, T = 64: concat-fp32 / growing-bf16", 4, ratio("concat-fp32", "growing-bf16")),
        at_most(f"{CPU}, T = 64: growing-fp32 / alone-fp32", 1.3, ratio("growing-fp32", "alone-fp32")),
        at_most(f"{CPU}, T = 64: growing-bf16 / alone-bf16", 1.3, ratio("growing-bf16", "alone-bf16")),
    ]
    for name in ("ring16-fp32", "ring64-fp32"):
        drift = results.drift(224, name)
        off = None if drift is None else abs(drift - 1)
        rows.append(at_most(f"{CPU}: {name}, frames 900-999 against 100-199, relative difference", 0.1, off))
    return rows


def gpu_bounds(results):
    """Time and memory of ViT-L in bfloat16, of whichever of our growing rows is faster."""

    def fastest(num_frames):
        timed = [(results.seconds(224, num_frames, name), name) for name in OURS_ON_GPU]
        return min((pair for pair in timed if pair[0] is not None), default=(None, " or ".join(OURS_ON_GPU)))

    rows = []
    for num_frames, limit in ((16, 2.5), (64, 3), (512, 8)):
        seconds, name = fastest(num_frames)
        value = None if seconds is None else 1000 * seconds
        rows.append(at_most(f"{GPU}, T = {num_frames}: {name}", limit, value, " ms"))
    name = fastest(512)[1]
    for row, limit in ((name, 12), ("int8-bf16", 7)):
        peak = results.bytes(224, 512, row)
        rows.append(at_most(f"{GPU}, T = 512: {row}", limit, None if peak is None else peak / 1e9, " GB"))
    return [*rows, at_most(f"{GPU}, T = 512: {name} / floor", 2, results.over_floor(224, 512, name))]


def bounds(results):
    """All bounds; those of another device or model than this run's are not run."""
    cpu = results.device == "cpu" and results.variant == "vit_small"
    gpu = results.device == "cuda" and results.variant == "vit_large"
    nothing = type(results)(results.device, results.variant, results.rows)
    return [*cpu_bounds(results if cpu else nothing), *gpu_bounds(results if gpu else nothing)]
