"""What a training run is told: every number that decides the weights, checked once, then frozen."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Frozen(BaseModel):
    """Base of the typed settings: immutable, no unknown keys, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Augmentation(Frozen):
    """Random changes of image batches (n, channels, height, width).

    Attributes:
        shift: Largest shift in pixels, drawn per sample and axis; the border is repeated.
        flip: Whether half of the samples are mirrored left to right.
    """

    shift: int = Field(0, ge=0)
    flip: bool = False


class Federation(Frozen):
    """How a training is shared out to simulated clients.

    Attributes:
        clients: How many.
        alpha: Concentration of the Dirichlet split by label: small, and each client has few
            classes; large, and all have the same share of each.
        local_epochs: Epochs of a client between two averages; a round.
    """

    clients: int = Field(ge=1)
    alpha: float = Field(0.5, gt=0)
    local_epochs: int = Field(1, ge=1, le=10**6)


class TrainConfig(Frozen):
    """Settings of `fit`; those of the objective are kept apart.

    Attributes:
        epochs: Passes over the training data.
        batch_size: Largest batch; an epoch is split into batches of nearly equal size, so that no
            sample is left out and no batch is tiny.
        optimiser: "sgd" (with `momentum`, Nesterov where `nesterov`), "adam" or "adamw".
        learning_rate: Its peak.
        schedule: "constant", "cosine" (to 0), or "one-cycle" (linear from 0 to the peak at
            `peak_at` of the run, then linear to 0).
        cycles: How often the schedules of learning rate and eps run through in the whole training.
        weight_decay: On all parameters.
        clip_norm: Largest L2 norm of the gradient over all parameters, or None.
        ema_decay: Decay per step of the moving average of the weights, or None. Where given, the
            average is what is measured and returned.
        eps_warmup_epochs: Epochs of a cycle over which the objective's `scale` rises linearly from
            0 to 1.
        augmentation: For images, or None.
        validation: Samples held out of the training data, drawn by the seed; below 1, the share of
            the data.
        keep: Which epoch's model is returned: "last", or "best-robust", the first of those with the
            highest accuracy under the short attack on the held-out samples (early stopping against
            robust overfitting: Rice et al., ICML 2020).
        seed: Seeds the held-out samples, shuffling, augmentation, attack noise and dropout.
    """

    epochs: int = Field(ge=1, le=10**6)
    batch_size: int = Field(128, ge=1, le=10**6)
    optimiser: Literal["sgd", "adam", "adamw"] = "sgd"
    momentum: float = Field(0.9, ge=0, lt=1)
    nesterov: bool = True
    learning_rate: float = Field(gt=0)
    schedule: Literal["constant", "cosine", "one-cycle"] = "one-cycle"
    peak_at: float = Field(0.3, gt=0, lt=1)
    cycles: int = Field(1, ge=1)
    weight_decay: float = Field(0.0, ge=0)
    clip_norm: float | None = Field(None, gt=0)
    ema_decay: float | None = Field(None, gt=0, lt=1)
    eps_warmup_epochs: float = Field(0.0, ge=0)
    augmentation: Augmentation | None = None
    validation: float = Field(0, ge=0)
    keep: Literal["last", "best-robust"] = "last"
    seed: int = Field(0, ge=0, le=2**53)

    def content(self) -> dict[str, Any]:
        """The settings as JSON values; one that came later counts where it is set."""
        content = self.model_dump(mode="json")
        if self.keep == "last":
            del content["keep"]
        return content

    @model_validator(mode="after")
    def _is_coherent(self) -> Self:
        if self.epochs % self.cycles:
            raise ValueError(f"epochs ({self.epochs}) is no multiple of cycles ({self.cycles})")
        if self.eps_warmup_epochs > self.epochs // self.cycles:
            raise ValueError(
                f"eps_warmup_epochs ({self.eps_warmup_epochs:g}) exceeds epochs ({self.epochs})"
                f"{' of a cycle' if self.cycles > 1 else ''}: "
                "the model would never see the full eps"
            )
        if self.validation > 1 and self.validation != int(self.validation):
            raise ValueError(f"validation ({self.validation}) is neither a number nor a share")
        if self.nesterov and self.optimiser == "sgd" and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")
        return self
