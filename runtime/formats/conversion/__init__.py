"""Conversion of raw detector frames and stage positions into a scan: crop, bin, mask, scale, geometry."""
