// The convolutions of both directions over the same inputs, forward and backward: x is read once for two outputs, and two
// outputs' gradients give one gradient of x. Taps `first` meet earlier positions, `second` later ones. CUDA.md.
//
// Macros: DTYPE, WIDTH, PIECE (a power of two, up to 16 bytes of channels), ALIGNED (all rows in whole pieces).
#include "device.cuh"

struct BothParams {
    const storage_t *x, *grad_first, *grad_second;
    const float *first, *first_bias, *second, *second_bias;
    storage_t *y_first, *y_second, *grad_x;
    float *first_partial, *second_partial;   // (batch * chunks, channels, WIDTH + 1): gradients of taps and bias
    i64 x_batch, x_row, y_first_batch, y_first_row, y_second_batch, y_second_row, grad_first_batch, grad_first_row, grad_second_batch, grad_second_row, grad_x_batch, grad_x_row;
    i64 length;
    int batch, channels, pieces, chunk, chunks;
};

constexpr int THREADS = 128;
constexpr int GROUP = 4;  // rows of a step
constexpr int TAIL = WIDTH - 1, ROWS = GROUP + 2 * TAIL;

// Channels as they are stored: what is read ahead waits like this.
struct alignas(PIECE * sizeof(storage_t)) Piece {
    storage_t bits[PIECE];
};
__device__ __forceinline__ Piece read_piece(const storage_t* source, int count) {
    Piece piece = {};
    if (ALIGNED) {
        if (count > 0) piece = *reinterpret_cast<const Piece*>(source);
    } else {
#pragma unroll
        for (int c = 0; c < PIECE; ++c)
            if (c < count) piece.bits[c] = source[c];
    }
    return piece;
}
__device__ __forceinline__ void store_floats_as(storage_t* target, int count, const float (&values)[PIECE]) {
    Piece piece;
#pragma unroll
    for (int c = 0; c < PIECE; ++c) piece.bits[c] = to_storage(values[c]);
    if (ALIGNED) {
        if (count > 0) *reinterpret_cast<Piece*>(target) = piece;
    } else {
#pragma unroll
        for (int c = 0; c < PIECE; ++c)
            if (c < count) target[c] = piece.bits[c];
    }
}

struct Work {
    int batch, chunk, channel, count;
    i64 first, last;
};
// Neighbouring threads take neighbouring channels.
__device__ __forceinline__ bool take_work(const BothParams& p, Work& work) {
    const i64 item = static_cast<i64>(blockIdx.x) * THREADS + threadIdx.x, rest = item / p.pieces;
    work.channel = static_cast<int>(item % p.pieces) * PIECE;
    work.count = min(PIECE, p.channels - work.channel);
    work.chunk = static_cast<int>(rest % p.chunks);
    work.batch = static_cast<int>(rest / p.chunks);
    work.first = static_cast<i64>(work.chunk) * p.chunk;
    work.last = min(work.first + p.chunk, p.length);
    return rest / p.chunks < p.batch;
}
// One row of a tensor; zeros off its ends.
__device__ __forceinline__ Piece read_row(const BothParams& p, const Work& work, const storage_t* base, i64 batch_stride,
                                          i64 row_stride, i64 position) {
    const bool inside = position >= 0 && position < p.length;
    return read_piece(base + work.batch * batch_stride + (inside ? position : 0) * row_stride + work.channel,
                      inside ? work.count : 0);
}

struct Taps {
    float weight[WIDTH][PIECE], bias[PIECE];
    __device__ __forceinline__ Taps(const Work& work, const float* weights, const float* biases) {
#pragma unroll
        for (int c = 0; c < PIECE; ++c) {
            const bool inside = c < work.count;
            bias[c] = inside && biases != nullptr ? biases[work.channel + c] : 0.f;
#pragma unroll
            for (int k = 0; k < WIDTH; ++k)
                weight[k][c] = inside ? weights[static_cast<i64>(work.channel + c) * WIDTH + k] : 0.f;
        }
    }
};

// Rows from TAIL before a step to TAIL behind it; row k + TAIL is the step's k-th.
typedef float Window[ROWS][PIECE];
__device__ __forceinline__ void open_window(const BothParams& p, const Work& work, i64 start, Window& window) {
#pragma unroll
    for (int j = 0; j < 2 * TAIL; ++j) {
        const Piece piece = read_row(p, work, p.x, p.x_batch, p.x_row, start - TAIL + j);
#pragma unroll
        for (int c = 0; c < PIECE; ++c) window[j][c] = to_float(piece.bits[c]);
    }
}
__device__ __forceinline__ void close_step(Window& window) {
#pragma unroll
    for (int j = 0; j < 2 * TAIL; ++j)
#pragma unroll
        for (int c = 0; c < PIECE; ++c) window[j][c] = window[j + GROUP][c];
}
// The sum before the activation at the step's k-th row: by the first taps from earlier rows, by the second from later.
template <bool SECOND>
__device__ __forceinline__ float convolved(const Taps& taps, const Window& window, int k, int c) {
    float sum = taps.bias[c];
#pragma unroll
    for (int i = 0; i < WIDTH; ++i) sum = fmaf(taps.weight[i][c], window[SECOND ? k + 2 * TAIL - i : k + i][c], sum);
    return sum;
}

extern "C" __global__ void __launch_bounds__(THREADS) convolve_both(const BothParams p) {
    Work work;
    if (!take_work(p, work)) return;
    const Taps first(work, p.first, p.first_bias), second(work, p.second, p.second_bias);
    Window window;
    open_window(p, work, work.first, window);
    Piece next[GROUP];
    const auto read_ahead = [&](i64 start) {
#pragma unroll
        for (int k = 0; k < GROUP; ++k) next[k] = read_row(p, work, p.x, p.x_batch, p.x_row, start + TAIL + k);
    };
    read_ahead(work.first);
    for (i64 start = work.first; start < work.last; start += GROUP) {
#pragma unroll
        for (int k = 0; k < GROUP; ++k)
#pragma unroll
            for (int c = 0; c < PIECE; ++c) window[2 * TAIL + k][c] = to_float(next[k].bits[c]);
        read_ahead(start + GROUP);
#pragma unroll
        for (int k = 0; k < GROUP; ++k) {
            if (start + k >= work.last) break;
            float y_first[PIECE], y_second[PIECE];
#pragma unroll
            for (int c = 0; c < PIECE; ++c) {
                y_first[c] = convolved<false>(first, window, k, c);
                y_second[c] = convolved<true>(second, window, k, c);
                y_first[c] *= sigmoid(y_first[c]);
                y_second[c] *= sigmoid(y_second[c]);
            }
            const i64 row = start + k;
            store_floats_as(p.y_first + work.batch * p.y_first_batch + row * p.y_first_row + work.channel, work.count, y_first);
            store_floats_as(p.y_second + work.batch * p.y_second_batch + row * p.y_second_row + work.channel, work.count,
                            y_second);
        }
        close_step(window);
    }
}

// What reaches the sum before the activation, from the output's gradient.
__device__ __forceinline__ float before_silu(float gradient, float sum) {
    const float gate = sigmoid(sum);
    return gradient * gate * fmaf(sum, 1.f - gate, 1.f);
}

__device__ __forceinline__ void store_sums(const BothParams& p, const Work& work, float* partial,
                                           const float (&weight)[WIDTH][PIECE], const float (&bias)[PIECE]) {
    const i64 chunk = static_cast<i64>(work.batch) * p.chunks + work.chunk;
#pragma unroll
    for (int c = 0; c < PIECE; ++c)
        if (c < work.count) {
            float* target = partial + (chunk * p.channels + work.channel + c) * (WIDTH + 1);
#pragma unroll
            for (int k = 0; k < WIDTH; ++k) target[k] = weight[k][c];
            target[WIDTH] = bias[c];
        }
}

// Inputs first .. last get their gradient here. Outputs up to TAIL rows either side of the chunk are taken again for
// what they hand to it.
extern "C" __global__ void __launch_bounds__(THREADS) convolve_both_gradients(const BothParams p) {
    Work work;
    if (!take_work(p, work)) return;
    const Taps first(work, p.first, p.first_bias), second(work, p.second, p.second_bias);
    float grad_first[WIDTH][PIECE], grad_second[WIDTH][PIECE], bias_first[PIECE], bias_second[PIECE];
    Window window, pending;
#pragma unroll
    for (int c = 0; c < PIECE; ++c) {
        bias_first[c] = bias_second[c] = 0.f;
#pragma unroll
        for (int k = 0; k < WIDTH; ++k) grad_first[k][c] = grad_second[k][c] = 0.f;
#pragma unroll
        for (int j = 0; j < ROWS; ++j) pending[j][c] = 0.f;
    }
    const i64 from = work.first - TAIL;
    open_window(p, work, from, window);
    Piece next[GROUP], next_first[GROUP], next_second[GROUP];
    const auto read_ahead = [&](i64 start) {
#pragma unroll
        for (int k = 0; k < GROUP; ++k) {
            next[k] = read_row(p, work, p.x, p.x_batch, p.x_row, start + TAIL + k);
            next_first[k] = read_row(p, work, p.grad_first, p.grad_first_batch, p.grad_first_row, start + k);
            next_second[k] = read_row(p, work, p.grad_second, p.grad_second_batch, p.grad_second_row, start + k);
        }
    };
    read_ahead(from);
    for (i64 start = from; start < work.last + TAIL; start += GROUP) {
        Piece to_first[GROUP], to_second[GROUP];
#pragma unroll
        for (int k = 0; k < GROUP; ++k) {
            to_first[k] = next_first[k], to_second[k] = next_second[k];
#pragma unroll
            for (int c = 0; c < PIECE; ++c) window[2 * TAIL + k][c] = to_float(next[k].bits[c]);
        }
        read_ahead(start + GROUP);
#pragma unroll
        for (int k = 0; k < GROUP; ++k) {
            const i64 row = start + k, done = row - TAIL;
            const float own = row >= work.first && row < work.last ? 1.f : 0.f;
#pragma unroll
            for (int c = 0; c < PIECE; ++c) {
                const float g = before_silu(to_float(to_first[k].bits[c]), convolved<false>(first, window, k, c));
                const float h = before_silu(to_float(to_second[k].bits[c]), convolved<true>(second, window, k, c));
                bias_first[c] = fmaf(own, g, bias_first[c]);
                bias_second[c] = fmaf(own, h, bias_second[c]);
#pragma unroll
                for (int i = 0; i < WIDTH; ++i) {
                    grad_first[i][c] = fmaf(own * g, window[k + i][c], grad_first[i][c]);
                    grad_second[i][c] = fmaf(own * h, window[k + 2 * TAIL - i][c], grad_second[i][c]);
                    pending[k + i][c] = fmaf(first.weight[i][c], g, pending[k + i][c]);
                    pending[k + 2 * TAIL - i][c] = fmaf(second.weight[i][c], h, pending[k + 2 * TAIL - i][c]);
                }
            }
            if (done >= work.first && done < work.last)
                store_floats_as(p.grad_x + work.batch * p.grad_x_batch + done * p.grad_x_row + work.channel, work.count,
                                pending[k]);
        }
        close_step(window);
        close_step(pending);
#pragma unroll
        for (int j = 2 * TAIL; j < ROWS; ++j)
#pragma unroll
            for (int c = 0; c < PIECE; ++c) pending[j][c] = 0.f;
    }
    store_sums(p, work, p.first_partial, grad_first, bias_first);
    store_sums(p, work, p.second_partial, grad_second, bias_second);
}

GENOSSM_KERNEL(convolve_both, BothParams)
GENOSSM_KERNEL(convolve_both_gradients, BothParams)
