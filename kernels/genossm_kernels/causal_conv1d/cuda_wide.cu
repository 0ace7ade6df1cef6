// Convolutions of many taps, forward and backward. A warp owns TILE channels and walks a run of times in steps, whose
// rows wait in shared memory. The last WIDTH inputs lie in registers that are written in turn: a step is a multiple of
// WIDTH times, written out, so that nothing moves from one register to the next. CUDA.md.
//
// Macros: DTYPE, WIDTH, SILU, PIECE (channels of a lane: 1 or 2), WARPS (of a block), STAGES (steps in shared memory),
// BLOCKS (that a multiprocessor is to hold), ADD (the input's gradient is added to what its memory holds).
#include "cuda_common.cuh"

#ifndef ADD
#define ADD 0
#endif

constexpr int THREADS = 32 * WARPS, TILE = 32 * PIECE, TAIL = WIDTH - 1;
constexpr int STEP = WIDTH * ((12 + WIDTH - 1) / WIDTH);  // rows, a dozen at least
constexpr int LANES = TILE / VECTOR, ROWS = 32 / LANES;  // that copy a row; that are copied at once
constexpr int SLOT = STEP * TILE;

// Channels of a lane.
#if DTYPE != 0 && PIECE == 2
struct Piece {
    unsigned bits;
};
__device__ __forceinline__ void unpack_piece(const Piece& piece, float (&out)[2]) { unpack_two(piece.bits, out); }
#else
struct alignas(PIECE * sizeof(storage_t)) Piece {
    storage_t bits[PIECE];
};
__device__ __forceinline__ void unpack_piece(const Piece& piece, float (&out)[PIECE]) {
#pragma unroll
    for (int c = 0; c < PIECE; ++c) out[c] = to_float(piece.bits[c]);
}
#endif
__device__ __forceinline__ Piece piece_at(const storage_t* source) { return *reinterpret_cast<const Piece*>(source); }
// Without a branch, which would keep the compiler from mixing the arithmetic of neighbouring times.
__device__ __forceinline__ void store_pair_if(bool written, storage_t* target, unsigned bits) {
#ifdef GENOSSM_EMULATED
    if (written) *reinterpret_cast<unsigned*>(target) = bits;
#else
    asm volatile("{.reg .pred p; setp.ne.b32 p, %0, 0; @p st.global.b32 [%1], %2;}" ::"r"(static_cast<int>(written)),
                 "l"(target), "r"(bits)
                 : "memory");
#endif
}
__device__ __forceinline__ void store_piece_if(bool written, storage_t* target, const float (&values)[PIECE]) {
#if DTYPE != 0 && PIECE == 2
    store_pair_if(written, target, pack_two(values[0], values[1]));
#else
    Piece piece;
#pragma unroll
    for (int c = 0; c < PIECE; ++c) piece.bits[c] = to_storage(values[c]);
    if (written) *reinterpret_cast<Piece*>(target) = piece;
#endif
}

struct Work {
    int batch, chunk, channel, lane;
    bool reversed, used, copies;  // this lane has channels; the channels that it copies are some
    i64 first, last;
    __device__ __forceinline__ i64 offset(i64 batch_stride, i64 row_stride, i64 length, i64 time) const {
        return batch * batch_stride + (reversed ? length - 1 - time : time) * row_stride;
    }
    __device__ __forceinline__ i64 onwards(i64 row_stride) const { return reversed ? -row_stride : row_stride; }
};
// Neighbouring warps take neighbouring channels.
__device__ __forceinline__ bool take_work(const ConvParams& p, Work& work) {
    const i64 item = static_cast<i64>(blockIdx.x) * WARPS + threadIdx.x / 32;
    const int tiles = p.blocks * p.pieces_per_block;
    const i64 rest = item / tiles;
    const int tile = static_cast<int>(item % tiles), block = tile / p.pieces_per_block;
    const int block_length = p.channels / p.blocks, inside = tile % p.pieces_per_block * TILE;
    work.lane = threadIdx.x % 32;
    work.chunk = static_cast<int>(rest % p.chunks);
    work.batch = static_cast<int>(rest / p.chunks);
    work.channel = block * block_length + inside + PIECE * work.lane;
    work.used = inside + PIECE * work.lane < block_length;
    work.copies = inside + work.lane % LANES * VECTOR < block_length;
    work.reversed = (p.reversed_blocks >> block) & 1ull;
    work.first = static_cast<i64>(work.chunk) * p.chunk;
    work.last = min(work.first + p.chunk, p.length);
    return rest / p.chunks < p.batch;
}

// Rows of one tensor in the order of the direction, a step at a time.
struct Stream {
    const storage_t *base, *next;  // the tensor; what this lane copies first in the next step
    i64 step;
    __device__ __forceinline__ Stream(const Work& work, const storage_t* tensor, i64 batch_stride, i64 row_stride,
                                      i64 length, i64 first)
        : base(tensor),
          next(tensor + work.offset(batch_stride, row_stride, length, first + work.lane / LANES) + work.channel -
               PIECE * work.lane + work.lane % LANES * VECTOR),
          step(work.onwards(row_stride)) {}
    // Rows from .. to of the step are there, the others zero.
    __device__ __forceinline__ void fetch(const Work& work, storage_t* slot, i64 from, i64 to) {
#pragma unroll
        for (int item = 0; item < (STEP + ROWS - 1) / ROWS; ++item) {
            const int row = work.lane / LANES + item * ROWS;
            if (STEP % ROWS == 0 || row < STEP) {
                const bool inside = work.copies && row >= from && row < to;
                copy_async(reinterpret_cast<float4*>(slot + row * TILE + work.lane % LANES * VECTOR),
                           inside ? next + item * ROWS * step : base, inside);
            }
        }
        next += STEP * step;
    }
};

struct Taps {
    float weight[WIDTH][PIECE], bias[PIECE];
    __device__ __forceinline__ Taps(const ConvParams& p, const Work& work) {
#pragma unroll
        for (int c = 0; c < PIECE; ++c) {
            bias[c] = work.used && p.bias != nullptr ? p.bias[work.channel + c] : 0.f;
#pragma unroll
            for (int k = 0; k < WIDTH; ++k)
                weight[k][c] = work.used ? p.weight[static_cast<i64>(work.channel + c) * WIDTH + k] : 0.f;
        }
    }
};

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

// The last inputs: that of the run's k-th time is at k % WIDTH.
typedef float Window[WIDTH][PIECE];
__device__ __forceinline__ void open_window(const ConvParams& p, const Work& work, Window& window) {
#pragma unroll
    for (int k = 1; k < WIDTH; ++k) read_input(p, work, work.first - WIDTH + k, window[k]);
}
// The sum before the activation at a step's k-th time.
__device__ __forceinline__ float convolved(const Taps& taps, const Window& window, int k, int c) {
    float sum = taps.bias[c];
#pragma unroll
    for (int i = 0; i < WIDTH; ++i) sum = fmaf(taps.weight[i][c], window[(k + 1 + i) % WIDTH][c], sum);
    return sum;
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
    const Taps taps(p, work);
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
                y[c] = convolved(taps, window, k, c);
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

__device__ __forceinline__ void store_sums(const ConvParams& p, const Work& work, const float (&weight)[WIDTH][PIECE],
                                           const float (&bias)[PIECE]) {
    if (!work.used) return;
    const i64 chunk = static_cast<i64>(work.batch) * p.chunks + work.chunk;
    float* partial = p.weight_partial + (chunk * p.channels + work.channel) * (WIDTH + 1);
#pragma unroll
    for (int c = 0; c < PIECE; ++c) {
#pragma unroll
        for (int k = 0; k < WIDTH; ++k) partial[c * (WIDTH + 1) + k] = weight[k][c];
        partial[c * (WIDTH + 1) + WIDTH] = bias[c];
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
    const Taps taps(p, work);
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
        if (start >= work.last) store_sums(p, work, grad_weight, grad_bias);
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
                if (SILU) {
                    const float sum = convolved(taps, window, k, c), gate = sigmoid(sum);
                    g *= gate * fmaf(sum, 1.f - gate, 1.f);
                }
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
