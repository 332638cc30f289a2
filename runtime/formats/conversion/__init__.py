"""From raw detector frames and stage positions to a scan: crop, bin, mask, scale, geometry."""
