"""A classifier evaluated in tiles: batches of a few fixed sizes that all round alike.

A floating-point result can depend on the size of a batch and on a sample's place in it: kernels
are chosen by shape, and a vectorised loop ends in a scalar tail. `sign(gradient)` amplifies the
last bit to a whole step. So every pass runs in a tile of a fixed size, padded where needed, and a
size is only used when it was measured to give the very bits of the smallest one, at any place in
the tile, for this model on this machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attacks.convolution import FastInputGradients
from attacks.errors import ClassifierError

CPU_TILES = (32, 64, 128, 256)
CUDA_TILES = (256, 512, 1024, 2048)


@contextmanager
def exact_passes() -> Iterator[None]:
    """Deterministic kernels in full float32 inside; the caller's settings come back."""
    matmul = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    flags = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
    try:
        kind = "cuda" if torch.cuda.is_available() else "cpu"
        with (
            flags,
            torch.inference_mode(False),
            torch.autocast("cpu", enabled=False),
            torch.autocast(kind, enabled=False),
        ):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = matmul


@dataclass
class Work:
    """Passes actually run, counted in samples (padding included): what the device had to do."""

    forwards: int = 0
    backwards: int = 0


class TiledClassifier:
    """Logits and input gradients of `module`, in tiles.

    Attributes:
        module: The model, in eval mode.
        search: What gradients are of: the module, or the same compiled (`attacks.compiled`).
        tiles: Allowed tile sizes, ascending.
        invariant: Whether a sample's bits were measured not to depend on its place in a tile.
        seconds: Measured time of one gradient of one sample; 0 where it was not measured.
        fast: Whether `FastInputGradients` is used.
        work: Passes run so far.
    """

    def __init__(
        self,
        module: nn.Module,
        tiles: tuple[int, ...] = (32,),
        invariant: bool = True,
        seconds: float = 0.0,
    ) -> None:
        if module.training:
            raise ClassifierError(
                "the model is in training mode (dropout and batch norm would be live): "
                "call model.eval()"
            )
        self.module = module
        self.search: Callable[[Tensor], Tensor] = module
        self.tiles = tuple(sorted(tiles))
        self.invariant = invariant
        self.seconds = seconds
        self.fast = True
        self.work = Work()

    def tile_for(self, n: int) -> int:
        """Smallest tile that holds `n` samples, or the largest tile."""
        return next((tile for tile in self.tiles if tile >= n), self.tiles[-1])

    def _forward(self, module: Callable[[Tensor], Tensor], tile: Tensor) -> Tensor:
        logits = module(tile)
        if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(tile):
            found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ClassifierError(
                f"the model returned {found} for a batch of {len(tile)}: a classifier returns "
                "logits of shape (batch, classes)"
            )
        if logits.shape[1] < 2:
            raise ClassifierError("the model has one output: at least two classes are needed")
        self.work.forwards += len(tile)
        return logits

    @staticmethod
    def pad(x: Tensor, size: int) -> Tensor:
        """Repeat the first sample until there are `size`."""
        return x if len(x) == size else torch.cat([x, x[:1].expand(size - len(x), *x.shape[1:])])

    def logits(self, x: Tensor) -> Tensor:
        """Logits of any number of samples.

        Args:
            x: (n, *shape), n >= 1, on the model's device.

        Returns:
            (n, classes).
        """
        found = []
        with torch.inference_mode():
            for start in range(0, len(x), self.tiles[-1]):
                part = x[start : start + self.tiles[-1]]
                padded = self.pad(part, self.tile_for(len(part))).clone()  # it may be written on
                found.append(self._forward(self.module, padded)[: len(part)].clone())
        return torch.cat(found)

    def logits_and_gradient(
        self, x: Tensor, loss: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Logits and the gradient of a per-sample loss, for exactly one tile.

        Args:
            x: (tile, *shape), of a size in `tiles`.
            loss: Function of the logits that returns (tile,); row `i` may depend on row `i` only.

        Returns:
            Logits (tile, classes), gradient (tile, *shape).
        """
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            with FastInputGradients() if self.fast else nullcontext():
                logits = self._forward(self.search, x.clone())  # a model may write on its input
            gradient = None
            if logits.requires_grad:
                (gradient,) = torch.autograd.grad(loss(logits).sum(), x, allow_unused=True)
            if gradient is None:
                raise ClassifierError(
                    "the model's output has no gradient with respect to its input: "
                    "an attack by gradient cannot run on it"
                )
        self.work.backwards += len(x)
        return logits.detach(), gradient


@dataclass(frozen=True)
class _Probe:
    logits: Tensor
    gradient: Tensor
    seconds: float

    def same(self, other: _Probe) -> bool:
        """Bit equality on the samples that both hold."""
        n = min(len(self.logits), len(other.logits))
        return torch.equal(self.logits[:n], other.logits[:n]) and torch.equal(
            self.gradient[:n], other.gradient[:n]
        )


def _probe(classifier: TiledClassifier, x: Tensor, size: int, blanks: int = 0) -> _Probe:
    """Run the samples `x`, repeated to fill one tile, behind `blanks` other rows.

    They give a sample another place and other company (zeros, and the largest and smallest value
    of all): a mean or a maximum over the batch moves.
    """
    repeats = -(-size // len(x))
    tile = x.repeat(repeats, *[1] * (x.dim() - 1))
    company = torch.zeros_like(tile[:blanks])
    company[0::3], company[1::3] = x.amax(), x.amin()
    tile = torch.cat([company, tile])[:size]
    started = time.perf_counter()
    logits, gradient = classifier.logits_and_gradient(tile, lambda z: z.logsumexp(1) - z[:, 0])
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
    seconds = time.perf_counter() - started
    rows = slice(blanks, blanks + len(x))
    return _Probe(logits[rows], gradient[rows], seconds)


def _fast_agrees(classifier: TiledClassifier, x: Tensor) -> bool:
    """Whether the faster gradients work for this model, and are its gradients."""
    size = classifier.tiles[0]
    try:
        classifier.fast = True
        fast = _probe(classifier, x, size)
    except Exception:  # whatever it is: the plain pass then shows whether it is the model's own
        return False
    finally:
        classifier.fast = False
    plain = _probe(classifier, x, size)
    gap = (plain.gradient - fast.gradient).abs().max()
    same = torch.equal(plain.logits, fast.logits)
    return same and bool(gap <= 1e-4 * plain.gradient.abs().max())


def _check(plain: _Probe, again: _Probe, moved: _Probe) -> None:
    if not torch.isfinite(plain.logits).all():
        row = int((~torch.isfinite(plain.logits)).any(1).nonzero()[0])
        raise ClassifierError(f"the model's logits are NaN or Inf on sample {row} of the data")
    if not torch.equal(plain.logits, again.logits):
        gap = float((plain.logits - again.logits).abs().max())
        raise ClassifierError(
            "the model's output is random (flag random-output): two passes on the same input "
            f"differ by up to {gap:.3g}; make it deterministic, or average it over draws of "
            "torch's global generator (robust-eval --eot DRAWS; attacks.eot.Expectation), to "
            "evaluate it"
        )
    gap = float((plain.logits[: len(moved.logits)] - moved.logits).abs().max())
    if gap > 1e-4 * (float(plain.logits.abs().max()) + 1e-12):
        raise ClassifierError(
            "the output for a sample depends on the other samples of its batch: such a model has "
            "no per-sample verdict (is a normalisation over the batch live?)"
        )


def prepare(module: nn.Module, x: Tensor, batch_size: int | None = None) -> TiledClassifier:
    """Choose tiles by measurement and check that the model can be evaluated at all.

    The smallest candidate is the reference. A larger one is kept when its logits and gradients
    equal the reference's bit for bit, also with every sample at another place. `batch_size` caps
    the tile; None keeps sizes up to the largest that is fast. Neither changes a bit of a result.

    Args:
        module: Model in eval mode on its device.
        x: Real samples for the probe, (n, *shape), on the same device; up to 64 are used.
        batch_size: Largest number of samples in one pass, or None to measure.

    Raises:
        ClassifierError: Training mode, wrong input or output shape, NaN or Inf logits, random
            output, no gradient, or samples of a batch that influence each other.
    """
    candidates = CUDA_TILES if x.is_cuda else CPU_TILES
    classifier = TiledClassifier(module, candidates[:1])
    samples = x[:64]
    try:
        classifier.fast = _fast_agrees(classifier, samples)
        reference = _probe(classifier, samples, candidates[0])
        again = _probe(classifier, samples, candidates[0])
        elsewhere = _probe(classifier, samples, candidates[0], blanks=13)
    except ClassifierError:
        raise
    except Exception as error:  # a stranger's forward can raise anything
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise ClassifierError(
            f"the model cannot evaluate samples of shape {tuple(x.shape[1:])}: {reason}"
        ) from error
    _check(reference, again, elsewhere)
    tiles = [candidates[0]]
    for size in candidates[1:]:
        if size > (batch_size or 4 * len(x)):
            break
        try:
            if _probe(classifier, samples, size, blanks=13).same(reference):
                tiles.append(size)
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            break
    speeds = [_probe(classifier, samples, size).seconds / size for size in tiles]  # warm by now
    if batch_size is None:
        # the largest that is about as fast as any: the attack's own bookkeeping is per pass
        fast = [i for i, taken in enumerate(speeds) if taken <= 1.15 * min(speeds)]
        tiles = tiles[: fast[-1] + 1]
    speed = speeds[len(tiles) - 1]
    # sizes between, so that few samples are not padded far: the same test, no timing
    for size in range(candidates[0], tiles[-1], max(candidates[0], tiles[-1] // 8)):
        if size not in tiles and _probe(classifier, samples, size, blanks=13).same(reference):
            tiles.append(size)
    prepared = TiledClassifier(module, tuple(tiles), elsewhere.same(reference), speed)
    prepared.fast = classifier.fast
    return prepared
