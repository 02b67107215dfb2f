"""What the benchmarks share: machine and versions, children, interleaved timing, peak memory, Markdown tables."""

import datetime
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

REPOSITORY = Path(__file__).resolve().parents[1]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def processor():
    """Name of the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def bf16_instructions():
    """Which instructions for bfloat16 the processor has."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return "unknown"
    flags = set(cpuinfo.read_text().split())
    return " and ".join(flag for flag in ("amx_bf16", "avx512_bf16") if flag in flags) or "none"


def machine(device, threads=None):
    """One line: device, threads."""
    threads = threads or torch.get_num_threads()
    cpu = f"{processor()} ({os.cpu_count()} cores, bfloat16 instructions: {bf16_instructions()})"
    cpu += f", {threads} thread{'s' if threads > 1 else ''}"
    if device == "cuda":
        return (
            f"{torch.cuda.get_device_name()}, {torch.cuda.get_device_properties(0).total_memory / 2**30:.0f} GiB; {cpu}"
        )
    return cpu


def versions(*modules):
    """One line: Python, torch, further modules, commit of this repository."""
    names = [f"Python {platform.python_version()}", f"torch {torch.__version__}"]
    names += [f"{module.__name__} {module.__version__}" for module in modules]
    if torch.cuda.is_available():
        names.append(f"CUDA {torch.version.cuda}")
    return ", ".join([*names, f"commit {commit()}"])


def commit():
    """Commit of this repository, with -dirty if files differ from it; unknown outside one."""
    if shutil.which("git") is None:
        return "unknown"
    command = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--abbrev=8", "--exclude=*"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "unknown"


def header(title, device, threads=None, modules=(), command=None):
    """First lines of a recorded result: title, machine, versions, date, command."""
    shown = command or " ".join(["python", "benchmarks/" + Path(sys.argv[0]).name, *sys.argv[1:]])
    date = datetime.date.today().isoformat()
    return [
        f"# {title}",
        "",
        f"{machine(device, threads)}; {versions(*modules)}; {date}",
        "",
        f"Command: `{shown}`",
        "",
    ]


def markdown_table(columns, rows):
    """Lines of a Markdown table; a bar inside a cell is escaped.

    Raises:
        ValueError: If a row has not as many cells as there are columns.
    """
    lines = []
    for cells in [columns, ["---"] * len(columns), *rows]:
        if len(cells) != len(columns):
            raise ValueError(f"a row of this table needs {len(columns)} cells, got {len(cells)}: {cells}")
        lines.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |")
    return lines


def factor(value):
    """A ratio as text."""
    return "not run" if value is None else f"{value:.2f}"


def write(lines, path=None):
    """Print the lines, and record them if a path is given."""
    print("\n".join(lines))
    if path is not None:
        Path(path).write_text("\n".join(lines) + "\n")


def synchronize(device):
    """Wait for the device."""
    if device == "cuda":
        torch.cuda.synchronize()


def interleaved(calls, repeats, device="cpu"):
    """Seconds of each call, taken in turns (A B C A B C ...) so that what slows the machine down slows all of them.

    Args:
        calls: Functions without arguments by name.
        repeats: How often each is called, by name; one with fewer repeats leaves the later rounds.
        device: cpu or cuda.
    """
    seconds = {name: [] for name in calls}
    for turn in range(max(repeats.values(), default=0)):
        for name, call in calls.items():
            if turn < repeats[name]:
                synchronize(device)
                start = time.perf_counter()
                call()
                synchronize(device)
                seconds[name].append(time.perf_counter() - start)
    return seconds


def median_seconds(call, repeats, device="cpu"):
    """Median time of a call after one to warm up."""
    call()
    return statistics.median(interleaved({"": call}, {"": repeats}, device)[""])


def _status_bytes(field):
    return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


class PeakMemory:
    """Bytes this process added at its peak since the object was made.

    CUDA: the allocator's peak. CPU: the peak of resident memory, which Linux lets a process reset; so one thing is
    measured per process.

    Raises:
        ValueError: On a CPU without /proc.
    """

    def __init__(self, device):
        self.device = device
        if device == "cpu" and not Path("/proc/self/clear_refs").exists():
            raise ValueError("peak memory of a CPU process is read from /proc/self: this needs Linux")
        self.restart()
        self.start = torch.cuda.memory_allocated() if device == "cuda" else _status_bytes("VmRSS")

    def restart(self):
        """Forget the peak so far; the zero point stays."""
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        else:
            Path("/proc/self/clear_refs").write_text("5")

    def added(self):
        """Peak bytes above the zero point."""
        peak = torch.cuda.max_memory_allocated() if self.device == "cuda" else _status_bytes("VmHWM")
        return peak - self.start


def child(script, arguments, threads=None, timeout=None):
    """The JSON that `python script arguments` prints last, from a process of its own.

    Its OpenMP threads sleep while they wait. Spinning, the default, is a little faster on a quiet machine; beside
    another program two spinning threads on two cores took 38 s for a multi-task step that takes 1.3 s with one thread.

    Raises:
        RuntimeError: If it fails or takes longer than `timeout` seconds, with the last line it wrote.
    """
    environment = {"GOMP_SPINCOUNT": "20000", **os.environ}
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    command = [sys.executable, str(script), *map(str, arguments)]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"took longer than {timeout:.0f} s") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"ended with {done.returncode}: {last}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def add_step_arguments(parser, kinds, frames, batch, size, repeats):
    """Arguments of the scripts that compare two kinds of training step in processes of their own."""
    parser.add_argument("--variant", default="vit_tiny")
    parser.add_argument("--size", type=int, default=size, help="image side in pixels")
    parser.add_argument("--frames", type=int, default=frames)
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--steps", type=int, default=2, help="timed steps per process, after one to warm up")
    parser.add_argument("--repeats", type=int, default=repeats, help="processes per kind")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--timeout", type=float, default=600, help="seconds after which a process is given up")
    parser.add_argument("--kind", choices=kinds, help="measure one kind in this process and print it")


def timed_steps(step, num_steps, args):
    """Seconds of each of `num_steps` calls after one to warm up, and what the first call returned.

    On a CPU the time is that of the process over all threads, so that other work on the machine counts little.
    """
    clock = time.process_time if args.device == "cpu" else time.perf_counter
    seconds, results = [], []
    for _ in range(num_steps + 1):
        start = clock()
        with torch.autocast(args.device, dtype=torch.bfloat16, enabled=args.dtype == "bfloat16"):
            results.append(step())
        synchronize(args.device)
        seconds.append(clock() - start)
    return seconds[1:], results[0]


def compare_kinds(script, args, kinds, tolerance):
    """Best time and memory of each kind, from processes that alternate; kinds must agree on the loss.

    Prints the ratio of the second kind, the baseline, to the first.
    """
    results = {kind: [] for kind in kinds}
    for _ in range(args.repeats):
        for kind in kinds:
            results[kind].append(child(script, [*sys.argv[1:], "--kind", kind], args.threads, args.timeout))
    losses = [run["loss"] for runs in results.values() for run in runs]
    if max(losses) - min(losses) > tolerance:
        raise SystemExit(f"the kinds disagree: losses {losses}")
    best = {
        kind: {key: min(run[key] for run in runs) for key in ("seconds", "bytes")} for kind, runs in results.items()
    }
    lines = [f"{machine(args.device, args.threads)}; {versions()}, {args.dtype}"]
    lines.append(f"{args.variant}, {args.size} px, T={args.frames}, batch {args.batch}")
    rows = [[kind, f"{b['seconds']:.3f} s", f"{b['bytes'] / 2**20:.0f} MiB"] for kind, b in best.items()]
    lines += markdown_table(["kind", "step", "added at the peak"], rows)
    ours, baseline = (best[kind] for kind in kinds)
    time_ratio, memory_ratio = baseline["seconds"] / ours["seconds"], baseline["bytes"] / ours["bytes"]
    write([*lines, f"{kinds[1]} / {kinds[0]}: time {time_ratio:.2f}, memory {memory_ratio:.2f}"])
