// Backward selective scan; CUDA.md derives it. The adjoint of a segment's entering state is written `carry`:
// carry[t-1] = a[t] g[t] with g[t] = carry[t] + C[t] dy[t].
#include "cuda_common.cuh"

// Further macros: BACKWARD_WARPS of a block of `gradients`; ADJOINT_WARPS of `segment_adjoints` and the ADJOINT_BLOCKS
// that a multiprocessor is to hold.
constexpr int CARRY = 16;  // segments whose adjoints are loaded at once
constexpr int TA = 16;  // times of a tile in `segment_adjoints`
constexpr int T = 8;    // and in `gradients`, where a thread keeps every state of the tile
constexpr int GROUP = 4;  // times whose outputs are summed over the states together
constexpr int S = 32;   // and in its forward sweep; a multiple of T

constexpr int COLUMNS = (WARP_CHANNELS + 31) / 32;  // channels a lane sums over time
constexpr int ADJOINT_SLOT = Rows<TA>::FLOATS;
constexpr int ADJOINT_FLOATS =
    2 * TA * WARP_CHANNELS + TA * PADDED_STATE + WARP_CHANNELS + 3 * ADJOINT_SLOT + Maps<TA>::FLOATS;
constexpr int MAP_FLOATS = T * 2 * PADDED_STATE;
// Of a warp of `gradients`: six rows of channels a time or the sweep's two, B and C, two map gradients, constants.
constexpr int ROW_FLOATS = 6 * T * WARP_CHANNELS > 2 * S * WARP_CHANNELS ? 6 * T * WARP_CHANNELS : 2 * S * WARP_CHANNELS;
// Fetched rows: two stages of u delta grad_y z B C and the state before the tile, or one of the sweep's u delta B.
constexpr int SLOT = Rows<T>::FLOATS, MAP_SLOT = Maps<T>::FLOATS, STATE_SLOT = 4 * SLOT + 2 * MAP_SLOT, STAGE = STATE_SLOT + 512;
constexpr int SWEEP_FLOATS = 2 * Rows<S>::FLOATS + Maps<S>::FLOATS;
constexpr int SLOT_FLOATS = 2 * STAGE > SWEEP_FLOATS ? 2 * STAGE : SWEEP_FLOATS;
constexpr int GRADIENT_FLOATS = ROW_FLOATS + S * PADDED_STATE + 2 * MAP_FLOATS + 2 * WARP_CHANNELS + SLOT_FLOATS;

// What a segment adds to the adjoint of the state entering it: sum over its times of exp(A sigma) C dy, sigma the sum
// of the steps up to and with that time.
extern "C" __global__ void __launch_bounds__(32 * ADJOINT_WARPS, ADJOINT_BLOCKS) segment_adjoints(const ScanParams p) {
    GENOSSM_SHARED(shared);
    const int lane = threadIdx.x % 32;
    const int channel = lane % CHANNEL_LANES * 4, state = lane / CHANNEL_LANES * 4;
    const i64 item = static_cast<i64>(blockIdx.x) * ADJOINT_WARPS + threadIdx.x / 32;
    const int tiles = p.runs * p.tiles_per_run, tile_index = static_cast<int>(item % tiles);
    const int segment = static_cast<int>(item / tiles % (p.segments - 1)) + 1;  // nothing precedes the first
    const int batch = static_cast<int>(item / tiles / (p.segments - 1));
    if (batch >= p.batch) return;
    const Tile tile = make_tile(p, batch, tile_index / p.tiles_per_run, tile_index % p.tiles_per_run);
    float* steps = shared + threadIdx.x / 32 * ADJOINT_FLOATS;
    float* dy = steps + TA * WARP_CHANNELS;
    float* C = dy + TA * WARP_CHANNELS;
    float* bias = C + TA * PADDED_STATE;
    float* delta_slots = bias + WARP_CHANNELS;
    float* gradient_slots = delta_slots + ADJOINT_SLOT;
    float* z_slots = gradient_slots + ADJOINT_SLOT;
    float* C_slots = z_slots + ADJOINT_SLOT;
    load_channel_constants(p, tile, p.bias, bias, lane);

    float A2[4][4], total[4][4], sigma[4];
    load_rates(p, tile, channel, state, A2);
    bool decaying = SOFTPLUS;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        sigma[i] = 0.f;
#pragma unroll
        for (int s = 0; s < 4; ++s) {
            total[i][s] = 0.f;
            decaying &= A2[i][s] <= 0.f;
        }
    }
    const MapRows C_rows = C_of(p, tile);
    const i64 first = static_cast<i64>(segment) * p.segment_length;
    const int length = segment_times(p, segment);
    const auto fetch = [&](int start) {
        if (start < length) {
            const int times = min(TA, length - start);
            fetch_rows<TA>(p, tile, p.delta, p.delta_batch, p.delta_row, first + start, times, delta_slots, lane);
            fetch_rows<TA>(p, tile, p.grad_y, p.grad_y_batch, p.grad_y_row, first + start, times, gradient_slots, lane);
            if (GATE) fetch_rows<TA>(p, tile, p.z, p.z_batch, p.z_row, first + start, times, z_slots, lane);
            fetch_maps<TA>(p, tile, C_rows, first + start, times, C_slots, lane);
        }
        close_copies();
    };
    bool blocked = false;
    fetch(0);
    for (int start = 0; start < length && !blocked; start += TA) {
        const int times = min(TA, length - start);
        __syncwarp();
        await_copies<0>();
        convert_steps<TA, false>(p, tile, times, bias, delta_slots, nullptr, steps, nullptr, lane);
        convert_output_gradient<TA>(gradient_slots, z_slots, dy, lane);
        convert_maps<TA>(p, tile, C_rows, first + start, times, C_slots, C, lane);
        const unsigned resets = load_resets(p, tile, first + start, times, lane);
        __syncwarp();
        fetch(start + TA);
#pragma unroll 4
        for (int t = 0; t < TA; ++t) {
            if (resets >> t & 1u) {
                blocked = true;
                break;
            }
            float dt[4], g[4], c[4];
            load_four(steps + t * WARP_CHANNELS + channel, dt);
            load_four(dy + t * WARP_CHANNELS + channel, g);
            load_four(C + t * PADDED_STATE + state, c);
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                sigma[i] += dt[i];
#pragma unroll
                for (int s = 0; s < 4; ++s)
                    total[i][s] = fmaf(exp2_unit(A2[i][s] * sigma[i]), g[i] * c[s], total[i][s]);
            }
        }
        const bool vanished = decaying && all_vanished(p, A2, sigma, tile, channel, state);
        if (__all_sync(FULL, vanished)) break;
    }
    const i64 index = static_cast<i64>(tile.batch) * p.segments + segment;
    store_state(p, tile, p.segment_state, index, channel, state, total);
    if (state == 0)
#pragma unroll
        for (int i = 0; i < 4; ++i)
            if (channel + i < tile.channels)
                p.segment_sum[index * p.channels + tile.first_channel + channel + i] = blocked ? NOTHING_PASSES : sigma[i];
}

// Carries the adjoints from the last segment to the first: what a segment adds is replaced by what enters its end.
extern "C" __global__ void __launch_bounds__(256) carry_adjoints(const ScanParams p) {
    const i64 item = static_cast<i64>(blockIdx.x) * 256 + threadIdx.x;
    const int state = static_cast<int>(item % PADDED_STATE);
    const i64 rest = item / PADDED_STATE;
    const int channel = static_cast<int>(rest % p.channels);
    const i64 batch = rest / p.channels;
    if (batch >= p.batch) return;
    const bool real = state < p.d_state;
    const float A2 = real ? p.A[static_cast<i64>(channel) * p.d_state + state] * LOG2E : 0.f;
    float carry = 0.f;
    if (p.grad_final_state != nullptr && real)
        carry = p.grad_final_state[(batch * p.channels + channel) * p.d_state + state];
    // Loads first: they do not wait for the chain of adjoints.
    for (int start = p.segments - 1; start >= 0; start -= CARRY) {
        float added[CARRY], passed[CARRY];
#pragma unroll
        for (int k = 0; k < CARRY; ++k) {
            const i64 index = batch * p.segments + start - k;
            const bool inside = start - k > 0;
            added[k] = inside ? p.segment_state[state_offset(p, index, channel, state)] : 0.f;
            const float sigma = inside ? p.segment_sum[index * p.channels + channel] : 0.f;
            passed[k] = sigma == NOTHING_PASSES ? 0.f : exp2_unit(A2 * sigma);
        }
#pragma unroll
        for (int k = 0; k < CARRY; ++k) {
            if (start - k < 0) break;
            p.segment_state[state_offset(p, batch * p.segments + start - k, channel, state)] = carry;
            carry = fmaf(passed[k], carry, added[k]);
        }
    }
}

// All gradients. A block walks one segment from its end, checkpoint by checkpoint: it sweeps forward leaving the state
// before each tile in scratch, then takes the tiles backward. The warps are neighbouring tiles of channels of one run.
extern "C" __global__ void __launch_bounds__(32 * BACKWARD_WARPS, 1) gradients(const ScanParams p) {
    GENOSSM_SHARED(shared);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int channel = lane % CHANNEL_LANES * 4, state = lane / CHANNEL_LANES * 4;
    float* steps = shared + warp * GRADIENT_FLOATS;
    float* inputs = steps + T * WARP_CHANNELS;
    float* dy = inputs + T * WARP_CHANNELS;
    float* scan_y = dy + T * WARP_CHANNELS;       // <C, h>
    float* input_sum = scan_y + T * WARP_CHANNELS;  // sum over states of g B
    float* step_sum = input_sum + T * WARP_CHANNELS;  // sum over states of A a g h
    float* sweep_inputs = steps + S * WARP_CHANNELS;
    float* B = steps + ROW_FLOATS;
    float* C = B + T * PADDED_STATE;
    float* maps = B + S * PADDED_STATE;
    float* bias = maps + 2 * MAP_FLOATS;
    float* skip = bias + WARP_CHANNELS;
    float* slots = skip + WARP_CHANNELS;
    float* sweep_u_slots = slots + Rows<S>::FLOATS;
    float* sweep_B_slots = sweep_u_slots + Rows<S>::FLOATS;

    const i64 checkpoints = (p.length + p.checkpoint - 1) / p.checkpoint;
    const int parts = p.runs * p.parts_per_run;
    const i64 items = static_cast<i64>(p.batch) * p.segments * parts;
    const int tiles_in_checkpoint = p.checkpoint / T;
    float4* scratch = reinterpret_cast<float4*>(p.scratch) +
                      (static_cast<i64>(blockIdx.x) * BACKWARD_WARPS + warp) * tiles_in_checkpoint * 128 + lane;
    const int owned_output = owned_index<4 * GROUP>(lane, 16, STATE_LANES);
    const int owned_sum = owned_index<8>(lane, 16, STATE_LANES);
    const int owned_map = owned_index<8>(lane, CHANNEL_LANES / 2, CHANNEL_LANES);
    constexpr int OWNED_MAPS = owned_count(8, CHANNEL_LANES);
    int buffer = 0;

    for (i64 item = blockIdx.x; item < items; item += gridDim.x) {
        const int part = static_cast<int>(item % parts);
        const int segment = static_cast<int>(item / parts % p.segments);
        const int batch = static_cast<int>(item / parts / p.segments);
        const Tile tile = make_tile(p, batch, part / p.parts_per_run, part % p.parts_per_run * BACKWARD_WARPS + warp);
        const i64 segment_index = static_cast<i64>(batch) * p.segments + segment;
        __syncwarp();
        load_channel_constants(p, tile, p.bias, bias, lane);
        load_channel_constants(p, tile, p.D, skip, lane);
        const MapRows B_rows = B_of(p, tile), C_rows = C_of(p, tile);

        float A2[4][4], carry[4][4], grad_A[4][4];
        load_rates(p, tile, channel, state, A2);
        if (p.segments > 1)
            load_state(p, tile, p.segment_state, segment_index, channel, state, carry);
        else
            load_user_state(p, tile, p.grad_final_state, batch, channel, state, carry);
        const i64 first = static_cast<i64>(segment) * p.segment_length;
        const int length = segment_times(p, segment);
        for (int block = (length - 1) / p.checkpoint; block >= 0; --block) {
            const i64 block_time = first + static_cast<i64>(block) * p.checkpoint;
            const int block_length = min(p.checkpoint, length - block * p.checkpoint);
            const int tiles = (block_length + T - 1) / T;
            float grad_bias[COLUMNS], grad_skip[COLUMNS];
#pragma unroll
            for (int k = 0; k < COLUMNS; ++k) grad_bias[k] = grad_skip[k] = 0.f;
#pragma unroll
            for (int i = 0; i < 4; ++i)
#pragma unroll
                for (int s = 0; s < 4; ++s) grad_A[i][s] = 0.f;
            {
                float h[4][4];
                load_state(p, tile, p.checkpoints, batch * checkpoints + block_time / p.checkpoint, channel, state, h);
                const auto fetch = [&](int start) {
                    if (start < block_length) {
                        const i64 time = block_time + start;
                        const int times = min(S, block_length - start);
                        fetch_rows<S>(p, tile, p.delta, p.delta_batch, p.delta_row, time, times, slots, lane);
                        fetch_rows<S>(p, tile, p.u, p.u_batch, p.u_row, time, times, sweep_u_slots, lane);
                        fetch_maps<S>(p, tile, B_rows, time, times, sweep_B_slots, lane);
                    }
                    close_copies();
                };
                fetch(0);
                for (int start = 0; start < block_length; start += S) {
                    const int times = min(S, block_length - start);
                    __syncwarp();
                    await_copies<0>();
                    convert_steps<S, true>(p, tile, times, bias, slots, sweep_u_slots, steps, sweep_inputs, lane);
                    convert_maps<S>(p, tile, B_rows, block_time + start, times, sweep_B_slots, B, lane);
                    const unsigned resets = load_resets(p, tile, block_time + start, times, lane);
                    __syncwarp();
                    fetch(start + S);
#pragma unroll 4
                    for (int t = 0; t < S; ++t) {
                        if (t % T == 0 && t < times) {
#pragma unroll
                            for (int i = 0; i < 4; ++i)
                                scratch[((start + t) / T * 4 + i) * 32] = make_float4(h[i][0], h[i][1], h[i][2], h[i][3]);
                        }
                        float dt[4], x[4], b[4];
                        load_four(steps + t * WARP_CHANNELS + channel, dt);
                        load_four(sweep_inputs + t * WARP_CHANNELS + channel, x);
                        load_four(B + t * PADDED_STATE + state, b);
                        const float barrier = barrier_at(resets, t);
#pragma unroll
                        for (int i = 0; i < 4; ++i)
#pragma unroll
                            for (int s = 0; s < 4; ++s)
                                h[i][s] = fmaf(exp2_unit(fmaf(A2[i][s], dt[i], barrier)), h[i][s],
                                               x[i] * b[s]);
                    }
                }
            }
            // Stage: slots of u, delta, grad_y, z, B, C, state.
            const auto fetch = [&](int index) {
                if (index >= 0) {
                    float* stage = slots + (index & 1) * STAGE;
                    const i64 time = block_time + index * T;
                    const int times = min(T, block_length - index * T);
                    fetch_rows<T>(p, tile, p.u, p.u_batch, p.u_row, time, times, stage, lane);
                    fetch_rows<T>(p, tile, p.delta, p.delta_batch, p.delta_row, time, times, stage + SLOT, lane);
                    fetch_rows<T>(p, tile, p.grad_y, p.grad_y_batch, p.grad_y_row, time, times, stage + 2 * SLOT, lane);
                    if (GATE) fetch_rows<T>(p, tile, p.z, p.z_batch, p.z_row, time, times, stage + 3 * SLOT, lane);
                    fetch_maps<T>(p, tile, B_rows, time, times, stage + 4 * SLOT, lane);
                    fetch_maps<T>(p, tile, C_rows, time, times, stage + 4 * SLOT + MAP_SLOT, lane);
#pragma unroll
                    for (int i = 0; i < 4; ++i)
                        copy_async(reinterpret_cast<float4*>(stage + STATE_SLOT) + i * 32 + lane,
                                   scratch + (index * 4 + i) * 32, true);
                }
                close_copies();
            };
            await_copies<0>();
            __threadfence();  // the copies read what this lane's stores left in scratch
            fetch(tiles - 1);
            for (int index = tiles - 1; index >= 0; --index) {
                const i64 time = block_time + index * T;
                const int times = min(T, block_length - index * T);
                const float* stage = slots + (index & 1) * STAGE;
                __syncwarp();
                fetch(index - 1);
                await_copies<1>();
                convert_steps<T, true>(p, tile, times, bias, stage + SLOT, stage, steps, inputs, lane);
                convert_output_gradient<T>(stage + 2 * SLOT, stage + 3 * SLOT, dy, lane);
                convert_maps<T>(p, tile, B_rows, time, times, stage + 4 * SLOT, B, lane);
                convert_maps<T>(p, tile, C_rows, time, times, stage + 4 * SLOT + MAP_SLOT, C, lane);
                const unsigned resets = load_resets(p, tile, time, times, lane);
                float h[T + 1][4][4];  // h[t + 1] is the state after time t
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const float4 four = reinterpret_cast<const float4*>(stage + STATE_SLOT)[i * 32 + lane];
                    h[0][i][0] = four.x, h[0][i][1] = four.y, h[0][i][2] = four.z, h[0][i][3] = four.w;
                }
                __syncwarp();
#pragma unroll
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
                                h[t + 1][i][s] = fmaf(a, h[t][i][s], x[i] * b[s]);
                                if (GATE) y[4 * k + i] = fmaf(h[t + 1][i][s], c[s], y[4 * k + i]);
                            }
                        }
                    }
                    if (GATE) {  // only the gradient of z needs the output
                        reduce_scatter<4 * GROUP>(y, lane, 16, STATE_LANES);
                        store_owned<4 * GROUP>(y, owned_output, scan_y + group * WARP_CHANNELS + channel, WARP_CHANNELS);
                    }
                }
                float* map_gradient = maps + buffer * MAP_FLOATS;
#pragma unroll
                for (int t = T - 1; t >= 0; --t) {
                    float dt[4], x[4], b[4], c[4], out[4];
                    load_four(steps + t * WARP_CHANNELS + channel, dt);
                    load_four(inputs + t * WARP_CHANNELS + channel, x);
                    load_four(dy + t * WARP_CHANNELS + channel, out);
                    load_four(B + t * PADDED_STATE + state, b);
                    load_four(C + t * PADDED_STATE + state, c);
                    const float barrier = barrier_at(resets, t);
                    float grad_maps[8] = {0.f, 0.f, 0.f, 0.f, 0.f, 0.f, 0.f, 0.f};
                    float sums[8];  // over states: g B of four channels, then A a g h
#pragma unroll
                    for (int i = 0; i < 4; ++i) {
                        sums[i] = sums[4 + i] = 0.f;
#pragma unroll
                        for (int s = 0; s < 4; ++s) {
                            const float g = fmaf(c[s], out[i], carry[i][s]);
                            grad_maps[s] = fmaf(g, x[i], grad_maps[s]);
                            grad_maps[4 + s] = fmaf(h[t + 1][i][s], out[i], grad_maps[4 + s]);
                            sums[i] = fmaf(g, b[s], sums[i]);
                            const float passed = g * exp2_unit(fmaf(A2[i][s], dt[i], barrier));
                            const float q = passed * h[t][i][s];
                            sums[4 + i] = fmaf(q, A2[i][s], sums[4 + i]);
                            grad_A[i][s] = fmaf(q, dt[i], grad_A[i][s]);
                            carry[i][s] = passed;
                        }
                    }
                    reduce_scatter<8>(grad_maps, lane, CHANNEL_LANES / 2, CHANNEL_LANES);
                    reduce_scatter<8>(sums, lane, 16, STATE_LANES);
                    // step_sum follows input_sum at a distance of T rows
                    store_owned<8>(sums, owned_sum, input_sum + t * WARP_CHANNELS + channel, T * WARP_CHANNELS);
#pragma unroll
                    for (int k = 0; k < OWNED_MAPS; ++k) {
                        const int entry = owned_map + k;
                        const int column = entry < 4 ? state + entry : PADDED_STATE + state + entry - 4;
                        map_gradient[t * 2 * PADDED_STATE + column] = grad_maps[k];
                    }
                }
                // One barrier a tile: the two buffers of map gradients take turns.
                __syncthreads();
                float* partial = p.map_partial + (static_cast<i64>(part) * p.batch + batch) * p.length * 2 * PADDED_STATE;
                for (int k = threadIdx.x; k < times * 2 * PADDED_STATE; k += 32 * BACKWARD_WARPS) {
                    float sum = 0.f;
#pragma unroll
                    for (int w = 0; w < BACKWARD_WARPS; ++w)
                        sum += shared[w * GRADIENT_FLOATS + (maps - steps) + buffer * MAP_FLOATS + k];
                    const i64 row = position(p, tile, time + k / (2 * PADDED_STATE));
                    partial[row * 2 * PADDED_STATE + k % (2 * PADDED_STATE)] = sum;
                }
                buffer ^= 1;

                constexpr int ROUNDS = (T * ROW_PIECES + 31) / 32;
#pragma unroll
                for (int r = 0; r < ROUNDS; ++r) {
                    const Piece piece = make_piece(p, tile, time, times, r * 32 + lane);
                    if (piece.time >= T) continue;
                    const int offset = piece.time * WARP_CHANNELS + piece.channel;
                    const i64 out = (batch * p.length + piece.row) * p.channels + tile.first_channel + piece.channel;
                    float u[VECTOR], raw[VECTOR], weight[VECTOR], shift[VECTOR], g[VECTOR], by_input[VECTOR], by_step[VECTOR];
                    const float4* own = reinterpret_cast<const float4*>(stage) + r * 32 + lane;
                    read_slot(own, u);
                    read_slot(own + SLOT / 4, raw);
                    load_floats(skip + piece.channel, weight);
                    load_floats(bias + piece.channel, shift);
                    if (GATE) {
                        float z[VECTOR], gradient[VECTOR], y[VECTOR];
                        read_slot(own + 3 * SLOT / 4, z);
                        read_slot(own + 2 * SLOT / 4, gradient);
                        load_floats(scan_y + offset, y);
#pragma unroll
                        for (int k = 0; k < VECTOR; ++k) {
                            const float gate = sigmoid(z[k]);
                            z[k] = gradient[k] * fmaf(weight[k], u[k], y[k]) * gate * fmaf(z[k], 1.f - gate, 1.f);
                        }
                        store_row<ALIGNED>(p.grad_z + out, piece.count, z);
                    }
                    load_floats(dy + offset, g);
                    load_floats(input_sum + offset, by_input);
                    load_floats(step_sum + offset, by_step);
                    float dt[VECTOR];
                    load_floats(steps + offset, dt);
#pragma unroll
                    for (int k = 0; k < VECTOR; ++k) {
                        float step = fmaf(u[k], by_input[k], by_step[k] * LN2);
                        if (SOFTPLUS) step *= sigmoid(raw[k] + shift[k]);
                        by_step[k] = piece.mask(k) * step;
                        by_input[k] = fmaf(dt[k], by_input[k], weight[k] * g[k]);
                        g[k] *= u[k];
                    }
                    store_row<ALIGNED>(p.grad_delta + out, piece.count, by_step);
                    store_row<ALIGNED>(p.grad_u + out, piece.count, by_input);
                    store_floats(step_sum + offset, by_step);
                    store_floats(dy + offset, g);
                }
                __syncwarp();
#pragma unroll
                for (int k = 0; k < COLUMNS; ++k) {
                    const int c = k * 32 + lane;
                    if (c < WARP_CHANNELS)
#pragma unroll
                        for (int t = 0; t < T; ++t) {
                            grad_bias[k] += step_sum[t * WARP_CHANNELS + c];
                            grad_skip[k] += dy[t * WARP_CHANNELS + c];
                        }
                }
            }
            // A sum over a segment goes by checkpoints, so that its rounding grows with the root of fewer terms.
            const bool begins = block == (length - 1) / p.checkpoint;
            float before[4][4];
            load_state(p, tile, begins ? nullptr : p.A_partial, segment_index, channel, state, before);
#pragma unroll
            for (int i = 0; i < 4; ++i)
#pragma unroll
                for (int s = 0; s < 4; ++s) before[i][s] += grad_A[i][s];
            store_state(p, tile, p.A_partial, segment_index, channel, state, before);
#pragma unroll
            for (int k = 0; k < COLUMNS; ++k) {
                const int c = k * 32 + lane;
                if (c < tile.channels) {
                    float* sums = p.sum_partial + segment_index * 2 * p.channels + tile.first_channel + c;
                    sums[0] = (begins ? 0.f : sums[0]) + grad_skip[k];
                    sums[p.channels] = (begins ? 0.f : sums[p.channels]) + grad_bias[k];
                }
            }
        }
        if (segment == 0 && p.grad_initial_state != nullptr)
            store_user_state(p, tile, p.grad_initial_state, batch, channel, state, carry);
    }
}

// Sums over segments, in their order: gradients of A, D and the bias.
extern "C" __global__ void __launch_bounds__(128) sum_parameters(const ScanParams p) {
    const i64 item = static_cast<i64>(blockIdx.x) * 128 + threadIdx.x;
    const i64 segments = static_cast<i64>(p.batch) * p.segments;
    const int column = static_cast<int>(item % (PADDED_STATE + 2)), channel = static_cast<int>(item / (PADDED_STATE + 2));
    if (channel >= p.channels) return;
    const bool of_A = column < PADDED_STATE;
    if (of_A && column >= p.d_state) return;
    float* target = of_A ? p.grad_A + static_cast<i64>(channel) * p.d_state + column
                         : (column == PADDED_STATE ? p.grad_D : p.grad_bias) + channel;
    if (!of_A && (column == PADDED_STATE ? p.grad_D : p.grad_bias) == nullptr) return;
    const float* source = of_A ? p.A_partial + static_cast<i64>(channel) * PADDED_STATE + column
                               : p.sum_partial + static_cast<i64>(column - PADDED_STATE) * p.channels + channel;
    const i64 stride = static_cast<i64>(p.channels) * (of_A ? PADDED_STATE : 2);
    double sum = 0.;
#pragma unroll 8
    for (i64 k = 0; k < segments; ++k) sum += source[k * stride];
    *target = static_cast<float>(sum);
}

// Sums over the parts of a group, in their order: gradients of B and C.
extern "C" __global__ void __launch_bounds__(256) sum_maps(const ScanParams p) {
    const i64 item = static_cast<i64>(blockIdx.x) * 256 + threadIdx.x;
    const int column = static_cast<int>(item % (2 * PADDED_STATE));
    const i64 cell = item / (2 * PADDED_STATE);  // (batch, length)
    const i64 cells = static_cast<i64>(p.batch) * p.length;
    const bool of_B = column < PADDED_STATE;
    const int state = of_B ? column : column - PADDED_STATE;
    if (cell >= cells || state >= p.d_state) return;
    const int parts = p.runs / p.groups * p.parts_per_run;
    storage_t* target = of_B ? p.grad_B : p.grad_C;
    for (int group = 0; group < p.groups; ++group) {
        float sum = 0.f;
        for (int k = 0; k < parts; ++k)
            sum += p.map_partial[((static_cast<i64>(group) * parts + k) * cells + cell) * 2 * PADDED_STATE + column];
        target[(cell * p.groups + group) * p.d_state + state] = to_storage(sum);
    }
}

GENOSSM_KERNEL(segment_adjoints, ScanParams)
GENOSSM_KERNEL(carry_adjoints, ScanParams)
GENOSSM_KERNEL(gradients, ScanParams)
GENOSSM_KERNEL(sum_parameters, ScanParams)
GENOSSM_KERNEL(sum_maps, ScanParams)
