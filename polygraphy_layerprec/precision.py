"""Floating-point formats as values.

A format is described, never special-cased: another one is another `Precision`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "BF16",
    "FP16",
    "PRECISIONS",
    "QDQ",
    "TF32",
    "Precision",
    "is_floating",
    "lowered_to",
    "precision_named",
]


@dataclass(frozen=True, slots=True)
class Precision:
    """A binary floating-point format narrower than FP32 (IEEE 754-2019, section 3.3)."""

    name: str
    """Name on the command line and in files: `fp16` or `bf16`."""

    mantissa_bits: int
    """Stored significand bits, without the implicit one."""

    min_exponent: int
    """Exponent of the smallest normal number, which is `2**min_exponent`."""

    max_exponent: int
    """Exponent of the largest binade of finite numbers."""

    @property
    def max_finite(self) -> float:
        """Largest finite number: 65504 for FP16."""
        return (2.0 - 2.0**-self.mantissa_bits) * 2.0**self.max_exponent

    @property
    def overflow_threshold(self) -> float:
        """Smallest magnitude that rounds to infinity: 65520 for FP16."""
        return (2.0 - 2.0 ** -(self.mantissa_bits + 1)) * 2.0**self.max_exponent

    @property
    def min_normal(self) -> float:
        """Smallest normal number: 2**-14 for FP16."""
        return 2.0**self.min_exponent

    @property
    def min_subnormal(self) -> float:
        """Smallest positive number: 2**-24 for FP16."""
        return 2.0 ** (self.min_exponent - self.mantissa_bits)

    @property
    def unit_roundoff(self) -> float:
        """Largest relative error of rounding a normal number: 2**-11 for FP16."""
        return 2.0 ** -(self.mantissa_bits + 1)

    @property
    def max_exact_integer(self) -> int:
        """Up to this every integer is a number of the format: 2048 for FP16."""
        return int(2 ** (self.mantissa_bits + 1))


FP16 = Precision("fp16", mantissa_bits=10, min_exponent=-14, max_exponent=15)
BF16 = Precision("bf16", mantissa_bits=7, min_exponent=-126, max_exponent=127)
TF32 = Precision("tf32", mantissa_bits=10, min_exponent=-126, max_exponent=127)
"""What tensor cores make of the factors of an FP32 product unless it is switched off."""

QDQ = Precision("qdq", mantissa_bits=23, min_exponent=-126, max_exponent=127)
"""Pairs of QuantizeLinear and DequantizeLinear: tensors are FP32 on both sides of each."""

PRECISIONS = {precision.name: precision for precision in (FP16, BF16)}
"""Those that values are rounded to, by name."""


def precision_named(name: str) -> Precision:
    """Returns the precision of that name, that of a quantised model among them.

    Raises:
        KeyError: If there is none.
    """
    return QDQ if name == QDQ.name else PRECISIONS[name]


def lowered_to(name: str) -> str:
    """Returns what layers are in a precision of that name, in words.

    >>> f"all layers {lowered_to('fp16')}", f"all layers {lowered_to('qdq')}"
    ('all layers in FP16', 'all layers quantised')
    """
    return "quantised" if name.lower() == QDQ.name else f"in {name.upper()}"


def is_floating(dtype: np.dtype[Any]) -> bool:
    """Whether numbers of a type are floating-point: BF16 and narrower too, which numpy lacks."""
    return dtype.kind == "f" or (dtype.kind == "V" and dtype.name.startswith(("bfloat", "float")))
