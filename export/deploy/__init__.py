"""Artifacts into the folders that inference servers read: one module a server, see `docs/how-to/deploy.md`.

``artifacts`` checks what is deployed, ``options`` holds what may be chosen, ``folder`` writes versions so that a
running server never sees half of one. ``triton``, ``openvino``, ``mlserver`` and ``kserve`` know one layout each.
"""
