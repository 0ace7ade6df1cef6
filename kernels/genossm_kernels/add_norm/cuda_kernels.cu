// Addition to the residual stream and normalisation of a row, forward and backward, each in one pass over memory.
// LANES neighbouring threads share a row and hold it in registers, CELLS cells of four channels each; a group of them
// walks over the rows a whole grid apart, so that weights are read once and their gradients stay in registers.
//
// Macros: DTYPE (of the tensors that are not float), NARROW_X, NARROW_STREAM, NARROW_Y (which of them are not), ADD (there
// is an x; backward: its gradient has a dtype of its own), LAYER (subtract the mean), BIAS, LANES (a power of two up to
// 1,024), CELLS, ALIGNED (all rows in whole cells).
#include "device.cuh"

struct NormParams {
    const void *x, *residual, *grad_y, *grad_stream;
    const float *weight, *bias;
    void *y, *stream, *grad_x, *grad_residual;
    float *partial, *grad_weight, *grad_bias;  // partial: (blocks, 1 + BIAS, channels)
    i64 rows, x_row, residual_row, grad_y_row, grad_stream_row;
    int channels, blocks;
    float eps;
};

constexpr int CELL = 4;
constexpr int THREADS = LANES > 32 ? LANES : 256;
constexpr int GROUPS = THREADS / LANES;
constexpr int WARPS = LANES > 32 ? LANES / 32 : 1;  // that share a row
constexpr int WIDTH = LANES * CELLS * CELL;
constexpr int MOST_SUMS = 3;
constexpr int SUM_LANES = 32, SUM_THREADS = 256;

typedef float Row[CELLS][CELL];

template <bool NARROW>
__device__ __forceinline__ void load(const void* base, i64 offset, int count, float (&out)[CELL]) {
    if (NARROW) {
        const storage_t* source = static_cast<const storage_t*>(base) + offset;
        if (ALIGNED) {
            cell_t cell = {};
            if (count > 0) cell = *reinterpret_cast<const cell_t*>(source);
            unpack_cell(cell, out);
        } else {
#pragma unroll
            for (int k = 0; k < CELL; ++k) out[k] = k < count ? to_float(source[k]) : 0.f;
        }
    } else {
        const float* source = static_cast<const float*>(base) + offset;
        if (ALIGNED) {
            float4 cell = make_float4(0.f, 0.f, 0.f, 0.f);
            if (count > 0) cell = *reinterpret_cast<const float4*>(source);
            out[0] = cell.x, out[1] = cell.y, out[2] = cell.z, out[3] = cell.w;
        } else {
#pragma unroll
            for (int k = 0; k < CELL; ++k) out[k] = k < count ? source[k] : 0.f;
        }
    }
}
template <bool NARROW>
__device__ __forceinline__ void store(void* base, i64 offset, int count, const float (&values)[CELL]) {
    if (NARROW) {
        store_cell<ALIGNED>(static_cast<storage_t*>(base) + offset, count, values);
    } else {
        float* target = static_cast<float*>(base) + offset;
        if (ALIGNED) {
            if (count > 0) *reinterpret_cast<float4*>(target) = make_float4(values[0], values[1], values[2], values[3]);
        } else {
#pragma unroll
            for (int k = 0; k < CELL; ++k)
                if (k < count) target[k] = values[k];
        }
    }
}

// Where this thread stands: its row of the group, and the channels it holds there.
struct Place {
    int lane, group, channels;
    __device__ __forceinline__ Place(const NormParams& p)
        : lane(threadIdx.x % LANES), group(threadIdx.x / LANES), channels(p.channels) {}
    __device__ __forceinline__ int channel(int cell) const { return (cell * LANES + lane) * CELL; }
    // How many of a cell's channels there are; what is outside is loaded as zero and not stored.
    __device__ __forceinline__ int count(int cell, bool inside = true) const {
        return inside ? channels - channel(cell) : 0;
    }
};

__device__ __forceinline__ void load_parameter(const Place& place, const float* source, Row& out) {
#pragma unroll
    for (int cell = 0; cell < CELLS; ++cell)
#pragma unroll
        for (int k = 0; k < CELL; ++k)
            out[cell][k] = k < place.count(cell) ? source[place.channel(cell) + k] : 0.f;
}
template <bool NARROW>
__device__ __forceinline__ void load_cells(const Place& place, const void* base, i64 start, bool inside, Row& out) {
#pragma unroll
    for (int cell = 0; cell < CELLS; ++cell)
        load<NARROW>(base, start + place.channel(cell), place.count(cell, inside), out[cell]);
}
template <bool NARROW>
__device__ __forceinline__ void store_cells(const Place& place, void* base, i64 start, bool inside, const Row& values) {
#pragma unroll
    for (int cell = 0; cell < CELLS; ++cell)
        store<NARROW>(base, start + place.channel(cell), place.count(cell, inside), values[cell]);
}

// Sums over the threads of a row, the same bits in each. `scratch` is taken in turn: two calls may be under way.
template <int COUNT>
__device__ __forceinline__ void sum_over_row(float (&values)[COUNT], float* scratch, int& turn) {
#pragma unroll
    for (int mask = (LANES > 32 ? 32 : LANES) / 2; mask > 0; mask /= 2)
#pragma unroll
        for (int k = 0; k < COUNT; ++k) values[k] += __shfl_xor_sync(FULL, values[k], mask);
    if (LANES > 32) {
        float* mine = scratch + turn * WARPS * MOST_SUMS;
        turn ^= 1;
        if (threadIdx.x % 32 == 0)
#pragma unroll
            for (int k = 0; k < COUNT; ++k) mine[threadIdx.x / 32 * MOST_SUMS + k] = values[k];
        __syncthreads();
#pragma unroll
        for (int k = 0; k < COUNT; ++k) {
            values[k] = 0.f;
            for (int warp = 0; warp < WARPS; ++warp) values[k] += mine[warp * MOST_SUMS + k];
        }
    }
}

// LAYER: the values less their mean; what is outside the row stays zero.
__device__ __forceinline__ void centre(const Place& place, Row& values, float* scratch, int& turn) {
#if LAYER
    float total[1] = {0.f};
#pragma unroll
    for (int cell = 0; cell < CELLS; ++cell)
#pragma unroll
        for (int k = 0; k < CELL; ++k) total[0] += values[cell][k];
    sum_over_row(total, scratch, turn);
    const float mean = total[0] / place.channels;
#pragma unroll
    for (int cell = 0; cell < CELLS; ++cell)
#pragma unroll
        for (int k = 0; k < CELL; ++k)
            values[cell][k] = k < place.count(cell) ? values[cell][k] - mean : 0.f;
#endif
}
__device__ __forceinline__ float inverse_deviation(const NormParams& p, float squares) {
    return 1.f / sqrtf(squares / p.channels + p.eps);
}

extern "C" __global__ void __launch_bounds__(THREADS) add_normalize(const NormParams p) {
    GENOSSM_SHARED(scratch);
    const Place place(p);
    int turn = 0;
    Row weight, bias;
    load_parameter(place, p.weight, weight);
    if (BIAS) load_parameter(place, p.bias, bias);
    const i64 stride = static_cast<i64>(gridDim.x) * GROUPS;
    for (i64 first = static_cast<i64>(blockIdx.x) * GROUPS; first < p.rows; first += stride) {
        const i64 row = first + place.group;
        const bool inside = row < p.rows;
        Row values;
        load_cells<NARROW_STREAM>(place, p.residual, row * p.residual_row, inside, values);
        if (ADD) {
            Row added;
            load_cells<NARROW_X>(place, p.x, row * p.x_row, inside, added);
#pragma unroll
            for (int cell = 0; cell < CELLS; ++cell)
#pragma unroll
                for (int k = 0; k < CELL; ++k) {
                    values[cell][k] += added[cell][k];
                    // What is normalised is what the next layer adds to.
                    if (NARROW_STREAM) values[cell][k] = to_float(to_storage(values[cell][k]));
                }
            store_cells<NARROW_STREAM>(place, p.stream, row * p.channels, inside, values);
        }
        centre(place, values, scratch, turn);
        float squares[1] = {0.f};
#pragma unroll
        for (int cell = 0; cell < CELLS; ++cell)
#pragma unroll
            for (int k = 0; k < CELL; ++k) squares[0] = fmaf(values[cell][k], values[cell][k], squares[0]);
        sum_over_row(squares, scratch, turn);
        const float scale = inverse_deviation(p, squares[0]);
#pragma unroll
        for (int cell = 0; cell < CELLS; ++cell)
#pragma unroll
            for (int k = 0; k < CELL; ++k) {
                const float unit = values[cell][k] * scale;
                values[cell][k] = BIAS ? fmaf(unit, weight[cell][k], bias[cell][k]) : unit * weight[cell][k];
            }
        store_cells<NARROW_Y>(place, p.y, row * p.channels, inside, values);
    }
}

// A sum over many rows that errs as one of two terms does. Source: Kahan 1965.
struct Total {
    Row sum, lost;
    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int cell = 0; cell < CELLS; ++cell)
#pragma unroll
            for (int k = 0; k < CELL; ++k) sum[cell][k] = lost[cell][k] = 0.f;
    }
    __device__ __forceinline__ void add(int cell, int k, float term) {
        const float before = sum[cell][k];
        term -= lost[cell][k];
        sum[cell][k] = before + term;
        lost[cell][k] = (sum[cell][k] - before) - term;
    }
};

// A block's sums over its groups, in their order.
__device__ __forceinline__ void store_partial(const NormParams& p, const Place& place, int output, const Row& values,
                                              float* shared) {
    float* target = p.partial + (static_cast<i64>(blockIdx.x) * (1 + BIAS) + output) * p.channels;
    if (GROUPS == 1) {
#pragma unroll
        for (int cell = 0; cell < CELLS; ++cell)
#pragma unroll
            for (int k = 0; k < CELL; ++k)
                if (k < place.count(cell)) target[place.channel(cell) + k] = values[cell][k];
        return;
    }
    __syncthreads();
#pragma unroll
    for (int cell = 0; cell < CELLS; ++cell) store_four(shared + place.group * WIDTH + place.channel(cell), values[cell]);
    __syncthreads();
    for (int channel = threadIdx.x; channel < p.channels; channel += THREADS) {
        double total = 0.;
        for (int group = 0; group < GROUPS; ++group) total += shared[group * WIDTH + channel];
        target[channel] = static_cast<float>(total);
    }
}

// With u the row over its deviation, g the gradient of y and v = weight * g: (v - [mean v] - u mean(u v)) / deviation.
extern "C" __global__ void __launch_bounds__(THREADS) normalize_gradients(const NormParams p) {
    GENOSSM_SHARED(shared);
    const Place place(p);
    int turn = 0;
    Row weight;
    Total grad_weight, grad_bias;
    grad_weight.clear();
    if (BIAS) grad_bias.clear();
    load_parameter(place, p.weight, weight);
    const bool passed_on = p.grad_stream != nullptr;
    const i64 stride = static_cast<i64>(gridDim.x) * GROUPS;
    for (i64 first = static_cast<i64>(blockIdx.x) * GROUPS; first < p.rows; first += stride) {
        const i64 row = first + place.group;
        const bool inside = row < p.rows;
        Row values, gradient, onward;
        load_cells<NARROW_STREAM>(place, p.residual, row * p.residual_row, inside, values);
        load_cells<NARROW_Y>(place, p.grad_y, row * p.grad_y_row, inside, gradient);
        // Nothing, where there is none.
        load_cells<NARROW_STREAM>(place, p.grad_stream, row * p.grad_stream_row, inside && passed_on, onward);
        centre(place, values, shared, turn);
        float sums[2 + LAYER] = {};
#pragma unroll
        for (int cell = 0; cell < CELLS; ++cell)
#pragma unroll
            for (int k = 0; k < CELL; ++k) {
                const float value = values[cell][k], weighted = weight[cell][k] * gradient[cell][k];
                sums[0] = fmaf(value, value, sums[0]);
                sums[1] = fmaf(weighted, value, sums[1]);
#if LAYER
                sums[2] += weighted;
#endif
            }
        sum_over_row(sums, shared, turn);
        const float scale = inside ? inverse_deviation(p, sums[0]) : 0.f;
        const float along = sums[1] * scale / p.channels;
#if LAYER
        const float mean = sums[2] / p.channels;
#else
        constexpr float mean = 0.f;
#endif
#pragma unroll
        for (int cell = 0; cell < CELLS; ++cell)
#pragma unroll
            for (int k = 0; k < CELL; ++k) {
                const float unit = values[cell][k] * scale, g = gradient[cell][k];
                grad_weight.add(cell, k, g * unit);
                if (BIAS) grad_bias.add(cell, k, g);
                const float own = fmaf(weight[cell][k], g, -mean);
                onward[cell][k] = fmaf(scale, fmaf(-unit, along, own), onward[cell][k]);
            }
        store_cells<NARROW_STREAM>(place, p.grad_residual, row * p.channels, inside, onward);
        if (ADD) store_cells<NARROW_X>(place, p.grad_x, row * p.channels, inside, onward);
    }
    store_partial(p, place, 0, grad_weight.sum, shared);
    if (BIAS) store_partial(p, place, 1, grad_bias.sum, shared);
}

// Sums over the blocks, a column a lane; each thread takes every so-manieth block, then these are added in order.
extern "C" __global__ void __launch_bounds__(SUM_THREADS) sum_partials(const NormParams p) {
    GENOSSM_SHARED(shared);
    const int columns = (1 + BIAS) * p.channels;
    const int column = blockIdx.x * SUM_LANES + threadIdx.x % SUM_LANES;
    const int part = threadIdx.x / SUM_LANES;
    constexpr int PARTS = SUM_THREADS / SUM_LANES;
    double total = 0.;
    if (column < columns) {
#pragma unroll 8
        for (int block = part; block < p.blocks; block += PARTS) total += p.partial[static_cast<i64>(block) * columns + column];
    }
    double* of_parts = reinterpret_cast<double*>(shared);
    of_parts[threadIdx.x] = total;
    __syncthreads();
    if (part == 0 && column < columns) {
        total = 0.;
        for (int other = 0; other < PARTS; ++other) total += of_parts[other * SUM_LANES + threadIdx.x];
        float* target = column < p.channels ? p.grad_weight + column : p.grad_bias + column - p.channels;
        *target = static_cast<float>(total);
    }
}

GENOSSM_KERNEL(add_normalize, NormParams)
GENOSSM_KERNEL(normalize_gradients, NormParams)
GENOSSM_KERNEL(sum_partials, NormParams)
