"""InpaintDetector: an embedder, a classifier, calibration, and the option to decline."""
