"""What was tested, so that nobody can mistake it: scope, model, data, attacker."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from leaderboards.canonical import canonical_json
from leaderboards.errors import one_line
from leaderboards.report.blocks import Block, Facts, Points, Table, Text
from leaderboards.report.subject import Subject
from leaderboards.report.summarypage import criterion
from leaderboards.report.words import ball, plural
from leaderboards.site.words import attacker, count

_LONGEST = 300
_MOST_FIELDS = 40


def scope(subject: Subject) -> Iterator[Block]:
    """Yield what the run covers."""
    manifest = subject.manifest
    protocol = manifest.protocol
    named = (
        f"the protocol {protocol.name}, version {protocol.version}"
        if protocol.name
        else "a protocol that was put together for this run"
    )
    yield Text(
        f"This part reports one run about {subject.kind}: one model, one set of data, one "
        f"attacker, by {named}. It was begun on {manifest.created:%d %B %Y at %H:%M %Z} and has "
        f"{'a verdict for every sample' if subject.summary.complete else 'not come to its end'}."
    )
    kinds = [s for s, steps in (("attacks", subject.attacks), ("proofs", subject.proofs)) if steps]
    yield Text(
        f"It consists of {' and '.join(kinds) or 'the clean step alone'}; Method lists them."
    )


def model_identity(subject: Subject) -> Iterator[Block]:
    """Yield which model it was."""
    model = subject.manifest.model
    facts = [
        ("Name", one_line(model.name, _LONGEST)),
        ("Architecture", one_line(model.architecture, _LONGEST)),
        ("Parameters", count(model.parameters)),
        ("Normalisation", one_line(model.normalisation, _LONGEST)),
        ("SHA-256 of the weights", model.sha256),
    ]
    if (draws := model.draws) is not None:
        facts += [
            (
                "Mean over draws",
                f"{draws.count} of {one_line(draws.base_name, 80)}, seed {draws.seed}",
            ),
            ("SHA-256 of the random model", draws.base_sha256),
        ]
    yield Facts(tuple(facts))
    if model.card:
        yield Text(
            "Model card, as it came with the model. Nothing in it was checked by this run, figures "
            "and licence included."
        )
        yield Facts(tuple(_card(model.card)))


def _card(card: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    told = [(key, value) for key, value in sorted(card.items()) if value not in (None, [], {})]
    for key, value in told[:_MOST_FIELDS]:
        yield one_line(key.replace("_", " "), 60), one_line(_plain(value), _LONGEST)
    if len(told) > _MOST_FIELDS:
        yield "and", f"{len(told) - _MOST_FIELDS} more fields"


def _plain(value: object) -> str:
    """A value of a card as words; manifests are nested at most `strict_json.MAX_DEPTH` deep."""
    if isinstance(value, list):
        mixed = any(isinstance(each, dict | list) for each in value)
        return ("; " if mixed else ", ").join(map(_plain, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} {_inner(each)}" for key, each in value.items())
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else canonical_json(value).decode()


def _inner(value: object) -> str:
    return f"({_plain(value)})" if isinstance(value, dict | list) else _plain(value)


def data_identity(subject: Subject) -> Iterator[Block]:
    """Yield which data they were."""
    data = subject.manifest.data
    yield Facts(
        (
            ("Name", one_line(f"{data.name}, {data.split}", _LONGEST)),
            (
                "Samples",
                f"{count(data.samples)}, by their position: {one_line(data.ids, _LONGEST)}",
            ),
            ("Shape of a sample", " x ".join(map(str, data.shape))),
            ("Classes", one_line(", ".join(data.classes), 2 * _LONGEST)),
            ("Smallest values", _range(data.box_lower)),
            ("Largest values", _range(data.box_upper)),
            ("SHA-256 of the whole set", data.sha256),
            ("SHA-256 of the sample ids", data.ids_sha256),
            ("SHA-256 of the input box", data.box_sha256),
        )
    )


def _range(ends: tuple[float, float]) -> str:
    same = ends[0] == ends[1]
    return f"{ends[0]:g} of every feature" if same else f"{ends[0]:g} to {ends[1]:g} by feature"


def threat(subject: Subject) -> Iterator[Block]:
    """Yield what the attacker may do, in words and symbols."""
    protocol = subject.manifest.protocol
    if protocol.corruption is not None:
        levels = ", ".join(map(str, protocol.corruption.severities))
        yield Text(
            "No adversary: each step is one kind of common corruption (noise, blur, weather, "
            f"compression), applied to every sample at the severities {levels}."
        )
        return
    if protocol.transformation is not None:
        search = protocol.transformation
        yield Text(
            "A search over simple transformations: each step is one family, of which "
            f"{plural(search.levels, 'strength')} are tried, and on what no family breaks alone "
            f"{plural(search.draws, 'mixture')}."
        )
        return
    info, told = protocol.explanation, protocol.threat
    yield Text(f"The attacker knows the model and may {attacker(told)}, within the input box.")
    yield Text(f"In symbols, for a sample x with the label y: {ball(told)}.")
    if info is None:
        yield Text(
            "A sample is robust if every such x' is classified as y: if the margin "
            "m(x') = z_y(x') - max of the other logits is positive on the whole set."
        )
    else:
        yield Text(
            "The explanation e is taken of the class that the model predicts on the clean sample. "
            f"It is stable if {criterion(subject)} between e(x) and e(x') is at most "
            f"{info.criterion.threshold:.4g} for every such x' with the same prediction."
        )
        if info.gamma:
            kind = "of its absolute value" if info.gamma_relative else "in absolute terms"
            yield Text(f"Every weight may move as well, by up to {info.gamma:g} {kind}.")
    facts = [("SHA-256 of the threat model", told.sha256)]
    if told.immutable:
        facts.insert(0, ("Features that may not change", one_line(told.immutable, _LONGEST)))
    yield Facts(tuple(facts))


def sparsity(subject: Subject) -> Iterator[Block]:
    """Yield what the model takes; nothing where the record does not say it."""
    size = subject.manifest.model.size
    if size is None:
        yield Text(
            "The record does not say what the model takes: it is from before that was counted."
        )
        return
    zeros = (size.weights - size.nonzero_weights) / size.weights if size.weights else 0.0
    rows = (
        (
            "weights of linear and convolution layers",
            count(size.weights),
            count(size.nonzero_weights),
        ),
        ("parameters", count(subject.manifest.model.parameters), count(size.nonzero_parameters)),
        ("multiply-adds of one sample", count(size.macs), count(size.nonzero_macs)),
    )
    yield Table(("", "in all", "of weights that are not 0"), rows)
    yield Points(
        (
            f"{zeros:.2%} of the weights are 0.",
            f"The parameters and buffers take {count(size.dense_bytes)} bytes, and "
            f"{count(size.packed_bytes)} with sparse weights as compressed rows.",
        )
    )
