"""Where a result comes from: model, data, protocol and machine, as lists of names and values."""

from __future__ import annotations

from typing import Any

from leaderboards.canonical import canonical_json
from leaderboards.entries import Entry
from leaderboards.site.words import attacker, count

_LONGEST_CARD = 40
"""Fields of a model card that are shown."""

Facts = list[tuple[str, str]]


def provenance(entry: Entry) -> dict[str, Facts]:
    """Return sections of facts by their title."""
    sections = {
        "Model": _model(entry),
        "Model card": _card(entry.manifest.model.card),
        "Data": _data(entry),
        "Threat model and protocol": _protocol(entry),
        "Run": _run(entry),
    }
    return {title: facts for title, facts in sections.items() if facts}


def _model(entry: Entry) -> Facts:
    model = entry.manifest.model
    facts = [
        ("Name", model.name),
        ("Architecture", model.architecture),
        ("Parameters", count(model.parameters)),
        ("Normalisation", model.normalisation),
        ("SHA-256 of the weights", model.sha256),
    ]
    if (size := model.size) is not None:
        zeros = 1 - size.nonzero_weights / size.weights if size.weights else 0.0
        facts += [
            ("Weights that are not 0", f"{count(size.nonzero_weights)} of {count(size.weights)} "
             f"(sparsity {100 * zeros:.2f}%)"),
            ("Multiply-adds", f"{count(size.macs)}, {count(size.nonzero_macs)} with weights not 0"),
            ("Bytes", f"{count(size.dense_bytes)} dense, {count(size.packed_bytes)} packed"),
        ]  # fmt: skip
    if (draws := model.draws) is not None:
        facts.append(("Mean over draws of", f"{draws.base_name}: {draws.count}, seed {draws.seed}"))
    return facts


def _card(card: dict[str, Any] | None) -> Facts:
    """What the submitter says of the model; nothing of it was checked."""
    return [
        (key.replace("_", " "), value if isinstance(value, str) else canonical_json(value).decode())
        for key, value in sorted((card or {}).items())
        if value is not None
    ][:_LONGEST_CARD]


def _data(entry: Entry) -> Facts:
    data = entry.manifest.data
    low, high = data.box_lower[0], data.box_upper[1]
    return [
        ("Name", f"{data.name}, {data.split}"),
        ("Samples", f"{count(data.samples)}: {data.ids}"),
        ("Shape", " x ".join(map(str, data.shape))),
        ("Classes", ", ".join(data.classes)),
        ("Box", f"{low:g} to {high:g}"),
        ("SHA-256 of the data", data.sha256),
        ("SHA-256 of the sample ids", data.ids_sha256),
        ("SHA-256 of the box", data.box_sha256),
    ]


def _protocol(entry: Entry) -> Facts:
    protocol = entry.manifest.protocol
    threat = protocol.threat
    facts = [("Name", f"{protocol.name}, version {protocol.version}")] if protocol.name else []
    facts += [
        ("Attacker", f"may {attacker(threat)}"),
        ("Immutable features", threat.immutable or "none"),
        ("SHA-256 of the threat model", threat.sha256),
        ("SHA-256 of the protocol", entry.manifest.protocol_sha256),
        ("Verdict rules", f"version {protocol.rules}"),
    ]
    if (info := protocol.explanation) is not None:
        told = {k: v for k, v in info.model_dump(mode="json").items() if k != "monotone"}
        facts.append(("Explanation", parameters(told)))
    if protocol.corruption is not None:
        facts.append(("Severities", ", ".join(map(str, protocol.corruption.severities))))
    return facts


def _run(entry: Entry) -> Facts:
    manifest = entry.manifest
    return [
        ("Id", manifest.run_id),
        ("Begun", manifest.created.isoformat()),
        ("Identity", entry.summary.identity),
        ("Seed", str(manifest.seed)),
        ("Device", f"{manifest.device}, {manifest.device_name}, {manifest.threads} threads"),
        ("Number format", manifest.dtype),
        ("Tiles", ", ".join(map(str, manifest.tiles))),
        ("Platform", manifest.platform),
        ("robustbench-c", manifest.tool_version),
        ("Versions", parameters(dict(manifest.versions))),
        ("Reproducible", _reproducible(entry)),
    ]


def _reproducible(entry: Entry) -> str:
    if not entry.manifest.reproducible:
        return "no: it is not ranked"
    return "yes, but for last bits, as memory was short" if entry.summary.notices else "yes"


def parameters(told: dict[str, Any]) -> str:
    """Return settings as `name value, ...`, in their order; nested ones as JSON."""
    return ", ".join(
        f"{key} {canonical_json(value).decode() if isinstance(value, dict | list) else value}"
        for key, value in told.items()
    )
