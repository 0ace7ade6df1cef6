// Convolutions with SiLU and a projection of what they put out, low = u W^T, forward: u is multiplied while it is in shared
// memory. One way, or both ways of the same x. CUDA.md.
//
// A block takes all channels of a run of positions, a warp TILE of them, in steps of STEP rows; what each warp adds to the
// sums over channels meets in shared memory, in the order of the warps.
//
// Macros: DTYPE (1 or 2), WIDTH, FIRST (taps meet earlier positions), SECOND (later ones), LOW (columns of low, a multiple of
// 8), WARPS (channels / TILE), GROUP (rows whose arithmetic is written out), STAGES (steps in shared memory), BLOCKS.
#include "matrix.cuh"

struct ProjectingParams {
    const storage_t *x, *into_first, *into_second;
    const float *first, *first_bias, *second, *second_bias;
    storage_t *y_first, *y_second, *low_first, *low_second;  // low: contiguous
    i64 x_batch, x_row, y_first_batch, y_first_row, y_second_batch, y_second_row, length;
    int run, chunks;
};

constexpr int THREADS = 32 * WARPS, TILE = 64, STEP = 16, WAYS = FIRST + SECOND, CHANNELS = WARPS * TILE;
constexpr int TAIL = WIDTH - 1, BEFORE = FIRST ? TAIL : 0, AFTER = SECOND ? TAIL : 0, AROUND = BEFORE + AFTER;
constexpr int PADDED = (LOW + 15) / 16 * 16, PAIRS = PADDED / 16, DEEP = TILE / 16;
// Rows lie an odd number of 16 bytes apart, so that eight of them are in different banks.
constexpr int ROW = TILE + 8, SLOTS = STEP * ROW, STAGE = SLOTS * WARPS;
constexpr int SUM_ROW = PADDED + 8, SUMS = STEP * SUM_ROW;
constexpr int PACKED_WEIGHTS = WARPS * DEEP * PAIRS * 32 * 4;  // words of one W

struct Work {
    int batch, channel, lane, warp;
    i64 first, last;
};

__device__ __forceinline__ void pack_weights(const storage_t* into, unsigned* packed) {
    for (int item = threadIdx.x; item < PACKED_WEIGHTS; item += THREADS) {
        const int half = item % 2, tile = item / 2 % 2, lane = item / 4 % 32, pair = item / 128 % PAIRS, deep = item / (128 * PAIRS);
        const int row = pair * 16 + tile * 8 + lane / 4, channel = deep * 16 + half * 8 + lane % 4 * 2;
        packed[item] = row < LOW ? *reinterpret_cast<const unsigned*>(into + static_cast<i64>(row) * CHANNELS + channel) : 0u;
    }
}

struct Source {
    const storage_t* x;
    __device__ __forceinline__ void fetch(const ProjectingParams& p, int lane, storage_t* slots, i64 start) {
        const bool whole = start >= 0 && start + STEP <= p.length;
#pragma unroll
        for (int item = 0; item < STEP / 4; ++item) {
            const i64 row = start + lane / 8 + 4 * item;
            const bool inside = whole || (row >= 0 && row < p.length);
            copy_async(reinterpret_cast<float4*>(slots + (lane / 8 + 4 * item) * ROW + lane % 8 * 8),
                       inside ? x + 4 * item * p.x_row : p.x, inside);
        }
        x += STEP * p.x_row;
        close_copies();
    }
};

struct Taps {
    float weight[WIDTH][2], bias[2];
    __device__ __forceinline__ void load(int channel, const float* weights, const float* biases) {
#pragma unroll
        for (int c = 0; c < 2; ++c) {
            bias[c] = biases == nullptr ? 0.f : biases[channel + c];
#pragma unroll
            for (int k = 0; k < WIDTH; ++k) weight[k][c] = weights[static_cast<i64>(channel + c) * WIDTH + k];
        }
    }
};
typedef float Rows[GROUP + AROUND][2];

template <bool LATER>
__device__ __forceinline__ unsigned convolved(const Taps& taps, const Rows& window, int k) {
    float y[2];
#pragma unroll
    for (int c = 0; c < 2; ++c) {
        float sum = taps.bias[c];
#pragma unroll
        for (int i = 0; i < WIDTH; ++i) sum = fmaf(taps.weight[i][c], window[LATER ? k + BEFORE + TAIL - i : k + i][c], sum);
        y[c] = sum * sigmoid(sum);
    }
    return pack_two(y[0], y[1]);
}

// This warp's share of low: its channels of STEP rows.
__device__ __forceinline__ void project(int lane, const storage_t* u, const unsigned* packed, float (&sums)[PAIRS][2][4]) {
#pragma unroll
    for (int deep = 0; deep < DEEP; ++deep) {
        unsigned left[4];
        load_matrices<false>(left, u + lane % 16 * ROW + deep * 16 + lane / 16 * 8);
#pragma unroll
        for (int pair = 0; pair < PAIRS; ++pair) {
            const uint4 right = *reinterpret_cast<const uint4*>(packed + ((deep * PAIRS + pair) * 32 + lane) * 4);
            multiply_add(sums[pair][0], left, right.x, right.y);
            multiply_add(sums[pair][1], left, right.z, right.w);
        }
    }
}
__device__ __forceinline__ void share(int lane, const float (&sums)[PAIRS][2][4], float* mine) {
#pragma unroll
    for (int pair = 0; pair < PAIRS; ++pair)
#pragma unroll
        for (int tile = 0; tile < 2; ++tile)
#pragma unroll
            for (int half = 0; half < 2; ++half)
                *reinterpret_cast<float2*>(mine + (lane / 4 + 8 * half) * SUM_ROW + pair * 16 + tile * 8 + lane % 4 * 2) =
                    make_float2(sums[pair][tile][2 * half], sums[pair][tile][2 * half + 1]);
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) convolve_projecting(const ProjectingParams p) {
    GENOSSM_SHARED(shared);
    unsigned* packed = reinterpret_cast<unsigned*>(shared);
    float* shares = shared + WAYS * PACKED_WEIGHTS;  // (ways, warps, rows, columns)
    storage_t* stages = reinterpret_cast<storage_t*>(shares + WAYS * WARPS * SUMS);
    Work work;
    work.lane = threadIdx.x % 32, work.warp = threadIdx.x / 32, work.channel = work.warp * TILE + 2 * work.lane;
    work.batch = static_cast<int>(blockIdx.x) / p.chunks;
    work.first = static_cast<i64>(static_cast<int>(blockIdx.x) % p.chunks) * p.run;
    work.last = min(work.first + p.run, p.length);
    storage_t* mine = stages + work.warp * SLOTS;
    storage_t* other = mine + STAGES * STAGE;  // the second of two results
    const int lane = work.lane;
    Taps first, second;
    if (FIRST) {
        pack_weights(p.into_first, packed);
        first.load(work.channel, p.first, p.first_bias);
    }
    if (SECOND) {
        pack_weights(p.into_second, packed + FIRST * PACKED_WEIGHTS);
        second.load(work.channel, p.second, p.second_bias);
    }
    const storage_t* x = p.x + work.batch * p.x_batch;
    float history[AROUND][2];
#pragma unroll
    for (int j = 0; j < AROUND; ++j) {
        const i64 position = work.first - BEFORE + j;
        unsigned bits = 0u;
        if (position >= 0 && position < p.length) bits = *reinterpret_cast<const unsigned*>(x + position * p.x_row + work.channel);
        unpack_two(bits, history[j]);
    }
    Source from = {x + (work.first + AFTER + lane / 8) * p.x_row + work.warp * TILE + lane % 8 * 8};
#pragma unroll
    for (int ahead = 0; ahead < STAGES; ++ahead) from.fetch(p, lane, mine + ahead * STAGE, work.first + AFTER + ahead * STEP);
    storage_t* y_first = p.y_first + work.batch * p.y_first_batch + work.first * p.y_first_row + work.channel;
    storage_t* y_second = p.y_second + work.batch * p.y_second_batch + work.first * p.y_second_row + work.channel;
    const unsigned* weights = packed + work.warp * DEEP * PAIRS * 128;
    int turn = 0;
    __syncthreads();
#pragma unroll 1
    for (i64 start = work.first; start < work.last; start += STEP) {
        await_copies<STAGES - 1>();
        __syncwarp();
        unsigned* slots = reinterpret_cast<unsigned*>(mine + turn * STAGE) + lane;
        unsigned* others = reinterpret_cast<unsigned*>(other) + lane;
#pragma unroll 1
        for (int group = 0; group < STEP; group += GROUP) {
            Rows window;
#pragma unroll
            for (int j = 0; j < AROUND; ++j) window[j][0] = history[j][0], window[j][1] = history[j][1];
#pragma unroll
            for (int k = 0; k < GROUP; ++k) {
                const int at = (group + k) * (ROW / 2);
                unpack_two(slots[at], window[AROUND + k]);
                const bool inside = start + group + k < work.last;
#if FIRST
                const unsigned one = convolved<false>(first, window, k);
                slots[at] = one;  // u lies where x was
                if (inside) *reinterpret_cast<unsigned*>(y_first) = one;
                y_first += p.y_first_row;
#endif
#if SECOND
                const unsigned two = convolved<true>(second, window, k);
                (FIRST ? others : slots)[at] = two;
                if (inside) *reinterpret_cast<unsigned*>(y_second) = two;
                y_second += p.y_second_row;
#endif
            }
#pragma unroll
            for (int j = 0; j < AROUND; ++j) history[j][0] = window[GROUP + j][0], history[j][1] = window[GROUP + j][1];
        }
        __syncwarp();
        float sums[WAYS][PAIRS][2][4] = {};
#pragma unroll
        for (int way = 0; way < WAYS; ++way)
            project(lane, way == 0 ? mine + turn * STAGE : other, weights + way * PACKED_WEIGHTS, sums[way]);
        __syncthreads();  // the sums of the step before are read
#pragma unroll
        for (int way = 0; way < WAYS; ++way) share(lane, sums[way], shares + (way * WARPS + work.warp) * SUMS);
        from.fetch(p, lane, mine + turn * STAGE, start + AFTER + STAGES * STEP);
        __syncthreads();
        for (int index = threadIdx.x; index < WAYS * STEP * LOW / 2; index += THREADS) {
            const int column = index % (LOW / 2) * 2, row = index / (LOW / 2) % STEP, way = index / (LOW / 2 * STEP);
            const float* at = shares + way * WARPS * SUMS + row * SUM_ROW + column;
            float total[2] = {0.f, 0.f};
#pragma unroll
            for (int warp = 0; warp < WARPS; ++warp) {
                const float2 part = *reinterpret_cast<const float2*>(at + warp * SUMS);
                total[0] += part.x, total[1] += part.y;
            }
            storage_t* low = FIRST && way == 0 ? p.low_first : p.low_second;
            if (start + row < work.last)
                *reinterpret_cast<unsigned*>(low + (work.batch * p.length + start + row) * LOW + column) = pack_two(total[0], total[1]);
        }
        turn = turn + 1 == STAGES ? 0 : turn + 1;
    }
}

GENOSSM_KERNEL(convolve_projecting, ProjectingParams)
