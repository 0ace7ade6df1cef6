// Shared by the kernels of the selective scan. CUDA.md derives the layout.
//
// Macros: DTYPE, SOFTPLUS, GATE (z is there), PACKED (seq_idx is there), PADDED_STATE (d_state padded to 4 8 16 32 64), ALIGNED (16-byte rows of
// u delta z y and gradients), ALIGNED_MAPS (the same of B and C). A source defines LANE_CHANNELS and LANE_STATES.
#pragma once
#include "device.cuh"

// A warp owns WARP_CHANNELS channels with all their states, a lane LANE_CHANNELS of them times LANE_STATES states.
constexpr int STATE_LANES = PADDED_STATE / LANE_STATES;
constexpr int CHANNEL_LANES = 32 / STATE_LANES;
constexpr int WARP_CHANNELS = LANE_CHANNELS * CHANNEL_LANES;
typedef float LaneState[LANE_CHANNELS][LANE_STATES];
constexpr int ROW_PIECES = WARP_CHANNELS / VECTOR;  // a power of two, at most 32

struct ScanParams {
    // Inputs; rows of u delta z y and of their gradients have unit stride in channels, B and C in states.
    const storage_t *u, *delta, *B, *C, *z, *grad_y;
    const float *A, *D, *bias, *initial_state, *grad_final_state;
    const int* seq_idx;
    // Outputs.
    storage_t *y, *grad_u, *grad_delta, *grad_z, *grad_B, *grad_C;
    float *final_state, *grad_A, *grad_D, *grad_bias, *grad_initial_state;
    // Work space, padded to PADDED_STATE states.
    float* segment_state;  // (batch, segments, channels, state): state entering a segment
    float* segment_sum;    // (batch, segments, channels): sum of its steps; infinite where nothing passes
    float* checkpoints;    // (batch, ceil(length / checkpoint), channels, state): state entering each
    float* scratch;        // (blocks of the grid, warps, tiles of a checkpoint, 4, 32 lanes, 4)
    float* map_partial;    // (parts, batch, length, 2, state): gradients of B and C summed over one part's channels
    float* A_partial;      // (batch * segments, channels, state)
    float* sum_partial;    // (batch * segments, 2, channels): gradients of D and the bias
    i64 u_batch, u_row, delta_batch, delta_row, z_batch, z_row, y_batch, y_row;
    i64 B_batch, B_row, B_group, C_batch, C_row, C_group;
    i64 grad_y_batch, grad_y_row;
    // Of the gradients written here those of z, B and C may be slices of larger rows; the others are contiguous.
    i64 grad_z_batch, grad_z_row, grad_B_batch, grad_B_row, grad_C_batch, grad_C_row;
    i64 length;
    unsigned long long reversed_blocks;  // a bit a block of channels
    int batch, channels, d_state, groups, blocks;
    int runs;            // channel runs of one group and one direction
    int tiles_per_run;   // warp tiles in a run
    int parts_per_run;   // thread blocks of the backward pass in a run
    int segment_length, segments, checkpoint;
    int add_grad_z;      // to what grad_z holds, instead of replacing it
    int whole_map_rows;  // rows of grad_B and grad_C begin on four elements
};

// Marks a segment with a reset inside: no state passes through it.
#define NOTHING_PASSES __int_as_float(0x7f800000)

// What one warp works on: a tile of channels of one run, in one batch entry.
struct Tile {
    int batch, first_channel, channels, group;
    bool reversed;
};

template <int WIDTH = WARP_CHANNELS>
__device__ __forceinline__ Tile make_tile(const ScanParams& p, int batch, int run, int index) {
    const int run_length = p.channels / p.runs;
    Tile tile;
    tile.batch = batch;
    tile.first_channel = run * run_length + index * WIDTH;
    tile.channels = max(0, min(WIDTH, run_length - index * WIDTH));
    tile.group = static_cast<int>(static_cast<i64>(run) * p.groups / p.runs);
    const int block = static_cast<int>(static_cast<i64>(run) * p.blocks / p.runs);
    tile.reversed = (p.reversed_blocks >> block) & 1ull;
    return tile;
}

// Time counts processed positions; a reversed block reads them from the end.
__device__ __forceinline__ i64 position(const ScanParams& p, const Tile& tile, i64 time) {
    return tile.reversed ? p.length - 1 - time : time;
}

__device__ __forceinline__ float step_size(float x) { return SOFTPLUS ? softplus(x) : x; }
// Added to an exponent where packed sequences meet: 2^RESET is zero.
constexpr float RESET = -1e30f;
// Added everywhere else: the special function unit's results are too small in the mean, which a state that decays slowly
// would sum up over its whole memory. As an exponent they lack (measured on an H100) 3.0e-8, and 0.87e-8 between -2^-8 and
// 0. Where the steps are known, correct_rates takes off what is too much; else a value between is added.
constexpr float UNIT_BIAS = 3.0e-8f, UNIT_EXCESS = 2.13e-8f, UNKNOWN_BIAS = 1.5e-8f;
__device__ __forceinline__ float unit_bias(const ScanParams& p) { return p.segments > 1 ? UNIT_BIAS : UNKNOWN_BIAS; }
__device__ __forceinline__ float barrier_at(unsigned resets, int t, float bias) { return resets >> t & 1u ? RESET : bias; }

// Where a row of the tile's batch entry begins; the same in a whole block, so that lanes add small offsets only.
__device__ __forceinline__ const storage_t* row_at(const ScanParams& p, const Tile& tile, const storage_t* base,
                                                   i64 batch_stride, i64 row_stride, i64 time) {
    return base + tile.batch * batch_stride + position(p, tile, time) * row_stride;
}
__device__ __forceinline__ int row_step(const Tile& tile, i64 row_stride) {
    return static_cast<int>(tile.reversed ? -row_stride : row_stride);
}

// Slots for TIMES rows of the tile's channels as they are stored, row after row in pieces of 16 bytes.
template <int TIMES>
struct Rows {
    static constexpr int ROUNDS = (TIMES * ROW_PIECES + 31) / 32;
    static constexpr int FLOATS = ROUNDS * 128;
};
template <int TIMES>
__device__ __forceinline__ void fetch_rows(const ScanParams& p, const Tile& tile, const storage_t* base, i64 batch_stride,
                                           i64 row_stride, i64 first_time, int times, float* slots, int lane) {
    const storage_t* first = row_at(p, tile, base, batch_stride, row_stride, first_time);
    const int step = row_step(tile, row_stride), channel = lane % ROW_PIECES * VECTOR;
#pragma unroll
    for (int r = 0; r < Rows<TIMES>::ROUNDS; ++r) {
        const int time = r * (32 / ROW_PIECES) + lane / ROW_PIECES;
        fetch_row<ALIGNED>(reinterpret_cast<float4*>(slots) + r * 32 + lane,
                           first + (time * step + tile.first_channel + channel),
                           time < times ? tile.channels - channel : 0);
    }
}

// TIMES rows of B or C: fetched into slots where rows lie in whole pieces, else read when they are converted.
constexpr bool FETCH_MAPS = ALIGNED_MAPS && PADDED_STATE >= VECTOR;
template <int TIMES>
struct Maps {
    static constexpr int PIECES = PADDED_STATE >= VECTOR ? PADDED_STATE / VECTOR : 1;
    static constexpr int ROUNDS = (TIMES * PIECES + 31) / 32;
    static constexpr int FLOATS = FETCH_MAPS ? ROUNDS * 128 : 0;
};
struct MapRows {
    const storage_t* base;
    i64 stride;
};

template <int TIMES>
__device__ __forceinline__ void fetch_maps(const ScanParams& p, const Tile& tile, const MapRows& rows, i64 first_time,
                                           int times, float* slots, int lane) {
    if (!FETCH_MAPS) return;
    const storage_t* first = rows.base + position(p, tile, first_time) * rows.stride;
    const int step = row_step(tile, rows.stride);
#pragma unroll
    for (int r = 0; r < Maps<TIMES>::ROUNDS; ++r) {
        const int index = r * 32 + lane, time = index / Maps<TIMES>::PIECES, state = index % Maps<TIMES>::PIECES * VECTOR;
        fetch_row<true>(reinterpret_cast<float4*>(slots) + index, first + (time * step + state),
                        time < times && state < p.d_state ? VECTOR : 0);
    }
}

// As floats, padded with zeros to PADDED_STATE.
template <int TIMES>
__device__ __forceinline__ void convert_maps(const ScanParams& p, const Tile& tile, const MapRows& rows, i64 first_time,
                                             int times, const float* slots, float* target, int lane) {
    if (FETCH_MAPS) {
#pragma unroll
        for (int r = 0; r < Maps<TIMES>::ROUNDS; ++r) {
            const int index = r * 32 + lane;
            float values[VECTOR];
            read_slot(reinterpret_cast<const float4*>(slots) + index, values);
            if (TIMES * Maps<TIMES>::PIECES % 32 != 0 && index >= TIMES * Maps<TIMES>::PIECES) continue;
            store_floats(target + index * VECTOR, values);
        }
    } else {
        for (int index = lane; index < TIMES * PADDED_STATE; index += 32) {
            const int time = index / PADDED_STATE, state = index % PADDED_STATE;
            const bool inside = time < times && state < p.d_state;
            const i64 row = position(p, tile, first_time + (inside ? time : 0));
            target[index] = inside ? to_float(rows.base[row * rows.stride + state]) : 0.f;
        }
    }
}
__device__ __forceinline__ MapRows B_of(const ScanParams& p, const Tile& tile) {
    return {p.B + tile.batch * p.B_batch + tile.group * p.B_group, p.B_row};
}
__device__ __forceinline__ MapRows C_of(const ScanParams& p, const Tile& tile) {
    return {p.C + tile.batch * p.C_batch + tile.group * p.C_group, p.C_row};
}

// A bit for each time of the tile where packed sequences meet: the state is zeroed before it.
__device__ __forceinline__ unsigned load_resets(const ScanParams& p, const Tile& tile, i64 first_time, int times, int lane) {
    if (!PACKED) return 0u;
    const i64 time = first_time + lane;
    bool reset = false;
    if (lane < times && time > 0) {
        const int* row = p.seq_idx + tile.batch * p.length;
        reset = row[position(p, tile, time)] != row[position(p, tile, time - 1)];
    }
    return __ballot_sync(FULL, reset);
}

__device__ __forceinline__ i64 state_offset(const ScanParams& p, i64 index, int channel, int state) {
    return (index * p.channels + channel) * PADDED_STATE + state;
}

// The lane's numbers of a padded state array; absent arrays and channels read as zero.
__device__ __forceinline__ void load_state(const ScanParams& p, const Tile& tile, const float* base, i64 index,
                                           int channel, int state, LaneState& h) {
#pragma unroll
    for (int i = 0; i < LANE_CHANNELS; ++i)
#pragma unroll
        for (int s = 0; s < LANE_STATES; s += 4) {
            float4 four = make_float4(0.f, 0.f, 0.f, 0.f);
            if (base != nullptr && channel + i < tile.channels)
                four = *reinterpret_cast<const float4*>(
                    base + state_offset(p, index, tile.first_channel + channel + i, state + s));
            h[i][s] = four.x, h[i][s + 1] = four.y, h[i][s + 2] = four.z, h[i][s + 3] = four.w;
        }
}
__device__ __forceinline__ void store_state(const ScanParams& p, const Tile& tile, float* base, i64 index, int channel,
                                            int state, const LaneState& h) {
#pragma unroll
    for (int i = 0; i < LANE_CHANNELS; ++i)
#pragma unroll
        for (int s = 0; s < LANE_STATES; s += 4)
            if (channel + i < tile.channels)
                *reinterpret_cast<float4*>(base + state_offset(p, index, tile.first_channel + channel + i, state + s)) =
                    make_float4(h[i][s], h[i][s + 1], h[i][s + 2], h[i][s + 3]);
}
// The same of an array with d_state states a channel, as the caller has it: (batch, channels, d_state). What runs once a
// segment is kept short: a short sequence takes longer to fetch instructions than to do its steps.
__device__ __forceinline__ void load_user_state(const ScanParams& p, const Tile& tile, const float* base, i64 index,
                                                int channel, int state, LaneState& h) {
    if (p.d_state == PADDED_STATE && reinterpret_cast<unsigned long long>(base) % 16 == 0) {
        load_state(p, tile, base, index, channel, state, h);
        return;
    }
#pragma unroll
    for (int i = 0; i < LANE_CHANNELS; ++i)
#pragma unroll
        for (int s = 0; s < LANE_STATES; ++s)
            h[i][s] = base != nullptr && channel + i < tile.channels && state + s < p.d_state
                          ? base[(index * p.channels + tile.first_channel + channel + i) * p.d_state + state + s]
                          : 0.f;
}
__device__ __forceinline__ void store_user_state(const ScanParams& p, const Tile& tile, float* base, i64 index,
                                                 int channel, int state, const LaneState& h) {
#pragma unroll
    for (int i = 0; i < LANE_CHANNELS; ++i)
#pragma unroll
        for (int s = 0; s < LANE_STATES; ++s)
            if (channel + i < tile.channels && state + s < p.d_state)
                base[(index * p.channels + tile.first_channel + channel + i) * p.d_state + state + s] = h[i][s];
}

// A in units of log2 e, so that a decay is 2^(A dt).
__device__ __forceinline__ void load_rates(const ScanParams& p, const Tile& tile, int channel, int state, LaneState& A2) {
    load_user_state(p, tile, p.A, 0, channel, state, A2);
#pragma unroll
    for (int i = 0; i < LANE_CHANNELS; ++i)
#pragma unroll
        for (int s = 0; s < LANE_STATES; ++s) A2[i][s] *= LOG2E;
}

// A thread's end of work over a segment: times first .. first + length, cut at the end of the sequence.
__device__ __forceinline__ int segment_times(const ScanParams& p, int segment) {
    const i64 first = static_cast<i64>(segment) * p.segment_length;
    return static_cast<int>(min(static_cast<i64>(p.segment_length), p.length - first));
}

// Rates that give slow decays the smaller bias, at the mean step of a segment or of the neighbour whose sum of steps is
// known. Steps differ by a factor of two around their mean, and so one bias turns into the other gradually.
__device__ __forceinline__ void correct_rates(const ScanParams& p, const Tile& tile, int segment, int channel, LaneState& A2) {
    if (p.segments == 1) return;
    const i64 index = static_cast<i64>(tile.batch) * p.segments + segment;
    const int times = segment_times(p, segment);
#pragma unroll
    for (int i = 0; i < LANE_CHANNELS; ++i) {
        if (channel + i >= tile.channels) continue;
        const float step = p.segment_sum[index * p.channels + tile.first_channel + channel + i] / times;
        if (!(step > 1e-12f && step < 1e6f)) continue;  // NOTHING_PASSES among them
        // Written once a state in a kernel's beginning, where every instruction is fetched for the first time.
        const float at = fmaf(-0.5f, log2_unit(step), -3.5f), weight = UNIT_EXCESS / step;
#pragma unroll
        for (int s = 0; s < LANE_STATES; ++s) {
            const float slow = fminf(fmaxf(fmaf(-0.5f, log2_unit(fabsf(A2[i][s])), at), 0.f), 1.f);  // 1 at 2^-9, 0 at 2^-7
            A2[i][s] = fmaf(-weight, slow, A2[i][s]);
        }
    }
}

// True when every later term of a segment's sum is exactly zero: its exponent is below what a float can hold.
__device__ __forceinline__ bool all_vanished(const ScanParams& p, const LaneState& A2, const float (&sigma)[LANE_CHANNELS],
                                             const Tile& tile, int channel, int state) {
    bool vanished = true;
#pragma unroll
    for (int i = 0; i < LANE_CHANNELS; ++i)
#pragma unroll
        for (int s = 0; s < LANE_STATES; ++s)
            if (channel + i < tile.channels && state + s < p.d_state) vanished &= A2[i][s] * sigma[i] < -150.f;
    return vanished;
}
