"""The entry of a dictionary that an error of jsonargparse refers to.

Its reports name the keys of arguments, but not those of a dictionary of classes such as `model.tasks`. They print the
values, though, the inner one before those around it: the entry is where the inner value is found in the outermost.
"""

import ast
from collections.abc import Iterator, Sequence

GIVEN = "Given value: "
"""Before the value that a complaint is about."""
_CLASS_KEYS = ("class_path", "init_args", "dict_kwargs")


def entry_path(message: str, known: Sequence[str], tail: Sequence[str]) -> list[str]:
    """Keys that lead from the outermost to the innermost value of a report, entries of dictionaries included.

    Args:
        message: The report.
        known: The keys among them that the report names.
        tail: Keys below the innermost value that the report names.

    Returns:
        The keys; `known` where the values do not tell more.
    """
    values = [_parse(line.partition(GIVEN)[2]) for line in message.splitlines() if GIVEN in line]
    if not values or values[0] is None or values[-1] is None:
        return list(known)
    inner, outer = values[0], values[-1]
    if (key := _overridden_key(outer)) is not None:
        keys = [part for part in key.split(".") if part not in _CLASS_KEYS]
        return keys[: -len(tail)] if tail and keys[-len(tail) :] == list(tail) else keys
    found = [path for path in _places(outer, ast.dump(inner)) if _in_order(known, path)]
    return found[0] if found else list(known)


def key_of_value(message: str, value: str) -> list[str]:
    """The key of a plain value, as it is printed, in the innermost dictionary of a report; empty if it is in none."""
    given = [line.partition(GIVEN)[2] for line in message.splitlines() if GIVEN in line]
    inner = _parse(given[0]) if given else None
    if not isinstance(inner, ast.Dict):
        return []
    return [key for key, child in _children(inner) if isinstance(child, ast.Constant) and str(child.value) == value][:1]


def _parse(text: str) -> ast.expr | None:
    """The printed value as an expression; None where an object printed something else."""
    try:
        return ast.parse(text, mode="eval").body
    except SyntaxError:
        return None


def _overridden_key(node: ast.expr) -> str | None:
    """The key of an option of the command line, `NestedArg(key='tasks.ssl.prototypes', val='x')`."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "NestedArg":
        return next(
            str(child.value) for name, child in _children(node) if name == "key" and isinstance(child, ast.Constant)
        )
    return None


def _places(node: ast.expr, wanted: str, path: tuple[str, ...] = ()) -> Iterator[list[str]]:
    """Paths to every part that equals the wanted one."""
    if ast.dump(node) == wanted:
        yield list(path)
    for key, child in _children(node):
        yield from _places(child, wanted, path if key in _CLASS_KEYS else (*path, key))


def _children(node: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    """Entries of a dictionary, a namespace or a list."""
    if isinstance(node, ast.Dict):
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant):
                yield str(key.value), value
    elif isinstance(node, ast.Call):
        yield from ((keyword.arg, keyword.value) for keyword in node.keywords if keyword.arg)
    elif isinstance(node, ast.List):
        yield from ((str(index), value) for index, value in enumerate(node.elts))


def _in_order(keys: Sequence[str], path: Sequence[str]) -> bool:
    """Whether all keys are in the path, in this order."""
    rest = iter(path)
    return all(key in rest for key in keys)
