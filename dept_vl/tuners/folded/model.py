"""The computation of a method that is in the backbone's own weights: none."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from dept_vl.tuners.base import ParamGroup, Tuner
from dept_vl.tuners.context import TunerContext
from dept_vl.tuners.forward_info import ForwardInfo


class Folded(Tuner):
    """Does nothing; the backbone does what the method did."""

    def reset_parameters(self, context: TunerContext) -> None:
        """Sets nothing."""

    def embed(self, text_embeds: Tensor, info: ForwardInfo | None = None) -> Tensor:
        """Returns the text as it is; see `Tuner.embed`."""
        self.check_length(text_embeds)
        return text_embeds

    def param_groups(self, own: Mapping[str, nn.Parameter]) -> list[ParamGroup]:
        """Returns none."""
        return []
