// Forward selective scan in three launches; CUDA.md derives it. The host skips the first two for one segment.
#include "cuda_common.cuh"

#ifndef FORWARD_TILE
#define FORWARD_TILE 16
#endif
#ifndef FORWARD_WARPS
#define FORWARD_WARPS 4
#endif
#ifndef POLYNOMIAL_STATES
#define POLYNOMIAL_STATES 4
#endif
#ifndef POLYNOMIAL_OUTPUTS
#define POLYNOMIAL_OUTPUTS 2
#endif
#ifndef FORWARD_BLOCKS
#define FORWARD_BLOCKS 4
#endif
constexpr int T = FORWARD_TILE;

// Floats of shared memory a warp uses; the host computes the same.
constexpr int STATE_FLOATS = 2 * T * WARP_CHANNELS + T * PADDED_STATE + WARP_CHANNELS;
constexpr int OUTPUT_FLOATS = 2 * T * WARP_CHANNELS + 2 * T * PADDED_STATE + 2 * WARP_CHANNELS;

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
    load_channel_constants(p, tile, p.bias, bias, lane);

    float A2[4][4], total[4][4], sigma[4];
    load_rates(p, tile, channel, state, A2);
    bool decaying = p.softplus;  // only then do later terms shrink for certain
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        sigma[i] = 0.f;
#pragma unroll
        for (int s = 0; s < 4; ++s) {
            total[i][s] = 0.f;
            decaying &= A2[i][s] <= 0.f;
        }
    }
    const storage_t* B_rows = map_base(p.B, p.B_batch, p.B_group, tile);
    const i64 first = static_cast<i64>(work.segment) * p.segment_length;
    bool blocked = false;
    for (int start = p.segment_length - T; start >= 0 && !blocked; start -= T) {
        __syncwarp();
        load_steps<T>(p, tile, first + start, T, bias, steps, inputs, lane);
        load_maps<T>(p, tile, B_rows, p.B_row, first + start, T, B, lane);
        const unsigned resets = load_resets(p, tile, first + start, T, lane);
        __syncwarp();
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
                    total[i][s] = fmaf(decay<POLYNOMIAL_STATES>(A2[i][s] * sigma[i], 4 * i + s), x[i] * b[s], total[i][s]);
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
#pragma unroll 8
    for (int segment = 0; segment < p.segments; ++segment) {
        const i64 index = batch * p.segments + segment;
        float* slot = p.segment_state + state_offset(p, index, channel, state);
        const bool last = segment == p.segments - 1;
        const float added = last ? 0.f : *slot;
        const float sigma = last ? 0.f : p.segment_sum[index * p.channels + channel];
        *slot = h;
        h = fmaf(sigma == NOTHING_PASSES ? 0.f : exp2_unit(A2 * sigma), h, added);
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
    load_channel_constants(p, tile, p.bias, bias, lane);
    load_channel_constants(p, tile, p.D, skip, lane);

    float A2[4][4], h[4][4];
    load_rates(p, tile, channel, state, A2);
    if (p.segments > 1)
        load_state(p, tile, p.segment_state, static_cast<i64>(tile.batch) * p.segments + work.segment, channel, state, h);
    else
        load_user_state(p, tile, p.initial_state, tile.batch, channel, state, h);

    const storage_t* B_rows = map_base(p.B, p.B_batch, p.B_group, tile);
    const storage_t* C_rows = map_base(p.C, p.C_batch, p.C_group, tile);
    const i64 first = static_cast<i64>(work.segment) * p.segment_length;
    const int length = segment_times(p, work.segment);
    const int owned = owned_index<4>(lane, 16, STATE_LANES);
    const i64 checkpoints = (p.length + p.checkpoint - 1) / p.checkpoint;
    for (int start = 0; start < length; start += T) {
        const i64 time = first + start;
        const int times = min(T, length - start);
        if (p.checkpoints != nullptr && time % p.checkpoint == 0)
            store_state(p, tile, p.checkpoints, tile.batch * checkpoints + time / p.checkpoint, channel, state, h);
        __syncwarp();
        load_steps<T>(p, tile, time, times, bias, steps, inputs, lane);
        load_maps<T>(p, tile, B_rows, p.B_row, time, times, B, lane);
        load_maps<T>(p, tile, C_rows, p.C_row, time, times, C, lane);
        const unsigned resets = load_resets(p, tile, time, times, lane);
        __syncwarp();
#pragma unroll 4
        for (int t = 0; t < T; ++t) {
            float dt[4], x[4], b[4], c[4], y[4];
            load_four(steps + t * WARP_CHANNELS + channel, dt);
            load_four(inputs + t * WARP_CHANNELS + channel, x);
            load_four(B + t * PADDED_STATE + state, b);
            load_four(C + t * PADDED_STATE + state, c);
            if (resets >> t & 1u) {
#pragma unroll
                for (int i = 0; i < 4; ++i)
#pragma unroll
                    for (int s = 0; s < 4; ++s) h[i][s] = 0.f;
            }
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                y[i] = 0.f;
#pragma unroll
                for (int s = 0; s < 4; ++s) {
                    h[i][s] = fmaf(decay<POLYNOMIAL_OUTPUTS>(A2[i][s] * dt[i], 4 * i + s), h[i][s], x[i] * b[s]);
                    y[i] = fmaf(h[i][s], c[s], y[i]);
                }
            }
            reduce_scatter<4>(y, lane, 16, STATE_LANES);
            float* row = inputs + t * WARP_CHANNELS + channel + owned;
#pragma unroll
            for (int k = 0; k < owned_count(4, STATE_LANES); ++k) row[k] = y[k];
        }
        __syncwarp();
        constexpr int ROUNDS = (T * ROW_PIECES + 31) / 32;
        float u[ROUNDS][VECTOR], z[ROUNDS][VECTOR];
#pragma unroll
        for (int r = 0; r < ROUNDS; ++r) {
            const Piece piece = make_piece(p, tile, time, times, r * 32 + lane);
            load_row<ALIGNED>(at(p.u, p.u_batch, p.u_row, tile, piece), p.D == nullptr ? 0 : piece.count, u[r]);
            load_row<ALIGNED>(at(p.z, p.z_batch, p.z_row, tile, piece), p.z == nullptr ? 0 : piece.count, z[r]);
        }
#pragma unroll
        for (int r = 0; r < ROUNDS; ++r) {
            const Piece piece = make_piece(p, tile, time, times, r * 32 + lane);
            if (piece.count == 0) continue;
            float y[VECTOR], weight[VECTOR];
            load_floats(inputs + piece.time * WARP_CHANNELS + piece.channel, y);
            load_floats(skip + piece.channel, weight);
#pragma unroll
            for (int k = 0; k < VECTOR; ++k) {
                y[k] = fmaf(weight[k], u[r][k], y[k]);
                if (p.z != nullptr) y[k] *= z[r][k] * sigmoid(z[r][k]);
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
