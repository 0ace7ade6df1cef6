// Rows of a table by ids. A thread owns 16 bytes of the row and walks over positions, BATCH of them at once.
//
// Macros: DTYPE (0; bytes are not looked at), PIECES (of 16 bytes a row, up to 256), IDS (1: 4 bytes, 2: 8 bytes), BATCH.
#include "device.cuh"

#if IDS == 2
typedef i64 token_t;
#else
typedef int token_t;
#endif

struct LookUpParams {
    const uint4* table;
    const token_t* ids;
    uint4* rows;
    i64 size, count, run;
};

constexpr int THREADS = 256, GROUPS = THREADS / PIECES;

// The id, or the end of the program: what it names would be someone else's memory.
__device__ __forceinline__ i64 inside(i64 id, i64 size) {
#ifdef GENOSSM_EMULATED
    if (id < 0 || id >= size) std::abort();
#else
    if (id < 0 || id >= size) __trap();
#endif
    return id;
}

extern "C" __global__ void __launch_bounds__(THREADS) take_rows(const LookUpParams p) {
    const i64 begin = blockIdx.x * p.run, end = min(begin + p.run, p.count);
    const int group = threadIdx.x / PIECES, piece = threadIdx.x % PIECES;
    if (group >= GROUPS) return;
#pragma unroll 1
    for (i64 first = begin + group; first < end; first += BATCH * GROUPS) {
        i64 ids[BATCH];
#pragma unroll
        for (int k = 0; k < BATCH; ++k) ids[k] = first + k * GROUPS < end ? inside(p.ids[first + k * GROUPS], p.size) : 0;
#pragma unroll
        for (int k = 0; k < BATCH; ++k)
            if (first + k * GROUPS < end) p.rows[(first + k * GROUPS) * PIECES + piece] = p.table[ids[k] * PIECES + piece];
    }
}

GENOSSM_KERNEL(take_rows, LookUpParams)
