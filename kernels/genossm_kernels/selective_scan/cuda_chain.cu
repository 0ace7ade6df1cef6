// Forward selective scan in one launch, each decay evaluated once: the warps of a cluster take turns along the sequence
// and hand the state on to one another; CUDA.md derives it.
#define LANE_CHANNELS 1
#define LANE_STATES PADDED_STATE
#include "cuda_common.cuh"

// Further macros: TILE_CHANNELS of a warp, a power of two; STEPS of a lane; WARPS of a block; the blocks of a CLUSTER.
// ADD_Y: outputs are added to what y holds, as the second of two directions does. BOTH: two directions of the same rows in
// one launch; each writes the outputs of the times that it comes to first, and is added to those of the other.
#ifndef ADD_Y
#define ADD_Y 0
#endif
#ifndef BOTH
#define BOTH 0
#endif
constexpr bool ADDS = ADD_Y || BOTH;
// A lane owns one channel in STEPS times, a segment; its warp all channels of the tile in a chunk of so many segments.
constexpr int THREADS = 32 * WARPS, SEGMENTS = 32 / TILE_CHANNELS, CHUNK = SEGMENTS * STEPS;
static_assert(WARPS * CLUSTER > 1, "a warp that hands on to itself would race with its own emptying of the hand");
static_assert(SEGMENTS > 1, "the last segment of a warp hands on what the others and it make of a state");
constexpr int STATES = 4, GROUPS = PADDED_STATE / STATES;  // states taken at once
constexpr int HANDS = GROUPS * TILE_CHANNELS;              // pieces of 4 states that a warp hands on

// A warp's rows in shared memory as they are stored; a row after each segment keeps segments off one another's banks.
constexpr int ELEMENT = sizeof(storage_t);
constexpr int ROW_SEGMENT = (STEPS + 1) * TILE_CHANNELS, ROW_ELEMENTS = SEGMENTS * ROW_SEGMENT;
constexpr int MAP_ELEMENTS = CHUNK * PADDED_STATE;
constexpr int MAP_SEGMENT = STEPS * PADDED_STATE + 4, MAP_FLOATS = SEGMENTS * MAP_SEGMENT;  // as floats
// delta and u, B and C; then two stages of z, where y is put too, and of what is added to it.
constexpr int DELTA = 0, U = ROW_ELEMENTS, B_MAP = 2 * ROW_ELEMENTS, C_MAP = B_MAP + MAP_ELEMENTS;
constexpr int LATE = C_MAP + MAP_ELEMENTS, LATE_STAGE = (1 + ADDS) * ROW_ELEMENTS;
constexpr int STORED = LATE + 2 * LATE_STAGE;
constexpr int WARP_FLOATS = 2 * MAP_FLOATS + (STORED * ELEMENT + 15) / 16 * 4;
enum { DELTA_SOURCE, U_SOURCE, Z_SOURCE, B_SOURCE, C_SOURCE, Y_SOURCE, SOURCES };
constexpr int TOP = 4 * (HANDS + WARPS * HANDS) + 4 * (SOURCES + 1);  // floats of a block before its warps'

// What the two directions do not share; strides they do.
struct Own {
    const storage_t *u, *delta, *B, *C, *z;
    const float *A, *D, *bias, *initial_state;
    float *final_state, *checkpoints;
};
__device__ __forceinline__ Own own_of(const ScanParams& p) {
    return {p.u, p.delta, p.B, p.C, p.z, p.A, p.D, p.bias, p.initial_state, p.final_state, p.checkpoints};
}
// Where states are kept and arrivals counted: in shared memory, since registers are short.
struct __align__(16) Places {
    float* checkpoints;
    int* arrivals;
};
#if BOTH
struct Params {
    Own second;     // goes the other way
    int* arrivals;  // (tiles, 2): warps of a direction that have written all that they come to first
    ScanParams first;
};
#else
typedef ScanParams Params;
#endif

// Where the tile's rows of one array begin, and how far apart they are in the order they are processed.
struct __align__(16) Source {
    storage_t* first;
    i64 step;
};
__device__ __forceinline__ Source source_of(const ScanParams& p, const Own& own, const Tile& tile, int index) {
    const storage_t* first = own.delta;
    i64 batch = p.delta_batch, row = p.delta_row;
    if (index == U_SOURCE) first = own.u, batch = p.u_batch, row = p.u_row;
    if (index == Z_SOURCE) first = own.z, batch = p.z_batch, row = p.z_row;
    if (index == Y_SOURCE) first = p.y, batch = p.y_batch, row = p.y_row;
    first += tile.first_channel;
    if (index == B_SOURCE) first = own.B + tile.group * p.B_group, batch = p.B_batch, row = p.B_row;
    if (index == C_SOURCE) first = own.C + tile.group * p.C_group, batch = p.C_batch, row = p.C_row;
    return {const_cast<storage_t*>(first) + tile.batch * batch + position(p, tile, 0) * row, tile.reversed ? -row : row};
}

// How rows of WIDTH elements fall to lanes, in pieces of up to 16 bytes.
template <int WIDTH>
struct Pieces {
    static constexpr int BYTES = WIDTH * ELEMENT < 16 ? WIDTH * ELEMENT : 16, ELEMENTS = BYTES / ELEMENT;
    static constexpr int COUNT = WIDTH / ELEMENTS, TIMES = 32 / COUNT, ROUNDS = (CHUNK + TIMES - 1) / TIMES;
};
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
// A chunk's rows from `from` on, of which `times` are there and `count` elements of each, into segments SPACE elements
// apart; zeros for the others.
template <int WIDTH, int SPACE, bool WHOLE>
__device__ __forceinline__ void fetch_chunk(const Source& source, i64 first_time, int times, int count, storage_t* target,
                                            int from = 0) {
    typedef Pieces<WIDTH> P;
    const int lane = threadIdx.x % 32, time = lane / P::COUNT, element = lane % P::COUNT * P::ELEMENTS;
    const storage_t* first = source.first + ((first_time + time) * source.step + element);
    const i64 step = source.step * P::TIMES;
#pragma unroll
    for (int round = 0; round < P::ROUNDS; ++round) {
        const int t = round * P::TIMES + time;
        if (CHUNK % P::TIMES == 0 || t < CHUNK)
            fetch_piece<P::BYTES, WHOLE>(target + t / STEPS * SPACE + t % STEPS * WIDTH + element, first,
                                         from <= t && t < times ? count - element : 0);
        first += step;
    }
}
// B or C as floats.
__device__ __forceinline__ void convert_map(const storage_t* stored, float* floats) {
    constexpr int CELLS = MAP_ELEMENTS / 4;
#pragma unroll
    for (int round = 0; round < (CELLS + 31) / 32; ++round) {
        const int cell = round * 32 + threadIdx.x % 32;
        if (CELLS % 32 != 0 && cell >= CELLS) continue;
        float four[4];
        unpack_cell(reinterpret_cast<const cell_t*>(stored)[cell], four);
        store_four(floats + cell * 4 + cell * 4 / (STEPS * PADDED_STATE) * 4, four);
    }
}
// Outputs that lie in shared memory as they are stored.
__device__ __forceinline__ void write_rows(const Source& source, i64 first_time, int times, int count, const storage_t* rows) {
    typedef Pieces<TILE_CHANNELS> P;
    const int lane = threadIdx.x % 32, time = lane / P::COUNT, element = lane % P::COUNT * P::ELEMENTS;
    storage_t* first = source.first + ((first_time + time) * source.step + element);
    const i64 step = source.step * P::TIMES;
#pragma unroll
    for (int round = 0; round < P::ROUNDS; ++round) {
        const int t = round * P::TIMES + time;
        const storage_t* row = rows + t / STEPS * ROW_SEGMENT + t % STEPS * TILE_CHANNELS + element;
        if (t < times && (CHUNK % P::TIMES == 0 || t < CHUNK)) {
            if (ALIGNED && P::BYTES == 16) {
                if (element < count) *reinterpret_cast<float4*>(first) = *reinterpret_cast<const float4*>(row);
            } else {
#pragma unroll
                for (int k = 0; k < P::ELEMENTS; ++k)
                    if (element + k < count) first[k] = row[k];
            }
        }
        first += step;
    }
}

// What a segment's end has of its beginning. Its exponent is known, and with it what the special function unit lacks; a
// segment behind the sequence's end changes nothing: 2^0 is 1.
__device__ __forceinline__ float passed(float rate, float sigma, unsigned resets) {
    // UNIT_BIAS, and UNIT_EXCESS less where the exponent is 0; of exponents from -2^-8 on as much as of all below.
    const float far = fmaf(rate, sigma, UNIT_BIAS);
    const float near = fmaf(rate, sigma * (1.f - 256.f * UNIT_EXCESS), UNIT_BIAS - UNIT_EXCESS);
    return resets != 0u ? 0.f : exp2_unit(fminf(far, near));
}

// Outputs that are floats show the rounding of every addition to D u, which is larger than what is added: states first.
constexpr bool FINE = DTYPE == 0;
__device__ __forceinline__ float product_of(const float (&h)[STATES], const float (&c)[STATES]) {
    float sum = h[0] * c[0];
#pragma unroll
    for (int j = 1; j < STATES; ++j) sum = fmaf(h[j], c[j], sum);
    return sum;
}

// States that are handed on. Each number says itself whether it is there: no result of arithmetic has the bits of EMPTY.
constexpr unsigned EMPTY = 0xffffffffu;
__device__ __forceinline__ bool is_there(const float4& four) {
    return max(max(__float_as_uint(four.x), __float_as_uint(four.y)), max(__float_as_uint(four.z), __float_as_uint(four.w))) != EMPTY;
}
__device__ __forceinline__ float4 empty_hand() {
    const float empty = __uint_as_float(EMPTY);
    return make_float4(empty, empty, empty, empty);
}
__device__ __forceinline__ float4 take(shared_address hand, int index) {
    float4 four = watch(hand, index);
    while (!__all_sync(FULL, is_there(four))) four = watch(hand, index);
    return four;
}

// What the segments of a warp before this one do to a state together: it is multiplied by `through` and `sum` is added.
// Means nothing in the first.
__device__ __forceinline__ void combine_earlier(const float (&pass)[STATES], const float (&add)[STATES], int segment,
                                                float (&through)[STATES], float (&sum)[STATES]) {
#pragma unroll
    for (int j = 0; j < STATES; ++j) {
        through[j] = __shfl_up_sync(FULL, pass[j], TILE_CHANNELS, 32);
        sum[j] = __shfl_up_sync(FULL, add[j], TILE_CHANNELS, 32);
    }
#pragma unroll
    for (int distance = 1; distance < SEGMENTS - 1; distance *= 2)
#pragma unroll
        for (int j = 0; j < STATES; ++j) {
            const float before = __shfl_up_sync(FULL, through[j], distance * TILE_CHANNELS, 32);
            const float added = __shfl_up_sync(FULL, sum[j], distance * TILE_CHANNELS, 32);
            if (segment > distance) sum[j] = fmaf(through[j], added, sum[j]), through[j] *= before;
        }
}

__device__ __forceinline__ void hand_on(shared_address hand, int index, bool crossing, const float (&state)[STATES]) {
    const float4 four = make_float4(state[0], state[1], state[2], state[3]);
#if CLUSTER > 1
    if (crossing) store_there(hand, index, four);
    else
#endif
        store_watched(hand, index, four);
}

// Rates, and hands: what enters the sequence is in the first, nothing in the others.
__device__ __forceinline__ void lay_out(const ScanParams& p, const Own& own, const Tile& tile, int rank, float4* rates,
                                        float4* hands) {
#pragma unroll 1
    for (int k = threadIdx.x; k < WARPS * HANDS; k += THREADS) {
        const int c = k % TILE_CHANNELS, n = k / TILE_CHANNELS % GROUPS * STATES;
        const i64 row = tile.first_channel + c;
        float rate[STATES], state[STATES];
#pragma unroll
        for (int j = 0; j < STATES; ++j) {
            const bool inside = k < HANDS && c < tile.channels && n + j < p.d_state;
            rate[j] = inside ? own.A[row * p.d_state + n + j] * LOG2E : 0.f;
            state[j] = inside && own.initial_state != nullptr
                ? own.initial_state[(static_cast<i64>(tile.batch) * p.channels + row) * p.d_state + n + j] : 0.f;
            if (__float_as_uint(state[j]) == EMPTY) state[j] = __uint_as_float(0x7fffffffu);  // the caller's, as arithmetic has it
        }
        if (k < HANDS) rates[k] = make_float4(rate[0], rate[1], rate[2], rate[3]);
        hands[k] = k < HANDS && rank == 0 ? make_float4(state[0], state[1], state[2], state[3]) : empty_hand();
    }
}

// A bit for each time of a lane's segment where packed sequences meet.
__device__ __forceinline__ unsigned resets_of(const ScanParams& p, const Tile& tile, i64 time, int times) {
    unsigned resets = 0u;
    if (PACKED)
#pragma unroll 1
        for (int t = 0; t < STEPS; ++t)
            if (t < times && time + t > 0) {
                const int* row = p.seq_idx + tile.batch * p.length;
                resets |= (row[position(p, tile, time + t)] != row[position(p, tile, time + t - 1)] ? 1u : 0u) << t;
            }
    return resets;
}

// Where the state entering a time is kept for the backward pass, every so many steps, a power of two; null if not `here`.
__device__ __forceinline__ float* kept_at(const ScanParams& p, float* checkpoints, const Tile& tile, int channel, i64 time,
                                          bool here) {
    if (checkpoints != nullptr) {
        const int shift = __popc(p.checkpoint - 1);
        const i64 count = (p.length + p.checkpoint - 1) >> shift, kept = tile.batch * count + (time >> shift);
        here = here && (time & (p.checkpoint - 1)) == 0;
        checkpoints = here ? checkpoints + state_offset(p, kept, tile.first_channel + channel, 0) : nullptr;
    }
    return checkpoints;
}

#if CLUSTER > 1
extern "C" __global__ void __cluster_dims__(CLUSTER, 1, 1) __launch_bounds__(THREADS, 1) chain(const Params params) {
#else
extern "C" __global__ void __launch_bounds__(THREADS, 1) chain(const Params params) {
#endif
#if BOTH
    const ScanParams& p = params.first;
    const int way = blockIdx.x / CLUSTER % 2, index = blockIdx.x / CLUSTER / 2;
    const Own own = way == 0 ? own_of(p) : params.second;
#else
    const ScanParams& p = params;
    const int index = blockIdx.x / CLUSTER;
    const Own own = own_of(p);
#endif
    GENOSSM_SHARED(shared);
    float4* rates = reinterpret_cast<float4*>(shared);  // (group of states, channel)
    float4* hands = rates + HANDS;                      // (warp, group of states, channel)
    Source* sources = reinterpret_cast<Source*>(hands + WARPS * HANDS);
    Places* places = reinterpret_cast<Places*>(sources + SOURCES);
    // Through a shuffle, so that the compiler knows that a warp stays together.
    const int warp = __shfl_sync(FULL, static_cast<int>(threadIdx.x / 32), 0), lane = threadIdx.x % 32;
    const int channel = lane % TILE_CHANNELS, segment = lane / TILE_CHANNELS;
    const int rank = blockIdx.x % CLUSTER, tiles = p.runs * p.tiles_per_run;
    Tile tile = make_tile<TILE_CHANNELS>(p, index / tiles, index % tiles / p.tiles_per_run, index % p.tiles_per_run);
#if BOTH
    tile.reversed ^= way == 1;
    // The first direction comes first to half of the chunks, the second to all times behind them: those before `late_from`
    // in the `late_chunk`, which need not be whole, and in the chunks before it.
    const int half = static_cast<int>((p.length + CHUNK - 1) / CHUNK) / 2;
    const int late_chunk = way == 0 ? half : static_cast<int>((p.length - static_cast<i64>(half) * CHUNK) / CHUNK);
    const int late_from = way == 0 ? 0 : static_cast<int>((p.length - static_cast<i64>(half) * CHUNK) % CHUNK);
    bool told = false, heard = false;
    if (threadIdx.x == 0) places->arrivals = params.arrivals + 2 * index;
#endif
    if (threadIdx.x == 0) places->checkpoints = own.checkpoints;
    const bool real = channel < tile.channels;
    if (threadIdx.x < SOURCES) sources[threadIdx.x] = source_of(p, own, tile, threadIdx.x);
    lay_out(p, own, tile, rank, rates, hands);
    const float bias = real && own.bias != nullptr ? own.bias[tile.first_channel + channel] : 0.f;
    const float skip = real && own.D != nullptr ? own.D[tile.first_channel + channel] : 0.f;
    float* B = shared + TOP + warp * WARP_FLOATS;
    float* C = B + MAP_FLOATS;
    storage_t* stored = reinterpret_cast<storage_t*>(C + MAP_FLOATS);
    const int chunks = static_cast<int>((p.length + CHUNK - 1) / CHUNK);
    const auto fetch = [&](int chunk, int stage) {
        if (chunk < chunks) {
            const i64 time = static_cast<i64>(chunk) * CHUNK;
            const int times = static_cast<int>(min(static_cast<i64>(CHUNK), p.length - time));
            storage_t* late = stored + LATE + stage * LATE_STAGE;
            const auto rows = [&](int source, storage_t* target) {
                fetch_chunk<TILE_CHANNELS, ROW_SEGMENT, ALIGNED != 0>(sources[source], time, times, tile.channels, target);
            };
            rows(DELTA_SOURCE, stored + DELTA);
            rows(U_SOURCE, stored + U);
            fetch_chunk<PADDED_STATE, STEPS * PADDED_STATE, ALIGNED_MAPS != 0>(sources[B_SOURCE], time, times, p.d_state, stored + B_MAP);
            fetch_chunk<PADDED_STATE, STEPS * PADDED_STATE, ALIGNED_MAPS != 0>(sources[C_SOURCE], time, times, p.d_state, stored + C_MAP);
            if (GATE) rows(Z_SOURCE, late);
            if (ADD_Y) rows(Y_SOURCE, late + ROW_ELEMENTS);
        }
        close_copies();
    };
    __syncthreads();
    fetch(rank * WARPS + warp, 0);
#if CLUSTER > 1
    sync_cluster();  // nothing is handed to a block that has not begun
#endif
    const shared_address mine = address_of(hands + warp * HANDS + channel);
    const bool crossing = warp == WARPS - 1;  // to the next block of the cluster
    shared_address next = address_of(hands + (warp + 1) % WARPS * HANDS + channel);
#if CLUSTER > 1
    if (crossing) next = address_there(next, (rank + 1) % CLUSTER);
#endif
    float* final_state = own.final_state + (static_cast<i64>(tile.batch) * p.channels + tile.first_channel + channel) * p.d_state;

    int stage = 0;
#pragma unroll 1
    for (int chunk = rank * WARPS + warp; chunk < chunks; chunk += CLUSTER * WARPS, stage ^= 1) {
        const i64 time = static_cast<i64>(chunk) * CHUNK + segment * STEPS;
        const int times = static_cast<int>(min(static_cast<i64>(STEPS), p.length - time));
        storage_t* last_rows = stored + LATE + stage * LATE_STAGE + segment * ROW_SEGMENT + channel;
#if BOTH
        const bool late = chunk >= late_chunk;
        const int from = chunk == late_chunk ? late_from : 0;
        if (late && from == 0 && !told) tell(places->arrivals + way), told = true;
        if (late && !heard) hear(places->arrivals + 1 - way, CLUSTER * WARPS), heard = true;
#endif
        await_copies<0>();
        __syncwarp();
        convert_map(stored + B_MAP, B);
        convert_map(stored + C_MAP, C);
        const unsigned resets = resets_of(p, tile, time, times);
        float dt[STEPS], x[STEPS], y[STEPS], sigma = 0.f;
        const storage_t* rows = stored + segment * ROW_SEGMENT + channel;
#pragma unroll
        for (int t = 0; t < STEPS; ++t) {
            dt[t] = step_size(to_float(rows[DELTA + t * TILE_CHANNELS]) + bias);
            x[t] = to_float(rows[U + t * TILE_CHANNELS]);
        }
        if (times < STEPS)
#pragma unroll
            for (int t = 0; t < STEPS; ++t)
                if (t >= times) dt[t] = 0.f;
#pragma unroll
        for (int t = 0; t < STEPS; ++t) {
            y[t] = skip * x[t];
            x[t] *= dt[t];
            sigma += dt[t];
        }
        __syncwarp();
        fetch(chunk + CLUSTER * WARPS, stage ^ 1);
#if BOTH
        if (late) {
            const i64 first = static_cast<i64>(chunk) * CHUNK;
            fetch_chunk<TILE_CHANNELS, ROW_SEGMENT, ALIGNED != 0>(
                sources[Y_SOURCE], first, static_cast<int>(min(static_cast<i64>(CHUNK), p.length - first)), tile.channels,
                stored + LATE + stage * LATE_STAGE + ROW_ELEMENTS, from);
            close_copies();
        }
#else
        const bool late = ADDS;
#endif
        const bool last = segment == SEGMENTS - 1, handing = last && chunk < chunks - 1, ending = last && real && chunk == chunks - 1;
        float* checkpoint = kept_at(p, places->checkpoints, tile, channel, time, real && times > 0);
        const float* B_rows = B + segment * MAP_SEGMENT;
        const float* C_rows = C + segment * MAP_SEGMENT;
#pragma unroll 1
        for (int group = 0; group < GROUPS; ++group) {
            const float4 four = rates[group * TILE_CHANNELS + channel];
            const float rate[STATES] = {four.x, four.y, four.z, four.w};
            float a[STEPS][STATES], h[STATES], pass[STATES], state[STATES];
#pragma unroll
            for (int j = 0; j < STATES; ++j) pass[j] = passed(rate[j], sigma, resets), h[j] = 0.f;
#pragma unroll
            for (int t = 0; t < STEPS; ++t) {
                float b[STATES], c[STATES];
                load_four(B_rows + t * PADDED_STATE + group * STATES, b);
                load_four(C_rows + t * PADDED_STATE + group * STATES, c);
                const float barrier = barrier_at(resets, t, UNKNOWN_BIAS);
#pragma unroll
                for (int j = 0; j < STATES; ++j) {
                    a[t][j] = exp2_unit(fmaf(rate[j], dt[t], barrier));
                    b[j] *= x[t];
                    h[j] = t == 0 ? b[j] : fmaf(a[t][j], h[j], b[j]);
                    if (!FINE) y[t] = fmaf(h[j], c[j], y[t]);
                }
                if (FINE) y[t] += product_of(h, c);
            }
            float through[STATES], sum[STATES], leaving[STATES];
            combine_earlier(pass, h, segment, through, sum);
            // Of the whole warp, where the last segment is: what is handed on waits for one multiplication alone.
#pragma unroll
            for (int j = 0; j < STATES; ++j) h[j] = fmaf(pass[j], sum[j], h[j]), pass[j] *= through[j];
            const float4 entering = take(mine, group * TILE_CHANNELS);
            state[0] = entering.x, state[1] = entering.y, state[2] = entering.z, state[3] = entering.w;
#pragma unroll
            for (int j = 0; j < STATES; ++j) leaving[j] = fmaf(pass[j], state[j], h[j]);
            // Who fills the emptied hand again has waited for what is handed on here.
            if (segment == 0) store_watched(mine, group * TILE_CHANNELS, empty_hand());
            if (handing) hand_on(next, group * TILE_CHANNELS, crossing, leaving);
            if (ending)
#pragma unroll
                for (int j = 0; j < STATES; ++j)
                    if (group * STATES + j < p.d_state) final_state[group * STATES + j] = leaving[j];
#pragma unroll
            for (int j = 0; j < STATES; ++j) {
                const float before = fmaf(through[j], state[j], sum[j]);
                if (segment > 0) state[j] = before;
            }
            if (checkpoint != nullptr) store_four(checkpoint + group * STATES, state);
#pragma unroll
            for (int t = 0; t < STEPS; ++t) {
                float c[STATES];
                load_four(C_rows + t * PADDED_STATE + group * STATES, c);
#pragma unroll
                for (int j = 0; j < STATES; ++j) {
                    state[j] *= a[t][j];
                    if (!FINE) y[t] = fmaf(state[j], c[j], y[t]);
                }
                if (FINE) y[t] += product_of(state, c);
            }
        }
#if BOTH
        if (late) {
            await_copies<0>();
            __syncwarp();
        }
#endif
        if (GATE)
#pragma unroll
            for (int t = 0; t < STEPS; ++t) {
                const float z = to_float(last_rows[t * TILE_CHANNELS]);
                y[t] *= z * sigmoid(z);
            }
        if (ADDS && late)
#pragma unroll
            for (int t = 0; t < STEPS; ++t) y[t] += to_float(last_rows[ROW_ELEMENTS + t * TILE_CHANNELS]);
#pragma unroll
        for (int t = 0; t < STEPS; ++t) last_rows[t * TILE_CHANNELS] = to_storage(y[t]);
        __syncwarp();
        const i64 first = static_cast<i64>(chunk) * CHUNK;
        write_rows(sources[Y_SOURCE], first, static_cast<int>(min(static_cast<i64>(CHUNK), p.length - first)), tile.channels,
                   stored + LATE + stage * LATE_STAGE);
    }
#if BOTH
    if (!told) tell(places->arrivals + way);
#endif
}

#if BOTH
extern "C" __global__ void clear_arrivals(const Params params) {
    const int k = blockIdx.x * 32 + threadIdx.x;
    if (k < 2 * params.first.batch * params.first.runs * params.first.tiles_per_run) params.arrivals[k] = 0;
}
GENOSSM_KERNEL(clear_arrivals, Params)
#endif
GENOSSM_KERNEL(chain, Params)
