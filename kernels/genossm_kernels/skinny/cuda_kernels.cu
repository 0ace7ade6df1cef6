// The backward pass of `wide = narrow W^T`, W of many rows (CHANNELS) and few columns (RANK): the gradient of narrow,
// g W, and that of W, g^T narrow, in one pass over g. README.md.
//
// A block takes all channels of a run of positions, a warp TILE of them, in steps of STEP rows on tensor cores. The sums
// over channels, for narrow, meet in shared memory; those over positions, for W, stay in registers until the run's end.
//
// Macros: DTYPE (1 or 2), WARPS (CHANNELS / TILE), RANK (a multiple of 4, up to 16), NARROW_WHOLE (rows of
// narrow lie on 16 bytes, not only on 8), STAGES (steps in shared memory, at least 2).
#include "matrix.cuh"

struct SkinnyParams {
    const storage_t *grad_wide, *narrow, *weight;
    storage_t* grad_narrow;
    float* partial;  // (blocks, CHANNELS, RANK)
    i64 rows, grad_wide_row, narrow_row, grad_narrow_row, run;  // run: rows of a block
};

constexpr int THREADS = 32 * WARPS, TILE = 64, STEP = 16, CHANNELS = WARPS * TILE, PADDED = 16;
static_assert(RANK <= PADDED && RANK % 4 == 0, "one tile of columns");
// Rows of narrow are read in pieces of 16 bytes, or of 8 where they lie on no others.
#if NARROW_WHOLE
typedef float4 piece_t;
#else
typedef uint2 piece_t;
#endif
constexpr int PIECE = sizeof(piece_t) / sizeof(storage_t);
// Rows lie an odd number of 16 bytes apart, so that eight of them are in different banks.
constexpr int ROW = TILE + 8, NARROW_ROW = PADDED + 8;
constexpr int WARP_STAGE = STEP * (ROW + NARROW_ROW), STAGE = WARP_STAGE * WARPS;
constexpr int SUMS = STEP * PADDED;

struct Sources {
    const storage_t *wide, *narrow;
};
template <bool WHOLE>
__device__ __forceinline__ void fetch(const SkinnyParams& p, int lane, Sources& from, storage_t* stage, i64 start, i64 end) {
#pragma unroll
    for (int item = 0; item < STEP / 4; ++item) {
        const bool inside = WHOLE || start + 4 * item + lane / 8 < end;
        copy_async(reinterpret_cast<float4*>(stage + (lane / 8 + 4 * item) * ROW + lane % 8 * 8),
                   inside ? from.wide + 4 * item * p.grad_wide_row : p.grad_wide, inside);
    }
#pragma unroll
    for (int item = 0; item < PADDED / (2 * PIECE); ++item) {
        const int column = (2 * item + lane % 2) * PIECE;
        const bool inside = (WHOLE || start + lane / 2 < end) && column < RANK;
        copy_async(reinterpret_cast<piece_t*>(stage + STEP * ROW + lane / 2 * NARROW_ROW + column),
                   inside ? from.narrow + 2 * item * PIECE : p.narrow, inside);
    }
    from.wide += STEP * p.grad_wide_row, from.narrow += STEP * p.narrow_row;
}
__device__ __forceinline__ void fetch_step(const SkinnyParams& p, int lane, Sources& from, storage_t* stage, i64 start, i64 end) {
    if (start + STEP <= end) fetch<true>(p, lane, from, stage, start, end);
    else if (start < end) fetch<false>(p, lane, from, stage, start, end);
    close_copies();
}

extern "C" __global__ void __launch_bounds__(THREADS) pass_back_skinny(const SkinnyParams p) {
    GENOSSM_SHARED(shared);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, row = lane % 8, eights = lane / 8;
    float* halves = shared;  // of two steps in turn: what each warp adds to the sums over channels
    storage_t* mine = reinterpret_cast<storage_t*>(shared + 2 * WARPS * SUMS) + warp * WARP_STAGE;
    const i64 first = static_cast<i64>(blockIdx.x) * p.run, end = min(first + p.run, p.rows);
    // W as the product over channels wants it: of 16 channels, two tiles of 8 columns.
    unsigned weight[TILE / 16][2][2];
#pragma unroll
    for (int deep = 0; deep < TILE / 16; ++deep)
#pragma unroll
        for (int tile = 0; tile < 2; ++tile)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int column = tile * 8 + lane / 4;
                const storage_t* source = p.weight + static_cast<i64>(warp * TILE + deep * 16 + half * 8 + lane % 4 * 2) * RANK + column;
                weight[deep][tile][half] =
                    column < RANK ? static_cast<unsigned>(source[0]) | static_cast<unsigned>(source[RANK]) << 16 : 0u;
            }
    float sums[TILE / 8][4] = {};
    Sources from = {p.grad_wide + (first + lane / 8) * p.grad_wide_row + warp * TILE + lane % 8 * 8,
                    p.narrow + (first + lane / 2) * p.narrow_row + lane % 2 * PIECE};
#pragma unroll
    for (int ahead = 0; ahead < STAGES - 1; ++ahead) fetch_step(p, lane, from, mine + ahead * STAGE, first + ahead * STEP, end);
    int turn = 0, next = STAGES - 1;
#pragma unroll 1
    for (i64 start = first; start < end; start += STEP) {
        await_copies<STAGES - 2>();
        __syncwarp();
        const storage_t* wide = mine + turn * STAGE;
        const storage_t* narrow = wide + STEP * ROW;
        float of_step[2][4] = {};
        unsigned left[4];
#pragma unroll
        for (int deep = 0; deep < TILE / 16; ++deep) {
            load_matrices<false>(left, wide + lane % 16 * ROW + deep * 16 + lane / 16 * 8);
            multiply_add(of_step[0], left, weight[deep][0][0], weight[deep][0][1]);
            multiply_add(of_step[1], left, weight[deep][1][0], weight[deep][1][1]);
        }
        float* half = halves + (start / STEP & 1) * WARPS * SUMS;
#pragma unroll
        for (int tile = 0; tile < 2; ++tile)
#pragma unroll
            for (int k = 0; k < 2; ++k)
                *reinterpret_cast<float2*>(half + warp * SUMS + (lane / 4 + 8 * k) * PADDED + tile * 8 + lane % 4 * 2) =
                    make_float2(of_step[tile][2 * k], of_step[tile][2 * k + 1]);
        load_matrices<true>(left, narrow + (eights / 2 * 8 + row) * NARROW_ROW + eights % 2 * 8);
#pragma unroll
        for (int tile = 0; tile < TILE / 16; ++tile) {
            unsigned right[4];
            load_matrices<true>(right, wide + (eights % 2 * 8 + row) * ROW + tile * 16 + eights / 2 * 8);
            multiply_add(sums[2 * tile], left, right[0], right[1]);
            multiply_add(sums[2 * tile + 1], left, right[2], right[3]);
        }
        __syncthreads();
        // Whoever reads a half has read it before its writers are past the next barrier.
        for (int index = threadIdx.x; index < SUMS; index += THREADS) {
            float sum = 0.f;
#pragma unroll
            for (int other = 0; other < WARPS; ++other) sum += half[other * SUMS + index];
            const i64 at = start + index / PADDED;
            if (at < end && index % PADDED < RANK) p.grad_narrow[at * p.grad_narrow_row + index % PADDED] = to_storage(sum);
        }
        fetch_step(p, lane, from, mine + next * STAGE, start + (STAGES - 1) * STEP, end);
        turn = turn + 1 == STAGES ? 0 : turn + 1, next = next + 1 == STAGES ? 0 : next + 1;
    }
    float* target = p.partial + (static_cast<i64>(blockIdx.x) * CHANNELS + warp * TILE + lane % 4 * 2) * RANK + lane / 4;
#pragma unroll
    for (int tile = 0; tile < TILE / 8; ++tile)
#pragma unroll
        for (int k = 0; k < 4; ++k)
            if (lane / 4 + k / 2 * 8 < RANK) target[(tile * 8 + k % 2) * RANK + k / 2 * 8] = sums[tile][k];
}

GENOSSM_KERNEL(pass_back_skinny, SkinnyParams)
