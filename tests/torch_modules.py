"""Small torch modules of the usual kinds; weights come from `torch.manual_seed` of the caller."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["Branching", "Cnn", "Conditional", "Encoder", "Recurrent", "Repeating", "UNet"]


class Encoder(nn.Module):
    """Transformer encoder with a padding mask; the head shares the weights of the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(16, 8)
        layer = nn.TransformerEncoderLayer(
            8, nhead=2, dim_feedforward=16, activation="gelu", batch_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, num_layers=2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 16)
        self.head.weight = self.embedding.weight

    def forward(self, ids: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        """ids (2, 5) int64, padding (2, 5) bool -> (2, 5, 16)."""
        hidden = self.encoder(self.embedding(ids), src_key_padding_mask=padding)
        return self.head(hidden)


class Cnn(nn.Module):
    """Convolutions, grouped ones among them, with batch normalisation and a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.block = nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.Hardswish()
        )
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """image (2, 3, 8, 8) -> (2, 5)."""
        features = self.stem(image)
        return self.head(features + self.block(features))


class UNet(nn.Module):
    """Down and up again, by a transposed convolution and by interpolation, with connections."""

    def __init__(self) -> None:
        super().__init__()
        self.down1 = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.SiLU())
        self.down2 = nn.Sequential(nn.Conv2d(4, 8, 3, stride=2, padding=1), nn.LeakyReLU(0.1))
        self.bottom = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.up1 = nn.ConvTranspose2d(8, 8, 2, stride=2)
        self.merge = nn.Conv2d(16, 4, 3, padding=1)
        self.out = nn.Conv2d(8, 1, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """image (1, 1, 8, 8) -> (1, 1, 8, 8)."""
        first = self.down1(image)
        second = self.down2(first)
        up = torch.cat([self.up1(self.bottom(second)), second], dim=1)
        up = nn.functional.interpolate(self.merge(up), scale_factor=2.0, mode="nearest")
        return torch.sigmoid(self.out(torch.cat([up, first], dim=1)))


class Recurrent(nn.Module):
    """Two layers of LSTM or GRU in both directions, and a projection."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        cell = {"LSTM": nn.LSTM, "GRU": nn.GRU}[kind]
        self.recurrent = cell(4, 6, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(12, 3)

    def forward(self, steps: torch.Tensor) -> torch.Tensor:
        """steps (2, 5, 4) -> (2, 5, 3)."""
        return self.head(self.recurrent(steps)[0])


class Branching(nn.Module):
    """A condition on the data, for `torch.jit.script`."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.yes, self.no = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (3, 4) -> (3, 4)."""
        hidden = torch.tanh(self.before(x))
        chosen = torch.exp(self.yes(hidden)) if bool(hidden.sum() > 0) else self.no(hidden) * 0.5
        return chosen + hidden


class Repeating(nn.Module):
    """A loop that carries a state as often as the input says, for `torch.jit.script`."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.step, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        """x (3, 4), times () int64 -> (3, 2)."""
        state = self.before(x)
        for _ in range(int(times)):
            state = torch.tanh(self.step(state) + x)
        return self.head(state)


class Conditional(nn.Module):
    """A condition on the data that needs no script: `torch.cond`."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.yes, self.no = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (3, 4) -> (3, 4)."""
        hidden = torch.tanh(self.before(x))
        chosen = torch.cond(
            hidden.sum() > 0,
            lambda t: torch.exp(self.yes(t)),
            lambda t: self.no(t) * 0.5,
            (hidden,),
        )
        return chosen + hidden
