"""Read scans, run artifacts and stitch their patches; needs no training framework."""
