"""Names in an InferenceService that KServe does not know: run by a Python that has `kserve`, with the YAML on stdin."""

from __future__ import annotations

import re
import sys

import kserve
import yaml
from kubernetes import client


def unknown(document: object, kind: str, where: str) -> list[str]:
    """Dotted paths of all keys that KServe's description of a type does not list."""
    of_list, of_dict = (
        re.fullmatch(r"[Ll]ist\[(.+)\]", kind),
        re.fullmatch(r"[Dd]ict[(\[]str, (.+)[)\]]", kind),
    )
    if of_list:
        return [bad for item in document for bad in unknown(item, of_list[1], where)]
    if of_dict:
        return [
            bad for key, value in document.items() for bad in unknown(value, of_dict[1], f"{where}.{key}")
        ]
    model = getattr(kserve, kind, None) or getattr(client, kind, None)
    if model is None:
        return [] if not isinstance(document, dict | list) else [where]
    names = {given: name for name, given in model.attribute_map.items()}
    return [
        bad
        for key, value in document.items()
        for bad in (
            unknown(value, model.openapi_types[names[key]], f"{where}.{key}")
            if key in names
            else [f"{where}.{key}"]
        )
    ]


if __name__ == "__main__":
    print(*unknown(yaml.safe_load(sys.stdin), "V1beta1InferenceService", "service"), sep="\n", end="")
