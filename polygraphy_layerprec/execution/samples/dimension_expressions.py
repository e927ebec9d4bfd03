"""Extents of dynamic axes as models write them: `batch`, `past + sequence`, `floor(height/2)`."""

from __future__ import annotations

import ast
import math
import operator
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["DimensionExpression"]

# A hyphen between letters belongs to the name, as in `seq-len`; between blanks it subtracts.
_SYMBOL: Final = re.compile(r"[^\W\d][\w.]*(?:-[^\W\d][\w.]*)*")
_LONGEST: Final = 500
_ARITHMETIC: Final = re.compile(r"[\w\s+*/().,-]+")  # what else Python parses, it may warn about
_OPERATORS: Final[Mapping[type[ast.operator], Callable[[Fraction, Fraction], Fraction]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: lambda a, b: Fraction(a // b),
}
_FUNCTIONS: Final[Mapping[str, Callable[..., Fraction]]] = {
    "floor": lambda value: Fraction(math.floor(value)),
    "ceil": lambda value: Fraction(math.ceil(value)),
    "ceiling": lambda value: Fraction(math.ceil(value)),
    "max": max,
    "min": min,
}


@dataclass(frozen=True, slots=True)
class DimensionExpression:
    """A sum, product or quotient of symbols; text that is none stands for itself, as one symbol."""

    text: str
    """As the model writes it."""

    symbols: tuple[str, ...]
    """The symbols in it, in order, each once."""

    source: str
    """The same as a Python expression in `v0`, `v1`, ...; empty for a single symbol."""

    @classmethod
    def parse(cls, text: str) -> DimensionExpression:
        """Returns `text` as an expression.

        >>> DimensionExpression.parse("past + sequence").symbols
        ('past', 'sequence')
        """
        symbols: list[str] = []

        def replace(match: re.Match[str]) -> str:
            name = match.group()
            if name.lower() in _FUNCTIONS and text[match.end() :].lstrip().startswith("("):
                return name.lower()
            if name not in symbols:
                symbols.append(name)
            return f"v{symbols.index(name)}"

        source = _SYMBOL.sub(replace, text) if len(text) <= _LONGEST else ""
        if not symbols or source.strip() == "v0" or not _is_arithmetic(source, len(symbols)):
            return cls(text, (text,), "")
        return cls(text, tuple(symbols), source)

    def value(self, extents: Mapping[str, int]) -> int:
        """Returns the extent, at least 1, where the symbols have these.

        >>> DimensionExpression.parse("floor(height/2) + 1").value({"height": 7})
        4
        """
        if not self.source:
            return extents[self.text]
        names = {f"v{index}": Fraction(extents[name]) for index, name in enumerate(self.symbols)}
        try:
            extent = _evaluate(ast.parse(self.source, mode="eval").body, names)
        except ZeroDivisionError:
            return 1
        return max(math.floor(extent), 1)

    def solve(self, extent: int, known: Mapping[str, int]) -> tuple[str, int] | None:
        """Returns the one symbol that is not `known`, and what it must be for this extent.

        None where nothing or more than one symbol is open, or no positive whole number fits.

        >>> DimensionExpression.parse("past + sequence").solve(144, {"sequence": 128})
        ('past', 16)
        """
        open_symbols = [name for name in self.symbols if name not in known]
        if len(open_symbols) != 1:
            return None
        (name,) = open_symbols
        if not self.source:
            return name, extent
        # In a sum or a multiple; whatever else it is, the last line finds out.
        low, high = (self.value({**known, name: value}) for value in (extent, 2 * extent))
        slope = Fraction(high - low, extent)
        if slope <= 0:
            return None
        solution = round((extent - low) / slope + extent)
        fits = solution >= 1 and self.value({**known, name: solution}) == extent
        return (name, solution) if fits else None


def _is_arithmetic(source: str, symbol_count: int) -> bool:
    """Whether `source` is an expression that can be evaluated."""
    if not _ARITHMETIC.fullmatch(source):
        return False
    try:
        body = ast.parse(source, mode="eval").body
        _evaluate(body, {f"v{index}": Fraction(7 + index) for index in range(symbol_count)})
    except (ArithmeticError, KeyError, SyntaxError, TypeError, ValueError, RecursionError):
        return False
    return True


def _evaluate(node: ast.expr, names: Mapping[str, Fraction]) -> Fraction:
    """The value of an expression; what is no arithmetic raises a KeyError or a ValueError."""
    if isinstance(node, ast.Constant):
        return Fraction(node.value)  # type: ignore[arg-type]
    if isinstance(node, ast.Name):
        return names[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_evaluate(node.operand, names)
    if isinstance(node, ast.BinOp):
        left, right = _evaluate(node.left, names), _evaluate(node.right, names)
        return _OPERATORS[type(node.op)](left, right)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        return _FUNCTIONS[node.func.id](*(_evaluate(argument, names) for argument in node.args))
    raise ValueError("must be arithmetic")
