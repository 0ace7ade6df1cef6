// What convolutions of many taps are written with: a warp owns TILE channels and walks a run of times in steps, whose rows
// wait in shared memory. The last WIDTH inputs lie in registers that are written in turn: a step is a multiple of WIDTH
// times, written out, so that nothing moves from one register to the next. CUDA.md.
//
// Macros: DTYPE, WIDTH, PIECE (channels of a lane: 1 or 2), WARPS (of a block), STAGES (steps in shared memory).
#pragma once
#include "device.cuh"

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
__device__ __forceinline__ void store_piece_if(bool written, storage_t* target, const float (&values)[PIECE]) {
#if DTYPE == 0 || defined(GENOSSM_EMULATED)
    struct alignas(PIECE * sizeof(storage_t)) Stored {
        storage_t bits[PIECE];
    } stored;
#pragma unroll
    for (int c = 0; c < PIECE; ++c) stored.bits[c] = to_storage(values[c]);
    if (written) *reinterpret_cast<Stored*>(target) = stored;
#elif PIECE == 2
    asm volatile("{.reg .pred p; setp.ne.b32 p, %0, 0; @p st.global.b32 [%1], %2;}" ::"r"(static_cast<int>(written)),
                 "l"(target), "r"(pack_two(values[0], values[1]))
                 : "memory");
#else
    asm volatile("{.reg .pred p; setp.ne.b32 p, %0, 0; @p st.global.b16 [%1], %2;}" ::"r"(static_cast<int>(written)),
                 "l"(target), "h"(to_storage(values[0]))
                 : "memory");
#endif
}

struct Work {
    int batch, chunk, block, channel, lane;
    bool reversed, used, copies;  // this lane has channels; the channels that it copies are some
    i64 first, last;
    __device__ __forceinline__ i64 offset(i64 batch_stride, i64 row_stride, i64 length, i64 time) const {
        return batch * batch_stride + (reversed ? length - 1 - time : time) * row_stride;
    }
    __device__ __forceinline__ i64 onwards(i64 row_stride) const { return reversed ? -row_stride : row_stride; }
};
// Neighbouring warps take neighbouring tiles, of which a block of channels has `tiles`. False where there is no work.
template <class Params>
__device__ __forceinline__ bool take_work(const Params& p, int blocks, int tiles, Work& work) {
    const i64 item = static_cast<i64>(blockIdx.x) * WARPS + threadIdx.x / 32, rest = item / (blocks * tiles);
    const int tile = static_cast<int>(item % (blocks * tiles)), block_length = p.channels / blocks;
    const int inside = tile % tiles * TILE;
    work.block = tile / tiles;
    work.lane = threadIdx.x % 32;
    work.chunk = static_cast<int>(rest % p.chunks);
    work.batch = static_cast<int>(rest / p.chunks);
    work.channel = work.block * block_length + inside + PIECE * work.lane;
    work.used = inside + PIECE * work.lane < block_length;
    work.copies = inside + work.lane % LANES * VECTOR < block_length;
    work.reversed = false;
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
    __device__ __forceinline__ Taps(const Work& work, const float* weights, const float* biases) {
#pragma unroll
        for (int c = 0; c < PIECE; ++c) {
            bias[c] = work.used && biases != nullptr ? biases[work.channel + c] : 0.f;
#pragma unroll
            for (int k = 0; k < WIDTH; ++k)
                weight[k][c] = work.used ? weights[static_cast<i64>(work.channel + c) * WIDTH + k] : 0.f;
        }
    }
};

// The last inputs: that of the run's k-th time is at k % WIDTH.
typedef float Window[WIDTH][PIECE];
// The sum before the activation when a step's k-th input has arrived: at its time, or, LATER taps, WIDTH - 1 before it; in the
// order of the taps, as a call of that way alone has it: the same bits.
template <bool LATER>
__device__ __forceinline__ float convolved(const Taps& taps, const Window& window, int k, int c) {
    float sum = taps.bias[c];
#pragma unroll
    for (int i = 0; i < WIDTH; ++i)
        sum = fmaf(taps.weight[i][c], window[(k + 1 + (LATER ? TAIL - i : i)) % WIDTH][c], sum);
    return sum;
}
// What reaches that sum from the gradient of SiLU's output.
__device__ __forceinline__ float before_silu(float gradient, float sum) {
    const float gate = sigmoid(sum);
    return gradient * (gate * fmaf(sum, 1.f - gate, 1.f));
}

// What a run adds to the gradients of taps and bias, into its place in (batch * chunks, channels, WIDTH + 1).
template <class Params>
__device__ __forceinline__ void store_sums(const Params& p, const Work& work, float* partials,
                                           const float (&weight)[WIDTH][PIECE], const float (&bias)[PIECE]) {
    if (!work.used) return;
    const i64 chunk = static_cast<i64>(work.batch) * p.chunks + work.chunk;
    float* partial = partials + (chunk * p.channels + work.channel) * (WIDTH + 1);
#pragma unroll
    for (int c = 0; c < PIECE; ++c) {
#pragma unroll
        for (int k = 0; k < WIDTH; ++k) partial[c * (WIDTH + 1) + k] = weight[k][c];
        partial[c * (WIDTH + 1) + WIDTH] = bias[c];
    }
}
