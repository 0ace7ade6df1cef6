// What a segment of time adds to the state at its end, or to the adjoint at its beginning, and how that is carried
// across segments. CUDA.md derives it.
#pragma once
#define LANE_CHANNELS 2
#define LANE_STATES (PADDED_STATE < 16 ? PADDED_STATE : 16)
#include "cuda_common.cuh"

// Further macros: SEGMENT_WARPS of a block and the SEGMENT_BLOCKS that a multiprocessor is to hold.
constexpr int T = 16;      // times of a tile
constexpr int GROUP = 4;   // times whose rows are converted together
constexpr int CARRY = 16, CARRY_WARPS = 8;  // segments whose states a warp loads at once; warps of a block that carries
constexpr int SLOT = Rows<T>::FLOATS, MAP_SLOT = Maps<T>::FLOATS;

struct WarpWork {
    Tile tile;
    int segment;
    bool valid;
};
// Neighbouring warps share a segment, and so its B and C.
__device__ __forceinline__ WarpWork warp_work(const ScanParams& p, int segments) {
    const i64 item = static_cast<i64>(blockIdx.x) * SEGMENT_WARPS + threadIdx.x / 32;
    const int tiles = p.runs * p.tiles_per_run;
    WarpWork work;
    const i64 rest = item / tiles;
    const int tile = static_cast<int>(item % tiles);
    work.segment = static_cast<int>(rest % segments);
    const int batch = static_cast<int>(rest / segments);
    work.valid = batch < p.batch;
    work.tile = make_tile(p, batch, tile / p.tiles_per_run, tile % p.tiles_per_run);
    return work;
}

// One time of the lane's two channels in fetched rows.
__device__ __forceinline__ void load_pair(const float* slots, int time, int channel, float (&out)[2]) {
    const int index = (time * WARP_CHANNELS + channel) / 2;
#if DTYPE == 0
    const float2 pair = reinterpret_cast<const float2*>(slots)[index];
    out[0] = pair.x, out[1] = pair.y;
#else
    unpack_two(reinterpret_cast<const unsigned*>(slots)[index], out);
#endif
}

__device__ __forceinline__ void load_pair_constants(const ScanParams& p, const Tile& tile, const float* source,
                                                    int channel, float (&out)[2]) {
#pragma unroll
    for (int i = 0; i < 2; ++i)
        out[i] = source != nullptr && channel + i < tile.channels ? source[tile.first_channel + channel + i] : 0.f;
}

// Floats of shared memory a warp uses; the host computes the same.
template <bool ADJOINT>
struct SegmentFloats {
    static constexpr int ROWS = ADJOINT ? 3 : 2;  // delta grad_y z, or delta u
    static constexpr int STAGE = ROWS * SLOT;
    static constexpr int TOTAL = 2 * STAGE + T * PADDED_STATE + MAP_SLOT;
};

// The sum over a segment's times of exp(A sigma) dt u B, where sigma is the sum of later steps; or, ADJOINT, of
// exp(A sigma) C dy, where sigma is the sum of the steps up to and with that time. One rounding of the exponent instead
// of a product of roundings, and an exact early end.
template <bool ADJOINT>
__device__ __forceinline__ void sum_segment(const ScanParams& p, const WarpWork& work, float* memory) {
    constexpr int STAGE = SegmentFloats<ADJOINT>::STAGE;
    const int lane = threadIdx.x % 32;
    const int channel = lane % CHANNEL_LANES * 2, state = lane / CHANNEL_LANES * LANE_STATES;
    const Tile tile = work.tile;
    float* maps = memory + 2 * STAGE;
    float* map_slots = maps + T * PADDED_STATE;
    const MapRows map_rows = ADJOINT ? C_of(p, tile) : B_of(p, tile);
    const i64 first = static_cast<i64>(work.segment) * p.segment_length;
    const int length = segment_times(p, work.segment), tiles = (length + T - 1) / T;
    const auto start_of = [&](int k) { return (ADJOINT ? k : tiles - 1 - k) * T; };
    const auto fetch = [&](int k) {
        if (k < tiles) {
            const int start = start_of(k), times = min(T, length - start);
            float* stage = memory + (k & 1) * STAGE;
            const i64 time = first + start;
            fetch_rows<T>(p, tile, p.delta, p.delta_batch, p.delta_row, time, times, stage, lane);
            if (ADJOINT) {
                fetch_rows<T>(p, tile, p.grad_y, p.grad_y_batch, p.grad_y_row, time, times, stage + SLOT, lane);
                if (GATE) fetch_rows<T>(p, tile, p.z, p.z_batch, p.z_row, time, times, stage + 2 * SLOT, lane);
            } else {
                fetch_rows<T>(p, tile, p.u, p.u_batch, p.u_row, time, times, stage + SLOT, lane);
            }
            fetch_maps<T>(p, tile, map_rows, time, times, map_slots, lane);
        }
        close_copies();
    };
    fetch(0);
    float bias[2], sigma[2] = {0.f, 0.f};
    load_pair_constants(p, tile, p.bias, channel, bias);
    LaneState A2, total;
    load_rates(p, tile, channel, state, A2);
    bool decaying = SOFTPLUS;  // only then do later terms shrink for certain
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int s = 0; s < LANE_STATES; ++s) {
            total[i][s] = 0.f;
            decaying &= A2[i][s] <= 0.f;
        }
    bool blocked = false;
    for (int k = 0; k < tiles && !blocked; ++k) {
        const int start = start_of(k), times = min(T, length - start);
        const float* stage = memory + (k & 1) * STAGE;
        await_copies<0>();
        __syncwarp();
        convert_maps<T>(p, tile, map_rows, first + start, times, map_slots, maps, lane);
        const unsigned resets = load_resets(p, tile, first + start, times, lane);
        __syncwarp();
        fetch(k + 1);
#pragma unroll 1
        for (int group = 0; group < T; group += GROUP) {
            float dt[GROUP][2], x[GROUP][2];
#pragma unroll
            for (int g = 0; g < GROUP; ++g) {
                const int t = ADJOINT ? group + g : T - 1 - group - g;
                // Nothing passes a boundary of packed sequences: a time counts if none lies between it and the end.
                const bool counts = ADJOINT ? (resets & ((2u << t) - 1u)) == 0u : resets >> (t + 1) == 0u;
                load_pair(stage, t, channel, dt[g]);
                load_pair(stage + SLOT, t, channel, x[g]);
                const float live = t < times ? 1.f : 0.f;  // a factor: a branch around softplus would cost more
                float z[2];
                if (ADJOINT && GATE) load_pair(stage + 2 * SLOT, t, channel, z);
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    dt[g][i] = live * step_size(dt[g][i] + bias[i]);
                    if (!ADJOINT) x[g][i] *= dt[g][i];
                    else if (GATE) x[g][i] *= z[i] * sigmoid(z[i]);
                    if (!counts) x[g][i] = 0.f;
                }
            }
#pragma unroll
            for (int g = 0; g < GROUP; ++g) {
                const int t = ADJOINT ? group + g : T - 1 - group - g;
                if (ADJOINT)
#pragma unroll
                    for (int i = 0; i < 2; ++i) sigma[i] += dt[g][i];
#pragma unroll
                for (int s = 0; s < LANE_STATES; s += 4) {
                    float map[4];
                    load_four(maps + t * PADDED_STATE + state + s, map);
#pragma unroll
                    for (int i = 0; i < 2; ++i)
#pragma unroll
                        for (int j = 0; j < 4; ++j)
                            total[i][s + j] = fmaf(exp2_unit(A2[i][s + j] * sigma[i]),
                                                   x[g][i] * map[j], total[i][s + j]);
                }
                if (!ADJOINT)
#pragma unroll
                    for (int i = 0; i < 2; ++i) sigma[i] += dt[g][i];
            }
        }
        blocked = resets != 0u;
        const bool vanished = decaying && all_vanished(p, A2, sigma, tile, channel, state);
        if (__all_sync(FULL, vanished)) break;
    }
    const i64 index = static_cast<i64>(tile.batch) * p.segments + work.segment;
    store_state(p, tile, p.segment_state, index, channel, state, total);
    if (state == 0)
#pragma unroll
        for (int i = 0; i < 2; ++i)
            if (channel + i < tile.channels)
                p.segment_sum[index * p.channels + tile.first_channel + channel + i] = blocked ? NOTHING_PASSES : sigma[i];
}

// What each segment adds is replaced by what enters it: the state, or, ADJOINT, what enters its end. A lane is one channel
// and state number; each of the block's CARRY_WARPS takes CARRY segments at a time and finds what they do as a whole,
// then what enters the first of them, then what enters each.
template <bool ADJOINT>
__device__ __forceinline__ void carry_across(const ScanParams& p, float* memory) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const i64 item = static_cast<i64>(blockIdx.x) * 32 + lane;
    const int state = static_cast<int>(item % PADDED_STATE);
    const i64 rest = item / PADDED_STATE;
    const bool valid = rest / p.channels < p.batch;
    const int channel = static_cast<int>(rest % p.channels);
    const i64 batch = valid ? rest / p.channels : 0;
    const bool real = state < p.d_state;
    const float A2 = real ? p.A[static_cast<i64>(channel) * p.d_state + state] * LOG2E : 0.f;
    const float* entering = ADJOINT ? p.grad_final_state : p.initial_state;
    float h = 0.f;
    if (entering != nullptr && real && valid) h = entering[(batch * p.channels + channel) * p.d_state + state];
    const auto index_of = [&](int k) { return batch * p.segments + (ADJOINT ? p.segments - 1 - k : k); };
    float2* whole = reinterpret_cast<float2*>(memory) + lane;
    for (int start = 0; start < p.segments; start += CARRY_WARPS * CARRY) {
        const int first = start + warp * CARRY;
        float added[CARRY], passed[CARRY];
#pragma unroll
        for (int k = 0; k < CARRY; ++k) {  // loads first: they do not wait for the chain of states
            const bool inside = valid && first + k < p.segments - 1;
            added[k] = inside ? p.segment_state[state_offset(p, index_of(first + k), channel, state)] : 0.f;
            const float sigma = inside ? p.segment_sum[index_of(first + k) * p.channels + channel] : 0.f;
            passed[k] = sigma == NOTHING_PASSES ? 0.f : exp2_unit(A2 * sigma);
        }
        float2 mine = make_float2(1.f, 0.f);  // of the state that passes, and what is added
#pragma unroll
        for (int k = 0; k < CARRY; ++k) {
            mine.x *= passed[k];
            mine.y = fmaf(passed[k], mine.y, added[k]);
        }
        whole[warp * 32] = mine;
        __syncthreads();
        float here = h;
#pragma unroll
        for (int w = 0; w < CARRY_WARPS; ++w) {
            if (w == warp) here = h;
            const float2 other = whole[w * 32];
            h = fmaf(other.x, h, other.y);
        }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < CARRY; ++k) {
            if (first + k >= p.segments) break;
            if (valid) p.segment_state[state_offset(p, index_of(first + k), channel, state)] = here;
            here = fmaf(passed[k], here, added[k]);
        }
    }
}
