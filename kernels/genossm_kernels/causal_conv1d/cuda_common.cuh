// What the convolutions of few taps and of many share: their parameters, and the sum of what chunks of times found.
//
// Macros: DTYPE, WIDTH.
#pragma once
#include "device.cuh"

struct ConvParams {
    const storage_t *x, *grad_y, *initial_state, *grad_final_state;
    const float *weight, *bias;
    const int* seq_idx;
    storage_t *y, *final_state, *grad_x, *grad_initial_state;
    float* weight_partial;  // (batch * chunks, channels, WIDTH + 1): gradients of the taps and of the bias
    float *grad_weight, *grad_bias;
    i64 x_batch, x_row, y_batch, y_row, grad_y_batch, grad_y_row, grad_x_batch, grad_x_row, length;
    unsigned long long reversed_blocks;
    int batch, channels, blocks, pieces_per_block, chunk, chunks;
};

// Sums over the chunks: a lane takes a column of `weight_partial`, the warps of a block every so-manieth chunk of it,
// and then the first adds up what they found in their order.
constexpr int SUM_WARPS = 16;
extern "C" __global__ void __launch_bounds__(32 * SUM_WARPS) sum_chunks(const ConvParams p) {
    GENOSSM_SHARED(shared);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const i64 columns = static_cast<i64>(p.channels) * (WIDTH + 1), column = static_cast<i64>(blockIdx.x) * 32 + lane;
    const i64 chunks = static_cast<i64>(p.batch) * p.chunks;
    double sum = 0.;
    if (column < columns) {
#pragma unroll 8
        for (i64 chunk = warp; chunk < chunks; chunk += SUM_WARPS) sum += p.weight_partial[chunk * columns + column];
    }
    shared[threadIdx.x] = static_cast<float>(sum);
    __syncthreads();
    if (warp > 0 || column >= columns) return;
    sum = 0.;
    for (int other = 0; other < SUM_WARPS; ++other) sum += shared[other * 32 + lane];
    const i64 channel = column / (WIDTH + 1), tap = column % (WIDTH + 1);
    if (tap < WIDTH) p.grad_weight[channel * WIDTH + tap] = static_cast<float>(sum);
    else if (p.grad_bias != nullptr) p.grad_bias[channel] = static_cast<float>(sum);
}

GENOSSM_KERNEL(sum_chunks, ConvParams)
