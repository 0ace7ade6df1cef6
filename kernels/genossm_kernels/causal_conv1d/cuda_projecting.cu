// Convolutions with SiLU and a projection of what they put out, low = u W^T, forward: u is multiplied while it is in shared
// memory. One way, or both ways of the same x. CUDA.md.
//
// A block takes all channels of a run of positions, a warp TILE of them, in steps of STEP rows; what each warp adds to the
// sums over channels meets in shared memory, in the order of the warps.
//
// Macros: DTYPE (1 or 2), WIDTH, FIRST (taps meet earlier positions), SECOND (later ones), LOW (columns of low, a multiple of
// 4), RANK (up to 16 first columns of low, which are multiplied once more: wide = low V^T; 0: none), WARPS (channels / TILE),
// GROUP (rows whose arithmetic is written out), STAGES (steps in shared memory), BLOCKS.
#include "matrix.cuh"

struct ProjectingParams {
    const storage_t *x, *into_first, *into_second, *widen_first, *widen_second;
    const float *first, *first_bias, *second, *second_bias;
    storage_t *y_first, *y_second, *low_first, *low_second, *wide_first, *wide_second;  // low, wide: contiguous
    i64 x_batch, x_row, y_first_batch, y_first_row, y_second_batch, y_second_row, length;
    int run, chunks;
};

constexpr int THREADS = 32 * WARPS, TILE = 64, STEP = 16, WAYS = FIRST + SECOND, CHANNELS = WARPS * TILE;
constexpr int TAIL = WIDTH - 1;
constexpr int PADDED = (LOW + 15) / 16 * 16, PAIRS = PADDED / 16, DEEP = TILE / 16;
// Rows lie an odd number of 16 bytes apart, so that eight of them are in different banks.
constexpr int ROW = TILE + 8, SLOTS = STEP * ROW, STAGE = SLOTS * WARPS;
constexpr int SUM_ROW = PADDED + 8, SUMS = STEP * SUM_ROW;
// The columns of low that are multiplied once more, in rows an odd number of 16 bytes apart.
constexpr int STEPS_ROW = 24, WIDENED = TILE / 8;
constexpr int PACKED_WEIGHTS = WARPS * DEEP * PAIRS * 32 * 4;  // words of one W

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
typedef float Rows[GROUP + TAIL][2];

template <bool LATER>
__device__ __forceinline__ unsigned convolved(const Taps& taps, const Rows& window, int k) {
    float y[2];
#pragma unroll
    for (int c = 0; c < 2; ++c) {
        float sum = taps.bias[c];
#pragma unroll
        for (int i = 0; i < WIDTH; ++i) sum = fmaf(taps.weight[i][c], window[LATER ? k + TAIL - i : k + i][c], sum);
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

#if RANK
// wide = low[:, :RANK] V^T: V for this warp's TILE channels stays in registers. Of four neighbouring tiles of a product a
// lane has eight neighbouring channels, and so stores 16 bytes.
struct Widening {
    unsigned right[WIDENED][2];
    __device__ __forceinline__ void load(int lane, const storage_t* weight) {  // of this warp's channels
#pragma unroll
        for (int tile = 0; tile < WIDENED; ++tile)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int channel = tile / 4 * 32 + lane / 8 * 8 + tile % 4 * 2 + lane / 4 % 2, k = lane % 4 * 2 + 8 * half;
                right[tile][half] = k < RANK ? *reinterpret_cast<const unsigned*>(weight + channel * RANK + k) : 0u;
            }
    }
    // rows: how many are inside.   wide: of the first of them and this warp.
    __device__ __forceinline__ void put(int lane, const storage_t* steps, storage_t* wide, i64 rows) const {
        unsigned left[4];
        load_matrices<false>(left, steps + lane % 16 * STEPS_ROW + lane / 16 * 8);
        wide += lane / 4 * CHANNELS + lane % 4 * 8;
#pragma unroll
        for (int some = 0; some < WIDENED / 4; ++some) {
            float sums[4][4] = {};
#pragma unroll
            for (int k = 0; k < 4; ++k) multiply_add(sums[k], left, right[4 * some + k][0], right[4 * some + k][1]);
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const uint4 bits = make_uint4(pack_two(sums[0][2 * half], sums[0][2 * half + 1]),
                                              pack_two(sums[1][2 * half], sums[1][2 * half + 1]),
                                              pack_two(sums[2][2 * half], sums[2][2 * half + 1]),
                                              pack_two(sums[3][2 * half], sums[3][2 * half + 1]));
                if (lane / 4 + 8 * half < rows) *reinterpret_cast<uint4*>(wide + 8 * half * CHANNELS + 32 * some) = bits;
            }
        }
    }
};
#endif

// One way's blocks. LATER: taps meet later positions.
template <bool LATER>
__device__ __forceinline__ void walk(const ProjectingParams& p, int block, float* shared) {
    constexpr int BEFORE = LATER ? 0 : TAIL, AFTER = LATER ? TAIL : 0;
    unsigned* packed = reinterpret_cast<unsigned*>(shared);
    float* shares = shared + PACKED_WEIGHTS;  // (warps, rows, columns)
    storage_t* stages = reinterpret_cast<storage_t*>(shares + WARPS * SUMS);
#if RANK
    storage_t* steps = stages + STAGES * STAGE;  // zero from RANK on
    for (int item = threadIdx.x; item < STEP * STEPS_ROW; item += THREADS) steps[item] = 0;
#endif
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, channel = warp * TILE + 2 * lane, batch = block / p.chunks;
    const i64 begin = static_cast<i64>(block % p.chunks) * p.run, end = min(begin + p.run, p.length);
    storage_t* mine = stages + warp * SLOTS;
    Taps taps;
    pack_weights(LATER ? p.into_second : p.into_first, packed);
    taps.load(channel, LATER ? p.second : p.first, LATER ? p.second_bias : p.first_bias);
    const storage_t* x = p.x + batch * p.x_batch;
    float history[TAIL][2];
#pragma unroll
    for (int j = 0; j < TAIL; ++j) {
        const i64 position = begin - BEFORE + j;
        unsigned bits = 0u;
        if (position >= 0 && position < p.length) bits = *reinterpret_cast<const unsigned*>(x + position * p.x_row + channel);
        unpack_two(bits, history[j]);
    }
    Source from = {x + (begin + AFTER + lane / 8) * p.x_row + warp * TILE + lane % 8 * 8};
#pragma unroll
    for (int ahead = 0; ahead < STAGES; ++ahead) from.fetch(p, lane, mine + ahead * STAGE, begin + AFTER + ahead * STEP);
    const i64 y_row = LATER ? p.y_second_row : p.y_first_row;
    storage_t* y = (LATER ? p.y_second : p.y_first) + batch * (LATER ? p.y_second_batch : p.y_first_batch) + begin * y_row;
    y += lane / 8 * y_row + warp * TILE + lane % 8 * 8;
    storage_t* low = (LATER ? p.low_second : p.low_first) + batch * p.length * LOW;
    const unsigned* weights = packed + warp * DEEP * PAIRS * 128;
#if RANK
    Widening widening;
    widening.load(lane, (LATER ? p.widen_second : p.widen_first) + warp * TILE * RANK);
    storage_t* wide = (LATER ? p.wide_second : p.wide_first) + (batch * p.length + begin) * CHANNELS + warp * TILE;
#endif
    int turn = 0;
    __syncthreads();
#pragma unroll 1
    for (i64 start = begin; start < end; start += STEP) {
        await_copies<STAGES - 1>();
        __syncwarp();
        unsigned* slots = reinterpret_cast<unsigned*>(mine + turn * STAGE) + lane;
#pragma unroll 1
        for (int group = 0; group < STEP; group += GROUP) {
            Rows window;
#pragma unroll
            for (int j = 0; j < TAIL; ++j) window[j][0] = history[j][0], window[j][1] = history[j][1];
#pragma unroll
            for (int k = 0; k < GROUP; ++k) {
                unsigned& slot = slots[(group + k) * (ROW / 2)];
                unpack_two(slot, window[TAIL + k]);
                const unsigned u = convolved<LATER>(taps, window, k);
                slot = u;  // u lies where x was
            }
#pragma unroll
            for (int j = 0; j < TAIL; ++j) history[j][0] = window[GROUP + j][0], history[j][1] = window[GROUP + j][1];
        }
        __syncwarp();
#pragma unroll
        for (int item = 0; item < STEP / 4; ++item)
            if (start + lane / 8 + 4 * item < end)
                *reinterpret_cast<uint4*>(y + 4 * item * y_row) =
                    *reinterpret_cast<const uint4*>(mine + turn * STAGE + (lane / 8 + 4 * item) * ROW + lane % 8 * 8);
        y += STEP * y_row;
        float sums[PAIRS][2][4] = {};
        project(lane, mine + turn * STAGE, weights, sums);
        __syncthreads();  // the sums of the step before are read
        share(lane, sums, shares + warp * SUMS);
        from.fetch(p, lane, mine + turn * STAGE, start + AFTER + STAGES * STEP);
#if RANK
        if (start > begin) {  // low of the step before is whole
            widening.put(lane, steps, wide, STEP);
            wide += STEP * CHANNELS;
        }
#endif
        __syncthreads();
        for (int index = threadIdx.x; index < STEP * LOW / 2; index += THREADS) {
            const int column = index % (LOW / 2) * 2, row = index / (LOW / 2);
            const float* at = shares + row * SUM_ROW + column;
            float total[2] = {0.f, 0.f};
#pragma unroll
            for (int other = 0; other < WARPS; ++other) {
                const float2 part = *reinterpret_cast<const float2*>(at + other * SUMS);
                total[0] += part.x, total[1] += part.y;
            }
            const unsigned bits = pack_two(total[0], total[1]);
            if (start + row < end) *reinterpret_cast<unsigned*>(low + (start + row) * LOW + column) = bits;
#if RANK
            if (column < RANK) *reinterpret_cast<unsigned*>(steps + row * STEPS_ROW + column) = bits;
#endif
        }
        turn = turn + 1 == STAGES ? 0 : turn + 1;
    }
#if RANK
    __syncthreads();
    widening.put(lane, steps, wide, end - begin - (end - begin - 1) / STEP * STEP);
#endif
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) convolve_projecting(const ProjectingParams p) {
    GENOSSM_SHARED(shared);
    const int block = static_cast<int>(blockIdx.x);
    // Neighbouring blocks take both ways of the same rows.
    if (SECOND && (!FIRST || block % 2 == 1)) walk<true>(p, block / WAYS, shared);
    else walk<false>(p, block / WAYS, shared);
}

GENOSSM_KERNEL(convolve_projecting, ProjectingParams)
