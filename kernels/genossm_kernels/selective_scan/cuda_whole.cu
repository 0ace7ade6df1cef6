// Forward selective scan in one launch: a block takes a few channels through the whole sequence; CUDA.md derives it.
#define LANE_CHANNELS 1
#define LANE_STATES PADDED_STATE
#include "cuda_common.cuh"

// Further macros: TILE_CHANNELS of a block, a power of two up to 16; its BLOCK_WARPS; the STEPS of a thread. ADD_Y: outputs
// are added to what y holds, as the second of two directions does.
#ifndef ADD_Y
#define ADD_Y 0
#endif
constexpr int THREADS = 32 * BLOCK_WARPS;
constexpr int STATES = 4;  // taken at once
// A thread owns one channel in STEPS times, a segment; its neighbours the other channels. All segments are a chunk.
constexpr int SEGMENTS = THREADS / TILE_CHANNELS, CHUNK = SEGMENTS * STEPS;
constexpr int CHAINS = TILE_CHANNELS * STATES;  // a channel and state number each

// A chunk's rows in shared memory as they are stored; a few bytes after each segment keep threads off one another's banks.
constexpr int ELEMENT = sizeof(storage_t);
constexpr int ROW_BYTES = TILE_CHANNELS * ELEMENT;
constexpr int PIECE_BYTES = ROW_BYTES < 16 ? ROW_BYTES : 16;
constexpr int ROW_SEGMENT = STEPS * TILE_CHANNELS + (PIECE_BYTES < 4 ? 4 : PIECE_BYTES) / ELEMENT;
constexpr int MAP_SEGMENT = STEPS * PADDED_STATE + VECTOR;
constexpr int DELTA = 0, U = 1, Z = 2, EARLIER = 2 + GATE, ARRAYS = 2 + GATE + ADD_Y;
constexpr int ROW_ELEMENTS = SEGMENTS * ROW_SEGMENT, MAP_ELEMENTS = SEGMENTS * MAP_SEGMENT;
constexpr int STAGE = ARRAYS * ROW_ELEMENTS + 2 * MAP_ELEMENTS;  // elements; B and C behind the rows
constexpr int CHAIN_PAD = TILE_CHANNELS <= 1 ? 0 : TILE_CHANNELS <= 8 ? 32 / TILE_CHANNELS : 4;
constexpr int CHAIN = SEGMENTS + CHAIN_PAD;
// A chain's segments fall to neighbouring lanes.
constexpr int CHAIN_LANES = SEGMENTS < 128 ? SEGMENTS / 4 : 32, OWN = SEGMENTS / CHAIN_LANES;
constexpr int SOURCES = 6;
// Floats before the stages.
constexpr int TOP = 2 * CHAINS * CHAIN + 2 * TILE_CHANNELS * PADDED_STATE + 4 * SOURCES;

// BYTES of a row, zeros where `count` elements end. WHOLE: all or none.
template <int BYTES, bool WHOLE>
__device__ __forceinline__ void fetch_piece(storage_t* slot, const storage_t* source, int count) {
    if (WHOLE && BYTES >= 4) {
        if (BYTES == 16) copy_async(reinterpret_cast<float4*>(slot), source, count > 0);
        else if (BYTES == 8) copy_async(reinterpret_cast<uint2*>(slot), source, count > 0);
        else copy_async(reinterpret_cast<unsigned*>(slot), source, count > 0);
    } else {
#pragma unroll
        for (int k = 0; k < BYTES / ELEMENT; ++k) slot[k] = k < count ? source[k] : static_cast<storage_t>(0);
    }
}

// Where the tile's rows of one array begin, and how far apart they are in the order they are processed.
struct Source {
    const storage_t* first;
    i64 step;
};
// A chunk's rows, WIDTH elements each of which `count` are there, into segments SPACE elements apart.
template <int WIDTH, int SPACE, bool WHOLE>
__device__ __forceinline__ void fetch_chunk(const Source& source, int first_time, int times, int count, storage_t* target) {
    constexpr int BYTES = WIDTH * ELEMENT < 16 ? WIDTH * ELEMENT : 16, ELEMENTS = BYTES / ELEMENT;
    constexpr int PIECES = WIDTH / ELEMENTS, TIMES = THREADS / PIECES;  // of one round
    static_assert(TIMES % STEPS == 0, "a round is whole segments");
    int time = threadIdx.x / PIECES;
    const int element = threadIdx.x % PIECES * ELEMENTS;
    const storage_t* first = source.first + ((first_time + time) * source.step + element);
    target += time / STEPS * SPACE + time % STEPS * WIDTH + element;
    const i64 step = source.step * TIMES;
#pragma unroll 4
    for (int round = 0; round < (CHUNK + TIMES - 1) / TIMES; ++round) {
        if (CHUNK % TIMES == 0 || time < CHUNK) fetch_piece<BYTES, WHOLE>(target, first, time < times ? count - element : 0);
        time += TIMES, first += step, target += TIMES / STEPS * SPACE;
    }
}
// Of array `index`, behind the ARRAYS of channels B and C. Found once: a thread asks for few rows of each array.
__device__ __forceinline__ Source source_of(const ScanParams& p, const Tile& tile, int index) {
    const storage_t* first = p.delta;
    i64 batch = p.delta_batch, row = p.delta_row;
    if (index == U) first = p.u, batch = p.u_batch, row = p.u_row;
    if (GATE && index == Z) first = p.z, batch = p.z_batch, row = p.z_row;
    if (ADD_Y && index == EARLIER) first = p.y, batch = p.y_batch, row = p.y_row;
    first += tile.first_channel;
    if (index == ARRAYS) first = p.B + tile.group * p.B_group, batch = p.B_batch, row = p.B_row;
    if (index == ARRAYS + 1) first = p.C + tile.group * p.C_group, batch = p.C_batch, row = p.C_row;
    return {first + tile.batch * batch + position(p, tile, 0) * row, tile.reversed ? -row : row};
}

// Neighbouring elements of B or C in shared memory.
__device__ __forceinline__ void load_states(const storage_t* source, float (&out)[STATES]) {
    unpack_cell(*reinterpret_cast<const cell_t*>(source), out);
}

// What a segment's end has of its beginning. Its exponent is known, and with it what the special function unit lacks; a
// segment behind the sequence's end changes nothing.
__device__ __forceinline__ float passed(float rate, float sigma, unsigned resets) {
    const float exponent = rate * sigma;
    const float decay = exp2_unit(exponent + (fabsf(exponent) < 0x1p-8f ? UNIT_BIAS - UNIT_EXCESS : UNIT_BIAS));
    return resets != 0u ? 0.f : sigma == 0.f ? 1.f : decay;
}

// What each segment adds is replaced by the state that enters it; `carried`, of these states, enters the chunk and becomes
// what leaves it. A lane first finds what its segments do as a whole.
__device__ __forceinline__ void carry_chunk(const float* passes, float* adds, float* carried) {
    const int lane = threadIdx.x % CHAIN_LANES;
#pragma unroll 1
    for (int chain = threadIdx.x / CHAIN_LANES; chain < CHAINS; chain += THREADS / CHAIN_LANES) {
        const int first = chain * CHAIN + lane * OWN;
        float pass[OWN], add[OWN];
#pragma unroll
        for (int k = 0; k < OWN; k += 4) {
            float four[4];
            load_four(passes + first + k, four);
#pragma unroll
            for (int j = 0; j < 4; ++j) pass[k + j] = four[j];
            load_four(adds + first + k, four);
#pragma unroll
            for (int j = 0; j < 4; ++j) add[k + j] = four[j];
        }
        float through = pass[0], sum = add[0];
#pragma unroll
        for (int k = 1; k < OWN; ++k) {
            through *= pass[k];
            sum = fmaf(pass[k], sum, add[k]);
        }
#pragma unroll
        for (int distance = 1; distance < CHAIN_LANES; distance *= 2) {
            const float earlier_through = __shfl_up_sync(FULL, through, distance, CHAIN_LANES);
            const float earlier_sum = __shfl_up_sync(FULL, sum, distance, CHAIN_LANES);
            if (lane >= distance) {
                sum = fmaf(through, earlier_sum, sum);
                through *= earlier_through;
            }
        }
        const float start = carried[chain];
        const float end = fmaf(through, start, sum);
        float here = __shfl_up_sync(FULL, end, 1, CHAIN_LANES);
        if (lane == 0) here = start;
        if (lane == CHAIN_LANES - 1) carried[chain] = end;
#pragma unroll
        for (int k = 0; k < OWN; k += 4) {
            float four[4];
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                four[j] = here;
                here = fmaf(pass[k + j], here, add[k + j]);
            }
            store_four(adds + first + k, four);
        }
    }
}

// Without divisions where there is one run of channels: nothing else in a block can begin before.
__device__ __forceinline__ Tile block_tile(const ScanParams& p) {
    const int index = blockIdx.x;
    if (p.runs == 1 && p.batch == 1) {
        const int first = index * TILE_CHANNELS;
        return {0, first, min(TILE_CHANNELS, p.channels - first), 0, (p.reversed_blocks & 1ull) != 0};
    }
    const int tiles = p.runs * p.tiles_per_run, item = index % tiles;
    return make_tile<TILE_CHANNELS>(p, index / tiles, item / p.tiles_per_run, item % p.tiles_per_run);
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) whole_sequence(const ScanParams p) {
    GENOSSM_SHARED(shared);
    float* passes = shared;
    float* adds = passes + CHAINS * CHAIN;
    float* rates = adds + CHAINS * CHAIN;                   // (channel, state)
    float* carried = rates + TILE_CHANNELS * PADDED_STATE;  // (state, channel)
    Source* sources = reinterpret_cast<Source*>(carried + TILE_CHANNELS * PADDED_STATE);
    storage_t* stages = reinterpret_cast<storage_t*>(shared + TOP);
    const int channel = threadIdx.x % TILE_CHANNELS, segment = threadIdx.x / TILE_CHANNELS;
    const Tile tile = block_tile(p);
    const bool real = channel < tile.channels;
    const int length = static_cast<int>(p.length), chunks = (length + CHUNK - 1) / CHUNK;
    if (threadIdx.x < ARRAYS + 2) sources[threadIdx.x] = source_of(p, tile, threadIdx.x);
    const float bias = real && p.bias != nullptr ? p.bias[tile.first_channel + channel] : 0.f;
    const float skip = real && p.D != nullptr ? p.D[tile.first_channel + channel] : 0.f;
    const i64 y_step = tile.reversed ? -p.y_row : p.y_row;
    const int kept_shift = __popc(p.checkpoint - 1);  // states are kept every so many steps, a power of two

#pragma unroll 1
    for (int chunk = -1; chunk < chunks; ++chunk) {
        if (chunk == 0) await_copies<1>();
        else await_copies<0>();
        __syncthreads();  // everyone is done with the chunk before
        if (chunk + 1 < chunks) {
            const int time = (chunk + 1) * CHUNK;
            storage_t* stage = stages + ((chunk + 1) & 1) * STAGE;
            // What the first sweep needs, then the rest. Loops, since code that runs once waits to be fetched.
#pragma unroll 1
            for (int part = 0; part < 2; ++part) {
#pragma unroll 1
                for (int array = 2 * part; array < (part == 0 ? 2 : ARRAYS); ++array)
                    fetch_chunk<TILE_CHANNELS, ROW_SEGMENT, ALIGNED != 0>(
                        sources[array], time, length - time, tile.channels, stage + array * ROW_ELEMENTS);
                fetch_chunk<PADDED_STATE, MAP_SEGMENT, ALIGNED_MAPS != 0>(
                    sources[ARRAYS + part], time, length - time, p.d_state,
                    stage + ARRAYS * ROW_ELEMENTS + part * MAP_ELEMENTS);
                close_copies();
            }
        } else {
            close_copies();
            close_copies();
        }
        if (chunk < 0) {
#pragma unroll 1
            for (int index = threadIdx.x; index < TILE_CHANNELS * PADDED_STATE; index += THREADS) {
                const int c = index / PADDED_STATE, n = index % PADDED_STATE;
                const bool inside = c < tile.channels && n < p.d_state;
                const i64 row = tile.first_channel + c;
                rates[index] = inside ? p.A[row * p.d_state + n] * LOG2E : 0.f;
                carried[n * TILE_CHANNELS + c] = inside && p.initial_state != nullptr
                    ? p.initial_state[(static_cast<i64>(tile.batch) * p.channels + row) * p.d_state + n] : 0.f;
            }
            continue;
        }
        const int time = chunk * CHUNK + segment * STEPS, times = length - time;
        const storage_t* stage = stages + (chunk & 1) * STAGE;
        const storage_t* rows = stage + segment * ROW_SEGMENT + channel;
        const storage_t* B = stage + ARRAYS * ROW_ELEMENTS + segment * MAP_SEGMENT;
        unsigned resets = 0u;  // a bit for each time of the segment where packed sequences meet
        if (PACKED)
#pragma unroll 1
            for (int t = 0; t < STEPS; ++t)
                if (t < times && time + t > 0) {
                    const int* row = p.seq_idx + tile.batch * p.length;
                    resets |= (row[position(p, tile, time + t)] != row[position(p, tile, time + t - 1)] ? 1u : 0u) << t;
                }
        float dt[STEPS], x[STEPS], y[STEPS], sigma = 0.f;
#pragma unroll
        for (int t = 0; t < STEPS; ++t) {
            const float live = t < times ? 1.f : 0.f;  // a factor: a branch around softplus would cost more
            dt[t] = live * step_size(to_float(rows[DELTA * ROW_ELEMENTS + t * TILE_CHANNELS]) + bias);
            x[t] = to_float(rows[U * ROW_ELEMENTS + t * TILE_CHANNELS]);
            y[t] = skip * x[t];
            x[t] *= dt[t];
            sigma += dt[t];
        }
        float* checkpoint = nullptr;
        if (p.checkpoints != nullptr && real && times > 0 && (time & (p.checkpoint - 1)) == 0) {
            const int count = (length + p.checkpoint - 1) >> kept_shift;
            const i64 index = static_cast<i64>(tile.batch) * count + (time >> kept_shift);
            checkpoint = p.checkpoints + state_offset(p, index, tile.first_channel + channel, 0);
        }
#pragma unroll 1
        for (int n = 0; n < PADDED_STATE; n += STATES) {
            float rate[STATES], a[STEPS][STATES], b[STEPS][STATES], h[STATES];
#pragma unroll
            for (int j = 0; j < STATES; ++j) rate[j] = rates[channel * PADDED_STATE + n + j], h[j] = 0.f;
#pragma unroll
            for (int t = 0; t < STEPS; ++t) {
                load_states(B + t * PADDED_STATE + n, b[t]);
                const float barrier = barrier_at(resets, t, UNKNOWN_BIAS);
#pragma unroll
                for (int j = 0; j < STATES; ++j) {
                    a[t][j] = exp2_unit(fmaf(rate[j], dt[t], barrier));
                    b[t][j] *= x[t];
                    h[j] = fmaf(a[t][j], h[j], b[t][j]);
                }
            }
            const int own = channel * CHAIN + segment;
#pragma unroll
            for (int j = 0; j < STATES; ++j) {
                passes[j * TILE_CHANNELS * CHAIN + own] = passed(rate[j], sigma, resets);
                adds[j * TILE_CHANNELS * CHAIN + own] = h[j];
            }
            if (chunk == 0 && n == 0) await_copies<2>();  // the rest of the first chunk
            __syncthreads();
            carry_chunk(passes, adds, carried + n * TILE_CHANNELS);
            __syncthreads();
#pragma unroll
            for (int j = 0; j < STATES; ++j) h[j] = adds[j * TILE_CHANNELS * CHAIN + own];
            if (checkpoint != nullptr)
#pragma unroll
                for (int j = 0; j < STATES; ++j) checkpoint[n + j] = h[j];
#pragma unroll
            for (int t = 0; t < STEPS; ++t) {
                float c[STATES];
                load_states(B + MAP_ELEMENTS + t * PADDED_STATE + n, c);
#pragma unroll
                for (int j = 0; j < STATES; ++j) {
                    h[j] = fmaf(a[t][j], h[j], b[t][j]);
                    y[t] = fmaf(h[j], c[j], y[t]);
                }
            }
        }
        storage_t* target = p.y + tile.batch * p.y_batch + position(p, tile, time) * p.y_row + tile.first_channel + channel;
#pragma unroll
        for (int t = 0; t < STEPS; ++t) {
            if (GATE) {
                const float z = to_float(rows[Z * ROW_ELEMENTS + t * TILE_CHANNELS]);
                y[t] *= z * sigmoid(z);
            }
            if (ADD_Y) y[t] += to_float(rows[EARLIER * ROW_ELEMENTS + t * TILE_CHANNELS]);
            if (real && t < times) *target = to_storage(y[t]);
            target += y_step;
        }
    }
#pragma unroll 1
    for (int index = threadIdx.x; index < TILE_CHANNELS * PADDED_STATE; index += THREADS) {
        const int c = index / PADDED_STATE, n = index % PADDED_STATE;
        if (c < tile.channels && n < p.d_state)
            p.final_state[(static_cast<i64>(tile.batch) * p.channels + tile.first_channel + c) * p.d_state + n] =
                carried[n * TILE_CHANNELS + c];
    }
}

GENOSSM_KERNEL(whole_sequence, ScanParams)
