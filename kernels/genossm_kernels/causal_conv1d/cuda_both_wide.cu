// Both directions' convolutions of many taps, with SiLU, over the same inputs, forward and backward, as cuda_steps.cuh
// describes it, with one window: when an input arrives it holds what the `first` taps need for the sum at that time, and
// the `second` for the sum WIDTH - 1 before. CUDA.md.
//
// Macros: its own, BLOCKS (that a multiprocessor is to hold).
#include "cuda_steps.cuh"

struct BothParams {
    const storage_t *x, *grad_first, *grad_second;
    const float *first, *first_bias, *second, *second_bias;
    storage_t *y_first, *y_second, *grad_x;
    float *first_partial, *second_partial;   // (batch * chunks, channels, WIDTH + 1): gradients of taps and bias
    i64 x_batch, x_row, y_first_batch, y_first_row, y_second_batch, y_second_row;
    i64 grad_first_batch, grad_first_row, grad_second_batch, grad_second_row, grad_x_batch, grad_x_row;
    i64 length;
    int batch, channels, pieces, chunk, chunks;
};

__device__ __forceinline__ void open_window(const BothParams& p, const Work& work, Window& window) {
#pragma unroll
    for (int k = 1; k < WIDTH; ++k) {
        const i64 time = work.first - WIDTH + k;
#pragma unroll
        for (int c = 0; c < PIECE; ++c) window[k][c] = 0.f;
        if (work.used && time >= 0)
            unpack_piece(piece_at(p.x + work.offset(p.x_batch, p.x_row, p.length, time) + work.channel), window[k]);
    }
}
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) convolve_wide_both(const BothParams p) {
    GENOSSM_SHARED(shared);
    Work work;
    if (!take_work(p, 1, p.pieces, work)) return;
    storage_t* slots = reinterpret_cast<storage_t*>(shared) + threadIdx.x / 32 * (STAGES * SLOT);
    Stream x(work, p.x, p.x_batch, p.x_row, p.length, work.first);
    const auto fetch = [&](int turn, i64 start) {
        x.fetch(work, slots + turn * SLOT, 0, p.length - start);
        close_copies();
    };
#pragma unroll
    for (int ahead = 0; ahead < STAGES - 1; ++ahead) fetch(ahead, work.first + ahead * STEP);
    const Taps first(work, p.first, p.first_bias), second(work, p.second, p.second_bias);
    Window window;
    open_window(p, work, window);
    storage_t* target = p.y_first + work.channel + work.offset(p.y_first_batch, p.y_first_row, p.length, work.first);
    storage_t* other = p.y_second + work.channel +
        work.offset(p.y_second_batch, p.y_second_row, p.length, work.first - TAIL);
    const unsigned length = work.used ? static_cast<unsigned>(work.last - work.first) : 0u;
    int turn = 0, done = -TAIL;
#pragma unroll 1
    for (i64 start = work.first; start < work.last + STEP; start += STEP) {
        await_copies<STAGES - 2>();
        __syncwarp();
        // Filled next is what was read a step ago.
        fetch(turn == 0 ? STAGES - 1 : turn - 1, start + (STAGES - 1) * STEP);
        const storage_t* slot = slots + turn * SLOT + PIECE * work.lane;
        Piece next = piece_at(slot);
#pragma unroll
        for (int k = 0; k < STEP; ++k) {
            unpack_piece(next, window[k % WIDTH]);
            if (k + 1 < STEP) next = piece_at(slot + (k + 1) * TILE);
            float y[PIECE], z[PIECE];
#pragma unroll
            for (int c = 0; c < PIECE; ++c) {
                y[c] = convolved<false>(first, window, k, c);
                z[c] = convolved<true>(second, window, k, c);
                y[c] *= sigmoid(y[c]);
                z[c] *= sigmoid(z[c]);
            }
            store_piece_if(static_cast<unsigned>(done + TAIL + k) < length, target, y);
            store_piece_if(static_cast<unsigned>(done + k) < length, other, z);
            target += p.y_first_row;
            other += p.y_second_row;
        }
        done += STEP;
        turn = turn + 1 == STAGES ? 0 : turn + 1;
    }
}

// Inputs of the run get their gradient here. Outputs up to WIDTH - 1 either side of it are taken again for what they hand
// back: of the first taps by the one step that begins past the run, which is whole steps or ends with the sequence.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) convolve_wide_both_gradients(const BothParams p) {
    GENOSSM_SHARED(shared);
    Work work;
    if (!take_work(p, 1, p.pieces, work)) return;
    constexpr int TENSORS = 3;
    storage_t* slots = reinterpret_cast<storage_t*>(shared) + threadIdx.x / 32 * (STAGES * TENSORS * SLOT);
    Stream x(work, p.x, p.x_batch, p.x_row, p.length, work.first);
    Stream grad_first(work, p.grad_first, p.grad_first_batch, p.grad_first_row, p.length, work.first);
    Stream grad_second(work, p.grad_second, p.grad_second_batch, p.grad_second_row, p.length, work.first - TAIL);
    const auto fetch = [&](int turn, i64 start) {
        storage_t* slot = slots + turn * (TENSORS * SLOT);
        x.fetch(work, slot, 0, p.length - start);
        grad_first.fetch(work, slot + SLOT, 0, p.length - start);
        grad_second.fetch(work, slot + 2 * SLOT, TAIL - start, p.length - start + TAIL);
        close_copies();
    };
#pragma unroll
    for (int ahead = 0; ahead < STAGES - 1; ++ahead) fetch(ahead, work.first + ahead * STEP);
    const Taps first(work, p.first, p.first_bias), second(work, p.second, p.second_bias);
    Window window, pending;
    float weight_first[WIDTH][PIECE], weight_second[WIDTH][PIECE], bias_first[PIECE], bias_second[PIECE];
    open_window(p, work, window);
#pragma unroll
    for (int c = 0; c < PIECE; ++c) {
        bias_first[c] = bias_second[c] = 0.f;
#pragma unroll
        for (int k = 0; k < WIDTH; ++k) weight_first[k][c] = weight_second[k][c] = pending[k][c] = 0.f;
    }
    storage_t* target = p.grad_x + work.channel + work.offset(p.grad_x_batch, p.grad_x_row, p.length, work.first - TAIL);
    const unsigned length = work.used ? static_cast<unsigned>(work.last - work.first) : 0u;
    int turn = 0, done = -TAIL;
#pragma unroll 1
    for (i64 start = work.first; start < work.last + STEP; start += STEP) {
        if (start >= work.last) store_sums(p, work, p.first_partial, weight_first, bias_first);
        await_copies<STAGES - 2>();
        __syncwarp();
        // Filled next is what was read a step ago.
        fetch(turn == 0 ? STAGES - 1 : turn - 1, start + (STAGES - 1) * STEP);
        const storage_t* slot = slots + turn * (TENSORS * SLOT) + PIECE * work.lane;
        Piece next = piece_at(slot), next_first = piece_at(slot + SLOT), next_second = piece_at(slot + 2 * SLOT);
#pragma unroll
        for (int k = 0; k < STEP; ++k) {
            float to_first[PIECE], to_second[PIECE];
            unpack_piece(next, window[k % WIDTH]);
            unpack_piece(next_first, to_first);
            unpack_piece(next_second, to_second);
            if (k + 1 < STEP) {
                next = piece_at(slot + (k + 1) * TILE);
                next_first = piece_at(slot + SLOT + (k + 1) * TILE);
                next_second = piece_at(slot + 2 * SLOT + (k + 1) * TILE);
            }
            const bool own = static_cast<unsigned>(done + k) < length;
#pragma unroll
            for (int c = 0; c < PIECE; ++c) {
                const float g = before_silu(to_first[c], convolved<false>(first, window, k, c));
                const float h = before_silu(to_second[c], convolved<true>(second, window, k, c));
                const float counted = own ? h : 0.f;
                bias_first[c] += g;
                bias_second[c] += counted;
#pragma unroll
                for (int i = 0; i < WIDTH; ++i) {
                    const int at = (k + 1 + i) % WIDTH;
                    weight_first[i][c] = fmaf(g, window[at][c], weight_first[i][c]);
                    weight_second[TAIL - i][c] = fmaf(counted, window[at][c], weight_second[TAIL - i][c]);
                    pending[at][c] = i == TAIL ? first.weight[i][c] * g : fmaf(first.weight[i][c], g, pending[at][c]);
                    pending[at][c] = fmaf(second.weight[TAIL - i][c], h, pending[at][c]);
                }
            }
            store_piece_if(own, target, pending[(k + 1) % WIDTH]);
            target += p.grad_x_row;
        }
        done += STEP;
        turn = turn + 1 == STAGES ? 0 : turn + 1;
    }
    store_sums(p, work, p.second_partial, weight_second, bias_second);
}

GENOSSM_KERNEL(convolve_wide_both, BothParams)
GENOSSM_KERNEL(convolve_wide_both_gradients, BothParams)
