"""The ReLUs of an analysis as one flat row of neurons, and analyses of parts of its input sets.

A part is where some unstable neurons have a known sign. Its intervals are those of the whole set,
cut at 0 in the neurons of known sign; each part is a sample of an analysis of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from certify.columns import arranged
from certify.crown import _with_errors
from certify.interval import Interval, as_interval, some_samples
from certify.linear import Analysis, Lines, Rows, lower_bounds
from certify.lines import relu_lines
from certify.maps import affine
from certify.propagate import Value
from certify.steps import STEPS, Call

aten = torch.ops.aten


@dataclass(frozen=True, eq=False)
class Relus:
    """Where the ReLUs of an analysis are; its n samples have N neurons in all, U of them unstable.

    Attributes:
        known: The analysis.
        calls: Each ReLU with the node it takes, in order.
        place: Where the neurons of a node are in the flat row.
        lower: Lower ends of all neurons' inputs, (n, N).
        upper: Upper ends.
        unstable: Places of the unstable neurons of each sample, ascending, filled up by N; int64
            (n, U) for the U of the sample that has most.
    """

    known: Analysis
    calls: tuple[tuple[int, int], ...]
    place: Mapping[int, slice]
    lower: Tensor
    upper: Tensor
    unstable: Tensor

    @classmethod
    def of(cls, known: Analysis) -> Relus:
        """Find the ReLUs of an analysis; one that is taken of the input itself is left alone."""
        calls, place, ends = [], {}, []
        width, samples = 0, len(known.inputs)
        for node in known.program.nodes:
            if node.op is not aten.relu.default or node.index not in known.lines:
                continue
            (source,) = node.inputs
            if known.program.graph.nodes[source].op is None:
                continue
            calls.append((node.index, source))
            if source not in place:
                box = as_interval(known.values[source])
                ends.append((box.lower.reshape(samples, -1), box.upper.reshape(samples, -1)))
                place[source] = slice(width, width + ends[-1][0].shape[1])
                width = place[source].stop
        none = known.inputs.box.lower.new_zeros(samples, 0)
        lower = torch.cat([none, *(low for low, _ in ends)], 1)
        upper = torch.cat([none, *(high for _, high in ends)], 1)
        crossing = (lower < 0) & (upper > 0)
        count = int(crossing.sum(1).max()) if width else 0
        first = torch.argsort(~crossing, dim=1, stable=True)[:, :count]
        held = torch.arange(count, device=first.device) < crossing.sum(1, keepdim=True)
        return cls(known, tuple(calls), place, lower, upper, torch.where(held, first, width))

    @property
    def width(self) -> int:
        """Number N of neurons."""
        return self.lower.shape[1]

    def start_slopes(self, sample: Tensor) -> Tensor:
        """CROWN's lower slopes of the unstable neurons of samples, (len(sample), U)."""
        index = self.unstable[sample].clamp(max=max(0, self.width - 1))
        high, low = self.upper[sample].gather(1, index), self.lower[sample].gather(1, index)
        return (high > -low).to(low.dtype)

    def whole(self, sample: Tensor) -> Part:
        """The sets of samples (p,) as parts: no sign is known."""
        sign = torch.zeros(len(sample), self.unstable.shape[1], dtype=torch.int8)
        return self.restrict(sample, sign.to(sample.device))

    def restrict(self, sample: Tensor, sign: Tensor) -> Part:
        """Return the analysis of parts.

        Args:
            sample: The sample of each of p parts, int64 (p,).
            sign: Sign of each unstable neuron, int8 (p, U): 1, -1, or 0 where it is not known.
        """
        known, index = self.known, self.unstable[sample]
        low, high = self.lower[sample], self.upper[sample]
        cut = self._spread(index, sign)
        low = torch.where(cut > 0, low.clamp(min=0), low)
        high = torch.where(cut < 0, high.clamp(max=0), high)
        needed = {i: known.values[i] for i in self._needed()}
        part = subset(replace(known, values=needed), sample)
        price = torch.zeros_like(low)
        free = {}
        for node, source in self.calls:
            where = self.place[source]
            shape = as_interval(part.values[source]).shape
            box = Interval(low[:, where].reshape(shape), high[:, where].reshape(shape))
            part.values[source] = box
            # drawn with the steepest slope below: rounding is charged for any in [0, 1]
            steepest = relu_lines(box, torch.ones_like(box.lower))
            part.lines[node] = _with_errors(part, source, steepest)
            free[node] = (box.lower < 0) & (box.upper > 0)
            slop = box.magnitude * (4 * known.rounding.unit)
            if source in known.absorbed:
                slop = slop + part.errors[source]
            price[:, where] = slop.reshape(len(price), -1)
        price = torch.cat([price, price.new_zeros(len(price), 1)], 1).gather(1, index)
        return Part(self, part, sample, index, sign, free, price)

    def _needed(self) -> list[int]:
        """Nodes whose intervals passes end at, and those that ReLUs take."""
        program = self.known.program
        if self.known.steps:  # which are made anew from the intervals of what they take
            return list(self.known.values)
        ends = [
            n.index for n in program.nodes if not program.apart(n) or affine(program, n) is None
        ]
        apart = program.graph.apart  # no pass gets to the others
        ends = [i for i in ends if i in apart and i not in self.known.lines]
        return [*program.inputs.values(), *ends, *self.place]

    def _spread(self, index: Tensor, values: Tensor) -> Tensor:
        """Put values of unstable neurons (p, U) to their places (p, N), with 0 elsewhere."""
        full = values.new_zeros(len(values), self.width + 1)
        return full.scatter(1, index, values)[:, : self.width]


@dataclass(frozen=True, eq=False)
class Part:
    """Parts of input sets, each bounded by lines whose lower slopes are free.

    Attributes:
        relus: Of the whole.
        known: The analysis of the parts.
        sample: The sample of each part, int64 (p,).
        index: Places of the unstable neurons, (p, U).
        sign: Their known signs, (p, U).
        free: By ReLU, where it is unstable and its sign not known.
        price: What rounding costs for each unit of a multiplier, (p, U).
    """

    relus: Relus
    known: Analysis
    sample: Tensor
    index: Tensor
    sign: Tensor
    free: Mapping[int, Tensor]
    price: Tensor

    def __len__(self) -> int:
        return len(self.index)

    def bound(
        self,
        start: int,
        coefficients: Tensor,
        slopes: Tensor,
        multipliers: Tensor,
        shifts: Mapping[int, Tensor] | None = None,
    ) -> Tensor:
        """Bound one row for each part from below, for whatever slopes and multipliers.

        The inequality `sign * z >= 0` of a neuron of known sign is taken off with a multiplier
        (beta-CROWN, Wang et al., NeurIPS 2021): what is left is below the row.

        Args:
            start: The node the rows are of.
            coefficients: (p, *shape of the node), or (p, entries).
            slopes: Lower slopes of unstable neurons, (p, U); cut to [0, 1].
            multipliers: (p, U); cut to >= 0, and 0 where no sign is known.
            shifts: Zeros by ReLU, (p, *shape), whose gradient is wanted: it is the coefficient of
                the ReLU's value.

        Returns:
            float64, (p,).
        """
        below = self.relus._spread(self.index, legal(slopes))
        beta = torch.where(self.sign != 0, multipliers.clamp(min=0), 0.0)
        taken = self.relus._spread(self.index, -beta * self.sign)
        lines = dict(self.known.lines)
        extra = {}
        for node, source in self.relus.calls:
            where, shape = self.relus.place[source], self.free[node].shape
            old = lines[node]
            slope = torch.where(self.free[node], below[:, where].reshape(shape), old.lower_slope)
            lines[node] = replace(old, lower_slope=slope)
            if shifts is not None:
                shift = shifts[node]
                lines[node] = replace(
                    lines[node],
                    lower_offset=old.lower_offset + shift,
                    upper_offset=old.upper_offset + shift,
                )
            extra[source] = taken[:, where].reshape(shape)
        if not bool((self.sign != 0).any()):
            extra = {}
        known = replace(self.known, lines=lines)
        coefficients = coefficients.reshape(-1, *known.program.shape(start))
        rows = Rows.evenly(len(self), 1, coefficients.device)
        form = arranged(known.program, coefficients, len(self))
        found = lower_bounds(known, start, form, rows, extra=extra)
        price: Tensor = (beta.double() * self.price.double()).sum(1) * (1 + 2**-20)
        return found - price

    def take(self, rows: Tensor) -> Part:
        """Some of the parts."""
        part = subset(self.known, rows)
        free = {i: some_samples(mask, rows, len(self)) for i, mask in self.free.items()}
        return Part(
            self.relus,
            part,
            self.sample[rows],
            self.index[rows],
            self.sign[rows],
            free,
            self.price[rows],
        )

    def split(self, parts: Tensor, neuron: Tensor, side: Tensor) -> Part:
        """Some of the parts, each with the sign of one more neuron known.

        Args:
            parts: Which ones, int64 (c,).
            neuron: Place among the unstable neurons, int64 (c,).
            side: The sign, int8 (c,).
        """
        sign = self.sign[parts].scatter(1, neuron[:, None], side[:, None])
        return self.relus.restrict(self.sample[parts], sign)

    def with_box(self, x: int, box: Interval) -> Part:
        """The same with another box of inputs (one that carries gradients, say)."""
        inputs = replace(self.known.inputs, box=box)
        known = replace(self.known, inputs=inputs, values={**self.known.values, x: box})
        return replace(self, known=known)

    def slopes_of(self, node: int, slopes: Tensor) -> Tensor:
        """The lower slopes (p, U) of one ReLU's neurons, (p, *shape), 0 where they are not free."""
        source = dict(self.relus.calls)[node]
        full = self.relus._spread(self.index, slopes)[:, self.relus.place[source]]
        return torch.where(self.free[node], full.reshape(self.free[node].shape), 0.0)


def legal(slopes: Tensor) -> Tensor:
    """Slopes cut to [0, 1], where a line through 0 is below ReLU; NaN stays."""
    return slopes.clamp(0, 1)


def subset(known: Analysis, index: Tensor) -> Analysis:
    """The analysis of some of the samples."""
    samples, apart = len(known.inputs), known.program.graph.apart

    def some(values: Tensor) -> Tensor:
        return some_samples(values, index, samples)

    values: dict[int, Value] = {
        i: as_interval(v).each(some) for i, v in known.values.items() if i in apart
    }
    nodes = known.program.graph.nodes
    calls = {i: Call(known.program, nodes[i], values, known.rounding) for i in known.steps}
    made = {i: STEPS[nodes[i].op].make(call) for i, call in calls.items()}
    return replace(
        known,
        inputs=known.inputs[index],
        values=values,
        steps={i: step for i, step in made.items() if step is not None},
        lines={
            i: Lines(
                some(lines.lower_slope),
                some(lines.lower_offset),
                some(lines.upper_slope),
                some(lines.upper_offset),
            )
            for i, lines in known.lines.items()
        },
        errors={i: some(error) for i, error in known.errors.items()},
    )
