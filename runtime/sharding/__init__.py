"""Large scans in parts: each process sums some segments of a scan, and merging adds their sums in order.

* `shard`: the part of a scan that one process takes.
* `part_file`: the file in which it leaves its sums.
* `merge`: from all parts to the object.
"""

from ptychonnx.runtime.sharding.merge import merge_parts
from ptychonnx.runtime.sharding.shard import Shard, reconstruct_shard

__all__ = ["Shard", "merge_parts", "reconstruct_shard"]
