"""The trainings of docs/sparse-table.md: a shipped recipe with options each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

MODELS = Path("models/sparse")
CNN7 = "CNN7 of width 16"
SMALL, COST = "Small CNN", "Small CNN: what fewer epochs reach"
SPARSE_EPOCHS, TUNE_EPOCHS = 8, 6


@dataclass(frozen=True)
class Row:
    """One training.

    Attributes:
        method: Words for the reader; rows that differ in the seed alone share them.
        recipe: A shipped recipe.
        sparsity: Share of the weights that is to be zero.
        options: Further options of robust-train.
        start: Name of the row whose model it starts from.
        seed: Of the training.
        network: Words for the reader.
    """

    method: str
    recipe: str
    sparsity: float = 0.0
    options: tuple[str, ...] = ()
    start: str | None = None
    seed: int = 0
    network: str = SMALL
    label: str = field(default="", compare=False)

    @property
    def name(self) -> str:
        """Name of the trained model."""
        stem = self.label or self.recipe
        share = f"-{self.sparsity * 100:.3g}" if self.sparsity else ""
        return f"{stem}{share}" + (f"-seed{self.seed}" if self.seed else "")

    def command(self) -> list[str]:
        """What trains it."""
        folder = MODELS / self.name
        words = ["--recipe", self.recipe, "--name", self.name, "--out", str(folder), "--resume"]
        words += ["--seed", str(self.seed), *self.options]
        if self.sparsity:
            words += ["--sparsity", str(self.sparsity)]
        if self.start:
            words += ["--start", str(MODELS / self.start / f"{self.start}.safetensors")]
        return words


def _small() -> Iterator[Row]:
    """The small CNN: what others start from first, then what is wanted most.

    Methods that prune a dense model start from the certified one, those that are sparse from the
    beginning from random weights: dense training on intervals needs its long warm-up.
    """
    whole, tuned = ("--epochs", str(SPARSE_EPOCHS)), ("--epochs", str(TUNE_EPOCHS))
    for seed in (0, 1, 2):
        yield Row("dense, certified", "fmnist-cnn-ibp", seed=seed, label="dense")
    for sparsity in (0.99, 0.9):
        yield Row("SparseVLR", "sparsevlr", sparsity, whole)
        yield Row("one-shot magnitude", "magnitude", sparsity, tuned, "dense")
        erk = (*tuned, "--allocation", "erk")
        yield Row("one-shot magnitude, ERK", "magnitude", sparsity, erk, "dense", label="mag-erk")
        yield Row("HYDRA", "hydra", sparsity, tuned, "dense")
        yield Row("AC/DC", "ac-dc", sparsity, tuned, "dense")
        yield Row("NRSLoss, one-shot", "nrs", sparsity, tuned, "dense")
        yield Row("CrAM+", "cram", sparsity, tuned, "dense")
        yield Row("TSCNC", "tscnc", sparsity, tuned, "dense")
        yield Row("RigL, robust gradient", "rigl", sparsity, whole)
        yield Row("SET", "set", sparsity, whole)
        yield Row("static random", "static-sparse", sparsity, whole)
        yield Row("iterative magnitude, rewinding", "rewind", sparsity, ("--epochs", "12"), "dense")
    for sparsity in (0.95, 0.8, 0.97):
        yield Row("SparseVLR", "sparsevlr", sparsity, whole)
    label = "fmnist-cnn-sparsevlr"
    for share in (90, 95, 99):
        for seed in range(3):
            method, recipe = "SparseVLR, 20 epochs", f"{label}-{share}"
            yield Row(method, recipe, share / 100, seed=seed, label=label)
    for sparsity in (0.9, 0.95, 0.99, 0.8, 0.97):
        for seed in (1, 2):
            yield Row("SparseVLR", "sparsevlr", sparsity, whole, seed=seed)
    for sparsity in (0.95, 0.8, 0.97):  # of the baselines this one certifies most
        yield Row("AC/DC", "ac-dc", sparsity, tuned, "dense")
    for sparsity in (0.9, 0.95, 0.99, 0.8, 0.97):
        for seed in (1, 2):
            yield Row("AC/DC", "ac-dc", sparsity, tuned, f"dense-seed{seed}", seed=seed)


def _pruned_evenly() -> Iterator[Row]:
    """Baselines whose recipes prune all layers together, with the layer budgets of SparseVLR.

    Pruned together, a layer may be left with next to nothing: the last one had 12 weights at 99%.
    """
    for method, recipe, epochs in (
        ("AC/DC", "ac-dc", TUNE_EPOCHS),
        ("NRSLoss, one-shot", "nrs", TUNE_EPOCHS),
        ("CrAM+", "cram", TUNE_EPOCHS),
        ("TSCNC", "tscnc", TUNE_EPOCHS),
        ("iterative magnitude, rewinding", "rewind", 12),
    ):
        options = ("--epochs", str(epochs), "--allocation", "erk")
        yield Row(f"{method}, ERK", recipe, 0.99, options, "dense", label=f"{recipe}-erk")


def _variants() -> Iterator[Row]:
    """SparseVLR by channels and under other losses; pruning without a verified loss."""
    whole = ("--epochs", str(SPARSE_EPOCHS))
    for sparsity in (0.8, 0.9):
        channels = (*whole, "--structure", "channels", "--allocation", "uniform")
        yield Row("SparseVLR, channels", "sparsevlr", sparsity, channels, label="channels")
    for sparsity in (0.99, 0.9):
        crown = (*whole, "--objective", "crown-ibp")
        yield Row("SparseVLR, CROWN-IBP", "sparsevlr", sparsity, crown, label="sparsevlr-crown")
        for loss in ("standard", "pgd"):
            few = ("--objective", loss, *(("--steps", "3") if loss == "pgd" else ()))
            told = {"standard": "clean loss", "pgd": "PGD-3"}[loss]
            yield Row(
                f"SparseVLR, {told}",
                "sparsevlr",
                sparsity,
                ("--epochs", "6", *few),
                label=f"sparsevlr-{loss}",
            )


def _cnn7() -> Iterator[Row]:
    """CNN7 of width 16: 13 times the work of the small CNN."""
    yield Row("dense, certified", "cnn7-ibp", network=CNN7)
    yield Row("SparseVLR", "cnn7-sparsevlr", 0.95, network=CNN7)
    yield Row("AC/DC", "cnn7-ac-dc", 0.95, start="cnn7-ibp", network=CNN7)


def _cost() -> Iterator[Row]:
    """How few epochs reach an accuracy: of SparseVLR, and of dense training, pruning, tuning.

    Of both there are short ones: the cheapest of the second has as few epochs as one of the first.
    """
    for epochs in (3, 4, 6):
        few, label = ("--epochs", str(epochs)), f"sparsevlr-{epochs}ep"
        told = f"SparseVLR, {epochs} epochs"
        yield Row(told, "sparsevlr", 0.99, few, label=label, network=COST)
    for epochs in (2, 4, 8):
        dense, stem = ("--epochs", str(epochs), "--sparsity", "0"), f"dense-{epochs}ep"
        told = f"dense, certified, {epochs} epochs"
        yield Row(told, "sparsevlr", options=dense, label=stem, network=COST)
        for tune in (2, 4):
            more = ("--epochs", str(tune), "--allocation", "erk")
            label = f"mag-{epochs}-{tune}ep"
            told = f"one-shot magnitude, ERK, {epochs} epochs and {tune} more"
            yield Row(told, "magnitude", 0.99, more, stem, label=label, network=COST)


ROWS = {row.name: row for row in (*_small(), *_pruned_evenly(), *_variants(), *_cost(), *_cnn7())}
