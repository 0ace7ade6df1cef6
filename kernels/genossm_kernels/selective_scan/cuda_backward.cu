// Backward selective scan; CUDA.md derives it. The adjoint of a segment's entering state is written `carry`:
// carry[t-1] = a[t] g[t] with g[t] = carry[t] + C[t] dy[t].
#define LANE_CHANNELS 2
#define LANE_STATES 4
#include "cuda_cells.cuh"
#include "cuda_sums.cuh"

// Further macros: BACKWARD_WARPS of a block of `gradients` and the BACKWARD_BLOCKS that a multiprocessor is to hold.

// Gradient of the output before the gate.
__device__ __forceinline__ void convert_output_gradient(const float* gradient_slots, const float* z_slots, float* target,
                                                        int lane) {
#pragma unroll
    for (int r = 0; r < ChannelCells<T>::ROUNDS; ++r) {
        const int index = r * 32 + lane;
        float gradient[4], z[4];
        read_cell(gradient_slots, index, gradient);
        if (GATE) {
            read_cell(z_slots, index, z);
#pragma unroll
            for (int k = 0; k < 4; ++k) gradient[k] *= z[k] * sigmoid(z[k]);
        }
        if (ChannelCells<T>::inside(index)) store_four(target + index * 4, gradient);
    }
}

__device__ __forceinline__ void load_channel_constants(const ScanParams& p, const Tile& tile, const float* source,
                                                       float* target, int lane) {
    for (int c = lane; c < WARP_CHANNELS; c += 32)
        target[c] = source != nullptr && c < tile.channels ? source[tile.first_channel + c] : 0.f;
}

// Writes what a lane owns of COUNT = LANE_CHANNELS x rows sums (reduce_scatter over the states) to rows of channels.
template <int COUNT>
__device__ __forceinline__ void store_owned(const float (&values)[COUNT], int owned, float* rows, int row_floats) {
    constexpr int OWNED = owned_count(COUNT, STATE_LANES);
#pragma unroll
    for (int k = 0; k < OWNED; ++k)
        rows[(owned + k) / LANE_CHANNELS * row_floats + (owned + k) % LANE_CHANNELS] = values[k];
}

// Floats of shared memory of a warp; the host computes the same. Six rows of channels a time or the sweep's two, B and
// C, what each lane adds to the gradients of B and C, constants, sums over time, and fetched cells: two stages of u delta
// grad_y z B C and the states before the halves of a tile, or one stage of the sweep's u delta B.
constexpr int MAP_FLOATS = T * 2 * 128;
constexpr int ROW_FLOATS = (6 * T > 2 * S ? 6 * T : 2 * S) * WARP_CHANNELS;
constexpr int SLOT = ChannelCells<T>::SLOT, MAP_SLOT = MapCells<T>::SLOT;
constexpr int STAGE = 4 * SLOT + 2 * MAP_SLOT, STATE_SLOT = 128 * LANE_CHANNELS;
constexpr int SWEEP_SLOT = ChannelCells<S>::SLOT, SWEEP_FLOATS = 2 * SWEEP_SLOT + MapCells<S>::SLOT;
constexpr int TILE_SLOTS = 2 * STAGE + T / HALF * STATE_SLOT;
constexpr int SLOT_FLOATS = TILE_SLOTS > SWEEP_FLOATS ? TILE_SLOTS : SWEEP_FLOATS;
constexpr int MAP_ROWS = (S > 2 * T ? S : 2 * T) * PADDED_STATE;
constexpr int SUM_FLOATS = 2 * 128;
constexpr int GRADIENT_FLOATS = ROW_FLOATS + MAP_ROWS + MAP_FLOATS + 2 * WARP_CHANNELS + SUM_FLOATS + SLOT_FLOATS;

// Where the two gradients of thread `sum` go: half a group of four states of B or of C, `time` from the first row.
__device__ __forceinline__ float2* map_at(float* rows, const Tile& tile, int time, int sum) {
    const int half = sum % 2, group = sum / 2 % STATE_LANES, of_C = sum / (2 * STATE_LANES) % 2;
    return reinterpret_cast<float2*>(rows + (time * row_step(tile, 2 * PADDED_STATE) + of_C * PADDED_STATE + group * 4 +
                                             half * 2));
}

// All gradients. A block walks one segment from its end, checkpoint by checkpoint: it sweeps forward leaving the state
// before each half tile in scratch, then takes the tiles backward. The warps are neighbouring tiles of channels of one run.
extern "C" __global__ void __launch_bounds__(32 * BACKWARD_WARPS, BACKWARD_BLOCKS) gradients(const ScanParams p) {
    GENOSSM_SHARED(shared);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int channel = lane % CHANNEL_LANES * LANE_CHANNELS, state = lane / CHANNEL_LANES * LANE_STATES;
    float* steps = shared + warp * GRADIENT_FLOATS;
    float* inputs = steps + T * WARP_CHANNELS;
    float* dy = inputs + T * WARP_CHANNELS;
    float* scan_y = dy + T * WARP_CHANNELS;  // <C, h>
    float* sums = scan_y + T * WARP_CHANNELS;  // over states: g B, then A a g h at a distance of T rows
    float* sweep_inputs = steps + S * WARP_CHANNELS;
    float* B = steps + ROW_FLOATS;
    float* C = B + T * PADDED_STATE;
    float* maps = B + MAP_ROWS;
    float* bias = maps + MAP_FLOATS;
    float* skip = bias + WARP_CHANNELS;
    float* time_sums = skip + WARP_CHANNELS + 4 * lane;  // of the lane's cells, for the gradients of D and of the bias
    float* slots = skip + WARP_CHANNELS + SUM_FLOATS;
    float* state_slots = slots + 2 * STAGE;
    float* sweep_u_slots = slots + SWEEP_SLOT;
    float* sweep_B_slots = sweep_u_slots + SWEEP_SLOT;

    const i64 checkpoints = (p.length + p.checkpoint - 1) / p.checkpoint;
    const int parts = p.runs * p.parts_per_run;
    const i64 items = static_cast<i64>(p.batch) * p.segments * parts;
    const int states_in_checkpoint = p.checkpoint / HALF;
    float4* scratch = reinterpret_cast<float4*>(p.scratch) +
                      (static_cast<i64>(blockIdx.x) * BACKWARD_WARPS + warp) * states_in_checkpoint * 32 * LANE_CHANNELS + lane;
    const int owned_output = owned_index<LANE_CHANNELS * HALF>(lane, 16, STATE_LANES);
    const int owned_sum = owned_index<2 * LANE_CHANNELS>(lane, 16, STATE_LANES);
    // Two threads add up four neighbouring gradients of B or C at one time, half of the lanes that hold parts of them each.
    constexpr int SUMS = T * 4 * STATE_LANES, SUM_ROUNDS = (SUMS + 32 * BACKWARD_WARPS - 1) / (32 * BACKWARD_WARPS);
    constexpr int HALF_LANES = CHANNEL_LANES / 2;
    const int run_tiles = (p.channels / p.runs + WARP_CHANNELS - 1) / WARP_CHANNELS;
    const int walks = (run_tiles + p.parts_per_run * BACKWARD_WARPS - 1) / (p.parts_per_run * BACKWARD_WARPS);

    for (i64 item = blockIdx.x; item < items; item += gridDim.x)
    for (int walk = 0; walk < walks; ++walk) {
        const int part = static_cast<int>(item % parts);
        const int segment = static_cast<int>(item / parts % p.segments);
        const int batch = static_cast<int>(item / parts / p.segments);
        const Tile tile = make_tile(p, batch, part / p.parts_per_run,
                                    (part % p.parts_per_run * walks + walk) * BACKWARD_WARPS + warp);
        const i64 segment_index = static_cast<i64>(batch) * p.segments + segment;
        __syncwarp();
        load_channel_constants(p, tile, p.bias, bias, lane);
        load_channel_constants(p, tile, p.D, skip, lane);
        LaneState A2, carry, grad_A;
        load_rates(p, tile, channel, state, A2);
        LaneState rates;
#pragma unroll
        for (int i = 0; i < LANE_CHANNELS; ++i)
#pragma unroll
            for (int s = 0; s < LANE_STATES; ++s) rates[i][s] = A2[i][s];
        correct_rates(p, tile, max(segment, 1), channel, rates);
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
            const Stream u_rows = stream_of(p, tile, p.u, p.u_batch, p.u_row, block_time);
            const Stream delta_rows = stream_of(p, tile, p.delta, p.delta_batch, p.delta_row, block_time);
            const Stream gradient_rows = stream_of(p, tile, p.grad_y, p.grad_y_batch, p.grad_y_row, block_time);
            const Stream z_rows = stream_of(p, tile, p.z, p.z_batch, p.z_row, block_time);
            const Stream B_rows = stream_of(p, tile, p.B + tile.group * p.B_group, p.B_batch, p.B_row, block_time);
            const Stream C_rows = stream_of(p, tile, p.C + tile.group * p.C_group, p.C_batch, p.C_row, block_time);
            const i64 block_row = batch * p.length + position(p, tile, block_time);
            const int out_step = row_step(tile, p.channels);
            storage_t* const grad_z_rows = p.grad_z + batch * p.grad_z_batch + position(p, tile, block_time) * p.grad_z_row;
            const int grad_z_step = row_step(tile, p.grad_z_row);
            float* const map_rows =
                p.map_partial + (static_cast<i64>(part) * p.batch * p.length + block_row) * 2 * PADDED_STATE;
            const float zeros[4] = {0.f, 0.f, 0.f, 0.f};
            store_four(time_sums, zeros);
            store_four(time_sums + 128, zeros);
#pragma unroll
            for (int i = 0; i < LANE_CHANNELS; ++i)
#pragma unroll
                for (int s = 0; s < LANE_STATES; ++s) grad_A[i][s] = 0.f;
            {
                LaneState h;
                load_state(p, tile, p.checkpoints, batch * checkpoints + block_time / p.checkpoint, channel, state, h);
                const auto fetch = [&](int start) {
                    if (start < block_length) {
                        const int times = min(S, block_length - start);
                        fetch_channels<S>(tile, delta_rows, start, times, slots, lane);
                        fetch_channels<S>(tile, u_rows, start, times, sweep_u_slots, lane);
                        fetch_states<S>(p, B_rows, start, times, sweep_B_slots, lane);
                    }
                    close_copies();
                };
                fetch(0);
                for (int start = 0; start < block_length; start += S) {
                    const int times = min(S, block_length - start);
                    await_copies<0>();
                    __syncwarp();
                    convert_channels<S>(times, bias, slots, sweep_u_slots, steps, sweep_inputs, lane);
                    convert_states<S>(sweep_B_slots, B, lane);
                    const unsigned resets = load_resets(p, tile, block_time + start, times, lane);
                    __syncwarp();
                    fetch(start + S);
#pragma unroll 1
                    for (int tile_start = 0; tile_start < S && start + tile_start < tiles * T; tile_start += T) {
#pragma unroll
                        for (int k = 0; k < T; ++k) {
                            const int t = tile_start + k;
                            if (k % HALF == 0) {
#pragma unroll
                                for (int i = 0; i < LANE_CHANNELS; ++i)
                                    scratch[((start + t) / HALF * LANE_CHANNELS + i) * 32] =
                                        make_float4(h[i][0], h[i][1], h[i][2], h[i][3]);
                            }
                            float dt[LANE_CHANNELS], x[LANE_CHANNELS], b[4];
                            load_two(steps + t * WARP_CHANNELS + channel, dt);
                            load_two(sweep_inputs + t * WARP_CHANNELS + channel, x);
                            load_four(B + t * PADDED_STATE + state, b);
                            const float barrier = barrier_at(resets, t, unit_bias(p));
#pragma unroll
                            for (int i = 0; i < LANE_CHANNELS; ++i)
#pragma unroll
                                for (int s = 0; s < LANE_STATES; ++s)
                                    h[i][s] = fmaf(exp2_unit(fmaf(rates[i][s], dt[i], barrier)), h[i][s], x[i] * b[s]);
                        }
                    }
                }
            }
            // Stage: slots of u, delta, grad_y, z, B, C. The slots of a half's state are filled again once it has been read.
            const float4* states_before = scratch + tiles * (T / HALF) * LANE_CHANNELS * 32;
            const auto fetch_state_before = [&](int half) {
                states_before -= LANE_CHANNELS * 32;
#pragma unroll
                for (int i = 0; i < LANE_CHANNELS; ++i)
                    copy_async(reinterpret_cast<float4*>(state_slots + half * STATE_SLOT) + i * 32 + lane,
                               states_before + i * 32, true);
            };
            const auto fetch = [&](int index) {
                if (index >= 0) {
                    float* stage = slots + (index & 1) * STAGE;
                    const int start = index * T, times = min(T, block_length - start);
                    fetch_channels<T>(tile, u_rows, start, times, stage, lane);
                    fetch_channels<T>(tile, delta_rows, start, times, stage + SLOT, lane);
                    fetch_channels<T>(tile, gradient_rows, start, times, stage + 2 * SLOT, lane);
                    if (GATE) fetch_channels<T>(tile, z_rows, start, times, stage + 3 * SLOT, lane);
                    fetch_states<T>(p, B_rows, start, times, stage + 4 * SLOT, lane);
                    fetch_states<T>(p, C_rows, start, times, stage + 4 * SLOT + MAP_SLOT, lane);
                }
                close_copies();
            };
            await_copies<0>();
            __threadfence();  // the copies read what this lane's stores left in scratch
            for (int half = T / HALF - 1; half >= 0; --half) fetch_state_before(half);
            fetch(tiles - 1);
#pragma unroll 1
            for (int index = tiles - 1; index >= 0; --index) {
                const i64 time = block_time + index * T;
                const int times = min(T, block_length - index * T);
                const float* stage = slots + (index & 1) * STAGE;
                __syncwarp();
                fetch(index - 1);
                await_copies<1>();
                convert_channels<T>(times, bias, stage + SLOT, stage, steps, inputs, lane);
                convert_output_gradient(stage + 2 * SLOT, stage + 3 * SLOT, dy, lane);
                convert_states<T>(stage + 4 * SLOT, B, lane);
                convert_states<T>(stage + 4 * SLOT + MAP_SLOT, C, lane);
                const unsigned resets = load_resets(p, tile, time, times, lane);
                __syncwarp();
                // What a lane reads and writes of a half, the last one first; inputs and dy follow steps, and C follows B.
                constexpr int LAST = T - HALF;
                const float* half_steps = steps + LAST * WARP_CHANNELS + channel;
                const float* half_B = B + LAST * PADDED_STATE + state;
                float* half_y = scan_y + LAST * WARP_CHANNELS + channel;
                float* half_sums = sums + LAST * WARP_CHANNELS + channel;
                float* half_maps = maps + LAST * 256 + lane * 4;
#pragma unroll 1
                for (int half = T / HALF - 1; half >= 0; --half) {
                    const unsigned half_resets = resets >> half * HALF;
                    float h[HALF + 1][LANE_CHANNELS][LANE_STATES];  // h[k + 1] is the state after time k of the half
                    float decays[HALF][LANE_CHANNELS][LANE_STATES];
#pragma unroll
                    for (int i = 0; i < LANE_CHANNELS; ++i) {
                        const float4 four = reinterpret_cast<const float4*>(state_slots + half * STATE_SLOT)[i * 32 + lane];
                        h[0][i][0] = four.x, h[0][i][1] = four.y, h[0][i][2] = four.z, h[0][i][3] = four.w;
                    }
                    if (index > 0) fetch_state_before(half);
                    close_copies();
                    float y[LANE_CHANNELS * HALF];
#pragma unroll
                    for (int k = 0; k < HALF; ++k) {
                        float dt[LANE_CHANNELS], x[LANE_CHANNELS], b[4], c[4];
                        load_two(half_steps + k * WARP_CHANNELS, dt);
                        load_two(half_steps + (T + k) * WARP_CHANNELS, x);
                        load_four(half_B + k * PADDED_STATE, b);
                        if (GATE) load_four(half_B + (T + k) * PADDED_STATE, c);
                        const float barrier = barrier_at(half_resets, k, unit_bias(p));
#pragma unroll
                        for (int i = 0; i < LANE_CHANNELS; ++i) {
                            y[LANE_CHANNELS * k + i] = 0.f;
#pragma unroll
                            for (int s = 0; s < LANE_STATES; ++s) {
                                const float a = exp2_unit(fmaf(rates[i][s], dt[i], barrier));
                                decays[k][i][s] = a;
                                h[k + 1][i][s] = fmaf(a, h[k][i][s], x[i] * b[s]);
                                if (GATE) y[LANE_CHANNELS * k + i] = fmaf(h[k + 1][i][s], c[s], y[LANE_CHANNELS * k + i]);
                            }
                        }
                    }
                    if (GATE) {  // only the gradient of z needs the output
                        reduce_scatter<LANE_CHANNELS * HALF>(y, lane, 16, STATE_LANES);
                        store_owned<LANE_CHANNELS * HALF>(y, owned_output, half_y, WARP_CHANNELS);
                    }
#pragma unroll
                    for (int k = HALF - 1; k >= 0; --k) {
                        float dt[LANE_CHANNELS], x[LANE_CHANNELS], out[LANE_CHANNELS], b[4], c[4];
                        load_two(half_steps + k * WARP_CHANNELS, dt);
                        load_two(half_steps + (T + k) * WARP_CHANNELS, x);
                        load_two(half_steps + (2 * T + k) * WARP_CHANNELS, out);
                        load_four(half_B + k * PADDED_STATE, b);
                        load_four(half_B + (T + k) * PADDED_STATE, c);
                        float grad_B[4] = {0.f, 0.f, 0.f, 0.f}, grad_C[4] = {0.f, 0.f, 0.f, 0.f};
                        float four[2 * LANE_CHANNELS];  // sums over states: g B of the channels, then A a g h
#pragma unroll
                        for (int i = 0; i < LANE_CHANNELS; ++i) {
                            four[i] = four[LANE_CHANNELS + i] = 0.f;
#pragma unroll
                            for (int s = 0; s < LANE_STATES; ++s) {
                                const float g = fmaf(c[s], out[i], carry[i][s]);
                                grad_B[s] = fmaf(g, x[i], grad_B[s]);
                                grad_C[s] = fmaf(h[k + 1][i][s], out[i], grad_C[s]);
                                four[i] = fmaf(g, b[s], four[i]);
                                const float passed = g * decays[k][i][s];
                                const float q = passed * h[k][i][s];
                                four[LANE_CHANNELS + i] = fmaf(q, A2[i][s], four[LANE_CHANNELS + i]);
                                grad_A[i][s] = fmaf(q, dt[i], grad_A[i][s]);
                                carry[i][s] = passed;
                            }
                        }
                        reduce_scatter<2 * LANE_CHANNELS>(four, lane, 16, STATE_LANES);
                        store_owned<2 * LANE_CHANNELS>(four, owned_sum, half_sums + k * WARP_CHANNELS, T * WARP_CHANNELS);
                        store_four(half_maps + k * 256, grad_B);
                        store_four(half_maps + k * 256 + 128, grad_C);
                    }
                    half_steps -= HALF * WARP_CHANNELS;
                    half_B -= HALF * PADDED_STATE;
                    half_y -= HALF * WARP_CHANNELS;
                    half_sums -= HALF * WARP_CHANNELS;
                    half_maps -= HALF * 256;
                }
                float2 earlier[SUM_ROUNDS];  // sums over the channels of this block's earlier walks
#pragma unroll
                for (int r = 0; r < SUM_ROUNDS; ++r) {
                    const int sum = r * 32 * BACKWARD_WARPS + threadIdx.x, t = sum / (4 * STATE_LANES);
                    earlier[r] = walk > 0 && sum < SUMS && t < times ? *map_at(map_rows, tile, index * T + t, sum)
                                                                     : make_float2(0.f, 0.f);
                }
                cell_t earlier_z[ChannelCells<T>::ROUNDS];  // read here, so that no one waits for it
                if (GATE && p.add_grad_z) {
#pragma unroll
                    for (int r = 0; r < ChannelCells<T>::ROUNDS; ++r) {
                        const int cell = r * 32 + lane, cell_time = cell / ChannelCells<T>::ROW;
                        const int cell_channel = cell % ChannelCells<T>::ROW * 4;
                        earlier_z[r] = read_rows_cell<ALIGNED>(
                            grad_z_rows + ((index * T + cell_time) * grad_z_step + tile.first_channel + cell_channel),
                            ChannelCells<T>::inside(cell) && cell_time < times ? tile.channels - cell_channel : 0);
                    }
                }
                __syncthreads();
#pragma unroll
                for (int r = 0; r < SUM_ROUNDS; ++r) {
                    const int sum = r * 32 * BACKWARD_WARPS + threadIdx.x;
                    if (sum - lane >= SUMS) break;  // the same for a whole warp
                    const int half = sum % 2, group = sum / 2 % STATE_LANES, row = sum / (2 * STATE_LANES);
                    float total[4] = {0.f, 0.f, 0.f, 0.f};
#pragma unroll
                    for (int w = 0; w < BACKWARD_WARPS; ++w)
#pragma unroll
                        for (int k = 0; k < HALF_LANES; ++k) {
                            // Neighbouring groups begin at different lanes, and so at different banks.
                            const int source = group * CHANNEL_LANES + half * HALF_LANES + (k ^ group % HALF_LANES);
                            float part[4];
                            load_four(shared + w * GRADIENT_FLOATS + (maps - steps) + (row * 32 + source) * 4, part);
#pragma unroll
                            for (int j = 0; j < 4; ++j) total[j] += part[j];
                        }
                    reduce_scatter<4>(total, lane, 1, 2);
                    const int t = row / 2;
                    if (t < times)
                        *map_at(map_rows, tile, index * T + t, sum) =
                            make_float2(earlier[r].x + total[0], earlier[r].y + total[1]);
                }

                float skip_sum[4], bias_sum[4];
                load_four(time_sums, skip_sum);
                load_four(time_sums + 128, bias_sum);
#pragma unroll
                for (int r = 0; r < ChannelCells<T>::ROUNDS; ++r) {
                    const int cell = r * 32 + lane, cell_time = cell / ChannelCells<T>::ROW;
                    const int cell_channel = cell % ChannelCells<T>::ROW * 4;
                    if (!ChannelCells<T>::inside(cell)) continue;
                    const int count = cell_time < times ? tile.channels - cell_channel : 0;
                    const i64 out = block_row * p.channels +
                                    ((index * T + cell_time) * out_step + tile.first_channel + cell_channel);
                    float u[4], raw[4], weight[4], shift[4], g[4], by_input[4], by_step[4], dt[4];
                    read_cell(stage, cell, u);
                    read_cell(stage + SLOT, cell, raw);
                    load_four(skip + cell_channel, weight);
                    load_four(bias + cell_channel, shift);
                    if (GATE) {
                        float z[4], gradient[4], y[4];
                        read_cell(stage + 3 * SLOT, cell, z);
                        read_cell(stage + 2 * SLOT, cell, gradient);
                        load_four(scan_y + 4 * cell, y);
#pragma unroll
                        for (int k = 0; k < 4; ++k) {
                            const float gate = sigmoid(z[k]);
                            z[k] = gradient[k] * fmaf(weight[k], u[k], y[k]) * gate * fmaf(z[k], 1.f - gate, 1.f);
                        }
                        if (p.add_grad_z) {
                            unpack_cell(earlier_z[r], y);
#pragma unroll
                            for (int k = 0; k < 4; ++k) z[k] += y[k];
                        }
                        store_cell<ALIGNED, true>(grad_z_rows + ((index * T + cell_time) * grad_z_step + tile.first_channel + cell_channel),
                                            count, z);
                    }
                    load_four(dy + 4 * cell, g);
                    load_four(sums + 4 * cell, by_input);
                    load_four(sums + T * WARP_CHANNELS + 4 * cell, by_step);
                    load_four(steps + 4 * cell, dt);
                    const float live = cell_time < times ? 1.f : 0.f;
#pragma unroll
                    for (int k = 0; k < 4; ++k) {
                        float step = fmaf(u[k], by_input[k], by_step[k] * LN2);
                        if (SOFTPLUS) step *= sigmoid(raw[k] + shift[k]);
                        by_step[k] = step;
                        bias_sum[k] = fmaf(live, step, bias_sum[k]);
                        skip_sum[k] = fmaf(u[k], g[k], skip_sum[k]);
                        by_input[k] = fmaf(dt[k], by_input[k], weight[k] * g[k]);
                    }
                    store_cell<ALIGNED, true>(p.grad_delta + out, count, by_step);
                    store_cell<ALIGNED, true>(p.grad_u + out, count, by_input);
                }
                store_four(time_sums, skip_sum);
                store_four(time_sums + 128, bias_sum);
                __syncthreads();  // the next tile overwrites what was summed
            }
            // A sum over a segment goes by checkpoints, so that its rounding grows with the root of fewer terms.
            const bool begins = block == (length - 1) / p.checkpoint;
            LaneState before;
            load_state(p, tile, begins ? nullptr : p.A_partial, segment_index, channel, state, before);
#pragma unroll
            for (int i = 0; i < LANE_CHANNELS; ++i)
#pragma unroll
                for (int s = 0; s < LANE_STATES; ++s) before[i][s] += grad_A[i][s];
            store_state(p, tile, p.A_partial, segment_index, channel, state, before);
            __syncwarp();
            // Lane c sums channel c: those cells of the lanes that hold it.
            for (int c = lane; c < tile.channels; c += 32) {
                float grad_skip = 0.f, grad_bias = 0.f;
#pragma unroll
                for (int k = c / 4; k < 32; k += ChannelCells<T>::ROW) {
                    grad_skip += (time_sums - 4 * lane)[4 * k + c % 4];
                    grad_bias += (time_sums - 4 * lane)[4 * k + c % 4 + 128];
                }
                float* sums = p.sum_partial + segment_index * 2 * p.channels + tile.first_channel + c;
                sums[0] = (begins ? 0.f : sums[0]) + grad_skip;
                sums[p.channels] = (begins ? 0.f : sums[p.channels]) + grad_bias;
            }
            __syncwarp();
        }
        if (segment == 0 && p.grad_initial_state != nullptr)
            store_user_state(p, tile, p.grad_initial_state, batch, channel, state, carry);
    }
}

GENOSSM_KERNEL(gradients, ScanParams)
