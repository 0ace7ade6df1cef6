// Rows of `gradients` (cuda_backward.cu) on their way into shared memory.
#pragma once
#include "cuda_common.cuh"

constexpr int T = 8;     // times of a tile, whose rows are fetched and written together
constexpr int S = 16;    // times of a tile of the forward sweep; a multiple of T
constexpr int HALF = 4;  // times of half a tile, of which a thread keeps every state and decay

// Rows are taken in cells of four neighbours at one time, each fetched, converted and written by one lane.
template <int TIMES, int COLUMNS>
struct Cells {
    static constexpr int ROW = COLUMNS / 4;  // a power of two, at most 32
    static constexpr int COUNT = TIMES * ROW;
    static constexpr int ROUNDS = (COUNT + 31) / 32;
    static constexpr int SLOT = ROUNDS * 32 * sizeof(storage_t);  // floats that hold them as they are stored
    __device__ static __forceinline__ bool inside(int index) { return COUNT % 32 == 0 || index < COUNT; }
};
template <int TIMES>
using ChannelCells = Cells<TIMES, WARP_CHANNELS>;
template <int TIMES>
using MapCells = Cells<TIMES, PADDED_STATE>;

// `count` of four neighbours, the rest zero. WHOLE: all or none.
template <bool WHOLE>
__device__ __forceinline__ cell_t read_rows_cell(const storage_t* source, int count) {
    cell_t cell = {};
    if (WHOLE) {
        if (count > 0) cell = *reinterpret_cast<const cell_t*>(source);
    } else {
#pragma unroll
        for (int k = 0; k < 4; ++k)
            if (k < count) reinterpret_cast<storage_t*>(&cell)[k] = source[k];
    }
    return cell;
}

__device__ __forceinline__ cell_t* cell_at(float* slots, int index) { return reinterpret_cast<cell_t*>(slots) + index; }
__device__ __forceinline__ void read_cell(const float* slots, int index, float (&out)[4]) {
    unpack_cell(reinterpret_cast<const cell_t*>(slots)[index], out);
}

// Rows from one time on: where the first begins, and how far the next is. Offsets within a checkpoint are small.
struct Stream {
    const storage_t* first;
    int step;
};
__device__ __forceinline__ Stream stream_of(const ScanParams& p, const Tile& tile, const storage_t* base, i64 batch_stride,
                                            i64 row_stride, i64 time) {
    return {base + tile.batch * batch_stride + position(p, tile, time) * row_stride, row_step(tile, row_stride)};
}

// TIMES rows of COLUMNS from `first` on, of which `times` and `columns` are there. Those of the sweep in pieces of 16 bytes
// where lanes share them out evenly, which any lane then reads; a tile's in cells, each for the lane that fetches it.
template <int TIMES, int COLUMNS, bool WHOLE>
__device__ __forceinline__ void fetch_rows_of(const Stream& rows, int start, int first, int times, int columns, float* slots,
                                              int lane) {
    constexpr bool BY_PIECE = WHOLE && TIMES == S && COLUMNS >= VECTOR && TIMES * COLUMNS % (32 * VECTOR) == 0;
    constexpr int WIDTH = BY_PIECE ? VECTOR : 4, ROW = COLUMNS / WIDTH, AT_ONCE = 32 / ROW;
    const int column = lane % ROW * WIDTH;
#pragma unroll
    for (int r = 0; r < (TIMES + AT_ONCE - 1) / AT_ONCE; ++r) {
        const int time = r * AT_ONCE + lane / ROW, count = time < times ? columns - column : 0;
        const storage_t* const source = rows.first + ((start + time) * rows.step + first + column);
        if (BY_PIECE) copy_async(reinterpret_cast<float4*>(slots) + r * 32 + lane, source, count > 0);
        else fetch_cell<WHOLE>(cell_at(slots, r * 32 + lane), source, count);
    }
}
template <int TIMES>
__device__ __forceinline__ void fetch_channels(const Tile& tile, const Stream& rows, int start, int times, float* slots,
                                               int lane) {
    fetch_rows_of<TIMES, WARP_CHANNELS, ALIGNED != 0>(rows, start, tile.first_channel, times, tile.channels, slots, lane);
}
template <int TIMES>
__device__ __forceinline__ void fetch_states(const ScanParams& p, const Stream& rows, int start, int times, float* slots,
                                             int lane) {
    fetch_rows_of<TIMES, PADDED_STATE, ALIGNED_MAPS != 0>(rows, start, 0, times, p.d_state, slots, lane);
}
template <int TIMES>
__device__ __forceinline__ void convert_states(const float* slots, float* target, int lane) {
#pragma unroll
    for (int r = 0; r < MapCells<TIMES>::ROUNDS; ++r) {
        const int index = r * 32 + lane;
        float values[4];
        read_cell(slots, index, values);
        if (MapCells<TIMES>::inside(index)) store_four(target + index * 4, values);
    }
}
// Steps, softplus applied, and inputs times steps; times past `times` become zero, which leaves any state as it is.
template <int TIMES>
__device__ __forceinline__ void convert_channels(int times, const float* bias, const float* delta_slots,
                                                 const float* u_slots, float* steps, float* inputs, int lane) {
#pragma unroll
    for (int r = 0; r < ChannelCells<TIMES>::ROUNDS; ++r) {
        const int index = r * 32 + lane;
        const float live = index / ChannelCells<TIMES>::ROW < times ? 1.f : 0.f;  // a branch costs more than a factor
        float step[4], u[4], offset[4];
        read_cell(delta_slots, index, step);
        read_cell(u_slots, index, u);
        load_four(bias + index % ChannelCells<TIMES>::ROW * 4, offset);
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            step[k] = live * step_size(step[k] + offset[k]);
            u[k] *= step[k];
        }
        if (!ChannelCells<TIMES>::inside(index)) continue;
        store_four(steps + index * 4, step);
        store_four(inputs + index * 4, u);
    }
}
