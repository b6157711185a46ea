"""What every room needs once: bundles, whole files, downloads, progress."""
