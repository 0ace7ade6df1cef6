"""What the CPU kernels share: vectors of lanes, elementary functions on them, compilation, threads."""
