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

from attacks import memory
from attacks.convolution import FastInputGradients
from attacks.errors import ClassifierError, TooLittleMemoryError
from attacks.precision import full_precision

CPU_TILES = (32, 64, 128, 256)
CUDA_TILES = (256, 512, 1024, 2048)
_KEPT = 16
"""Inputs that an attack remembers of a sample, at most, beside its passes."""
_UNSURE = 1.25
"""How much more a larger pass may take than is foreseen."""
_DRAWING = 96 << 20
"""Bytes of what draws pictures."""


@contextmanager
def exact_passes() -> Iterator[None]:
    """Deterministic kernels in full float32 inside; the caller's settings come back."""
    cudnn = torch.backends.cudnn
    wanted = {"enabled": True, "benchmark": False, "deterministic": True}
    before = {name: getattr(cudnn, name) for name in wanted}
    try:
        for name, value in wanted.items():
            setattr(cudnn, name, value)
        kind = "cuda" if torch.cuda.is_available() else "cpu"
        with (
            full_precision(),
            torch.inference_mode(False),
            torch.autocast("cpu", enabled=False),
            torch.autocast(kind, enabled=False),
        ):
            yield
    finally:
        for name, value in before.items():
            setattr(cudnn, name, value)


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
        most: Samples of a pass that memory has room for; None: any number. A larger tile is
            evaluated in parts, which changes no bit as long as it is one of `tiles`.
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
        self.most: int | None = None
        self.work = Work()

    def tile_for(self, n: int) -> int:
        """Smallest tile that holds `n` samples, or the largest that there is room for."""
        fit = [tile for tile in self.tiles if tile <= (self.most or tile)] or self.tiles[:1]
        return next((tile for tile in fit if tile >= n), fit[-1])

    def _in_parts(self, rows: int, run: Callable[[slice], None]) -> None:
        """Run a pass over `rows` samples, in parts as large as memory has room for.

        Raises:
            TooLittleMemoryError: It has none for one sample.
        """
        done = 0
        while done < rows:
            size = rows - done
            if self.most is not None and size > self.most:
                size = max([t for t in self.tiles if t <= self.most], default=self.most)
            try:
                run(slice(done, done + size))
            except Exception as error:
                if not memory.exhausted(error):
                    raise
            else:
                done += size
                continue
            self.shrink(size)

    def shrink(self, failed: int) -> None:
        """Make passes half as large (a tile, if there is one), since one of `failed` did not fit.

        Raises:
            TooLittleMemoryError: It was of one sample.
        """
        device = next((p.device for p in self.module.parameters()), torch.device("cpu"))
        if failed == 1:
            raise memory.too_little("a pass of the model", device)
        self.most = max([t for t in self.tiles if t <= failed // 2], default=failed // 2)
        memory.free(device)
        less = self.most < self.tiles[0]
        memory.tell(
            f"out of memory in a pass over {failed} samples: going on with {self.most}"
            + (", so that last bits can differ" if less else "")
        )

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
        found, start = [], 0
        with torch.inference_mode():
            while start < len(x):
                size = self.tile_for(len(x) - start)
                part = x[start : start + size]
                found.append(self._of_tile(self.pad(part, size))[: len(part)])
                start += size
        return torch.cat(found)

    def _of_tile(self, x: Tensor) -> Tensor:
        found: list[Tensor] = []
        # the model may write on what it gets, and hand out what it will write on
        self._in_parts(
            len(x), lambda rows: found.append(self._forward(self.module, x[rows].clone()).clone())
        )
        return found[0] if len(found) == 1 else torch.cat(found)

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
        if self.most is None or len(x) <= self.most:
            try:
                return self._with_gradient(x, loss)
            except Exception as error:
                if not memory.exhausted(error):
                    raise
            self.shrink(len(x))
        with torch.no_grad():
            logits = self._of_tile(x)
        slope = _slope(logits, loss)
        gradients: list[Tensor] = []

        def run(rows: slice) -> None:
            part = slope[rows]
            gradients.append(self._with_gradient(x[rows], lambda z: (z * part).sum(1))[1])

        self._in_parts(len(x), run)
        return logits, torch.cat(gradients)

    def _with_gradient(self, x: Tensor, loss: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
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


def _slope(logits: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """Gradient of a loss by the logits."""
    with torch.enable_grad():
        leaf = logits.detach().requires_grad_()
        (slope,) = torch.autograd.grad(loss(leaf).sum(), leaf)
    return slope


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


def fitting(
    classifier: TiledClassifier, x: Tensor, largest: int, max_memory: int, gradients: bool
) -> int:
    """How many samples a pass can have so that its peak stays below a bound.

    What the next size takes is foreseen from the last two: a pass takes so much, and so much for
    each sample.

    Args:
        classifier: The model, in any number format.
        x: Samples in that format, (n, *shape).
        largest: The most that are wanted.
        max_memory: Bytes at peak (`attacks.memory.peak`).
        gradients: Whether passes go back as well.

    Returns:
        A power of two, or `largest`.

    Raises:
        TooLittleMemoryError: One sample takes more.
    """
    spare = 0 if x.is_cuda else _DRAWING
    if gradients:  # the float64 form is to come
        spare += 2 * sum(p.nbytes for p in classifier.module.parameters())
    size, before = 1, 0
    while True:
        tile = x.repeat(-(-size // len(x)), *[1] * (x.dim() - 1))[:size]
        for _ in range(1 if before else 2):  # the first pass of all takes more
            memory.free(x.device)
            memory.reset_peak(x.device)
            used = memory.in_use(x.device)
            if gradients:
                classifier._with_gradient(tile, lambda z: z.logsumexp(1) - z[:, 0])
            else:
                with torch.no_grad():
                    classifier._forward(classifier.module, tile)
        most = memory.peak(x.device) + _KEPT * size * x[0].nbytes
        if not before and most + spare > max_memory:
            raise memory.too_little("an attack", x.device, most + spare)
        growth = 2 * (most - (before or used))
        if size >= largest or most + _UNSURE * growth + spare > max_memory:
            return size
        before, size = most, min(2 * size, largest)


def prepare(
    module: nn.Module,
    x: Tensor,
    batch_size: int | None = None,
    max_memory: int | None = None,
) -> TiledClassifier:
    """Choose tiles by measurement and check that the model can be evaluated at all.

    The smallest candidate is the reference. A larger one is kept when its logits and gradients
    equal the reference's bit for bit, also with every sample at another place. `batch_size` caps
    the tile; None keeps sizes up to the largest that is fast. Neither changes a bit of a result.

    Args:
        module: Model in eval mode on its device.
        x: Real samples for the probe, (n, *shape), on the same device; up to 64 are used.
        batch_size: Largest number of samples in one pass, or None to measure.
        max_memory: Bytes at peak (`attacks.memory.peak`) that passes may take. Below the smallest
            tile's need, tiles are evaluated in parts, and last bits can differ.

    Raises:
        TooLittleMemoryError: One sample needs more than `max_memory`.
        ClassifierError: Training mode, wrong input or output shape, NaN or Inf logits, random
            output, no gradient, or samples of a batch that influence each other.
    """
    candidates = CUDA_TILES if x.is_cuda else CPU_TILES
    classifier = TiledClassifier(module, candidates[:1])
    samples = x[:64]
    try:
        if max_memory is not None:
            most = fitting(classifier, samples, candidates[-1], max_memory, gradients=True)
            classifier.most = most
        classifier.fast = _fast_agrees(classifier, samples)
        reference = _probe(classifier, samples, candidates[0])
        again = _probe(classifier, samples, candidates[0])
        elsewhere = _probe(classifier, samples, candidates[0], blanks=13)
    except (ClassifierError, TooLittleMemoryError):
        raise
    except Exception as error:  # a stranger's forward can raise anything
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise ClassifierError(
            f"the model cannot evaluate samples of shape {tuple(x.shape[1:])}: {reason}"
        ) from error
    _check(reference, again, elsewhere)
    tiles = [candidates[0]]
    for size in candidates[1:]:
        if size > min(batch_size or 4 * len(x), classifier.most or size):
            break
        same = _probe(classifier, samples, size, blanks=13).same(reference)
        if classifier.most is not None and classifier.most < size:  # it was too large for memory
            break
        if same:
            tiles.append(size)
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
    prepared.fast, prepared.most = classifier.fast, classifier.most
    return prepared
