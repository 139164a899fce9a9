"""`robust-shrink`: write a pruned model anew without what does nothing, and check that it holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustbench_c.cli import options
from robustbench_c.cli.app import new_app, run_app
from robustbench_c.errors import ModelError, UsageError

if TYPE_CHECKING:
    from robustbench_c.data import Dataset
    from robustbench_c.zoo.cards import Card, Draft
    from robustbench_c.zoo.loading import LoadedModel

app = new_app()


def main() -> None:
    """Run the command line."""
    run_app(app, "robust-shrink", stopped="stopped; nothing was written")


@app.command()
def shrink(
    model: options.Model = None,
    out: Annotated[Path, typer.Option(help="Folder of the smaller model.")] = Path("models"),
    name: Annotated[str | None, typer.Option(help="Its name [the model's, with -small].")] = None,
    data: options.Data = None,
    samples: Annotated[
        int, typer.Option(min=1, help="Samples on which the logits must stay the same.")
    ] = 1000,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Write over a model of this name.")
    ] = False,
    split: options.Split = "test",
    data_dir: options.DataDir = None,
    label_column: options.LabelColumn = None,
    box: options.Box = None,
    arch: options.Arch = None,
    arch_args: options.ArchArgs = None,
    mean: options.Mean = None,
    std: options.Std = None,
) -> None:
    """Make a pruned model physically smaller: dead channels go, sparse weights become CSR."""
    if model is None:
        raise UsageError("give a --model (robust-eval --list shows those of the zoo)")
    from robustbench_c.zoo.deploying import deploy
    from robustbench_c.zoo.oneline import one_line

    card = options.card_of(model)
    if card is None and arch is None:
        raise ModelError(
            f"{one_line(model)} has no card: only networks of the zoo's architectures can shrink; "
            "name its own with --arch"
        )
    dataset = options.load_data(
        data or options.data_of(card), split, data_dir, label_column, box
    ).head(samples)
    loaded = options.load_model(model, card, dataset, "cpu", arch, arch_args, mean, std, False)
    draft = _draft(loaded, card, dataset, arch, arch_args, name)
    weights = out / f"{draft.name}.safetensors"
    if weights.exists() and not overwrite:
        raise UsageError(f"{weights} is there already: give another --name, or --overwrite")
    found = deploy(loaded.module, draft, dataset.x, out)
    if found.kept is not None:
        print(f"notice: all channels are kept: {found.kept}")
    before, after = (" ".join(map(str, widths)) for widths in found.widths)
    print(f"widths of the layers: {before} -> {after}")
    dense = sum(t.numel() * t.element_size() for t in loaded.module.state_dict().values())
    print(f"bytes: {dense:,} (dense) -> {weights.stat().st_size:,}")
    if found.differences:
        largest = ", ".join(f"{d:.1e} in {str(k)[6:]}" for k, d in found.differences.items())
        told = f"differ by rounding: at most {largest}, of the largest"
        print(f"logits of {len(dataset)} samples {told}")
    else:
        print("every weight is as it was: there are no logits to compare")
    print(f"wrote {weights} with its card")


def _draft(
    loaded: LoadedModel,
    card: Card | None,
    data: Dataset,
    arch: str | None,
    arch_args: str | None,
    name: str | None,
) -> Draft:
    """The card of the smaller model, before it is known how small it gets."""
    import json

    from pydantic import ValidationError

    from robustbench_c.zoo.cards import Draft
    from robustbench_c.zoo.normalized import Normalized
    from robustbench_c.zoo.oneline import first_fault

    fields: dict[str, object]
    if card is not None:
        fields = {key: value for key, value in dict(card).items() if key != "sha256"}
    else:
        fields = {"architecture": arch, "arguments": json.loads(arch_args or "{}")}
        fields |= {"input_shape": data.shape, "classes": data.classes, "licence": "not stated"}
        if isinstance(loaded.module, Normalized):
            fields["mean"] = tuple(loaded.module.mean.flatten().tolist())
            fields["std"] = tuple(loaded.module.std.flatten().tolist())
    try:
        return Draft.model_validate(fields | {"name": name or f"{loaded.name}-small"})
    except ValidationError as error:
        raise UsageError(f"no card can say this of the model: {first_fault(error)}") from error
