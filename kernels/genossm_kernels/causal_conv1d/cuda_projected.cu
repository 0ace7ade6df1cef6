// The backward pass of convolutions with SiLU whose outputs u also went through a projection, low = u W: gradients of x,
// of taps and biases, and of W, from the gradients of u (but for what comes through W) and of low. u is made again on the
// way. CUDA.md.
//
// A warp owns TILE channels and a run of positions, which it walks in steps of STEP rows: products on tensor cores,
// convolutions a lane two channels. What they share, the sums of W's gradient, the warps of a block share out.
//
// Macros: DTYPE (1 or 2), WIDTH, FIRST (taps meet earlier positions), SECOND (later ones; both: two convolutions of one x),
// LOW (columns of low, a multiple of 4; 0: there is no projection), ADD (x has a gradient already, to add to), GROUP (rows
// whose arithmetic is written out), BLOCKS (a multiprocessor).
#include "matrix.cuh"

struct ProjectedParams {
    const storage_t *x, *grad_first, *grad_second, *low_first, *low_second, *into_first, *into_second;
    const float *first, *first_bias, *second, *second_bias;
    storage_t* grad_x;
    float *first_partial, *second_partial;    // (batch * chunks * WARPS, channels, WIDTH + 1): of taps and bias
    float *first_products, *second_products;  // (batch * chunks, LOW, channels): of W
    i64 x_batch, x_row, grad_first_batch, grad_first_row, grad_second_batch, grad_second_row, low_first_batch, low_first_row, low_second_batch, low_second_row, grad_x_batch, grad_x_row;
    i64 length;
    int batch, channels, tiles, run, chunks;  // run: positions of a warp; a chunk has a run for each
};

constexpr int WARPS = 4, THREADS = 32 * WARPS, TILE = 64, STEP = 16, WAYS = FIRST + SECOND;
constexpr int TAIL = WIDTH - 1, BEFORE = FIRST ? TAIL : 0, AFTER = SECOND ? TAIL : 0, AROUND = BEFORE + AFTER;
// Rows of low are read in pieces of 16 bytes, or of 8 where they lie on no others; two lanes a row.
#if LOW % 8 == 0
typedef float4 piece_t;
#else
typedef uint2 piece_t;
#endif
constexpr int PIECE = sizeof(piece_t) / sizeof(storage_t);
constexpr int PADDED = (LOW + 15) / 16 * 16, DEEP = PADDED / 16;  // whole tiles of low
// Rows lie an odd number of 16 bytes apart, so that eight of them are in different banks.
constexpr int ROW = TILE + 8, LOW_ROW = PADDED + 8;
constexpr int X_SLOTS = STEP * TILE, SLOTS = X_SLOTS + STEP * ROW * WAYS, WARP_STAGE = SLOTS + (LOW ? STEP * LOW_ROW * WAYS : 0), STAGE = WARP_STAGE * WARPS;
constexpr int PACKED_WEIGHTS = DEEP * 8 * 32 * 2 * 2;  // storage_t of one W: 8 tiles of 8 channels, two words a lane
constexpr int COLUMNS = TILE / WARPS / 8;  // tiles of 8 channels of W's gradient that a warp owns
static_assert(COLUMNS == 2, "one load of four matrices");

struct Work {
    int batch, chunk, channel, lane, warp;
    i64 first;  // position
    int count;  // positions of this warp
};

__device__ __forceinline__ void take_work(const ProjectedParams& p, Work& work) {
    const int item = static_cast<int>(blockIdx.x), rest = item / p.tiles;
    work.lane = threadIdx.x % 32, work.warp = threadIdx.x / 32;
    work.channel = item % p.tiles * TILE;
    work.chunk = rest % p.chunks, work.batch = rest / p.chunks;
    work.first = (static_cast<i64>(work.chunk) * WARPS + work.warp) * p.run;
    work.count = static_cast<int>(max(static_cast<i64>(0), min(static_cast<i64>(p.run), p.length - work.first)));
}

// Where a lane reads next: pieces of 16 bytes, of x and of the gradients of u eight lanes a row, of low two.
struct Sources {
    const storage_t *x, *grads[WAYS];
#if LOW
    const storage_t* lows[WAYS];
#endif
    __device__ __forceinline__ Sources(const ProjectedParams& p, const Work& work, i64 start) {
        const i64 row = start + work.lane / 8;
        const int channel = work.channel + work.lane % 8 * 8;
        x = p.x + work.batch * p.x_batch + (row + AFTER) * p.x_row + channel;
#if FIRST
        grads[0] = p.grad_first + work.batch * p.grad_first_batch + row * p.grad_first_row + channel;
#endif
#if SECOND
        grads[FIRST] = p.grad_second + work.batch * p.grad_second_batch + row * p.grad_second_row + channel;
#endif
#if LOW
        const i64 low_row = start + work.lane / 2;
        const int column = work.lane % 2 * PIECE;
#if FIRST
        lows[0] = p.low_first + work.batch * p.low_first_batch + low_row * p.low_first_row + column;
#endif
#if SECOND
        lows[FIRST] = p.low_second + work.batch * p.low_second_batch + low_row * p.low_second_row + column;
#endif
#endif
    }
};
template <bool WHOLE, int SLOT_ROW>
__device__ __forceinline__ void fetch_tile(const ProjectedParams& p, const storage_t* base, const storage_t* at, i64 row_stride,
                                           i64 position, storage_t* slot) {
#pragma unroll
    for (int item = 0; item < STEP / 4; ++item) {
        const i64 row = position + 4 * item;
        const bool inside = WHOLE || (row >= 0 && row < p.length);
        copy_async(reinterpret_cast<float4*>(slot + 4 * item * SLOT_ROW), inside ? at + 4 * item * row_stride : base, inside);
    }
}
#if LOW
template <bool WHOLE>
__device__ __forceinline__ void fetch_low(const ProjectedParams& p, const storage_t* base, const storage_t* at, int lane, i64 position,
                                          storage_t* slot) {
#pragma unroll
    for (int item = 0; item < PADDED / (2 * PIECE); ++item) {
        const bool inside = (WHOLE || (position >= 0 && position < p.length)) &&
                            (LOW == PADDED || (2 * item + lane % 2) * PIECE < LOW);
        copy_async(reinterpret_cast<piece_t*>(slot + 2 * item * PIECE), inside ? at + 2 * item * PIECE : base, inside);
    }
}
#endif
// What a warp reads of a step: x ahead of it by AFTER rows, the gradients of u and of low of either way.
template <bool WHOLE>
__device__ __forceinline__ void fetch_step(const ProjectedParams& p, int lane, Sources& from, storage_t* stage, i64 start) {
    storage_t* slot = stage + X_SLOTS + lane / 8 * ROW + lane % 8 * 8;
    const i64 row = start + lane / 8;
    fetch_tile<WHOLE, TILE>(p, p.x, from.x, p.x_row, row + AFTER, stage + lane / 8 * TILE + lane % 8 * 8);
    from.x += STEP * p.x_row;
#if FIRST
    fetch_tile<WHOLE, ROW>(p, p.x, from.grads[0], p.grad_first_row, row, slot);
    from.grads[0] += STEP * p.grad_first_row;
#endif
#if SECOND
    fetch_tile<WHOLE, ROW>(p, p.x, from.grads[FIRST], p.grad_second_row, row, slot + FIRST * STEP * ROW);
    from.grads[FIRST] += STEP * p.grad_second_row;
#endif
#if LOW
    storage_t* low_slot = stage + SLOTS + lane / 2 * LOW_ROW + lane % 2 * PIECE;
    const i64 low_row = start + lane / 2;
#if FIRST
    fetch_low<WHOLE>(p, p.x, from.lows[0], lane, low_row, low_slot);
    from.lows[0] += STEP * p.low_first_row;
#endif
#if SECOND
    fetch_low<WHOLE>(p, p.x, from.lows[FIRST], lane, low_row, low_slot + FIRST * STEP * LOW_ROW);
    from.lows[FIRST] += STEP * p.low_second_row;
#endif
#endif
}
__device__ __forceinline__ void fetch_next(const ProjectedParams& p, int lane, Sources& from, storage_t* stage, i64 start) {
    if (start >= 0 && start + STEP + AFTER <= p.length) fetch_step<true>(p, lane, from, stage, start);
    else fetch_step<false>(p, lane, from, stage, start);
    close_copies();
}

#if LOW
// W (LOW, channels) as lanes will hold it: of 16 rows and of each tile of 8 columns two words, two tiles in one access.
// Column n of tile i is channel n / 2 * 16 + 2 i + n % 2: a lane of the product then has 16 neighbouring channels.
__device__ __forceinline__ void pack_weights(const ProjectedParams& p, const Work& work, const storage_t* into, unsigned* packed) {
    for (int item = threadIdx.x; item < DEEP * 8 * 32; item += THREADS) {
        const int lane = item % 32, tile = item / 32 % 8, deep = item / 256, column = lane / 4;
        const storage_t* source = into + work.channel + column / 2 * 16 + 2 * tile + column % 2;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            unsigned bits = 0u;
#pragma unroll
            for (int k = 0; k < 2; ++k) {
                const int row = deep * 16 + half * 8 + lane % 4 * 2 + k;
                if (row < LOW) bits |= static_cast<unsigned>(source[static_cast<i64>(row) * p.channels]) << 16 * k;
            }
            packed[((deep * 4 + tile / 2) * 32 + lane) * 4 + tile % 2 * 2 + half] = bits;
        }
    }
}

// Adds low W^T to the gradients of u, where they lie.
__device__ __forceinline__ void add_projected(int lane, storage_t* slots, const storage_t* low, const unsigned* packed) {
    unsigned left[DEEP][4];
#pragma unroll
    for (int deep = 0; deep < DEEP; ++deep)
        load_matrices<false>(left[deep], low + lane % 16 * LOW_ROW + deep * 16 + lane / 16 * 8);
    uint4* rows[2];
    unsigned words[2][8];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        rows[half] = reinterpret_cast<uint4*>(slots + (lane / 4 + 8 * half) * ROW + lane % 4 * 16);
#pragma unroll
        for (int k = 0; k < 2; ++k) {
            const uint4 four = rows[half][k];
            words[half][4 * k] = four.x, words[half][4 * k + 1] = four.y, words[half][4 * k + 2] = four.z, words[half][4 * k + 3] = four.w;
        }
    }
#pragma unroll
    for (int pair = 0; pair < 4; ++pair) {
        float sums[2][4];
#pragma unroll
        for (int tile = 0; tile < 2; ++tile)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                float two[2];
                unpack_two(words[half][2 * pair + tile], two);
                sums[tile][2 * half] = two[0], sums[tile][2 * half + 1] = two[1];
            }
#pragma unroll
        for (int deep = 0; deep < DEEP; ++deep) {
            const uint4 right = *reinterpret_cast<const uint4*>(packed + ((deep * 4 + pair) * 32 + lane) * 4);
            multiply_add(sums[0], left[deep], right.x, right.y);
            multiply_add(sums[1], left[deep], right.z, right.w);
        }
#pragma unroll
        for (int tile = 0; tile < 2; ++tile)
#pragma unroll
            for (int half = 0; half < 2; ++half) words[half][2 * pair + tile] = pack_two(sums[tile][2 * half], sums[tile][2 * half + 1]);
    }
#pragma unroll
    for (int half = 0; half < 2; ++half)
#pragma unroll
        for (int k = 0; k < 2; ++k)
            rows[half][k] = make_uint4(words[half][4 * k], words[half][4 * k + 1], words[half][4 * k + 2], words[half][4 * k + 3]);
}

// low^T u of a step, all warps' rows of it: this warp's COLUMNS tiles of channels.
__device__ __forceinline__ void add_products(const Work& work, const storage_t* stage, int way, float (&sums)[DEEP][COLUMNS][4]) {
    const int lane = work.lane, row = lane % 8, eights = lane / 8;
#pragma unroll
    for (int warp = 0; warp < WARPS; ++warp) {
        const storage_t* of_warp = stage + warp * WARP_STAGE;
        const storage_t* low = of_warp + SLOTS + way * STEP * LOW_ROW;
        const storage_t* u = of_warp + X_SLOTS + way * STEP * ROW;
        unsigned right[4];
        load_matrices<true>(right, u + (eights % 2 * 8 + row) * ROW + work.warp * 16 + eights / 2 * 8);
#pragma unroll
        for (int deep = 0; deep < DEEP; ++deep) {
            unsigned left[4];
            load_matrices<true>(left, low + (eights / 2 * 8 + row) * LOW_ROW + deep * 16 + eights % 2 * 8);
            multiply_add(sums[deep][0], left, right[0], right[1]);
            multiply_add(sums[deep][1], left, right[2], right[3]);
        }
    }
}

#endif

struct Taps {
    float weight[WIDTH][2], bias[2], grad[WIDTH][2], grad_bias[2];
    __device__ __forceinline__ void load(const Work& work, const float* weights, const float* biases) {
        const int channel = work.channel + 2 * work.lane;
#pragma unroll
        for (int c = 0; c < 2; ++c) {
            bias[c] = biases == nullptr ? 0.f : biases[channel + c];
            grad_bias[c] = 0.f;
#pragma unroll
            for (int k = 0; k < WIDTH; ++k) {
                weight[k][c] = weights[static_cast<i64>(channel + c) * WIDTH + k];
                grad[k][c] = 0.f;
            }
        }
    }
    __device__ __forceinline__ void store(const ProjectedParams& p, const Work& work, float* partial) const {
        const i64 run = (static_cast<i64>(work.batch) * p.chunks + work.chunk) * WARPS + work.warp;
#pragma unroll
        for (int c = 0; c < 2; ++c) {
            float* target = partial + (run * p.channels + work.channel + 2 * work.lane + c) * (WIDTH + 1);
#pragma unroll
            for (int k = 0; k < WIDTH; ++k) target[k] = grad[k][c];
            target[WIDTH] = grad_bias[c];
        }
    }
};

// Rows from BEFORE before a group to AFTER behind it; row k + BEFORE is the group's k-th.
typedef float Rows[GROUP + AROUND][2];

// One way's part at row k of a group: the sum before the activation from the window, u into its slot, what reaches the
// sum into `pending` and, of own rows, into the taps' gradients.
template <bool OWN, bool LATER>
__device__ __forceinline__ void pass_back(Taps& taps, const Rows& window, Rows& pending, int k, unsigned* slot) {
    float gradient[2], u[2];
    unpack_two(*slot, gradient);
#pragma unroll
    for (int c = 0; c < 2; ++c) {
        float sum = taps.bias[c];
#pragma unroll
        for (int i = 0; i < WIDTH; ++i) sum = fmaf(taps.weight[i][c], window[LATER ? k + BEFORE + TAIL - i : k + i][c], sum);
        const float gate = sigmoid(sum);
        u[c] = sum * gate;
        const float g = gradient[c] * fmaf(u[c], 1.f - gate, gate);
        if (OWN) taps.grad_bias[c] += g;
#pragma unroll
        for (int i = 0; i < WIDTH; ++i) {
            const int met = LATER ? k + BEFORE + TAIL - i : k + i;
            if (OWN) taps.grad[i][c] = fmaf(g, window[met][c], taps.grad[i][c]);
            // The last row is met here first.
            const bool fresh = met == k + AROUND && (LATER || !SECOND);
            pending[met][c] = fresh ? taps.weight[i][c] * g : fmaf(taps.weight[i][c], g, pending[met][c]);
        }
    }
    if (OWN && LOW) *slot = pack_two(u[0], u[1]);
}

template <bool OWN>
__device__ __forceinline__ void convolve_step(const ProjectedParams& p, const Work& work, storage_t* stage, int offset, Taps& first,
                                              Taps& second, float (&history)[AROUND + 1][2], float (&handed)[AROUND + 1][2]) {
    unsigned* slots = reinterpret_cast<unsigned*>(stage) + work.lane;
    constexpr int WORDS = ROW / 2;
    storage_t* target = p.grad_x + work.batch * p.grad_x_batch + (work.first + offset - BEFORE) * p.grad_x_row + work.channel + 2 * work.lane;
#pragma unroll 1
    for (int start = 0; start < STEP; start += GROUP) {
        Rows window, pending;
#pragma unroll
        for (int j = 0; j < AROUND; ++j)
#pragma unroll
            for (int c = 0; c < 2; ++c) window[j][c] = history[j][c], pending[j][c] = handed[j][c];
#if ADD
        unsigned earlier[GROUP];
#pragma unroll
        for (int k = 0; k < GROUP; ++k) {
            const int done = offset + start + k - BEFORE;
            earlier[k] = 0u;
            if (static_cast<unsigned>(done) < static_cast<unsigned>(work.count))
                earlier[k] = *reinterpret_cast<const unsigned*>(target + k * p.grad_x_row);
        }
#endif
#pragma unroll
        for (int k = 0; k < GROUP; ++k) {
            unpack_two(slots[(start + k) * (TILE / 2)], window[AROUND + k]);
            unsigned* slot = slots + X_SLOTS / 2 + (start + k) * WORDS;
            // The second way's share comes first where there are two: it opens the last row.
#if SECOND
            pass_back<OWN, true>(second, window, pending, k, slot + FIRST * STEP * WORDS);
#endif
#if FIRST
            pass_back<OWN, false>(first, window, pending, k, slot);
#endif
            const int done = offset + start + k - BEFORE;
            if (static_cast<unsigned>(done) < static_cast<unsigned>(work.count)) {
#if ADD
                float earlier_two[2];
                unpack_two(earlier[k], earlier_two);
                pending[k][0] += earlier_two[0], pending[k][1] += earlier_two[1];
#endif
                *reinterpret_cast<unsigned*>(target) = pack_two(pending[k][0], pending[k][1]);
            }
            target += p.grad_x_row;
        }
#pragma unroll
        for (int j = 0; j < AROUND; ++j)
#pragma unroll
            for (int c = 0; c < 2; ++c) history[j][c] = window[GROUP + j][c], handed[j][c] = pending[GROUP + j][c];
    }
}

#if LOW
__device__ __forceinline__ void store_products(const ProjectedParams& p, const Work& work, float* products,
                                               const float (&sums)[DEEP][COLUMNS][4]) {
    float* base = products + (static_cast<i64>(work.batch) * p.chunks + work.chunk) * LOW * p.channels;
#pragma unroll
    for (int deep = 0; deep < DEEP; ++deep)
#pragma unroll
        for (int tile = 0; tile < COLUMNS; ++tile)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int row = deep * 16 + half * 8 + work.lane / 4;
                const int channel = work.channel + work.warp * 16 + tile * 8 + work.lane % 4 * 2;
                if (row < LOW)
                    *reinterpret_cast<float2*>(base + static_cast<i64>(row) * p.channels + channel) =
                        make_float2(sums[deep][tile][2 * half], sums[deep][tile][2 * half + 1]);
            }
}

#endif

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) pass_back_projected(const ProjectedParams p) {
    GENOSSM_SHARED(shared);
    storage_t* stages = reinterpret_cast<storage_t*>(shared) + WAYS * PACKED_WEIGHTS;
    Work work;
    take_work(p, work);
    Taps first, second;
#if LOW
    unsigned* packed = reinterpret_cast<unsigned*>(shared);
    float sums[WAYS][DEEP][COLUMNS][4] = {};
    if (FIRST) pack_weights(p, work, p.into_first, packed);
    if (SECOND) pack_weights(p, work, p.into_second, packed + FIRST * PACKED_WEIGHTS / 2);
#endif
#if FIRST
    first.load(work, p.first, p.first_bias);
#endif
#if SECOND
    second.load(work, p.second, p.second_bias);
#endif
    // A step before the run and one behind it hand to it what their outputs owe its inputs.
    const int begin = SECOND ? -STEP : 0, end = p.run + (FIRST ? STEP : 0);
    static_assert(TAIL < STEP, "which is one step");
    float history[AROUND + 1][2], handed[AROUND + 1][2];
#pragma unroll
    for (int j = 0; j < AROUND; ++j) {
        const i64 position = work.first + begin - BEFORE + j;
        const bool inside = position >= 0 && position < p.length;
        unsigned bits = 0u;
        if (inside)
            bits = *reinterpret_cast<const unsigned*>(p.x + work.batch * p.x_batch + position * p.x_row + work.channel + 2 * work.lane);
        unpack_two(bits, history[j]);
        handed[j][0] = handed[j][1] = 0.f;
    }
    storage_t* mine = stages + work.warp * WARP_STAGE;
    Sources from(p, work, work.first + begin);
    fetch_next(p, work.lane, from, mine, work.first + begin);
    __syncthreads();
    int turn = 0;
#pragma unroll 1
    for (int offset = begin; offset < end; offset += STEP, turn ^= 1) {
        storage_t* stage = mine + turn * STAGE;
        if (offset + STEP < end) fetch_next(p, work.lane, from, mine + (turn ^ 1) * STAGE, work.first + offset + STEP);
        else close_copies();
        await_copies<1>();
        __syncwarp();
#if LOW
#pragma unroll
        for (int way = 0; way < WAYS; ++way)
            add_projected(work.lane, stage + X_SLOTS + way * STEP * ROW, stage + SLOTS + way * STEP * LOW_ROW,
                          packed + way * PACKED_WEIGHTS / 2);
        __syncwarp();
#endif
        if (offset >= 0 && offset < p.run) {
            convolve_step<true>(p, work, stage, offset, first, second, history, handed);
#if LOW
            __syncthreads();
#pragma unroll
            for (int way = 0; way < WAYS; ++way) add_products(work, stages + turn * STAGE, way, sums[way]);
            __syncthreads();
#endif
        } else {
            convolve_step<false>(p, work, stage, offset, first, second, history, handed);
        }
        __syncwarp();  // before this stage is filled again
    }
#if FIRST
    first.store(p, work, p.first_partial);
#if LOW
    store_products(p, work, p.first_products, sums[0]);
#endif
#endif
#if SECOND
    second.store(p, work, p.second_partial);
#if LOW
    store_products(p, work, p.second_products, sums[FIRST]);
#endif
#endif
}

GENOSSM_KERNEL(pass_back_projected, ProjectedParams)
