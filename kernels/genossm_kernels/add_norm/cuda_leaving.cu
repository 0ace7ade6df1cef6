// A projection, its addition to the residual stream and the norm of the sum: stream = residual + y W^T, hidden =
// stream / sqrt(mean(stream²) + eps) * weight. W stays on the multiprocessor, half in registers and half in shared memory.
//
// A block takes tiles of TILE rows, a grid apart; a warp has 32 columns of the sum, and W for them. Rows of y come into
// shared memory a few tiles ahead, residuals into registers one ahead.
//
// Macros: DTYPE (1 or 2), COLUMNS (of the stream, 32 a warp), INNER (of y, a multiple of 16), KEPT (steps of 16 of INNER whose
// W is in registers), STAGES (tiles of y in shared memory), IDS (the residual is a table's row by ids of 1: 4 bytes, 2: 8
// bytes; else 0), KEEP (the stream is written), WIDE (hidden is float), BLOCKS (a multiprocessor).
#include "matrix.cuh"

#if IDS == 2
typedef i64 token_t;
#else
typedef int token_t;
#endif

struct LeavingParams {
    const storage_t *y, *matrix;
    const float *residual, *weight;
    const token_t* ids;
    float* stream;
    void* hidden;
    i64 rows, y_row, residual_row;
    float eps;
    int tiles;
};

constexpr int WARPS = COLUMNS / 32, THREADS = 32 * WARPS, HALVES = 2, TILE = 16 * HALVES, STEPS = INNER / 16;
// Rows lie an odd number of 16 bytes apart, so that eight of them are in different banks.
constexpr int ROW = INNER + 8, STAGE = TILE * ROW, PIECES = INNER / 8;
constexpr int PACKED = WARPS * (STEPS - KEPT) * 2 * 32;  // 16 bytes each

// Of a product's column: which of this warp's 32 it is. A lane has four neighbouring ones of two products.
__device__ __forceinline__ int column_of(int product, int n) { return product / 2 * 16 + n / 2 * 4 + product % 2 * 2 + n % 2; }

__device__ __forceinline__ uint4 right_of(const storage_t* matrix, int lane, int step, int pair) {
    const storage_t* place = matrix + step * 16 + lane % 4 * 2;
    const storage_t *one = place + column_of(2 * pair, lane / 4) * INNER, *other = place + column_of(2 * pair + 1, lane / 4) * INNER;
    return make_uint4(*reinterpret_cast<const unsigned*>(one), *reinterpret_cast<const unsigned*>(one + 8),
                      *reinterpret_cast<const unsigned*>(other), *reinterpret_cast<const unsigned*>(other + 8));
}

__device__ __forceinline__ void fetch(const LeavingParams& p, storage_t* slots, i64 tile) {
    const i64 first = tile * TILE;
#pragma unroll 4
    for (int item = threadIdx.x; item < TILE * PIECES; item += THREADS) {
        const int row = item / PIECES, piece = item % PIECES;
        const bool inside = first + row < p.rows;
        copy_async(reinterpret_cast<float4*>(slots + row * ROW + piece * 8), inside ? p.y + (first + row) * p.y_row + piece * 8 : p.y, inside);
    }
    close_copies();
}

// Two neighbouring halves of a tile's rows, two groups of 16 columns, four of them a lane.
typedef float4 Residual[HALVES][2][2];
__device__ __forceinline__ void read_residual(const LeavingParams& p, i64 tile, int row, int column, Residual& out) {
#pragma unroll
    for (int m = 0; m < HALVES; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const i64 position = tile * TILE + m * 16 + half * 8 + row;
            const bool inside = position < p.rows;
#if IDS
            const i64 at = inside ? static_cast<i64>(p.ids[position]) : 0;
#else
            const i64 at = inside ? position : 0;
#endif
            const float* place = p.residual + at * p.residual_row + column;
#pragma unroll
            for (int group = 0; group < 2; ++group) out[m][half][group] = *reinterpret_cast<const float4*>(place + 16 * group);
        }
}

__device__ __forceinline__ void multiply(float (&sums)[HALVES][4][4], const unsigned (&left)[HALVES][4], int pair, const uint4& right) {
#pragma unroll
    for (int m = 0; m < HALVES; ++m) {
        multiply_add(sums[m][2 * pair], left[m], right.x, right.y);
        multiply_add(sums[m][2 * pair + 1], left[m], right.z, right.w);
    }
}
__device__ __forceinline__ void load_left(unsigned (&left)[HALVES][4], const storage_t* rows, int step) {
#pragma unroll
    for (int m = 0; m < HALVES; ++m) load_matrices<false>(left[m], rows + m * 16 * ROW + step * 16);
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) leave_and_normalize(const LeavingParams p) {
    GENOSSM_SHARED(shared);
    uint4* packed = reinterpret_cast<uint4*>(shared);
    float* parts = shared + 4 * PACKED;  // squares of a warp's columns of every row
    storage_t* stages = reinterpret_cast<storage_t*>(parts + TILE * WARPS);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, row = lane / 4, column = warp * 32 + lane % 4 * 4;
    i64 tile = blockIdx.x;
#pragma unroll 1
    for (int ahead = 0; ahead < STAGES; ++ahead) fetch(p, stages + ahead * STAGE, tile + ahead * static_cast<i64>(gridDim.x));
    const storage_t* matrix = p.matrix + warp * 32 * INNER;
    uint4 kept[KEPT > 0 ? KEPT : 1][2];
#pragma unroll
    for (int step = 0; step < KEPT; ++step)
#pragma unroll
        for (int pair = 0; pair < 2; ++pair) kept[step][pair] = right_of(matrix, lane, step, pair);
    uint4* mine = packed + warp * (STEPS - KEPT) * 64 + lane;
#pragma unroll 4
    for (int item = 0; item < 2 * (STEPS - KEPT); ++item) mine[item * 32] = right_of(matrix, lane, KEPT + item / 2, item % 2);
    float4 weight[2];
#pragma unroll
    for (int group = 0; group < 2; ++group) weight[group] = *reinterpret_cast<const float4*>(p.weight + column + 16 * group);
    Residual residual;
    read_residual(p, tile, row, column, residual);
    int turn = 0;
#pragma unroll 1
    for (; tile < p.tiles; tile += gridDim.x) {
        await_copies<STAGES - 1>();
        __syncthreads();
        const storage_t* rows = stages + turn * STAGE + lane % 16 * ROW + lane / 16 * 8;
        float sums[HALVES][4][4] = {};
        unsigned left[2][HALVES][4];
        load_left(left[0], rows, 0);
#pragma unroll
        for (int step = 0; step < STEPS; ++step) {
            if (step + 1 < STEPS) load_left(left[(step + 1) % 2], rows, step + 1);
#pragma unroll
            for (int pair = 0; pair < 2; ++pair)
                multiply(sums, left[step % 2], pair, step < KEPT ? kept[step < KEPT ? step : 0][pair] : mine[(2 * (step - KEPT) + pair) * 32]);
        }
        const i64 first = tile * TILE + row;
#pragma unroll
        for (int m = 0; m < HALVES; ++m)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const i64 position = first + m * 16 + half * 8;
                float squares = 0.f;
#pragma unroll
                for (int group = 0; group < 2; ++group) {
                    float* low = &sums[m][2 * group][2 * half];
                    float* high = &sums[m][2 * group + 1][2 * half];
                    const float4& added = residual[m][half][group];
                    low[0] += added.x, low[1] += added.y, high[0] += added.z, high[1] += added.w;
#if KEEP
                    if (position < p.rows)
                        *reinterpret_cast<float4*>(p.stream + position * COLUMNS + column + 16 * group) =
                            make_float4(low[0], low[1], high[0], high[1]);
#endif
                    squares = fmaf(low[0], low[0], fmaf(low[1], low[1], fmaf(high[0], high[0], fmaf(high[1], high[1], squares))));
                }
                squares += __shfl_xor_sync(FULL, squares, 1);
                squares += __shfl_xor_sync(FULL, squares, 2);
                if (lane % 4 == 0) parts[(m * 16 + half * 8 + row) * WARPS + warp] = squares;
            }
        if (tile + gridDim.x < p.tiles) read_residual(p, tile + gridDim.x, row, column, residual);
        __syncthreads();  // parts are there, and no warp reads this tile any more
        fetch(p, stages + turn * STAGE, tile + STAGES * static_cast<i64>(gridDim.x));
#pragma unroll
        for (int m = 0; m < HALVES; ++m)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const i64 position = first + m * 16 + half * 8;
                const float* of_warps = parts + (m * 16 + half * 8 + row) * WARPS;
                float squares = 0.f;
#pragma unroll
                for (int other = 0; other < WARPS; ++other) squares += of_warps[other];
                const float scale = 1.f / sqrtf(squares / COLUMNS + p.eps);
#pragma unroll
                for (int group = 0; group < 2; ++group) {
                    const float *low = &sums[m][2 * group][2 * half], *high = &sums[m][2 * group + 1][2 * half];
                    const float four[4] = {low[0] * scale * weight[group].x, low[1] * scale * weight[group].y,
                                           high[0] * scale * weight[group].z, high[1] * scale * weight[group].w};
                    if (position >= p.rows) continue;
                    const i64 place = position * COLUMNS + column + 16 * group;
#if WIDE
                    *reinterpret_cast<float4*>(static_cast<float*>(p.hidden) + place) =
                        make_float4(four[0], four[1], four[2], four[3]);
#else
                    *reinterpret_cast<uint2*>(static_cast<storage_t*>(p.hidden) + place) =
                        make_uint2(pack_two(four[0], four[1]), pack_two(four[2], four[3]));
#endif
                }
            }
        turn = turn + 1 == STAGES ? 0 : turn + 1;
    }
}

GENOSSM_KERNEL(leave_and_normalize, LeavingParams)
