// What every kernel here is written with: storage types, 16-byte rows, elementary functions, warp reductions.
// Compiled by NVRTC for a GPU and, with emulation.h in front, by a host C++ compiler for tests.
#pragma once

typedef long long i64;

// DTYPE: 0 float, 1 bfloat16, 2 float16. Storage is bits; arithmetic is float.
#if DTYPE == 0
typedef float storage_t;
#else
typedef unsigned short storage_t;
#endif
constexpr int VECTOR = 16 / sizeof(storage_t);  // elements in a 16-byte row piece
constexpr unsigned FULL = 0xffffffffu;

#ifndef GENOSSM_EMULATED
#define GENOSSM_KERNEL(name, params)
#define GENOSSM_SHARED(name) extern __shared__ float4 name##_storage[]; float* name = reinterpret_cast<float*>(name##_storage)

__device__ __forceinline__ float exp2_unit(float x) {  // the special function unit: denormal results are zero
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
__device__ __forceinline__ float reciprocal_unit(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
__device__ __forceinline__ float log2_unit(float x) {
    float y;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
__device__ __forceinline__ float half_to_float(unsigned short bits) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(bits));
    return y;
}
__device__ __forceinline__ unsigned pack_two(float low, float high) {
    unsigned bits;
#if DTYPE == 2
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
#else
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
#endif
    return bits;
}
// 16 bytes into shared memory without waiting; zeros where the source is outside.
__device__ __forceinline__ void copy_async(float4* slot, const void* source, bool inside) {
    const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(slot));
    const int bytes = inside ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(source), "r"(bytes) : "memory");
}
// The same of 8 bytes.
__device__ __forceinline__ void copy_async(uint2* slot, const void* source, bool inside) {
    const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(slot));
    const int bytes = inside ? 8 : 0;
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(address), "l"(source), "r"(bytes) : "memory");
}
// The same of 4 bytes.
__device__ __forceinline__ void copy_async(unsigned* slot, const void* source, bool inside) {
    const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(slot));
    const int bytes = inside ? 4 : 0;
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(address), "l"(source), "r"(bytes) : "memory");
}
__device__ __forceinline__ void close_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Until all but the latest GROUPS closed groups of this thread's copies have landed.
template <int GROUPS>
__device__ __forceinline__ void await_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(GROUPS) : "memory");
}
// Shared memory that one warp watches until another has written it: pieces of 16 bytes.
typedef unsigned shared_address;
__device__ __forceinline__ shared_address address_of(const float4* slot) {
    return static_cast<unsigned>(__cvta_generic_to_shared(slot));
}
__device__ __forceinline__ float4 watch(shared_address slots, int index) {
    float4 value;
    asm volatile("ld.volatile.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(value.x), "=f"(value.y), "=f"(value.z), "=f"(value.w) : "r"(slots + 16 * index) : "memory");
    return value;
}
__device__ __forceinline__ void store_watched(shared_address slots, int index, const float4& value) {
    asm volatile("st.volatile.shared.v4.f32 [%0], {%1, %2, %3, %4};"
                 ::"r"(slots + 16 * index), "f"(value.x), "f"(value.y), "f"(value.z), "f"(value.w) : "memory");
}
// A warp says that all it has written is there; and one that needs that waits until so many have said so.
__device__ __forceinline__ void tell(int* count) {
    __threadfence();
    __syncwarp();
    if (threadIdx.x % 32 == 0) atomicAdd(count, 1);
}
__device__ __forceinline__ void hear(const int* count, int wanted) {
    int found;
    do asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(found) : "l"(count) : "memory");
    while (!__all_sync(FULL, found >= wanted));
}
// The shared memory of a cluster of blocks: what block `rank` holds where this one has `slots`, and a barrier of all.
#if defined(CLUSTER) && CLUSTER > 1
__device__ __forceinline__ shared_address address_there(shared_address slots, int rank) {
    shared_address there;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(slots), "r"(rank));
    return there;
}
__device__ __forceinline__ void store_there(shared_address there, int index, const float4& value) {
    asm volatile("st.relaxed.cluster.shared::cluster.v4.f32 [%0], {%1, %2, %3, %4};"
                 ::"r"(there + 16 * index), "f"(value.x), "f"(value.y), "f"(value.z), "f"(value.w) : "memory");
}
__device__ __forceinline__ void sync_cluster() {
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}
#endif
#endif

__device__ __forceinline__ float to_float(storage_t bits) {
#if DTYPE == 0
    return bits;
#elif DTYPE == 1
    return __uint_as_float(static_cast<unsigned>(bits) << 16);
#else
    return half_to_float(bits);
#endif
}

__device__ __forceinline__ storage_t to_storage(float x) {
#if DTYPE == 0
    return x;
#else
    return static_cast<storage_t>(pack_two(x, 0.f) & 0xffffu);
#endif
}

// `count` of VECTOR neighbouring elements; the rest are zero. WHOLE: all or none, in one 16-byte access.
template <bool WHOLE>
__device__ __forceinline__ void load_row(const storage_t* source, int count, float (&out)[VECTOR]) {
    if (WHOLE) {
        uint4 bits = make_uint4(0u, 0u, 0u, 0u);
        if (count > 0) bits = *reinterpret_cast<const uint4*>(source);
        const unsigned words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
        for (int k = 0; k < 4; ++k) {
#if DTYPE == 0
            out[k] = __uint_as_float(words[k]);
#elif DTYPE == 1
            out[2 * k] = __uint_as_float(words[k] << 16);
            out[2 * k + 1] = __uint_as_float(words[k] & 0xffff0000u);
#else
            out[2 * k] = half_to_float(static_cast<unsigned short>(words[k] & 0xffffu));
            out[2 * k + 1] = half_to_float(static_cast<unsigned short>(words[k] >> 16));
#endif
        }
    } else {
#pragma unroll
        for (int k = 0; k < VECTOR; ++k) out[k] = k < count ? to_float(source[k]) : 0.f;
    }
}

// The same into a slot of shared memory that only this lane reads back, without waiting where it can.
template <bool WHOLE>
__device__ __forceinline__ void fetch_row(float4* slot, const storage_t* source, int count) {
    if (WHOLE) {
        copy_async(slot, source, count > 0);
    } else {
        storage_t* target = reinterpret_cast<storage_t*>(slot);
#pragma unroll
        for (int k = 0; k < VECTOR; ++k) target[k] = k < count ? source[k] : static_cast<storage_t>(0);
    }
}
__device__ __forceinline__ void read_slot(const float4* slot, float (&out)[VECTOR]) {
    load_row<true>(reinterpret_cast<const storage_t*>(slot), VECTOR, out);
}

// VECTOR floats in shared memory, 16-byte aligned.
__device__ __forceinline__ void store_floats(float* target, const float (&values)[VECTOR]) {
#pragma unroll
    for (int k = 0; k < VECTOR; k += 4)
        *reinterpret_cast<float4*>(target + k) = make_float4(values[k], values[k + 1], values[k + 2], values[k + 3]);
}
__device__ __forceinline__ void load_four(const float* source, float (&out)[4]) {
    const float4 four = *reinterpret_cast<const float4*>(source);
    out[0] = four.x, out[1] = four.y, out[2] = four.z, out[3] = four.w;
}
__device__ __forceinline__ void load_two(const float* source, float (&out)[2]) {
    const float2 two = *reinterpret_cast<const float2*>(source);
    out[0] = two.x, out[1] = two.y;
}
__device__ __forceinline__ void store_four(float* target, const float (&values)[4]) {
    *reinterpret_cast<float4*>(target) = make_float4(values[0], values[1], values[2], values[3]);
}

// Two neighbouring elements.
__device__ __forceinline__ void unpack_two(unsigned bits, float (&out)[2]) {
#if DTYPE == 1
    out[0] = __uint_as_float(bits << 16);
    out[1] = __uint_as_float(bits & 0xffff0000u);
#elif DTYPE == 2
    out[0] = half_to_float(static_cast<unsigned short>(bits & 0xffffu));
    out[1] = half_to_float(static_cast<unsigned short>(bits >> 16));
#endif
}
// Four neighbouring elements as they are stored.
#if DTYPE == 0
typedef float4 cell_t;
#else
typedef uint2 cell_t;
#endif
__device__ __forceinline__ void unpack_cell(const cell_t& cell, float (&out)[4]) {
#if DTYPE == 0
    out[0] = cell.x, out[1] = cell.y, out[2] = cell.z, out[3] = cell.w;
#else
    float low[2], high[2];
    unpack_two(cell.x, low);
    unpack_two(cell.y, high);
    out[0] = low[0], out[1] = low[1], out[2] = high[0], out[3] = high[1];
#endif
}
// `count` of them into a slot that only this lane reads back, the rest zero. WHOLE: all or none.
template <bool WHOLE>
__device__ __forceinline__ void fetch_cell(cell_t* slot, const storage_t* source, int count) {
    if (WHOLE) {
        copy_async(slot, source, count > 0);
    } else {
        storage_t* target = reinterpret_cast<storage_t*>(slot);
#pragma unroll
        for (int k = 0; k < 4; ++k) target[k] = k < count ? source[k] : static_cast<storage_t>(0);
    }
}
// ONCE: nothing reads it soon, and so it leaves the cache first.
template <bool WHOLE, bool ONCE = false>
__device__ __forceinline__ void store_cell(storage_t* target, int count, const float (&values)[4]) {
    if (WHOLE) {
        if (count <= 0) return;
#if DTYPE == 0
        const float4 cell = make_float4(values[0], values[1], values[2], values[3]);
#else
        const uint2 cell = make_uint2(pack_two(values[0], values[1]), pack_two(values[2], values[3]));
#endif
        if (ONCE) __stcs(reinterpret_cast<cell_t*>(target), cell);
        else *reinterpret_cast<cell_t*>(target) = cell;
    } else {
#pragma unroll
        for (int k = 0; k < 4; ++k)
            if (k < count) target[k] = to_storage(values[k]);
    }
}
template <bool WHOLE>
__device__ __forceinline__ void store_pair(storage_t* target, int count, const float (&values)[2]) {
    if (WHOLE) {
        if (count <= 0) return;
#if DTYPE == 0
        *reinterpret_cast<float2*>(target) = make_float2(values[0], values[1]);
#else
        *reinterpret_cast<unsigned*>(target) = pack_two(values[0], values[1]);
#endif
    } else {
        if (count > 0) target[0] = to_storage(values[0]);
        if (count > 1) target[1] = to_storage(values[1]);
    }
}

constexpr float LOG2E = 1.4426950408889634f;
constexpr float LN2 = 0.6931471805599453f;

// log(1 + exp(x)), relative error 3e-7 also where the result is small (a step size of 1e-3 is x = -6.9).
__device__ __forceinline__ float softplus(float x) {
    const float magnitude = fabsf(x);
    const float high = magnitude * -LOG2E;
    const float low = fmaf(magnitude, -LOG2E, -high);
    float e = exp2_unit(high);
    e = fmaf(e, low * LN2, e);
    float p = 5.23269e-3f;
    p = fmaf(p, e, -2.950523e-2f);
    p = fmaf(p, e, 7.822594e-2f);
    p = fmaf(p, e, -1.3663246e-1f);
    p = fmaf(p, e, 1.9106007e-1f);
    p = fmaf(p, e, -2.4842983e-1f);
    p = fmaf(p, e, 3.3319097e-1f);
    p = fmaf(p, e, -4.9999493e-1f);
    p = fmaf(p, e, 9.9999997e-1f);
    return fmaf(p, e, fmaxf(x, 0.f));
}

__device__ __forceinline__ float sigmoid(float x) { return reciprocal_unit(1.f + exp2_unit(-LOG2E * x)); }

// Sums `values` over the lanes that differ in the bits of `mask`, halving the array while it can: afterwards
// values[0 .. max(1, COUNT / lanes)) hold the sums of the entries this lane owns, which start at `owned_index`.
template <int COUNT>
__device__ __forceinline__ void reduce_scatter(float (&values)[COUNT], int lane, int top_bit, int lanes) {
    int live = COUNT;
#pragma unroll
    for (int step = 0; step < 5; ++step) {
        const int bit = top_bit >> step;
        if ((1 << step) < lanes) {
            if (live > 1) {
                const int half = live / 2;
                const bool upper = lane & bit;
#pragma unroll
                for (int k = 0; k < COUNT / 2; ++k)
                    if (k < half) {
                        const float send = upper ? values[k] : values[k + half];
                        const float keep = upper ? values[k + half] : values[k];
                        values[k] = keep + __shfl_xor_sync(FULL, send, bit);
                    }
                live = half;
            } else {
                values[0] += __shfl_xor_sync(FULL, values[0], bit);
            }
        }
    }
}
template <int COUNT>
__device__ __forceinline__ int owned_index(int lane, int top_bit, int lanes) {
    int index = 0, live = COUNT;
#pragma unroll
    for (int step = 0; step < 5; ++step)
        if ((1 << step) < lanes && live > 1) {
            live /= 2;
            if (lane & (top_bit >> step)) index += live;
        }
    return index;
}
__device__ constexpr int owned_count(int count, int lanes) { return count > lanes ? count / lanes : 1; }
