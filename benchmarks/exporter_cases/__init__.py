"""Small modules that exporters are compared on, written for this comparison; see `benchmarks.exporters`."""

from __future__ import annotations

from importlib import import_module

from benchmarks.exporter_cases.case import Case, Cases

__all__ = ["SUBJECTS", "Case", "Cases", "cases_of"]

# Modules of this package, by the framework that they load.
SUBJECTS = {
    "transforms": "torch",
    "complex_layers": "torch",
    "fourier_networks": "torch",
    "inputs_outputs": "torch",
    "keras_models": "tensorflow",
}


def cases_of(framework: str) -> dict[str, Case]:
    """All modules of a framework, by name, in order; loads the framework."""
    subjects = [subject for subject, of in SUBJECTS.items() if of == framework]
    cases: dict[str, Case] = {}
    for subject in subjects:
        cases |= import_module(f"benchmarks.exporter_cases.{subject}").CASES
    return cases
