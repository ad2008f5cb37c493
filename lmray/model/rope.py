"""Rotary positions.

Letters of shapes: T positions, K width of a head.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lmray.errors import UsageError


class RotaryPositionalEmbedding(nn.Module):
    """Rotates the pair (x[2i], x[2i+1]) by position * theta^(-2i/d_k) (RoFormer, Su et al. 2021).

    The product of a rotated query and a rotated key depends only on how far apart they stand.
    """

    def __init__(
        self,
        theta: float,
        d_k: int,
        max_seq_len: int,
        device: torch.device | str | None = None,
    ) -> None:
        """Tabulates positions 0 to max_seq_len - 1; the table is not part of the state dict."""
        super().__init__()
        if d_k % 2:
            raise UsageError(f"d_k={d_k} is odd and RoPE rotates pairs; choose an even head width")
        # In fp64: the error of an fp32 angle grows with the position, to 0.001 rad at 16,384.
        frequencies = theta ** -(torch.arange(0, d_k, 2, dtype=torch.float64, device=device) / d_k)
        angles = torch.arange(max_seq_len, dtype=torch.float64, device=device).outer(frequencies)
        rotations = torch.stack((angles.cos(), angles.sin()), dim=-1).float()
        self.register_buffer("rotations", rotations, persistent=False)

    def _apply(
        self, fn: Callable[[Tensor], Tensor], recurse: bool = True
    ) -> "RotaryPositionalEmbedding":
        """Moves the table with the module, but never to another dtype.

        Eight bits would place far positions wrongly, and torch has no complex number of bf16.
        """
        exact = self.rotations
        super()._apply(fn, recurse)
        if self.rotations.dtype != exact.dtype:
            self.rotations = exact.to(self.rotations.device)
        return self

    def forward(
        self, x: Float[Tensor, "... T K"], token_positions: Int[Tensor, "... T"]
    ) -> Float[Tensor, "... T K"]:
        """Rotates in fp32 (fp64 for fp64 input); the positions broadcast against all but K."""
        # One complex product: sines and cosines on strided halves take seven times as long on a
        # CPU (forward and backward, 2,048 tokens of 4 heads, 2 threads, 2026-11).
        pairs = x.to(torch.promote_types(x.dtype, torch.float32)).unflatten(-1, (-1, 2))
        if torch.compiler.is_compiling():  # what generates code has no complex numbers
            cos, sin = self.rotations[token_positions].unbind(-1)
            first, second = pairs.unbind(-1)
            rotated = (first * cos - second * sin, first * sin + second * cos)
            return torch.stack(rotated, dim=-1).flatten(-2).to(x.dtype)
        rotations = torch.view_as_complex(self.rotations[token_positions])
        rotated = torch.view_as_real(torch.view_as_complex(pairs) * rotations)
        return rotated.flatten(-2).to(x.dtype)
