// A GPU for tests: the kernels' own source, compiled by a host C++ compiler, one fiber a thread. Warp shuffles and
// barriers are real meeting points, so that a missing one, a wrong index or an unwritten element shows. Blocks that need
// one another run side by side, others one after the other.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>
#include <ucontext.h>

#define GENOSSM_EMULATED
#ifndef CLUSTER
#define CLUSTER 1
#endif
#ifndef BOTH
#define BOTH 0
#endif
#define TOGETHER (CLUSTER * (1 + BOTH))  // blocks that run side by side: of one cluster, or of two that wait for each other
#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __cluster_dims__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __restrict__

struct uint3_t { unsigned x, y, z; };
struct float4 { float x, y, z, w; } __attribute__((aligned(16)));
struct float2 { float x, y; } __attribute__((aligned(8)));
struct uint2 { unsigned x, y; } __attribute__((aligned(8)));
struct uint4 { unsigned x, y, z, w; } __attribute__((aligned(16)));
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

template <class To, class From> inline To bits_as(From from) {
    static_assert(sizeof(To) == sizeof(From), "sizes");
    To to;
    std::memcpy(&to, &from, sizeof(to));
    return to;
}
inline float __uint_as_float(unsigned x) { return bits_as<float>(x); }
inline unsigned __float_as_uint(float x) { return bits_as<unsigned>(x); }
inline float __int_as_float(int x) { return bits_as<float>(x); }
inline int __float_as_int(float x) { return bits_as<int>(x); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
template <class T> inline T min(T a, T b) { return a < b ? a : b; }
template <class T> inline T max(T a, T b) { return a > b ? a : b; }

inline float flush(float x) { return std::fabs(x) < 1.17549435e-38f ? 0.f : x; }
// Low in the mean, as the unit of an H100 is.
inline float exp2_unit(float x) {
    const double shortfall = std::fabs(x) < 0x1p-8f ? 0.6e-8 : 2.1e-8;
    return flush(static_cast<float>(std::exp2(static_cast<double>(x)) * (1 - shortfall)));
}
inline float reciprocal_unit(float x) { return flush(1.f / x); }
inline float log2_unit(float x) { return std::log2(flush(x)); }
inline float half_to_float(unsigned short bits) { return static_cast<float>(bits_as<_Float16>(bits)); }
inline unsigned short narrow(float x) {
#if DTYPE == 2
    return bits_as<unsigned short>(static_cast<_Float16>(x));
#else
    const unsigned bits = bits_as<unsigned>(x);
    if (x != x) return 0x7fff;
    return static_cast<unsigned short>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
#endif
}
inline unsigned pack_two(float low, float high) { return narrow(low) | (static_cast<unsigned>(narrow(high)) << 16); }

namespace emulation {
constexpr int WARP = 32;
constexpr size_t STACK = 256 * 1024;
struct Meeting { int arrived = 0; unsigned generation = 0; };
struct Fiber { ucontext_t context; bool finished = false; std::vector<char> stack; };

inline std::vector<Fiber> fibers;
inline ucontext_t scheduler;
inline int current = 0, block_threads = 0;
inline std::vector<Meeting> warp_meetings;
inline Meeting block_meetings[TOGETHER], cluster_meetings[TOGETHER / CLUSTER];
inline std::vector<float> exchange;
inline std::vector<unsigned> votes;
inline std::vector<float4> shared[TOGETHER];
inline void (*body)() = nullptr;
inline void forget_copies();

inline void meet(Meeting& meeting, int expected) {
    const unsigned generation = meeting.generation;
    if (++meeting.arrived == expected) {
        meeting.arrived = 0;
        ++meeting.generation;
        return;
    }
    while (meeting.generation == generation) swapcontext(&fibers[current].context, &scheduler);
}
inline Meeting& my_warp() { return warp_meetings[current / WARP]; }
inline int my_rank() { return current / block_threads; }
inline void fiber_main() {
    body();
    fibers[current].finished = true;
}
inline void run_together(size_t shared_bytes) {
    const int threads = TOGETHER * block_threads;
    for (int rank = 0; rank < TOGETHER; ++rank) {
        // Poison: reading shared memory that nothing wrote gives NaN.
        shared[rank].assign(shared_bytes / sizeof(float4) + 1, float4{NAN, NAN, NAN, NAN});
        block_meetings[rank] = Meeting();
    }
    fibers.resize(threads);
    warp_meetings.assign(threads / WARP, Meeting());
    for (auto& meeting : cluster_meetings) meeting = Meeting();
    exchange.assign(threads, NAN);
    votes.assign(threads, 0);
    forget_copies();
    for (auto& fiber : fibers) {
        fiber.finished = false;
        fiber.stack.resize(STACK);
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.data();
        fiber.context.uc_stack.ss_size = STACK;
        fiber.context.uc_link = &scheduler;
        makecontext(&fiber.context, fiber_main, 0);
    }
    for (bool busy = true; busy;) {
        busy = false;
        for (current = 0; current < threads; ++current)
            if (!fibers[current].finished) {
                busy = true;
                swapcontext(&scheduler, &fibers[current].context);
            }
    }
}
}  // namespace emulation

inline uint3_t grid_size;
struct ThreadIndex { struct X { operator unsigned() const { return emulation::current % emulation::block_threads; } } x; };
inline ThreadIndex threadIdx;
struct BlockIndex {
    struct X {
        unsigned first;  // of the cluster
        operator unsigned() const { return first + emulation::my_rank(); }
    } x;
    unsigned y;
};
inline BlockIndex blockIdx;
#define gridDim grid_size
#define GENOSSM_SHARED(name) float* name = reinterpret_cast<float*>(emulation::shared[emulation::my_rank()].data())

inline void __threadfence() {}
template <class T> inline void __stcs(T* target, const T& value) { *target = value; }
inline void __syncwarp() { emulation::meet(emulation::my_warp(), emulation::WARP); }
inline void __syncthreads() { emulation::meet(emulation::block_meetings[emulation::my_rank()], emulation::block_threads); }
inline void sync_cluster() { emulation::meet(emulation::cluster_meetings[emulation::my_rank() / CLUSTER], CLUSTER * emulation::block_threads); }
typedef float4* shared_address;
inline shared_address address_of(float4* slot) { return slot; }
inline shared_address address_there(shared_address slots, int rank) {
    return emulation::shared[emulation::my_rank() / CLUSTER * CLUSTER + rank].data() + (slots - emulation::shared[emulation::my_rank()].data());
}
inline void store_there(shared_address there, int index, const float4& value) { there[index] = value; }
inline void tell(int* count) {
    __syncwarp();
    if (emulation::current % emulation::WARP == 0) ++*count;
}
inline void hear(const int* count, int wanted) {
    while (*count < wanted) swapcontext(&emulation::fibers[emulation::current].context, &emulation::scheduler);
    __syncwarp();
}
// Reads what another warp is to write; others run meanwhile.
inline float4 watch(shared_address slots, int index) {
    swapcontext(&emulation::fibers[emulation::current].context, &emulation::scheduler);
    return slots[index];
}
inline void store_watched(shared_address slots, int index, const float4& value) { slots[index] = value; }
inline float __shfl_xor_sync(unsigned, float value, int mask) {
    const int me = emulation::current;
    emulation::exchange[me] = value;
    __syncwarp();
    const float other = emulation::exchange[me ^ mask];
    __syncwarp();
    return other;
}
inline float __shfl_up_sync(unsigned, float value, unsigned distance, int width) {
    const int me = emulation::current;
    emulation::exchange[me] = value;
    __syncwarp();
    const float other = emulation::exchange[me % width < static_cast<int>(distance) ? me : me - static_cast<int>(distance)];
    __syncwarp();
    return other;
}
inline int __shfl_sync(unsigned, int value, int lane) {
    const int me = emulation::current;
    emulation::exchange[me] = __int_as_float(value);
    __syncwarp();
    const int other = __float_as_int(emulation::exchange[me / emulation::WARP * emulation::WARP + lane]);
    __syncwarp();
    return other;
}
inline unsigned __ballot_sync(unsigned, bool predicate) {
    const int me = emulation::current, first = me / emulation::WARP * emulation::WARP;
    emulation::votes[me] = predicate;
    __syncwarp();
    unsigned result = 0;
    for (int lane = 0; lane < emulation::WARP; ++lane) result |= emulation::votes[first + lane] << lane;
    __syncwarp();
    return result;
}
inline bool __all_sync(unsigned mask, bool predicate) { return __ballot_sync(mask, predicate) == 0xffffffffu; }

// Copies land only when they are waited for, the latest moment a GPU may choose.
namespace emulation {
struct Copy { void* slot; const void* source; size_t bytes; bool inside; };
inline std::vector<std::vector<std::vector<Copy>>> copies;  // per thread, closed groups and the open one last
inline std::vector<std::vector<Copy>>& my_copies() {
    if (copies.size() < fibers.size()) copies.resize(fibers.size());
    auto& groups = copies[current];
    if (groups.empty()) groups.emplace_back();
    return groups;
}
inline void forget_copies() { copies.clear(); }
}  // namespace emulation
inline void copy_async(float4* slot, const void* source, bool inside) {
    emulation::my_copies().back().push_back({slot, source, 16, inside});
}
inline void copy_async(uint2* slot, const void* source, bool inside) {
    emulation::my_copies().back().push_back({slot, source, 8, inside});
}
inline void copy_async(unsigned* slot, const void* source, bool inside) {
    emulation::my_copies().back().push_back({slot, source, 4, inside});
}
inline void close_copies() { emulation::my_copies().emplace_back(); }
template <int GROUPS>
inline void await_copies() {
    auto& groups = emulation::my_copies();
    while (groups.size() > GROUPS + 1) {
        for (const auto& copy : groups.front())
            if (copy.inside) std::memcpy(copy.slot, copy.source, copy.bytes);
            else std::memset(copy.slot, 0, copy.bytes);
        groups.erase(groups.begin());
    }
}

#define GENOSSM_KERNEL(name, params)                                                                        \
    static params name##_parameters;                                                                        \
    static void name##_body() { name(name##_parameters); }                                                  \
    extern "C" size_t parameter_bytes_##name() { return sizeof(params); }                                   \
    extern "C" void emulate_##name(const void* p, unsigned gx, unsigned gy, unsigned block, size_t shared) { \
        std::memcpy(&name##_parameters, p, sizeof(params));                                                 \
        emulation::body = name##_body;                                                                      \
        emulation::block_threads = block;                                                                   \
        grid_size = {gx, gy, 1};                                                                            \
        for (unsigned y = 0; y < gy; ++y)                                                                   \
            for (unsigned x = 0; x < gx; x += TOGETHER) {                                                   \
                blockIdx.x.first = x, blockIdx.y = y;                                                       \
                emulation::run_together(shared);                                                             \
            }                                                                                               \
    }
