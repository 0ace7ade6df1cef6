// Shared by the forward and backward kernels of the selective scan. CUDA.md derives the layout.
//
// Macros: DTYPE, SOFTPLUS, GATE (z is there), STATE_LANES (padded d_state / 4: 1 2 4 8 16), ALIGNED (16-byte rows of
// u delta z y and gradients), ALIGNED_MAPS (the same of B and C).
#pragma once
#include "device.cuh"

// A warp owns WARP_CHANNELS channels; a lane 4 of them times 4 states, 16 numbers of the state.
constexpr int CHANNEL_LANES = 32 / STATE_LANES;
constexpr int WARP_CHANNELS = 4 * CHANNEL_LANES;
constexpr int PADDED_STATE = 4 * STATE_LANES;
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
    i64 grad_y_batch, grad_y_row;  // the gradients written here are contiguous
    i64 length;
    unsigned long long reversed_blocks;  // a bit a block of channels
    int batch, channels, d_state, groups, blocks;
    int runs;            // channel runs of one group and one direction
    int tiles_per_run;   // warp tiles in a run
    int parts_per_run;   // thread blocks of the backward pass in a run
    int segment_length, segments, checkpoint;
};

// Marks a segment with a reset inside: no state passes through it.
#define NOTHING_PASSES __int_as_float(0x7f800000)

// What one warp works on: a tile of channels of one run, in one batch entry.
struct Tile {
    int batch, first_channel, channels, group;
    bool reversed;
};

__device__ __forceinline__ Tile make_tile(const ScanParams& p, int batch, int run, int index) {
    const int run_length = p.channels / p.runs;
    Tile tile;
    tile.batch = batch;
    tile.first_channel = run * run_length + index * WARP_CHANNELS;
    tile.channels = max(0, min(WARP_CHANNELS, run_length - index * WARP_CHANNELS));
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
// Added everywhere else: the special function unit's results are 1e-8 too small in the mean (measured for exponents
// between 0 and -1), which a state that decays slowly would sum up over its whole memory. Padding stays exactly 1.
constexpr float UNIT_BIAS = 1.5e-8f;
__device__ __forceinline__ float barrier_at(unsigned resets, int t) { return resets >> t & 1u ? RESET : UNIT_BIAS; }

__device__ __forceinline__ void load_channel_constants(const ScanParams& p, const Tile& tile, const float* source,
                                                       float* target, int lane) {
    for (int c = lane; c < WARP_CHANNELS; c += 32)
        target[c] = source != nullptr && c < tile.channels ? source[tile.first_channel + c] : 0.f;
}

// A piece of a tile's rows: VECTOR channels at one time.
struct Piece {
    int time, channel, count;
    i64 row;
    // 1 for an element that is there, 0 for padding: a factor, since a branch an element costs more than its work.
    __device__ __forceinline__ float mask(int k) const { return (ALIGNED ? count > 0 : k < count) ? 1.f : 0.f; }
};
__device__ __forceinline__ Piece make_piece(const ScanParams& p, const Tile& tile, i64 first_time, int times, int index) {
    Piece piece;
    piece.time = index / ROW_PIECES;
    piece.channel = index % ROW_PIECES * VECTOR;
    const bool inside = piece.time < times;
    piece.count = inside ? min(VECTOR, tile.channels - piece.channel) : 0;
    piece.row = position(p, tile, first_time + (inside ? piece.time : 0));
    return piece;
}
__device__ __forceinline__ const storage_t* at(const storage_t* base, i64 batch_stride, i64 row_stride, const Tile& tile,
                                               const Piece& piece) {
    return base + tile.batch * batch_stride + piece.row * row_stride + tile.first_channel + piece.channel;
}

// Slots for the pieces of TIMES rows; a lane reads back the pieces that it fetched itself.
template <int TIMES>
struct Rows {
    static constexpr int ROUNDS = (TIMES * ROW_PIECES + 31) / 32;
    static constexpr int FLOATS = ROUNDS * 128;
};

template <int TIMES>
__device__ __forceinline__ void fetch_rows(const ScanParams& p, const Tile& tile, const storage_t* base, i64 batch_stride,
                                           i64 row_stride, i64 first_time, int times, float* slots, int lane) {
#pragma unroll
    for (int r = 0; r < Rows<TIMES>::ROUNDS; ++r) {
        const Piece piece = make_piece(p, tile, first_time, times, r * 32 + lane);
        fetch_row<ALIGNED>(reinterpret_cast<float4*>(slots) + r * 32 + lane,
                           at(base, batch_stride, row_stride, tile, piece), piece.count);
    }
}

// Steps of TIMES rows, softplus applied, and inputs times steps, as floats; rows past `times` become zero, which leaves
// any state as it is.
template <int TIMES, bool INPUTS>
__device__ __forceinline__ void convert_steps(const ScanParams& p, const Tile& tile, int times, const float* bias,
                                              const float* delta_slots, const float* u_slots, float* steps,
                                              float* inputs, int lane) {
#pragma unroll
    for (int r = 0; r < Rows<TIMES>::ROUNDS; ++r) {
        const Piece piece = make_piece(p, tile, 0, times, r * 32 + lane);
        float step[VECTOR], u[VECTOR], offset[VECTOR];
        read_slot(reinterpret_cast<const float4*>(delta_slots) + r * 32 + lane, step);
        if (INPUTS) read_slot(reinterpret_cast<const float4*>(u_slots) + r * 32 + lane, u);
        load_floats(bias + piece.channel, offset);
#pragma unroll
        for (int k = 0; k < VECTOR; ++k) {
            step[k] = piece.mask(k) * step_size(step[k] + offset[k]);
            if (INPUTS) u[k] *= step[k];
        }
        if (TIMES * ROW_PIECES % 32 != 0 && piece.time >= TIMES) continue;
        store_floats(steps + piece.time * WARP_CHANNELS + piece.channel, step);
        if (INPUTS) store_floats(inputs + piece.time * WARP_CHANNELS + piece.channel, u);
    }
}

// Gradient of the output before the gate.
template <int TIMES>
__device__ __forceinline__ void convert_output_gradient(const float* gradient_slots, const float* z_slots, float* target,
                                                        int lane) {
#pragma unroll
    for (int r = 0; r < Rows<TIMES>::ROUNDS; ++r) {
        const int index = r * 32 + lane;
        float gradient[VECTOR], z[VECTOR];
        read_slot(reinterpret_cast<const float4*>(gradient_slots) + index, gradient);
        if (GATE) {
            read_slot(reinterpret_cast<const float4*>(z_slots) + index, z);
#pragma unroll
            for (int k = 0; k < VECTOR; ++k) gradient[k] *= z[k] * sigmoid(z[k]);
        }
        if (TIMES * ROW_PIECES % 32 != 0 && index >= TIMES * ROW_PIECES) continue;
        store_floats(target + index / ROW_PIECES * WARP_CHANNELS + index % ROW_PIECES * VECTOR, gradient);
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
#pragma unroll
    for (int r = 0; r < Maps<TIMES>::ROUNDS; ++r) {
        const int index = r * 32 + lane, time = index / Maps<TIMES>::PIECES, state = index % Maps<TIMES>::PIECES * VECTOR;
        const bool inside = time < times && state < p.d_state;
        const i64 row = position(p, tile, first_time + (inside ? time : 0));
        fetch_row<true>(reinterpret_cast<float4*>(slots) + index, rows.base + row * rows.stride + state, inside ? VECTOR : 0);
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
    if (p.seq_idx == nullptr) return 0u;
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

// The lane's 4 x 4 numbers of a padded state array; absent arrays and channels read as zero.
__device__ __forceinline__ void load_state(const ScanParams& p, const Tile& tile, const float* base, i64 index,
                                           int channel, int state, float (&h)[4][4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        float4 four = make_float4(0.f, 0.f, 0.f, 0.f);
        if (base != nullptr && channel + i < tile.channels)
            four = *reinterpret_cast<const float4*>(base + state_offset(p, index, tile.first_channel + channel + i, state));
        h[i][0] = four.x, h[i][1] = four.y, h[i][2] = four.z, h[i][3] = four.w;
    }
}
__device__ __forceinline__ void store_state(const ScanParams& p, const Tile& tile, float* base, i64 index, int channel,
                                            int state, const float (&h)[4][4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i)
        if (channel + i < tile.channels)
            store_four(base + state_offset(p, index, tile.first_channel + channel + i, state), h[i]);
}
// The same of an array with d_state states a channel, as the caller has it: (batch, channels, d_state).
__device__ __forceinline__ void load_user_state(const ScanParams& p, const Tile& tile, const float* base, i64 index,
                                                int channel, int state, float (&h)[4][4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int s = 0; s < 4; ++s)
            h[i][s] = base != nullptr && channel + i < tile.channels && state + s < p.d_state
                          ? base[(index * p.channels + tile.first_channel + channel + i) * p.d_state + state + s]
                          : 0.f;
}
__device__ __forceinline__ void store_user_state(const ScanParams& p, const Tile& tile, float* base, i64 index,
                                                 int channel, int state, const float (&h)[4][4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int s = 0; s < 4; ++s)
            if (channel + i < tile.channels && state + s < p.d_state)
                base[(index * p.channels + tile.first_channel + channel + i) * p.d_state + state + s] = h[i][s];
}

// Writes what a lane owns of COUNT = 4 x times sums (reduce_scatter over the states) to rows of channels.
template <int COUNT>
__device__ __forceinline__ void store_owned(const float (&values)[COUNT], int owned, float* rows, int row_floats) {
    constexpr int OWNED = owned_count(COUNT, STATE_LANES);
    if (OWNED >= 4) {
#pragma unroll
        for (int k = 0; k < OWNED; k += 4) {
            const float four[4] = {values[k], values[k + 1], values[k + 2], values[k + 3]};
            store_four(rows + (owned + k) / 4 * row_floats, four);
        }
    } else {
#pragma unroll
        for (int k = 0; k < OWNED; ++k) rows[(owned + k) / 4 * row_floats + (owned + k) % 4] = values[k];
    }
}

// A in units of log2 e, so that a decay is 2^(A dt).
__device__ __forceinline__ void load_rates(const ScanParams& p, const Tile& tile, int channel, int state, float (&A2)[4][4]) {
    load_user_state(p, tile, p.A, 0, channel, state, A2);
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int s = 0; s < 4; ++s) A2[i][s] *= LOG2E;
}

// A thread's end of work over a segment: times first .. first + length, cut at the end of the sequence.
__device__ __forceinline__ int segment_times(const ScanParams& p, int segment) {
    const i64 first = static_cast<i64>(segment) * p.segment_length;
    return static_cast<int>(min(static_cast<i64>(p.segment_length), p.length - first));
}

// True when every later term of a segment's sum is exactly zero: its exponent is below what a float can hold.
__device__ __forceinline__ bool all_vanished(const ScanParams& p, const float (&A2)[4][4], const float (&sigma)[4],
                                             const Tile& tile, int channel, int state) {
    bool vanished = true;
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int s = 0; s < 4; ++s)
            if (channel + i < tile.channels && state + s < p.d_state) vanished &= A2[i][s] * sigma[i] < -150.f;
    return vanished;
}
