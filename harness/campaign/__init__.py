"""Reconstruction of scans as a user asks for it: of one, of many, and of large ones on several machines.

* `scan_run`: the steps from a scan to its file.
* `many_scans`: several scans, each to its own file; `manifest` remembers which are done.
"""
