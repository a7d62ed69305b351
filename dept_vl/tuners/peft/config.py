"""Settings of the methods that the library ``peft`` computes. No torch."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from dept_vl.strict import MAX_SIZE, STRICT
from dept_vl.tuners.places.backbone_shape import BackboneShape
from dept_vl.tuners.places.choice import choose_sites
from dept_vl.tuners.places.sites import LinearChoice
from dept_vl.tuners.settings import Recipe, TunerSettings

Rank = Annotated[int, Field(ge=1, le=MAX_SIZE, description="rank r of every update")]
Dropout = Annotated[float, Field(ge=0, lt=1, description="on what goes into an update, while training")]


@dataclass(frozen=True, config=STRICT)
class PeftSettings(TunerSettings):
    """An update of linear maps in the backbone that ``peft`` makes; each method is a class of its own.

    They have different settings, and one that has no meaning for the method at hand is refused.

    Attributes:
        library: The class of the method's settings in ``peft``.
    """

    implementation: ClassVar[str] = "dept_vl.tuners.peft.model:PeftTuner"
    recipe_source: ClassVar[str] = "the fields' defaults, as for DePT: its authors' runs are of other models than T5"
    extra: ClassVar[str | None] = "peft"
    library: ClassVar[str]
    lr: Annotated[float, Field(gt=0, description="peak rate of the updates")] = 3e-4
    sites: Annotated[
        tuple[LinearChoice, ...],
        Field(
            min_length=1,
            description="linear maps that get one; 'attn.q' is q of every attention, 'self_attn.q' of self-attentions",
        ),
    ] = ("attn.q", "attn.v")

    @property
    @abstractmethod
    def arguments(self) -> dict[str, Any]:
        """What ``peft``'s class takes of these, by its own names; all but the places."""

    @property
    @abstractmethod
    def shown_rank(self) -> int:
        """The rank, for reports."""

    def check_backbone(self, shape: BackboneShape) -> None:
        """Refuses parts that the backbone does not have too; see `TunerSettings.check_backbone`."""
        super().check_backbone(shape)
        choose_sites(self.sites, shape)


@dataclass(frozen=True, config=STRICT)
class DoraConfig(PeftSettings):
    """Low-rank updates of a matrix's direction, beside a trained length of each of its rows."""

    library: ClassVar[str] = "LoraConfig"
    reference: ClassVar[str] = "Liu et al. 2024, DoRA, arXiv 2402.09353"
    reads_weights: ClassVar[bool] = True
    name: Literal["dora"] = "dora"
    rank: Rank = 8
    alpha: Annotated[float, Field(gt=0, description="an update is scaled by alpha / rank")] = 16.0
    dropout: Dropout = 0.0

    @property
    def arguments(self) -> dict[str, Any]:
        """See `PeftSettings.arguments`."""
        return {"r": self.rank, "lora_alpha": self.alpha, "lora_dropout": self.dropout, "use_dora": True}

    @property
    def shown_rank(self) -> int:
        """The rank."""
        return self.rank


@dataclass(frozen=True, config=STRICT)
class RsLoraConfig(PeftSettings):
    """LoRA whose updates are scaled by alpha / sqrt(rank), so that high ranks learn as fast as low ones."""

    library: ClassVar[str] = "LoraConfig"
    reference: ClassVar[str] = "Kalajdzievski 2023, rank-stabilized LoRA, arXiv 2312.03732"
    name: Literal["rslora"] = "rslora"
    rank: Rank = 8
    alpha: Annotated[float, Field(gt=0, description="an update is scaled by alpha / sqrt(rank)")] = 16.0
    dropout: Dropout = 0.0

    @property
    def arguments(self) -> dict[str, Any]:
        """See `PeftSettings.arguments`."""
        return {"r": self.rank, "lora_alpha": self.alpha, "lora_dropout": self.dropout, "use_rslora": True}

    @property
    def shown_rank(self) -> int:
        """The rank."""
        return self.rank


@dataclass(frozen=True, config=STRICT)
class AdaLoraConfig(PeftSettings):
    """Updates P diag(e) Q whose ranks shrink during training where they matter least.

    The defaults are of the authors' script for summaries with BART (``QingruZhang/AdaLoRA`` at d10f5eb,
    ``NLG_QA/scripts/run_bart_xsum.sh``), which adapts every linear map; its 6,000 and 25,000 of some 80,000 steps are
    shares here, and ranks are chosen as often as in that for CoLA.
    """

    implementation: ClassVar[str] = "dept_vl.tuners.peft.adalora:AdaLora"
    library: ClassVar[str] = "AdaLoraConfig"
    reference: ClassVar[str] = "Zhang et al. 2023, AdaLoRA, arXiv 2303.10512"
    recipe: ClassVar[Recipe] = {
        "data": {"batch_size": 64, "loss_mean": "tokens"},  # 8 rows on each of 8 GPUs
        "optim": {
            "weight_decay": 0.0,
            "beta2": 0.999,
            "eps": 1e-8,
            "warmup_proportion": 0.0375,  # 3,000 of some 80,000 steps
            "warmup": "transformers",
        },
        "loop": {"epochs": 25, "eval_every_epochs": 1},
    }
    recipe_source: ClassVar[str] = (
        "QingruZhang/AdaLoRA: NLG_QA/scripts/run_bart_xsum.sh, run_summarization_no_trainer.py"
    )
    name: Literal["adalora"] = "adalora"
    lr: Annotated[float, Field(gt=0, description="peak rate of the updates")] = 5e-4
    rank: Annotated[int, Field(ge=1, le=MAX_SIZE, description="rank of an update at the end, on average")] = 8
    initial_rank: Annotated[int, Field(ge=2, le=MAX_SIZE, description="rank of every update at the start")] = 12
    alpha: Annotated[float, Field(gt=0, description="an update is scaled by alpha / initial_rank")] = 32.0
    dropout: Dropout = 0.0
    warmup_share: Annotated[
        float, Field(ge=0, lt=1, description="of the steps, at the start: all ranks stay as they are")
    ] = 0.075
    final_share: Annotated[
        float, Field(ge=0, lt=1, description="of the steps, at the end: ranks are fixed, and the rest is trained on")
    ] = 0.3
    allocate_every_steps: Annotated[int, Field(ge=1, description="steps between two choices of what is kept")] = 10
    orthogonality: Annotated[
        float, Field(ge=0, description="weight in the loss of how far P and Q are from orthogonal")
    ] = 0.1
    beta: Annotated[
        float, Field(gt=0, lt=1, description="of the running averages of importance and of its uncertainty")
    ] = 0.85

    @model_validator(mode="after")
    def _check_schedule(self) -> AdaLoraConfig:
        if self.rank >= self.initial_rank:
            raise ValueError(
                f"rank={self.rank} must be less than initial_rank={self.initial_rank}, which shrinks to it"
            )
        if self.warmup_share + self.final_share >= 1:
            raise ValueError(
                f"warmup_share={self.warmup_share} and final_share={self.final_share} must add up to less than 1: "
                "ranks shrink between the two"
            )
        return self

    @property
    def arguments(self) -> dict[str, Any]:
        """See `PeftSettings.arguments`; the lengths of the phases are set once the run's steps are known."""
        return {
            "init_r": self.initial_rank, "target_r": self.rank, "lora_alpha": self.alpha,
            "lora_dropout": self.dropout, "deltaT": self.allocate_every_steps, "beta1": self.beta, "beta2": self.beta,
            "orth_reg_weight": self.orthogonality, "total_step": 1,
        }  # fmt: skip

    @property
    def shown_rank(self) -> int:
        """The rank that every update has at the start, which is what is trained."""
        return self.initial_rank


@dataclass(frozen=True, config=STRICT)
class VeraConfig(PeftSettings):
    """Two trained vectors a matrix, between two random matrices that are frozen and the same for all places.

    The random matrices follow from `projection_seed` and are in no file.
    """

    library: ClassVar[str] = "VeraConfig"
    reference: ClassVar[str] = "Kopiczko et al. 2024, VeRA, arXiv 2310.11454"
    name: Literal["vera"] = "vera"
    lr: Annotated[float, Field(gt=0, description="peak rate of the vectors")] = 4e-3
    rank: Annotated[int, Field(ge=1, le=MAX_SIZE, description="rank of the random matrices")] = 256
    initial_d: Annotated[
        float, Field(allow_inf_nan=False, description="first value of the vector between the random matrices")
    ] = 0.1
    dropout: Dropout = 0.0
    projection_seed: Annotated[int, Field(ge=0, lt=1 << 63, description="of the random matrices")] = 0

    @property
    def arguments(self) -> dict[str, Any]:
        """See `PeftSettings.arguments`."""
        return {
            "r": self.rank, "d_initial": self.initial_d, "vera_dropout": self.dropout,
            "projection_prng_key": self.projection_seed,
        }  # fmt: skip

    @property
    def shown_rank(self) -> int:
        """The rank."""
        return self.rank
