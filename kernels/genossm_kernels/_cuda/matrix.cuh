// Products of small tiles on tensor cores, by one warp: bfloat16 or float16 in, float sums. Fragments as the PTX manual
// has them (mma.m16n8k16, ldmatrix); with emulation.h in front, the same on a CPU.
#pragma once
#include "device.cuh"

#ifdef GENOSSM_EMULATED
namespace emulation {
struct Fragments { unsigned a[4], b[2]; const storage_t* row; };
inline std::vector<Fragments> fragments;
inline Fragments* my_warp_s_fragments() {
    if (fragments.size() < fibers.size()) fragments.resize(fibers.size());
    return fragments.data() + current / WARP * WARP;
}
// Element (row, column) of a tile of which every lane holds two neighbours a register.
inline float of_pair(unsigned bits, int which) { return to_float(static_cast<storage_t>(which ? bits >> 16 : bits)); }
}  // namespace emulation
inline void multiply_add(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    using namespace emulation;
    const int lane = current % WARP;
    Fragments* all = my_warp_s_fragments();
    for (int k = 0; k < 4; ++k) all[lane].a[k] = a[k];
    all[lane].b[0] = b0, all[lane].b[1] = b1;
    __syncwarp();
    all = my_warp_s_fragments();
    for (int k = 0; k < 4; ++k) {
        const int row = lane / 4 + k / 2 * 8, column = lane % 4 * 2 + k % 2;
        for (int j = 0; j < 16; ++j) {
            const unsigned left = all[row % 8 * 4 + j % 8 / 2].a[row / 8 + j / 8 * 2];
            const unsigned right = all[column * 4 + j % 8 / 2].b[j / 8];
            d[k] += of_pair(left, j % 2) * of_pair(right, j % 2);
        }
    }
    __syncwarp();
}
template <bool TRANSPOSED>
inline void load_matrices(unsigned (&out)[4], const storage_t* row) {
    using namespace emulation;
    const int lane = current % WARP;
    my_warp_s_fragments()[lane].row = row;
    __syncwarp();
    const Fragments* all = my_warp_s_fragments();
    for (int k = 0; k < 4; ++k) {
        storage_t pair[2];
        for (int i = 0; i < 2; ++i) {
            const int near = lane / 4, far = lane % 4 * 2 + i;
            pair[i] = TRANSPOSED ? all[8 * k + far].row[near] : all[8 * k + near].row[far];
        }
        out[k] = static_cast<unsigned>(pair[0]) | static_cast<unsigned>(pair[1]) << 16;
    }
    __syncwarp();
}
#else
// d += a b: a is 16 rows of 16, b 16 rows of 8.
__device__ __forceinline__ void multiply_add(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
#if DTYPE == 2
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
#else
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
#endif
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
// Four 8 x 8 tiles from shared memory; lanes 8 k .. 8 k + 7 give the rows of the k-th.
template <bool TRANSPOSED>
__device__ __forceinline__ void load_matrices(unsigned (&out)[4], const storage_t* row) {
    const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(row));
    if (TRANSPOSED)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3]) : "r"(address) : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3]) : "r"(address) : "memory");
}
#endif
