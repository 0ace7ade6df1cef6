// Causal depthwise convolution with SiLU, forward and backward. A thread owns PIECE neighbouring channels and walks
// a chunk of times with the last WIDTH inputs in registers, so each input is read once (and WIDTH - 1 rows twice).
//
// Macros: DTYPE, WIDTH, SILU, PACKED (there is a seq_idx), PIECE (a power of two, up to 16 bytes of channels), ALIGNED
// (all rows in whole pieces), ADD (the input's gradient is added to what its memory holds).
#include "cuda_common.cuh"

#ifndef ADD
#define ADD 0
#endif

constexpr int THREADS = 128;
constexpr int GROUP = 4;  // rows read before any is used
constexpr int TAIL = WIDTH - 1;

// PIECE neighbouring channels; ALIGNED: all or none, in one access.
struct alignas(PIECE * sizeof(storage_t)) Piece {
    storage_t bits[PIECE];
};
__device__ __forceinline__ void load_piece(const storage_t* source, int count, float (&out)[PIECE]) {
    Piece piece = {};
    if (ALIGNED) {
        if (count > 0) piece = *reinterpret_cast<const Piece*>(source);
    } else {
#pragma unroll
        for (int k = 0; k < PIECE; ++k)
            if (k < count) piece.bits[k] = source[k];
    }
#pragma unroll
    for (int k = 0; k < PIECE; ++k) out[k] = to_float(piece.bits[k]);
}
__device__ __forceinline__ void store_piece(storage_t* target, int count, const float (&values)[PIECE]) {
    Piece piece;
#pragma unroll
    for (int k = 0; k < PIECE; ++k) piece.bits[k] = to_storage(values[k]);
    if (ALIGNED) {
        if (count > 0) *reinterpret_cast<Piece*>(target) = piece;
    } else {
#pragma unroll
        for (int k = 0; k < PIECE; ++k)
            if (k < count) target[k] = piece.bits[k];
    }
}

struct Work {
    int batch, chunk, channel, count;
    bool reversed;
};
// Neighbouring threads take neighbouring channels.
__device__ __forceinline__ bool take_work(const ConvParams& p, Work& work) {
    const i64 item = static_cast<i64>(blockIdx.x) * THREADS + threadIdx.x;
    const int pieces = p.blocks * p.pieces_per_block;
    const i64 rest = item / pieces;
    const int piece = static_cast<int>(item % pieces), block = piece / p.pieces_per_block;
    const int block_length = p.channels / p.blocks, inside = piece % p.pieces_per_block * PIECE;
    work.chunk = static_cast<int>(rest % p.chunks);
    work.batch = static_cast<int>(rest / p.chunks);
    work.channel = block * block_length + inside;
    work.count = min(PIECE, block_length - inside);
    work.reversed = (p.reversed_blocks >> block) & 1ull;
    return rest / p.chunks < p.batch;
}
__device__ __forceinline__ i64 position(const ConvParams& p, const Work& work, i64 time) {
    return work.reversed ? p.length - 1 - time : time;
}
__device__ __forceinline__ bool resets_at(const ConvParams& p, const Work& work, i64 time) {
    if (!PACKED || time <= 0 || time >= p.length) return false;
    const int* row = p.seq_idx + work.batch * p.length;
    return row[position(p, work, time)] != row[position(p, work, time - 1)];
}

// The last WIDTH inputs, oldest first; `alive` is 0 for those on the other side of a reset.
struct Window {
    float x[WIDTH][PIECE];
#if PACKED
    float alive[WIDTH];
    __device__ __forceinline__ float reach(int k) const { return alive[k]; }
#else
    __device__ __forceinline__ float reach(int) const { return 1.f; }
#endif
    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int k = 0; k < WIDTH; ++k) {
#if PACKED
            alive[k] = 0.f;
#endif
#pragma unroll
            for (int c = 0; c < PIECE; ++c) x[k][c] = 0.f;
        }
    }
    __device__ __forceinline__ void push(const float (&next)[PIECE]) {
#pragma unroll
        for (int k = 0; k < WIDTH; ++k) {
#if PACKED
            alive[k] = k == TAIL ? 1.f : alive[k + 1 < WIDTH ? k + 1 : k];
#endif
#pragma unroll
            for (int c = 0; c < PIECE; ++c) x[k][c] = k == TAIL ? next[c] : x[k + 1 < WIDTH ? k + 1 : k][c];
        }
    }
};

__device__ __forceinline__ void load_input(const ConvParams& p, const Work& work, i64 time, float (&out)[PIECE]) {
    const bool inside = time < p.length;
    const i64 row = position(p, work, inside ? time : 0);
    load_piece(p.x + work.batch * p.x_batch + row * p.x_row + work.channel, inside ? work.count : 0, out);
}
__device__ __forceinline__ i64 tail_offset(const ConvParams& p, const Work& work, int index) {
    return (static_cast<i64>(work.batch) * TAIL + index) * p.channels + work.channel;
}

// The window before `first`: its latest WIDTH - 1 inputs.
__device__ __forceinline__ void open_window(const ConvParams& p, const Work& work, i64 first, Window& window) {
    window.clear();
    for (i64 time = first - TAIL; time < first; ++time) {
        float next[PIECE];
        if (time < 0) {
            const int index = static_cast<int>(TAIL + time);
            const bool given = p.initial_state != nullptr;
            load_piece(given ? p.initial_state + tail_offset(p, work, index) : p.x, given ? work.count : 0, next);
        } else {
            if (resets_at(p, work, time)) window.clear();
            load_input(p, work, time, next);
        }
        window.push(next);
    }
}

__device__ __forceinline__ void load_taps(const ConvParams& p, const Work& work, float (&taps)[WIDTH][PIECE],
                                          float (&bias)[PIECE]) {
#pragma unroll
    for (int c = 0; c < PIECE; ++c) {
        const bool inside = c < work.count;
        bias[c] = inside && p.bias != nullptr ? p.bias[work.channel + c] : 0.f;
#pragma unroll
        for (int k = 0; k < WIDTH; ++k)
            taps[k][c] = inside ? p.weight[static_cast<i64>(work.channel + c) * WIDTH + k] : 0.f;
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) convolve(const ConvParams p) {
    Work work;
    if (!take_work(p, work)) return;
    float taps[WIDTH][PIECE], bias[PIECE];
    load_taps(p, work, taps, bias);
    Window window;
    const i64 first = static_cast<i64>(work.chunk) * p.chunk, last = min(first + p.chunk, p.length);
    open_window(p, work, first, window);
    for (i64 start = first; start < last; start += GROUP) {
        float next[GROUP][PIECE];
#pragma unroll
        for (int k = 0; k < GROUP; ++k) load_input(p, work, start + k, next[k]);
#pragma unroll
        for (int k = 0; k < GROUP; ++k) {
            const i64 time = start + k;
            if (time >= last) break;
            if (resets_at(p, work, time)) window.clear();
            window.push(next[k]);
            float y[PIECE];
#pragma unroll
            for (int c = 0; c < PIECE; ++c) {
                y[c] = bias[c];
#pragma unroll
                for (int tap = 0; tap < WIDTH; ++tap) y[c] = fmaf(taps[tap][c], window.x[tap][c], y[c]);
                if (SILU) y[c] *= sigmoid(y[c]);
            }
            store_piece(p.y + work.batch * p.y_batch + position(p, work, time) * p.y_row + work.channel, work.count, y);
        }
    }
    if (last == p.length) {
#pragma unroll
        for (int k = 0; k < TAIL; ++k) store_piece(p.final_state + tail_offset(p, work, k), work.count, window.x[k + 1]);
    }
}

__device__ __forceinline__ storage_t* grad_x_at(const ConvParams& p, const Work& work, i64 time) {
    return p.grad_x + work.batch * p.grad_x_batch + position(p, work, time) * p.grad_x_row + work.channel;
}

// Inputs of times first .. last get their gradient here, and the first chunk the initial state's. Outputs up to
// WIDTH - 1 past the chunk are taken again for what they hand back.
extern "C" __global__ void __launch_bounds__(THREADS) convolve_gradients(const ConvParams p) {
    Work work;
    if (!take_work(p, work)) return;
    float taps[WIDTH][PIECE], bias[PIECE], grad_taps[WIDTH][PIECE], grad_bias[PIECE], pending[WIDTH][PIECE];
    load_taps(p, work, taps, bias);
#pragma unroll
    for (int c = 0; c < PIECE; ++c) {
        grad_bias[c] = 0.f;
#pragma unroll
        for (int k = 0; k < WIDTH; ++k) grad_taps[k][c] = pending[k][c] = 0.f;
    }
    Window window;
    const i64 first = static_cast<i64>(work.chunk) * p.chunk, last = min(first + p.chunk, p.length);
    open_window(p, work, first, window);
    // `pending` follows the window; an input leaves it WIDTH - 1 times later.
    for (i64 start = first; start < last + TAIL; start += GROUP) {
        float next[GROUP][PIECE], gradient[GROUP][PIECE];
#if ADD
        float earlier[GROUP][PIECE];
#endif
#pragma unroll
        for (int k = 0; k < GROUP; ++k) {
            const i64 time = start + k;
            load_input(p, work, time, next[k]);
            const bool inside = time < p.length;
            const i64 row = position(p, work, inside ? time : 0);
            load_piece(p.grad_y + work.batch * p.grad_y_batch + row * p.grad_y_row + work.channel,
                              inside ? work.count : 0, gradient[k]);
#if ADD
            const i64 done = time - TAIL;
            const bool written = done >= first && done < last;
            load_piece(grad_x_at(p, work, written ? done : 0), written ? work.count : 0, earlier[k]);
#endif
        }
#pragma unroll
        for (int k = 0; k < GROUP; ++k) {
            const i64 time = start + k;
            if (time >= last + TAIL) break;
            if (resets_at(p, work, time)) window.clear();
            window.push(next[k]);
#pragma unroll
            for (int tap = 0; tap < WIDTH; ++tap)
#pragma unroll
                for (int c = 0; c < PIECE; ++c) pending[tap][c] = tap == TAIL ? 0.f : pending[tap + 1 < WIDTH ? tap + 1 : tap][c];
            if (time < p.length) {
                const float own = time < last ? 1.f : 0.f;
#pragma unroll
                for (int c = 0; c < PIECE; ++c) {
                    float g = gradient[k][c];
                    if (SILU) {
                        float sum = bias[c];
#pragma unroll
                        for (int tap = 0; tap < WIDTH; ++tap) sum = fmaf(taps[tap][c], window.x[tap][c], sum);
                        const float gate = sigmoid(sum);
                        g *= gate * fmaf(sum, 1.f - gate, 1.f);
                    }
                    grad_bias[c] = fmaf(own, g, grad_bias[c]);
#pragma unroll
                    for (int tap = 0; tap < WIDTH; ++tap) {
                        pending[tap][c] = fmaf(window.reach(tap) * taps[tap][c], g, pending[tap][c]);
                        grad_taps[tap][c] = fmaf(own * g, window.x[tap][c], grad_taps[tap][c]);
                    }
                }
            }
            if (time == p.length - 1 && p.grad_final_state != nullptr) {
#pragma unroll
                for (int tap = 1; tap < WIDTH; ++tap) {
                    float g[PIECE];
                    load_piece(p.grad_final_state + tail_offset(p, work, tap - 1), work.count, g);
#pragma unroll
                    for (int c = 0; c < PIECE; ++c) pending[tap][c] = fmaf(window.reach(tap), g[c], pending[tap][c]);
                }
            }
            const i64 done = time - TAIL;
            if (done >= first && done < last) {
#if ADD
#pragma unroll
                for (int c = 0; c < PIECE; ++c) pending[0][c] += earlier[k][c];
#endif
                store_piece(grad_x_at(p, work, done), work.count, pending[0]);
            } else if (done < 0 && p.grad_initial_state != nullptr) {
                store_piece(p.grad_initial_state + tail_offset(p, work, static_cast<int>(TAIL + done)), work.count, pending[0]);
            }
        }
    }
    const i64 chunk = static_cast<i64>(work.batch) * p.chunks + work.chunk;
#pragma unroll
    for (int c = 0; c < PIECE; ++c)
        if (c < work.count) {
            float* partial = p.weight_partial + (chunk * p.channels + work.channel + c) * (WIDTH + 1);
#pragma unroll
            for (int tap = 0; tap < WIDTH; ++tap) partial[tap] = grad_taps[tap][c];
            partial[WIDTH] = grad_bias[c];
        }
}

GENOSSM_KERNEL(convolve, ConvParams)
GENOSSM_KERNEL(convolve_gradients, ConvParams)
