// Forward selective scan in three launches; CUDA.md derives it. The host skips the first two for one segment.
#include "cuda_common.cuh"

// Further macros: FORWARD_WARPS of a block and the FORWARD_BLOCKS that a multiprocessor is to hold.
constexpr int T = 16;  // times of a tile
constexpr int CARRY = 16;  // segments whose states are loaded at once
constexpr int GROUP = 4;   // times whose outputs are summed over the states together

// Floats of shared memory a warp uses; the host computes the same.
constexpr int SLOT = Rows<T>::FLOATS, MAP_SLOT = Maps<T>::FLOATS;
constexpr int STATE_FLOATS = 2 * T * WARP_CHANNELS + T * PADDED_STATE + WARP_CHANNELS + 2 * SLOT + MAP_SLOT;
constexpr int OUTPUT_FLOATS = 2 * T * WARP_CHANNELS + 2 * T * PADDED_STATE + 2 * WARP_CHANNELS + 3 * SLOT + 2 * MAP_SLOT;

struct WarpWork {
    Tile tile;
    int segment;
    bool valid;
};
// Neighbouring warps share a segment, and so its B and C.
__device__ __forceinline__ WarpWork warp_work(const ScanParams& p, int segments) {
    const int warp = threadIdx.x / 32;
    const i64 item = static_cast<i64>(blockIdx.x) * FORWARD_WARPS + warp;
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

// The state that a segment adds at its own end, sum over its times of exp(A sigma) dt u B, where sigma is the sum of
// later steps: one rounding of the exponent instead of a product of roundings, and an exact early end.
extern "C" __global__ void __launch_bounds__(32 * FORWARD_WARPS, FORWARD_BLOCKS) segment_states(const ScanParams p) {
    GENOSSM_SHARED(shared);
    const int lane = threadIdx.x % 32;
    const int channel = lane % CHANNEL_LANES * 4, state = lane / CHANNEL_LANES * 4;
    const WarpWork work = warp_work(p, p.segments - 1);  // nothing follows the last segment
    if (!work.valid) return;
    const Tile tile = work.tile;
    float* steps = shared + threadIdx.x / 32 * STATE_FLOATS;
    float* inputs = steps + T * WARP_CHANNELS;
    float* B = inputs + T * WARP_CHANNELS;
    float* bias = B + T * PADDED_STATE;
    float* delta_slots = bias + WARP_CHANNELS;
    float* u_slots = delta_slots + SLOT;
    float* B_slots = u_slots + SLOT;
    load_channel_constants(p, tile, p.bias, bias, lane);

    float A2[4][4], total[4][4], sigma[4];
    load_rates(p, tile, channel, state, A2);
    bool decaying = SOFTPLUS;  // only then do later terms shrink for certain
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        sigma[i] = 0.f;
#pragma unroll
        for (int s = 0; s < 4; ++s) {
            total[i][s] = 0.f;
            decaying &= A2[i][s] <= 0.f;
        }
    }
    const MapRows B_rows = B_of(p, tile);
    const i64 first = static_cast<i64>(work.segment) * p.segment_length;
    const auto fetch = [&](int start) {  // all of a segment's times but the last segment's are there
        if (start >= 0) {
            fetch_rows<T>(p, tile, p.delta, p.delta_batch, p.delta_row, first + start, T, delta_slots, lane);
            fetch_rows<T>(p, tile, p.u, p.u_batch, p.u_row, first + start, T, u_slots, lane);
            fetch_maps<T>(p, tile, B_rows, first + start, T, B_slots, lane);
        }
        close_copies();
    };
    bool blocked = false;
    fetch(p.segment_length - T);
    for (int start = p.segment_length - T; start >= 0 && !blocked; start -= T) {
        __syncwarp();
        await_copies<0>();
        convert_steps<T, true>(p, tile, T, bias, delta_slots, u_slots, steps, inputs, lane);
        convert_maps<T>(p, tile, B_rows, first + start, T, B_slots, B, lane);
        const unsigned resets = load_resets(p, tile, first + start, T, lane);
        __syncwarp();
        fetch(start - T);
#pragma unroll 4
        for (int t = T - 1; t >= 0; --t) {
            float dt[4], x[4], b[4];
            load_four(steps + t * WARP_CHANNELS + channel, dt);
            load_four(inputs + t * WARP_CHANNELS + channel, x);
            load_four(B + t * PADDED_STATE + state, b);
#pragma unroll
            for (int i = 0; i < 4; ++i) {
#pragma unroll
                for (int s = 0; s < 4; ++s)
                    total[i][s] = fmaf(exp2_unit(A2[i][s] * sigma[i]), x[i] * b[s], total[i][s]);
                sigma[i] += dt[i];
            }
            if (resets >> t & 1u) {
                blocked = true;
                break;
            }
        }
        const bool vanished = decaying && all_vanished(p, A2, sigma, tile, channel, state);
        if (__all_sync(FULL, vanished)) break;
    }
    const i64 index = static_cast<i64>(tile.batch) * p.segments + work.segment;
    store_state(p, tile, p.segment_state, index, channel, state, total);
    if (state == 0)
#pragma unroll
        for (int i = 0; i < 4; ++i)
            if (channel + i < tile.channels)
                p.segment_sum[index * p.channels + tile.first_channel + channel + i] = blocked ? NOTHING_PASSES : sigma[i];
}

// Carries the states across segments: what a segment adds is replaced by the state that enters it.
extern "C" __global__ void __launch_bounds__(256) carry_states(const ScanParams p) {
    const i64 item = static_cast<i64>(blockIdx.x) * 256 + threadIdx.x;
    const int state = static_cast<int>(item % PADDED_STATE);
    const i64 rest = item / PADDED_STATE;
    const int channel = static_cast<int>(rest % p.channels);
    const i64 batch = rest / p.channels;
    if (batch >= p.batch) return;
    const bool real = state < p.d_state;
    const float A2 = real ? p.A[static_cast<i64>(channel) * p.d_state + state] * LOG2E : 0.f;
    float h = 0.f;
    if (p.initial_state != nullptr && real) h = p.initial_state[(batch * p.channels + channel) * p.d_state + state];
    // Loads first: they do not wait for the chain of states.
    for (int start = 0; start < p.segments; start += CARRY) {
        float added[CARRY], passed[CARRY];
#pragma unroll
        for (int k = 0; k < CARRY; ++k) {
            const i64 index = batch * p.segments + start + k;
            const bool inside = start + k < p.segments - 1;
            added[k] = inside ? p.segment_state[state_offset(p, index, channel, state)] : 0.f;
            const float sigma = inside ? p.segment_sum[index * p.channels + channel] : 0.f;
            passed[k] = sigma == NOTHING_PASSES ? 0.f : exp2_unit(A2 * sigma);
        }
#pragma unroll
        for (int k = 0; k < CARRY; ++k) {
            if (start + k >= p.segments) break;
            p.segment_state[state_offset(p, batch * p.segments + start + k, channel, state)] = h;
            h = fmaf(passed[k], h, added[k]);
        }
    }
}

extern "C" __global__ void __launch_bounds__(32 * FORWARD_WARPS, FORWARD_BLOCKS) outputs(const ScanParams p) {
    GENOSSM_SHARED(shared);
    const int lane = threadIdx.x % 32;
    const int channel = lane % CHANNEL_LANES * 4, state = lane / CHANNEL_LANES * 4;
    const WarpWork work = warp_work(p, p.segments);
    if (!work.valid) return;
    const Tile tile = work.tile;
    float* steps = shared + threadIdx.x / 32 * OUTPUT_FLOATS;
    float* inputs = steps + T * WARP_CHANNELS;  // each row becomes the output once it is used
    float* B = inputs + T * WARP_CHANNELS;
    float* C = B + T * PADDED_STATE;
    float* bias = C + T * PADDED_STATE;
    float* skip = bias + WARP_CHANNELS;
    float* delta_slots = skip + WARP_CHANNELS;
    float* u_slots = delta_slots + SLOT;
    float* z_slots = u_slots + SLOT;
    float* B_slots = z_slots + SLOT;
    float* C_slots = B_slots + MAP_SLOT;
    load_channel_constants(p, tile, p.bias, bias, lane);
    load_channel_constants(p, tile, p.D, skip, lane);

    float A2[4][4], h[4][4];
    load_rates(p, tile, channel, state, A2);
    if (p.segments > 1)
        load_state(p, tile, p.segment_state, static_cast<i64>(tile.batch) * p.segments + work.segment, channel, state, h);
    else
        load_user_state(p, tile, p.initial_state, tile.batch, channel, state, h);

    const MapRows B_rows = B_of(p, tile), C_rows = C_of(p, tile);
    const i64 first = static_cast<i64>(work.segment) * p.segment_length;
    const int length = segment_times(p, work.segment);
    const int owned = owned_index<4 * GROUP>(lane, 16, STATE_LANES);
    const i64 checkpoints = (p.length + p.checkpoint - 1) / p.checkpoint;
    const auto fetch = [&](int start) {
        if (start < length) {
            const int times = min(T, length - start);
            fetch_rows<T>(p, tile, p.delta, p.delta_batch, p.delta_row, first + start, times, delta_slots, lane);
            fetch_rows<T>(p, tile, p.u, p.u_batch, p.u_row, first + start, times, u_slots, lane);
            fetch_maps<T>(p, tile, B_rows, first + start, times, B_slots, lane);
            fetch_maps<T>(p, tile, C_rows, first + start, times, C_slots, lane);
        }
        close_copies();
    };
    fetch(0);
    for (int start = 0; start < length; start += T) {
        const i64 time = first + start;
        const int times = min(T, length - start);
        if (p.checkpoints != nullptr && time % p.checkpoint == 0)
            store_state(p, tile, p.checkpoints, tile.batch * checkpoints + time / p.checkpoint, channel, state, h);
        __syncwarp();
        if (GATE) fetch_rows<T>(p, tile, p.z, p.z_batch, p.z_row, time, times, z_slots, lane);
        close_copies();
        await_copies<1>();
        convert_steps<T, true>(p, tile, times, bias, delta_slots, u_slots, steps, inputs, lane);
        convert_maps<T>(p, tile, B_rows, time, times, B_slots, B, lane);
        convert_maps<T>(p, tile, C_rows, time, times, C_slots, C, lane);
        const unsigned resets = load_resets(p, tile, time, times, lane);
        uint4 u_bits[Rows<T>::ROUNDS];  // the skip needs u after its slots are overwritten
#pragma unroll
        for (int r = 0; r < Rows<T>::ROUNDS; ++r) u_bits[r] = reinterpret_cast<const uint4*>(u_slots)[r * 32 + lane];
        __syncwarp();
        fetch(start + T);
#pragma unroll 1
        for (int group = 0; group < T; group += GROUP) {
            float y[4 * GROUP];
#pragma unroll
            for (int k = 0; k < GROUP; ++k) {
                const int t = group + k;
                float dt[4], x[4], b[4], c[4];
                load_four(steps + t * WARP_CHANNELS + channel, dt);
                load_four(inputs + t * WARP_CHANNELS + channel, x);
                load_four(B + t * PADDED_STATE + state, b);
                load_four(C + t * PADDED_STATE + state, c);
                const float barrier = barrier_at(resets, t);
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    y[4 * k + i] = 0.f;
#pragma unroll
                    for (int s = 0; s < 4; ++s) {
                        const float a = exp2_unit(fmaf(A2[i][s], dt[i], barrier));
                        h[i][s] = fmaf(a, h[i][s], x[i] * b[s]);
                        y[4 * k + i] = fmaf(h[i][s], c[s], y[4 * k + i]);
                    }
                }
            }
            reduce_scatter<4 * GROUP>(y, lane, 16, STATE_LANES);
            store_owned<4 * GROUP>(y, owned, inputs + group * WARP_CHANNELS + channel, WARP_CHANNELS);
        }
        __syncwarp();
        await_copies<1>();
#pragma unroll
        for (int r = 0; r < Rows<T>::ROUNDS; ++r) {
            const Piece piece = make_piece(p, tile, time, times, r * 32 + lane);
            float u[VECTOR], z[VECTOR];
            load_row<true>(reinterpret_cast<const storage_t*>(&u_bits[r]), VECTOR, u);
            if (GATE) read_slot(reinterpret_cast<const float4*>(z_slots) + r * 32 + lane, z);
            if (piece.count <= 0) continue;
            float y[VECTOR], weight[VECTOR];
            load_floats(inputs + piece.time * WARP_CHANNELS + piece.channel, y);
            load_floats(skip + piece.channel, weight);
#pragma unroll
            for (int k = 0; k < VECTOR; ++k) {
                y[k] = fmaf(weight[k], u[k], y[k]);
                if (GATE) y[k] *= z[k] * sigmoid(z[k]);
            }
            store_row<ALIGNED>(p.y + tile.batch * p.y_batch + piece.row * p.y_row + tile.first_channel + piece.channel,
                               piece.count, y);
        }
    }
    if (work.segment == p.segments - 1) store_user_state(p, tile, p.final_state, tile.batch, channel, state, h);
}

GENOSSM_KERNEL(segment_states, ScanParams)
GENOSSM_KERNEL(carry_states, ScanParams)
GENOSSM_KERNEL(outputs, ScanParams)
