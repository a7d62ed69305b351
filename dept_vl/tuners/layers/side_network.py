"""A narrow network beside a backbone: it reads the backbone's states, and the backbone never reads it.

The backbone therefore runs without gradients, and nothing of it is kept for the backward pass. The method
(`SideNetwork`) says what its network computes from the backbone's states; the backbone says what a block of its own
kind is at a fraction of its widths (`NarrowBlocks`), and how such blocks are run.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from dept_vl.tuners.places.sites import Part, StackName


class SideNetwork(ABC):
    """What a method computes beside a backbone (`Tuner.side_network`).

    In each stack the backbone runs its own blocks first. Then the network enters with the stack's input, and beside
    each of its `layers` it mixes in what the backbone's block put out and runs its own block.
    """

    @abstractmethod
    def layers(self, stack: StackName) -> Sequence[int]:
        """Returns the backbone's blocks that have one beside them, in order; at least one."""

    @abstractmethod
    def block(self, stack: StackName, layer: int) -> nn.Module:
        """Returns the block beside one of the `layers`, made by `NarrowBlocks.block`."""

    @abstractmethod
    def enter(self, stack: StackName, embeds: Tensor) -> Tensor:
        """Returns the network's first states of a stack, (batch, tokens, side width).

        Args:
            stack: Which.
            embeds: (batch, tokens, d_model), the input; visual tokens are in it, which the backbone does not read.
        """

    @abstractmethod
    def mix(self, stack: StackName, layer: int, hidden: Tensor, output: Tensor) -> Tensor:
        """Returns what the block beside `layer` reads, (batch, tokens, side width).

        Args:
            stack: Which.
            layer: One of the `layers`.
            hidden: The network's own states, (batch, tokens, side width).
            output: What the backbone's block put out, (batch, tokens or fewer, d_model): visual tokens, the last ones,
                have none.
        """

    @abstractmethod
    def leave(self, stack: StackName, hidden: Tensor) -> Tensor:
        """Returns the network's last states of a stack.

        The encoder's are what the network's own cross-attentions read, (batch, tokens, side width); the decoder's have
        the backbone's width, (batch, tokens, d_model), and go to its output matrix.
        """


class NarrowBlocks(ABC):
    """Blocks of the backbone's own kind at 1/r of its widths.

    Attributes:
        num_layers: The backbone's blocks by stack.
        widths: Those that are divided by r, by the names they have in its ``config.json``; ``d_model`` among them.
        dropout: Its rate while training.
    """

    num_layers: Mapping[StackName, int]
    widths: Mapping[str, int]
    dropout: float

    @abstractmethod
    def block(self, stack: StackName, index: int, reduction: int, *, has_positions: bool) -> nn.Module:
        """Returns a block without set values, on the default device.

        Args:
            stack: Of which kind.
            index: Its number among the network's own blocks of that stack, from 0.
            reduction: r; must divide all of `widths`.
            has_positions: Whether it has the stack's table of relative positions.
        """

    @abstractmethod
    def norm(self, stack: StackName, reduction: int) -> nn.Module:
        """Returns a norm for the end of a stack, without a set value."""

    @abstractmethod
    def parts(self, block: nn.Module) -> Mapping[Part, nn.Module]:
        """Returns a block's linear maps and norms by the names they have as sites of the backbone."""

    @abstractmethod
    def positions(self, stack: StackName) -> Tensor:
        """Returns the backbone's own table of relative positions, (buckets, heads)."""

    @abstractmethod
    def own_positions(self, block: nn.Module) -> nn.Parameter | None:
        """Returns a block's table, of the shape of `positions`; None without one."""

    @abstractmethod
    def draw(self, block: nn.Module, generator: torch.Generator) -> None:
        """Sets a block to the first values that the backbone's family has for its widths."""
