"""Digests of files and of values."""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import textwrap
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import CodeType


def file_digest(path: str | Path) -> str:
    """Return the sha256 (hex) of a file's content."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def text_digest(parts: Iterable) -> str:
    """Return the sha256 (hex) of a sequence of values, by their repr, one per line."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{part!r}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def function_digest(function: Callable) -> str:
    """Return the sha256 (hex) of what a function computes: its text, its defaults, and what it names in its package.

    Comments and layout do not count. Without a text, as for a lambda, its bytecode counts.
    """
    return text_digest(_definition(function, set()))


def _definition(value, seen: set) -> Iterator:
    if isinstance(value, functools.partial):
        yield from _definition(value.func, seen)
        yield value.args, sorted(value.keywords.items())
    elif not inspect.isfunction(value):  # an object that can be called
        own = getattr(value, "__dict__", {}).items()
        yield type(value).__qualname__, sorted((name, found) for name, found in own if _is_plain(found))
        if inspect.isfunction(call := getattr(type(value), "__call__", None)):  # noqa: B004
            yield from _definition(call, seen)
    elif value not in seen:
        seen.add(value)
        yield _text(value), value.__defaults__, sorted((value.__kwdefaults__ or {}).items())
        named = inspect.getclosurevars(value)
        for name, found in sorted({**named.globals, **named.nonlocals}.items()):
            if _is_plain(found):
                yield name, found
            elif _package(found) == _package(value):
                yield name
                yield from _definition(found, seen)
            elif hasattr(found, "tolist"):
                yield name, found.tolist()


def _package(value) -> str:
    return str(getattr(value, "__module__", "")).split(".")[0]


def _text(function) -> str | list:
    """Return a function's text without comments, or its bytecode."""
    try:
        if function.__name__ != "<lambda>":
            return ast.unparse(ast.parse(textwrap.dedent(inspect.getsource(function))))
    except (OSError, SyntaxError, TypeError):
        pass
    return list(_bytecode(function.__code__))


def _bytecode(code: CodeType) -> Iterator:
    yield code.co_code, code.co_names
    for constant in code.co_consts:
        yield list(_bytecode(constant)) if isinstance(constant, CodeType) else constant


def _is_plain(value) -> bool:
    if isinstance(value, (tuple, list)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))
