// Sums of what `gradients` (cuda_backward.cu) leaves of each segment and of each part of the channels.
#pragma once
#include "cuda_common.cuh"

// Sums over segments, in their order: gradients of A, D and the bias.
__device__ __forceinline__ void sum_parameters(const ScanParams& p, i64 item) {
    const i64 segments = static_cast<i64>(p.batch) * p.segments;
    const int column = static_cast<int>(item % (PADDED_STATE + 2)), channel = static_cast<int>(item / (PADDED_STATE + 2));
    if (channel >= p.channels) return;
    const bool of_A = column < PADDED_STATE;
    if (of_A && column >= p.d_state) return;
    float* target = of_A ? p.grad_A + static_cast<i64>(channel) * p.d_state + column
                         : (column == PADDED_STATE ? p.grad_D : p.grad_bias) + channel;
    if (!of_A && (column == PADDED_STATE ? p.grad_D : p.grad_bias) == nullptr) return;
    const float* source = of_A ? p.A_partial + static_cast<i64>(channel) * PADDED_STATE + column
                               : p.sum_partial + static_cast<i64>(column - PADDED_STATE) * p.channels + channel;
    const i64 stride = static_cast<i64>(p.channels) * (of_A ? PADDED_STATE : 2);
    double sum = 0.;
#pragma unroll 8
    for (i64 k = 0; k < segments; ++k) sum += source[k * stride];
    *target = static_cast<float>(sum);
}

// Sums over the parts of a group, in their order: gradients of B and C, four at a time.
__device__ __forceinline__ void sum_maps(const ScanParams& p, i64 item) {
    const int column = static_cast<int>(item % (PADDED_STATE / 2)) * 4;
    const i64 cell = item / (PADDED_STATE / 2);  // (batch, length)
    const i64 cells = static_cast<i64>(p.batch) * p.length;
    const bool of_B = column < PADDED_STATE;
    const int state = of_B ? column : column - PADDED_STATE;
    if (cell >= cells || state >= p.d_state) return;
    const int parts = p.runs / p.groups * p.parts_per_run;
    const i64 row = cell / p.length * (of_B ? p.grad_B_batch : p.grad_C_batch) +
                    cell % p.length * (of_B ? p.grad_B_row : p.grad_C_row);
    for (int group = 0; group < p.groups; ++group) {
        float sum[4] = {0.f, 0.f, 0.f, 0.f};
        for (int k = 0; k < parts; ++k) {
            float part[4];
            load_four(p.map_partial + ((static_cast<i64>(group) * parts + k) * cells + cell) * 2 * PADDED_STATE + column, part);
#pragma unroll
            for (int j = 0; j < 4; ++j) sum[j] += part[j];
        }
        storage_t* target = (of_B ? p.grad_B : p.grad_C) + row + group * p.d_state + state;
        if (p.whole_map_rows) store_cell<true>(target, 4, sum);
        else store_cell<false>(target, p.d_state - state, sum);
    }
}

// Both in one launch, the parameters first: their few threads take longest.
constexpr int SUM_THREADS = 256;
extern "C" __global__ void __launch_bounds__(SUM_THREADS) sum_up(const ScanParams p) {
    const int parameter_blocks = (p.channels * (PADDED_STATE + 2) + SUM_THREADS - 1) / SUM_THREADS;
    const int block = static_cast<int>(blockIdx.x);
    if (block < parameter_blocks) sum_parameters(p, static_cast<i64>(block) * SUM_THREADS + threadIdx.x);
    else sum_maps(p, static_cast<i64>(block - parameter_blocks) * SUM_THREADS + threadIdx.x);
}

GENOSSM_KERNEL(sum_up, ScanParams)
