// Convolutions of many taps, forward and backward, as cuda_steps.cuh describes it.
//
// Macros: its own, SILU, BLOCKS (that a multiprocessor is to hold), ADD (the input's gradient is added to what its memory
// holds).
#include "cuda_common.cuh"
#include "cuda_steps.cuh"

#ifndef ADD
#define ADD 0
#endif

__device__ __forceinline__ bool take_work(const ConvParams& p, Work& work) {
    const bool found = take_work(p, p.blocks, p.pieces_per_block, work);
    work.reversed = (p.reversed_blocks >> work.block) & 1ull;
    return found;
}

// The input of a time before `length`, as far back as the initial state goes.
__device__ __forceinline__ void read_input(const ConvParams& p, const Work& work, i64 time, float (&out)[PIECE]) {
#pragma unroll
    for (int c = 0; c < PIECE; ++c) out[c] = 0.f;
    if (!work.used) return;
    if (time >= 0) {
        unpack_piece(piece_at(p.x + work.offset(p.x_batch, p.x_row, p.length, time) + work.channel), out);
    } else if (p.initial_state != nullptr) {
        const storage_t* state = p.initial_state + (work.batch * static_cast<i64>(TAIL) + TAIL + time) * p.channels;
#pragma unroll
        for (int c = 0; c < PIECE; ++c) out[c] = to_float(state[work.channel + c]);  // which begins anywhere
    }
}

__device__ __forceinline__ void open_window(const ConvParams& p, const Work& work, Window& window) {
#pragma unroll
    for (int k = 1; k < WIDTH; ++k) read_input(p, work, work.first - WIDTH + k, window[k]);
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) convolve_wide(const ConvParams p) {
    GENOSSM_SHARED(shared);
    Work work;
    if (!take_work(p, work)) return;
    storage_t* slots = reinterpret_cast<storage_t*>(shared) + threadIdx.x / 32 * (STAGES * SLOT);
    Stream x(work, p.x, p.x_batch, p.x_row, p.length, work.first);
    const auto fetch = [&](int turn, i64 start) {
        x.fetch(work, slots + turn * SLOT, 0, p.length - start);
        close_copies();
    };
#pragma unroll
    for (int ahead = 0; ahead < STAGES - 1; ++ahead) fetch(ahead, work.first + ahead * STEP);
    const Taps taps(work, p.weight, p.bias);
    Window window;
    open_window(p, work, window);
    storage_t* target = p.y + work.offset(p.y_batch, p.y_row, p.length, work.first) + work.channel;
    const i64 onwards = work.onwards(p.y_row);
    int turn = 0;
#pragma unroll 1
    for (i64 start = work.first; start < work.last; start += STEP) {
        await_copies<STAGES - 2>();
        __syncwarp();
        // Filled next is what was read a step ago.
        fetch(turn == 0 ? STAGES - 1 : turn - 1, start + (STAGES - 1) * STEP);
        const storage_t* slot = slots + turn * SLOT + PIECE * work.lane;
        const int rows = work.used ? static_cast<int>(min(work.last - start, static_cast<i64>(STEP))) : 0;
        Piece next = piece_at(slot);
#pragma unroll
        for (int k = 0; k < STEP; ++k) {
            unpack_piece(next, window[k % WIDTH]);
            if (k + 1 < STEP) next = piece_at(slot + (k + 1) * TILE);
            float y[PIECE];
#pragma unroll
            for (int c = 0; c < PIECE; ++c) {
                y[c] = convolved<false>(taps, window, k, c);
                if (SILU) y[c] *= sigmoid(y[c]);
            }
            store_piece_if(k < rows, target, y);
            target += onwards;
        }
        turn = turn + 1 == STAGES ? 0 : turn + 1;
    }
    if (work.last < p.length || !work.used) return;
#pragma unroll 1
    for (int k = 0; k < TAIL; ++k) {
        float state[PIECE];
        read_input(p, work, p.length - TAIL + k, state);
        const i64 row = work.batch * static_cast<i64>(TAIL) + k;
        store_piece_if(true, p.final_state + row * p.channels + work.channel, state);
    }
}

// Inputs of the run get their gradient here. Outputs up to WIDTH - 1 past it are taken again for what they hand back:
// by the one step that begins past the run, which is whole steps or ends with the sequence.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) convolve_wide_gradients(const ConvParams p) {
    GENOSSM_SHARED(shared);
    Work work;
    if (!take_work(p, work)) return;
    constexpr int TENSORS = ADD ? 3 : 2;
    storage_t* slots = reinterpret_cast<storage_t*>(shared) + threadIdx.x / 32 * (STAGES * TENSORS * SLOT);
    Stream x(work, p.x, p.x_batch, p.x_row, p.length, work.first);
    Stream grad_y(work, p.grad_y, p.grad_y_batch, p.grad_y_row, p.length, work.first);
#if ADD
    Stream earlier(work, p.grad_x, p.grad_x_batch, p.grad_x_row, p.length, work.first - TAIL);
#endif
    const auto fetch = [&](int turn, i64 start) {
        storage_t* slot = slots + turn * (TENSORS * SLOT);
        x.fetch(work, slot, 0, p.length - start);
        grad_y.fetch(work, slot + SLOT, 0, p.length - start);
#if ADD
        earlier.fetch(work, slot + 2 * SLOT, work.first - start + TAIL, work.last - start + TAIL);
#endif
        close_copies();
    };
#pragma unroll
    for (int ahead = 0; ahead < STAGES - 1; ++ahead) fetch(ahead, work.first + ahead * STEP);
    const Taps taps(work, p.weight, p.bias);
    Window window, pending;
    float grad_weight[WIDTH][PIECE], grad_bias[PIECE];
    open_window(p, work, window);
#pragma unroll
    for (int c = 0; c < PIECE; ++c) {
        grad_bias[c] = 0.f;
#pragma unroll
        for (int k = 0; k < WIDTH; ++k) grad_weight[k][c] = pending[k][c] = 0.f;
    }
    const i64 onwards = work.onwards(p.grad_x_row);
    storage_t* target = p.grad_x + work.channel +
        work.offset(p.grad_x_batch, p.grad_x_row, p.length, work.first - TAIL);
    const unsigned length = work.used ? static_cast<unsigned>(work.last - work.first) : 0u;
    int turn = 0, done = -TAIL;
#pragma unroll 1
    for (i64 start = work.first; start < work.last + STEP; start += STEP) {
        if (start >= work.last) store_sums(p, work, p.weight_partial, grad_weight, grad_bias);
        await_copies<STAGES - 2>();
        __syncwarp();
        // Filled next is what was read a step ago.
        fetch(turn == 0 ? STAGES - 1 : turn - 1, start + (STAGES - 1) * STEP);
        const storage_t* slot = slots + turn * (TENSORS * SLOT) + PIECE * work.lane;
        Piece next = piece_at(slot), next_gradient = piece_at(slot + SLOT);
#pragma unroll
        for (int k = 0; k < STEP; ++k) {
            float gradient[PIECE];
            unpack_piece(next, window[k % WIDTH]);
            unpack_piece(next_gradient, gradient);
            if (k + 1 < STEP) {
                next = piece_at(slot + (k + 1) * TILE);
                next_gradient = piece_at(slot + SLOT + (k + 1) * TILE);
            }
#pragma unroll
            for (int c = 0; c < PIECE; ++c) {
                float g = gradient[c];
                if (SILU) g = before_silu(g, convolved<false>(taps, window, k, c));
                grad_bias[c] += g;
#pragma unroll
                for (int i = 0; i < WIDTH; ++i) {
                    const int at = (k + 1 + i) % WIDTH;
                    grad_weight[i][c] = fmaf(g, window[at][c], grad_weight[i][c]);
                    pending[at][c] = i == TAIL ? taps.weight[i][c] * g : fmaf(taps.weight[i][c], g, pending[at][c]);
                }
            }
            float (&finished)[PIECE] = pending[(k + 1) % WIDTH];
#if ADD
            float before[PIECE];
            unpack_piece(piece_at(slot + 2 * SLOT + k * TILE), before);
#pragma unroll
            for (int c = 0; c < PIECE; ++c) finished[c] += before[c];
#endif
            store_piece_if(static_cast<unsigned>(done + k) < length, target, finished);
            target += onwards;
        }
        done += STEP;
        turn = turn + 1 == STAGES ? 0 : turn + 1;
    }
}

GENOSSM_KERNEL(convolve_wide, ConvParams)
GENOSSM_KERNEL(convolve_wide_gradients, ConvParams)
