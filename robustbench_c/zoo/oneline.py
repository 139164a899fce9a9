"""Foreign text (library messages, tensor names, validation errors) as one printable line."""

from __future__ import annotations

import pydantic

from robustbench_c.errors import one_line as one_line


def first_fault(error: pydantic.ValidationError) -> str:
    """Return the first fault of a validation error ("field.0: message"), and how many follow."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    where = ".".join(str(part) for part in faults[0]["loc"])
    message = f"{where}: {faults[0]['msg']}" if where else faults[0]["msg"]
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return one_line(message) + more
