"""The streaming benchmark as Markdown: a table per image size with ratios, and the bounds."""

import statistics

from common import factor, header, markdown_table
from floor import Rates
from streaming_bounds import bounds
from streaming_rows import row_cost

NOTES = """Time and peak memory of the T-th frame of one stream (batch 1), random weights.

- Time: median of calls that take turns with the other rows of the same T in one process, after one to warm up. The
  state before the frame is filled directly with random numbers (streaming_rows.py): no kernel depends on the values.
- Memory: peak of weights, state and one frame, from a process of its own; on a CPU resident memory above that of the
  imports, on a GPU the allocator's peak.
- Concatenating cache: the release's method in our own minimal version (baselines.py). It shares our blocks, builds its
  rotary tables in every call (a few small operations; ours keeps those of places), and does not keep the outputs of all
  blocks as the release does.
- The growing cache doubles: at a T that is a power of two it is just full, directly after it holds twice as much.
- Attention and matrix products alone: those of our step on preallocated tensors, nothing between them.
- Floor: the larger of bytes of weights and cache over measured copy bandwidth, and FLOPs over measured matmul rate.
- A ratio is the median over rounds of neighbouring calls. What was skipped or not run says so and is never estimated.
- OpenMP threads wait briefly, then sleep (GOMP_SPINCOUNT=20000) unless the environment says otherwise.
"""


class Results:
    """Everything measured in one run.

    Args:
        device: cpu or cuda.
        variant: Name of the size.
        rows: Rows in order.
    """

    def __init__(self, device, variant, rows):
        self.device, self.variant, self.rows = device, variant, rows
        self.cells = {}
        """(size, T, row name): {"seconds": [...], "memory": {"bytes": ...}} or {"note": ...}."""
        self.flatness = {}
        """(size, row name): {"seconds": {"100": [...], "900": [...]}} or {"note": ...}."""
        self.rates, self.groups, self.command = {}, {}, None

    def add_rates(self, dtype, rates):
        """Keep the best rates seen, those least disturbed."""
        old = self.rates.get(dtype, rates)
        best = [max(getattr(old, f), getattr(rates, f)) for f in ("copy_bytes", "matmul_flops", "attention_flops")]
        self.rates[dtype] = Rates(*best)

    def times(self, size, num_frames, name):
        """All times of a cell, or None."""
        return self.cells.get((size, num_frames, name), {}).get("seconds")

    def seconds(self, size, num_frames, name):
        """Median time of a cell, or None."""
        times = self.times(size, num_frames, name)
        return statistics.median(times) if times else None

    def bytes(self, size, num_frames, name):
        """Peak memory of a cell, or None."""
        return self.cells.get((size, num_frames, name), {}).get("memory", {}).get("bytes")

    def ratio(self, size, num_frames, slow, fast):
        """How many times longer `slow` takes than `fast`; None without both."""
        a, b = self.times(size, num_frames, slow), self.times(size, num_frames, fast)
        if not a or not b:
            return None
        if min(len(a), len(b)) < 3:
            return statistics.median(a) / statistics.median(b)
        return statistics.median(x / y for x, y in zip(a, b, strict=False))

    def floor(self, size, num_frames, name):
        """Floor of a cell in seconds and what sets it; None where the row was not asked for."""
        row = next((row for row in self.rows if row.name == name), None)
        if row is None or row.dtype not in self.rates:
            return None
        cost, rates = row_cost(row, self.variant, size, num_frames), self.rates[row.dtype]
        bound = "bytes" if cost.bytes / rates.copy_bytes > cost.flops / rates.matmul_flops else "FLOPs"
        return rates.floor(cost), bound

    def over_floor(self, size, num_frames, name):
        """Time over floor, or None."""
        seconds, floor = self.seconds(size, num_frames, name), self.floor(size, num_frames, name)
        return None if seconds is None or floor is None else seconds / floor[0]

    def drift(self, size, name):
        """Time of frames 900-999 over that of frames 100-199, or None."""
        seconds = self.flatness.get((size, name), {}).get("seconds")
        return None if seconds is None else statistics.median(seconds["900"]) / statistics.median(seconds["100"])


def cell_text(cell):
    """One cell: time and memory, or why not."""
    if "seconds" not in cell:
        return cell["note"]
    text = f"{1000 * statistics.median(cell['seconds']):.1f} ms"
    memory = cell.get("memory", {})
    if "note" in memory:
        return f"{text}, memory {memory['note']}"
    return f"{text}, {memory['bytes'] / 2**20:.0f} MiB" if "bytes" in memory else text


def ratio_rows(results, size, lengths):
    """Rows that compare ours with the floor, with the products alone and with the baselines."""
    names = [row.name for row in results.rows]
    rows = []
    for name in [name for name in names if name.startswith("growing")]:
        floors = [results.floor(size, T, name) for T in lengths]
        rows.append([f"floor of {name}", *(f"{1000 * f[0]:.1f} ms ({f[1]})" if f else "not run" for f in floors)])
        rows.append([f"{name} / floor", *(factor(results.over_floor(size, T, name)) for T in lengths)])
        pairs = [(name, other) for other in names if other == name.replace("growing", "alone")]
        pairs += [(other, name) for other in names if other.startswith(("recompute", "concat"))]
        for slow, fast in pairs:
            rows.append([f"{slow} / {fast}", *(factor(results.ratio(size, T, slow, fast)) for T in lengths)])
    return rows


def flatness_lines(results, size):
    """A line per ring: whether late frames take longer than early ones."""
    lines = []
    for name in [row.name for row in results.rows if (size, row.name) in results.flatness]:
        found = results.flatness[size, name]
        if "note" in found:
            lines.append(f"- {name}: {found['note']}")
            continue
        early, late = (1000 * statistics.median(found["seconds"][start]) for start in ("100", "900"))
        text = f"- {name}: {early:.1f} ms from frame 100 on, {late:.1f} ms from frame 900 on"
        count = len(found["seconds"]["100"])
        how = f"{count} frames each; all frames before them were encoded; the streams take turns"
        lines.append(f"{text}, ratio {results.drift(size, name):.3f} ({how})")
    return lines


def size_table(results, size, lengths):
    """The table of one image size."""
    rows = [[row.label, *(cell_text(results.cells[size, T, row.name]) for T in lengths)] for row in results.rows]
    rows += ratio_rows(results, size, lengths)
    lines = [f"## {results.variant}, {size} px", "", *markdown_table(["", *(f"T = {T}" for T in lengths)], rows)]
    if several := [str(T) for T in lengths if results.groups.get((size, T), 1) > 1]:
        lines += ["", f"At T = {', '.join(several)} not all rows fit into memory together: they took turns in groups."]
    flatness = flatness_lines(results, size)
    return [*lines, "", *flatness] if flatness else lines


def report(results, args):
    """Lines of the whole record."""
    lines = header("Streaming: time and memory of the T-th frame", args.device, args.threads)
    lines += NOTES.splitlines()
    for dtype, rates in results.rates.items():
        products, attention = rates.matmul_flops / 1e9, rates.attention_flops / 1e9
        lines.append(f"- Measured, {dtype}: copy {rates.copy_bytes / 1e9:.1f} GB/s (read and write), matrix products")
        lines.append(f"  {products:.0f} GFLOP/s, attention {attention:.0f} GFLOP/s.")
    for size in args.sizes:
        lines += ["", *size_table(results, size, args.lengths)]
    if results.command is not None:
        lines += ["", "## The whole `omnistream stream` command", "", results.command]
    return [*lines, "", "## Bounds", "", *markdown_table(["what", "bound", "measured", ""], bounds(results))]
