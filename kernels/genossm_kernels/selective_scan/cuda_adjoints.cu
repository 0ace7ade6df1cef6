// What enters each segment's end in the backward selective scan: the adjoint of the state there; CUDA.md derives it.
#include "cuda_segments.cuh"

extern "C" __global__ void __launch_bounds__(32 * SEGMENT_WARPS, SEGMENT_BLOCKS) segment_adjoints(const ScanParams p) {
    GENOSSM_SHARED(shared);
    WarpWork work = warp_work(p, p.segments - 1);
    if (!work.valid) return;
    ++work.segment;  // nothing precedes the first
    sum_segment<true>(p, work, shared + threadIdx.x / 32 * SegmentFloats<true>::TOTAL);
}

extern "C" __global__ void __launch_bounds__(32 * CARRY_WARPS) carry_adjoints(const ScanParams p) {
    GENOSSM_SHARED(shared);
    carry_across<true>(p, shared);
}

GENOSSM_KERNEL(segment_adjoints, ScanParams)
GENOSSM_KERNEL(carry_adjoints, ScanParams)
