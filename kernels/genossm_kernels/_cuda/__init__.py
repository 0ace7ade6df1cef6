"""Run-time compilation and launch of the CUDA C++ kernels; no compiler to install. Internal to the operators."""
