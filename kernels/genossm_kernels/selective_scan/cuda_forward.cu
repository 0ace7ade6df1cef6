// Forward selective scan in three launches; CUDA.md derives it. The host skips the first two for one segment.
#include "cuda_segments.cuh"

// Macro ADD_Y: outputs are added to what y holds, as the second of two directions does.
#ifndef ADD_Y
#define ADD_Y 0
#endif

// Two neighbouring outputs as they are stored.
#if DTYPE == 0
typedef float2 pair_t;
__device__ __forceinline__ pair_t make_pair_of(storage_t low, storage_t high) { return make_float2(low, high); }
__device__ __forceinline__ void add_pair(pair_t pair, float (&values)[2]) { values[0] += pair.x, values[1] += pair.y; }
#else
typedef unsigned pair_t;
__device__ __forceinline__ pair_t make_pair_of(storage_t low, storage_t high) { return low | static_cast<unsigned>(high) << 16; }
__device__ __forceinline__ void add_pair(pair_t pair, float (&values)[2]) {
    float earlier[2];
    unpack_two(pair, earlier);
    values[0] += earlier[0], values[1] += earlier[1];
}
#endif
__device__ __forceinline__ pair_t read_pair(const storage_t* source, int count) {
    if (ALIGNED && count > 1) return *reinterpret_cast<const pair_t*>(source);
    return make_pair_of(count > 0 ? source[0] : storage_t(0), count > 1 ? source[1] : storage_t(0));
}

// Slots of delta u z, two stages; B and C, converted and fetched.
constexpr int OUTPUT_STAGE = 3 * SLOT;
constexpr int OUTPUT_FLOATS = 2 * OUTPUT_STAGE + 2 * T * PADDED_STATE + 2 * MAP_SLOT;

extern "C" __global__ void __launch_bounds__(32 * SEGMENT_WARPS, SEGMENT_BLOCKS) segment_states(const ScanParams p) {
    GENOSSM_SHARED(shared);
    const WarpWork work = warp_work(p, p.segments - 1);  // nothing follows the last segment
    if (!work.valid) return;
    sum_segment<false>(p, work, shared + threadIdx.x / 32 * SegmentFloats<false>::TOTAL);
}

extern "C" __global__ void __launch_bounds__(32 * CARRY_WARPS) carry_states(const ScanParams p) {
    GENOSSM_SHARED(shared);
    carry_across<false>(p, shared);
}

// The recurrence, from the state that enters the segment.
extern "C" __global__ void __launch_bounds__(32 * SEGMENT_WARPS, SEGMENT_BLOCKS) outputs(const ScanParams p) {
    GENOSSM_SHARED(shared);
    const int lane = threadIdx.x % 32;
    const int channel = lane % CHANNEL_LANES * 2, state = lane / CHANNEL_LANES * LANE_STATES;
    const WarpWork work = warp_work(p, p.segments);
    if (!work.valid) return;
    const Tile tile = work.tile;
    float* memory = shared + threadIdx.x / 32 * OUTPUT_FLOATS;
    float* B = memory + 2 * OUTPUT_STAGE;
    float* C = B + T * PADDED_STATE;
    float* B_slots = C + T * PADDED_STATE;
    float* C_slots = B_slots + MAP_SLOT;
    const MapRows B_rows = B_of(p, tile), C_rows = C_of(p, tile);
    const i64 first = static_cast<i64>(work.segment) * p.segment_length;
    const int length = segment_times(p, work.segment), tiles = (length + T - 1) / T;
    const i64 checkpoints = (p.length + p.checkpoint - 1) / p.checkpoint;
    const i64 y_step = tile.reversed ? -p.y_row : p.y_row;
    storage_t* y_row = p.y + tile.batch * p.y_batch + position(p, tile, first) * p.y_row + tile.first_channel + channel;
    const auto fetch = [&](int k) {
        if (k < tiles) {
            const int times = min(T, length - k * T);
            const i64 time = first + k * T;
            float* stage = memory + (k & 1) * OUTPUT_STAGE;
            fetch_rows<T>(p, tile, p.delta, p.delta_batch, p.delta_row, time, times, stage, lane);
            fetch_rows<T>(p, tile, p.u, p.u_batch, p.u_row, time, times, stage + SLOT, lane);
            if (GATE) fetch_rows<T>(p, tile, p.z, p.z_batch, p.z_row, time, times, stage + 2 * SLOT, lane);
            fetch_maps<T>(p, tile, B_rows, time, times, B_slots, lane);
            fetch_maps<T>(p, tile, C_rows, time, times, C_slots, lane);
        }
        close_copies();
    };
    fetch(0);
    float bias[2], skip[2];
    load_pair_constants(p, tile, p.bias, channel, bias);
    load_pair_constants(p, tile, state == 0 ? p.D : nullptr, channel, skip);  // added by one of the lanes of a channel

    LaneState A2, h;
    load_rates(p, tile, channel, state, A2);
    correct_rates(p, tile, min(work.segment, p.segments - 2), channel, A2);
    if (p.segments > 1)
        load_state(p, tile, p.segment_state, static_cast<i64>(tile.batch) * p.segments + work.segment, channel, state, h);
    else
        load_user_state(p, tile, p.initial_state, tile.batch, channel, state, h);
    for (int k = 0; k < tiles; ++k) {
        const i64 time = first + k * T;
        const int times = min(T, length - k * T);
        const float* stage = memory + (k & 1) * OUTPUT_STAGE;
        if (p.checkpoints != nullptr && time % p.checkpoint == 0)
            store_state(p, tile, p.checkpoints, tile.batch * checkpoints + time / p.checkpoint, channel, state, h);
        await_copies<0>();
        __syncwarp();
        convert_maps<T>(p, tile, B_rows, time, times, B_slots, B, lane);
        convert_maps<T>(p, tile, C_rows, time, times, C_slots, C, lane);
        const unsigned resets = load_resets(p, tile, time, times, lane);
        __syncwarp();
        fetch(k + 1);
#pragma unroll 1
        for (int group = 0; group < T; group += GROUP) {
            float dt[GROUP][2], x[GROUP][2], y[GROUP][2];
#if ADD_Y
            pair_t earlier[GROUP];  // read before the states are taken on, so that no one waits for it
#pragma unroll
            for (int g = 0; g < GROUP; ++g)
                earlier[g] = read_pair(y_row + g * y_step, group + g < times && state == 0 ? tile.channels - channel : 0);
#endif
#pragma unroll
            for (int g = 0; g < GROUP; ++g) {
                const int t = group + g;
                const float live = t < times ? 1.f : 0.f;  // a factor: a branch around softplus would cost more
                load_pair(stage, t, channel, dt[g]);
                load_pair(stage + SLOT, t, channel, x[g]);
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    dt[g][i] = live * step_size(dt[g][i] + bias[i]);
                    y[g][i] = skip[i] * x[g][i];
                    x[g][i] *= dt[g][i];
                }
            }
#pragma unroll
            for (int g = 0; g < GROUP; ++g) {
                const int t = group + g;
                const float barrier = barrier_at(resets, t, unit_bias(p));
#pragma unroll
                for (int s = 0; s < LANE_STATES; s += 4) {
                    float b[4], c[4];
                    load_four(B + t * PADDED_STATE + state + s, b);
                    load_four(C + t * PADDED_STATE + state + s, c);
#pragma unroll
                    for (int i = 0; i < 2; ++i)
#pragma unroll
                        for (int j = 0; j < 4; ++j) {
                            const float a = exp2_unit(fmaf(A2[i][s + j], dt[g][i], barrier));
                            h[i][s + j] = fmaf(a, h[i][s + j], x[g][i] * b[j]);
                            y[g][i] = fmaf(h[i][s + j], c[j], y[g][i]);
                        }
                }
            }
#pragma unroll
            for (int g = 0; g < GROUP; ++g) {
                const int t = group + g;
                float z[2];
                if (GATE) load_pair(stage + 2 * SLOT, t, channel, z);
#pragma unroll
                for (int i = 0; i < 2; ++i) {
#pragma unroll
                    for (int bit = CHANNEL_LANES; bit < 32; bit *= 2) y[g][i] += __shfl_xor_sync(FULL, y[g][i], bit);
                    if (GATE) y[g][i] *= z[i] * sigmoid(z[i]);
                }
#if ADD_Y
                add_pair(earlier[g], y[g]);
#endif
                if (t < times && state == 0) store_pair<ALIGNED>(y_row, tile.channels - channel, y[g]);
                y_row += y_step;
            }
        }
    }
    if (work.segment == p.segments - 1) store_user_state(p, tile, p.final_state, tile.batch, channel, state, h);
}

GENOSSM_KERNEL(segment_states, ScanParams)
GENOSSM_KERNEL(carry_states, ScanParams)
GENOSSM_KERNEL(outputs, ScanParams)
