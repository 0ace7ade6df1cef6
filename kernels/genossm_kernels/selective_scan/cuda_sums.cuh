// Sums of what `gradients` (cuda_backward.cu) leaves of each segment and of each part of the channels.
#pragma once
#include "cuda_common.cuh"

// Sums over segments, in their order: gradients of A, D and the bias.
extern "C" __global__ void __launch_bounds__(128) sum_parameters(const ScanParams p) {
    const i64 item = static_cast<i64>(blockIdx.x) * 128 + threadIdx.x;
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
extern "C" __global__ void __launch_bounds__(256) sum_maps(const ScanParams p) {
    const i64 item = static_cast<i64>(blockIdx.x) * 256 + threadIdx.x;
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

GENOSSM_KERNEL(sum_parameters, ScanParams)
GENOSSM_KERNEL(sum_maps, ScanParams)
