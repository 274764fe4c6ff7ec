// The fused solve on a CPU: tiles of rows go through all steps, forth or back, with nothing but the state in memory.
//
// One lane per row, so that nothing is summed across lanes inside a step, and all sizes are constants of the
// compilation (see fused_cpu.py, which passes them):
//   REAL      float or double            DIM      d, coordinates
//   VECTORS   vectors of rows in a tile  HIDDEN   H, of the drift's or the control's network
//   FORM      0 alone, 1 priced,         PRIOR    K, of the prior's (0 without a prior)
//             2 steered                  NOISE    J, of each coordinate's
//   SILU      of the network             FULL     the steering's gain is a matrix
// The backward pass takes each step again from its stored state and network outputs, one hidden unit at a time.

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

typedef REAL Real;
typedef Real Vec __attribute__((vector_size(64)));
constexpr int LANES = 64 / sizeof(Real), TILE = VECTORS * LANES;
constexpr int PRIORS = PRIOR > 0 ? PRIOR : 1;
// what is kept of a step: the state, the network's value, the diffusion's gate, the prior's value
constexpr int KEPT = (FORM ? 4 : 3) * DIM * VECTORS;
// where the weights start, in the order in which fused.py packs them
constexpr int NET_IN = 0, NET_OUT = NET_IN + DIM * HIDDEN, NET_BIAS = NET_OUT + DIM * HIDDEN;
constexpr int PRIOR_IN = NET_BIAS + DIM, PRIOR_SHIFT = PRIOR_IN + DIM * PRIOR, PRIOR_OUT = PRIOR_SHIFT + PRIOR;
constexpr int PRIOR_BIAS = PRIOR_OUT + DIM * PRIOR;
constexpr int NOISE_IN = PRIOR_BIAS + (FORM ? DIM : 0), NOISE_SHIFT = NOISE_IN + DIM * NOISE;
constexpr int NOISE_OUT = NOISE_SHIFT + DIM * NOISE, NOISE_BIAS = NOISE_OUT + DIM * NOISE, COUNT = NOISE_BIAS + DIM;

struct Sizes {
    int64_t steps, rows, series, gaps, visits, shift_gap, shift_row, steps_row, threads;
    double low, high;
};

static inline Vec all(Real value) { return Vec{} + value; }

// what is not a number stays
static inline Vec larger(Vec x, Vec bound) {
#if defined(__AVX512F__)
    if constexpr (sizeof(Real) == 4) return (Vec)_mm512_max_ps((__m512)bound, (__m512)x);
#endif
    return bound > x ? bound : x;
}

static inline Vec reciprocal(Vec a) {
#if defined(__AVX512F__)
    if constexpr (sizeof(Real) == 4) {
        Vec guess = (Vec)_mm512_rcp14_ps((__m512)a);
        return guess + guess * (Real(1) - a * guess);  // Newton's step doubles the 14 bits
    }
#endif
    return Real(1) / a;
}

// exp(-|x|); in single precision by a polynomial, fitted at Chebyshev points, on what is left of a power of two
static inline Vec exp_minus_abs(Vec x) {
    if constexpr (sizeof(Real) == 4) {
        typedef int32_t Int __attribute__((vector_size(64)));
        Int bits, power;
        memcpy(&bits, &x, 64);
        bits |= INT32_MIN;
        memcpy(&x, &bits, 64);
        x = larger(x, all(-87));
        Vec shifted = x * Real(1.44269504088896341) + Real(12582912);  // 1.5 * 2^23: rounds, and leaves n in low bits
        Vec r = x - (shifted - Real(12582912)) * Real(0.693147180559945309);
        Vec p = (((((1.3941108481958508e-3f * r + 8.37512593716383e-3f) * r + 4.166635125875473e-2f) * r +
                   1.6666415333747864e-1f) * r + Real(0.5)) * r + Real(1)) * r + Real(1);
        memcpy(&bits, &p, 64);
        memcpy(&power, &shifted, 64);
        bits += power << 23;
        memcpy(&p, &bits, 64);
        return p;
    } else {
        for (int l = 0; l < LANES; ++l) x[l] = std::exp(-std::fabs(x[l]));
        return x;
    }
}

// softplus(x) from e = exp(-|x|): max(x, 0) + log(1 + e)
static inline Vec softplus_from(Vec x, Vec e) {
    Vec above = larger(x, all(0));
    if constexpr (sizeof(Real) == 4) {
        Vec p = (((((((5.1261018961668015e-3f * e - 2.9074065387248993e-2f) * e + 7.75160863995552e-2f) * e -
                     1.3602247834205627e-1f) * e + 1.9076880812644958e-1f) * e - 2.483539879322052e-1f) * e +
                  3.331812024116516e-1f) * e - 4.999944567680359e-1f) * e + 9.999999403953552e-1f;
        return p * e + above;
    } else {
        for (int l = 0; l < LANES; ++l) e[l] = std::log1p(e[l]);
        return above + e;
    }
}

static inline Vec sigmoid_from(Vec x, Vec e) { return (x < 0 ? e : all(1)) * reciprocal(Real(1) + e); }

static inline Vec softplus(Vec x) { return softplus_from(x, exp_minus_abs(x)); }
static inline Vec sigmoid(Vec x) { return sigmoid_from(x, exp_minus_abs(x)); }

// the activation of a hidden layer, and its slope
static inline Vec activate(Vec x, bool silu) {
    if (silu) return x * sigmoid(x);
    return softplus(x);
}
static inline Vec activate(Vec x, bool silu, Vec& slope) {
    Vec e = exp_minus_abs(x), gate = sigmoid_from(x, e);
    if (silu) {
        slope = gate * (Real(1) + x * (Real(1) - gate));
        return x * gate;
    }
    slope = gate;
    return softplus_from(x, e);
}

// One tile of rows, where each of them lies, and what is read for it
struct Tile {
    const Sizes& s;
    int64_t first;
    int64_t row[TILE], one[TILE];

    Tile(const Sizes& sizes, int64_t number) : s(sizes), first(number * TILE) {
        for (int l = 0; l < TILE; ++l) {
            row[l] = first + l < s.rows ? first + l : s.rows - 1;  // lanes behind the last row repeat it
            one[l] = row[l] % s.series;
        }
    }
    bool real(int l) const { return first + l < s.rows; }

    // lanes from (rows, columns) values
    void take(Vec* to, const Real* from, int columns) const {
        for (int i = 0; i < columns; ++i)
            for (int l = 0; l < TILE; ++l) ((Real*)to)[i * TILE + l] = from[row[l] * columns + i];
    }
    void take_real(Vec* to, const Real* from, int columns) const {
        for (int i = 0; i < columns; ++i)
            for (int l = 0; l < TILE; ++l) ((Real*)to)[i * TILE + l] = real(l) ? from[row[l] * columns + i] : 0;
    }
    void put(Real* to, const Vec* from, int64_t columns) const {
        for (int l = 0; l < TILE && real(l); ++l)
            for (int64_t i = 0; i < columns; ++i) to[row[l] * columns + i] = ((const Real*)from)[i * TILE + l];
    }
    void take_shift(Vec* to, const Real* shift, int64_t gap) const {
        for (int l = 0; l < TILE; ++l) {
            const Real* from = shift + gap * s.shift_gap + one[l] * s.shift_row;
            for (int h = 0; h < HIDDEN; ++h) ((Real*)to)[h * TILE + l] = from[h];
        }
    }
    void take_steps(Vec* dt, const Real* steps, int64_t k) const {
        if (s.steps_row == 0) {
            for (int v = 0; v < VECTORS; ++v) dt[v] = all(steps[k]);
            return;
        }
        for (int l = 0; l < TILE; ++l) ((Real*)dt)[l] = steps[one[l] * s.steps_row + k];
    }
    // offset and gain of a control at step k, (series, N, d) and (series, N, d) or (series, N, d, d)
    void take_steering(Vec* offset, Vec* gain, const Real* offsets, const Real* gains, int64_t k) const {
        const int each = FULL ? DIM : 1;
        for (int l = 0; l < TILE; ++l) {
            const int64_t place = (one[l] * s.steps + k) * DIM;
            for (int i = 0; i < DIM; ++i) ((Real*)offset)[i * TILE + l] = offsets[place + i];
            for (int i = 0; i < DIM * each; ++i) ((Real*)gain)[i * TILE + l] = gains[place * each + i];
        }
    }
};

// W2 act(W1 z + shift) + b2; `shift` has lanes if `lanes`, else one number per unit
template <int UNITS>
static inline void network(Vec* out, const Vec* z, const Real* w_in, const Vec* lane_shift, const Real* shift,
                           const Real* w_out, const Real* bias, bool silu) {
    for (int i = 0; i < DIM; ++i)
        for (int v = 0; v < VECTORS; ++v) out[i * VECTORS + v] = all(bias[i]);
    for (int h = 0; h < UNITS; ++h)
        for (int v = 0; v < VECTORS; ++v) {
            Vec before = lane_shift ? lane_shift[h * VECTORS + v] : all(shift[h]);
            for (int i = 0; i < DIM; ++i) before += z[i * VECTORS + v] * w_in[i * UNITS + h];
            Vec hidden = activate(before, silu);
            for (int i = 0; i < DIM; ++i) out[i * VECTORS + v] += hidden * w_out[i * UNITS + h];
        }
}

// Back through `network`: adds to the gradients by z, by its weights (lanes, summed over the vectors) and by its shift
template <int UNITS>
static inline void network_back(const Vec* to_out, Vec* to_z, const Vec* z, const Real* w_in, const Vec* lane_shift,
                                const Real* shift, const Real* w_out, bool silu, Vec* to_in, Vec* to_lane_shift,
                                Vec* to_shift, Vec* to_w_out, Vec* to_bias) {
    for (int i = 0; i < DIM; ++i)
        for (int v = 0; v < VECTORS; ++v) to_bias[i] += to_out[i * VECTORS + v];
    for (int h = 0; h < UNITS; ++h) {
        Vec hidden[VECTORS], back[VECTORS];
        for (int v = 0; v < VECTORS; ++v) {
            Vec before = lane_shift ? lane_shift[h * VECTORS + v] : all(shift[h]), slope, sum{};
            for (int i = 0; i < DIM; ++i) before += z[i * VECTORS + v] * w_in[i * UNITS + h];
            hidden[v] = activate(before, silu, slope);
            for (int i = 0; i < DIM; ++i) sum += to_out[i * VECTORS + v] * w_out[i * UNITS + h];
            back[v] = sum * slope;
            for (int i = 0; i < DIM; ++i) to_z[i * VECTORS + v] += back[v] * w_in[i * UNITS + h];
            if (to_lane_shift) to_lane_shift[h * VECTORS + v] += back[v];
        }
        for (int i = 0; i < DIM; ++i) {
            Vec out{}, in{};
            for (int v = 0; v < VECTORS; ++v) {
                out += to_out[i * VECTORS + v] * hidden[v];
                in += z[i * VECTORS + v] * back[v];
            }
            to_w_out[i * UNITS + h] += out;
            to_in[i * UNITS + h] += in;
        }
        if (!to_lane_shift)
            for (int v = 0; v < VECTORS; ++v) to_shift[h] += back[v];
    }
}

struct Inputs {
    const Real *weights, *shift, *offset, *gain, *steps, *noise;
    const int32_t *gap_of, *slot_of;
};

static void forward_tile(const Sizes& s, int64_t number, const Inputs& in, const Real* z0, Vec* kept, Real* seen,
                         Real* cost) {
    const Tile tile(s, number);
    const Real* w = in.weights;
    const Real low = s.low, span = s.high - s.low;
    Vec shift[HIDDEN * VECTORS], z[DIM * VECTORS], dw[DIM * VECTORS], net[DIM * VECTORS], prior[DIM * VECTORS];
    Vec offset[DIM * VECTORS], gain[(FULL ? DIM : 1) * DIM * VECTORS], dt[VECTORS], paid[VECTORS];
    tile.take(z, z0, DIM);
    tile.put(seen, z, DIM);
    int64_t last = -1;
    for (int64_t k = 0; k < s.steps; ++k) {
        const int64_t gap = in.gap_of[k];
        if (gap != last) {
            if (FORM && last >= 0) tile.put(cost + last * s.rows, paid, 1);
            for (int v = 0; v < VECTORS; ++v) paid[v] = all(0);
            tile.take_shift(shift, in.shift, gap);
            last = gap;
        }
        tile.take_steps(dt, in.steps, k);
        tile.take(dw, in.noise + k * s.rows * DIM, DIM);
        network<HIDDEN>(net, z, w + NET_IN, shift, nullptr, w + NET_OUT, w + NET_BIAS, SILU);
        if (FORM)
            network<PRIORS>(prior, z, w + PRIOR_IN, nullptr, w + PRIOR_SHIFT, w + PRIOR_OUT, w + PRIOR_BIAS, false);
        if (FORM == 2) tile.take_steering(offset, gain, in.offset, in.gain, k);
        Vec* keep = kept ? kept + k * KEPT : nullptr;
        if (keep) {
            memcpy(keep, z, sizeof(z));
            memcpy(keep + DIM * VECTORS, net, sizeof(net));
            if (FORM) memcpy(keep + 3 * DIM * VECTORS, prior, sizeof(prior));
        }
        Vec moved[DIM * VECTORS];
        for (int i = 0; i < DIM; ++i)
            for (int v = 0; v < VECTORS; ++v) {
                const int at = i * VECTORS + v;
                Vec sums[4] = {all(w[NOISE_BIAS + i]), {}, {}, {}};  // four chains, so that sums do not wait
                for (int j = 0; j < NOISE; ++j) {
                    const int unit = i * NOISE + j;
                    sums[j % 4] += softplus(z[at] * w[NOISE_IN + unit] + w[NOISE_SHIFT + unit]) * w[NOISE_OUT + unit];
                }
                Vec gate = sigmoid((sums[0] + sums[1]) + (sums[2] + sums[3])), g = low + span * gate, drift = net[at];
                if (keep) keep[2 * DIM * VECTORS + at] = gate;
                if (FORM == 1) {
                    Vec control = (net[at] - prior[at]) / g;
                    paid[v] += Real(0.5) * control * control * dt[v];
                } else if (FORM == 2) {
                    Vec control = offset[at] + net[at];
                    if (FULL)
                        for (int j = 0; j < DIM; ++j) control += gain[(i * DIM + j) * VECTORS + v] * z[j * VECTORS + v];
                    else
                        control += gain[at] * z[at];
                    paid[v] += Real(0.5) * control * control * dt[v];
                    drift = prior[at] + g * control;
                }
                moved[at] = z[at] + drift * dt[v] + g * dw[at];
            }
        memcpy(z, moved, sizeof(z));
        if (in.slot_of[k + 1] >= 0) tile.put(seen + in.slot_of[k + 1] * s.rows * DIM, z, DIM);
    }
    if (FORM && last >= 0) tile.put(cost + last * s.rows, paid, 1);
}

struct Gradients {
    const Real *seen, *cost;
    Real *z0, *weights, *shift, *offset, *gain;
};

static void backward_tile(const Sizes& s, int64_t number, const Inputs& in, const Vec* kept, const Gradients& to,
                          Vec* sums) {
    const Tile tile(s, number);
    const Real* w = in.weights;
    const Real low = s.low, span = s.high - s.low;
    const int wide = FULL ? DIM : 1;
    Vec shift[HIDDEN * VECTORS], to_shift[HIDDEN * VECTORS], dw[DIM * VECTORS], dt[VECTORS], charged[VECTORS];
    Vec to_z[DIM * VECTORS], to_next[DIM * VECTORS], to_net[DIM * VECTORS], to_prior[DIM * VECTORS];
    Vec to_g[DIM * VECTORS], offset[DIM * VECTORS], gain[wide * DIM * VECTORS];
    for (int i = 0; i < COUNT; ++i) sums[i] = all(0);
    for (int i = 0; i < DIM * VECTORS; ++i) to_z[i] = all(0);
    if (in.slot_of[s.steps] >= 0) tile.take_real(to_z, to.seen + in.slot_of[s.steps] * s.rows * DIM, DIM);
    int64_t last = -1;
    for (int64_t k = s.steps - 1; k >= 0; --k) {
        const int64_t gap = in.gap_of[k];
        if (gap != last) {
            if (last >= 0) tile.put(to.shift + last * s.rows * HIDDEN, to_shift, HIDDEN);
            for (int i = 0; i < HIDDEN * VECTORS; ++i) to_shift[i] = all(0);
            tile.take_shift(shift, in.shift, gap);
            last = gap;
        }
        const Vec *z = kept + k * KEPT, *net = z + DIM * VECTORS, *gate = net + DIM * VECTORS;
        const Vec* prior = gate + DIM * VECTORS;
        tile.take_steps(dt, in.steps, k);
        tile.take(dw, in.noise + k * s.rows * DIM, DIM);
        if (FORM) {
            tile.take_real(charged, to.cost + gap * s.rows, 1);
            for (int v = 0; v < VECTORS; ++v) charged[v] *= dt[v];
        }
        if (FORM == 2) tile.take_steering(offset, gain, in.offset, in.gain, k);
        memcpy(to_next, to_z, sizeof(to_z));

        // through z + drift dt + g dw, and through the price
        for (int i = 0; i < DIM; ++i)
            for (int v = 0; v < VECTORS; ++v) {
                const int at = i * VECTORS + v;
                const Vec g = low + span * gate[at];
                to_net[at] = to_next[at] * dt[v];
                to_g[at] = to_next[at] * dw[at];
                if (FORM == 1) {
                    Vec control = (net[at] - prior[at]) / g, push = charged[v] * control / g;
                    to_net[at] += push;
                    to_prior[at] = -push;
                    to_g[at] -= push * control;
                } else if (FORM == 2) {
                    Vec control = offset[at] + net[at];
                    if (FULL)
                        for (int j = 0; j < DIM; ++j) control += gain[(i * DIM + j) * VECTORS + v] * z[j * VECTORS + v];
                    else
                        control += gain[at] * z[at];
                    to_prior[at] = to_next[at] * dt[v];
                    to_g[at] += to_next[at] * control * dt[v];
                    to_net[at] = to_next[at] * g * dt[v] + charged[v] * control;
                }
                to_g[at] *= span * gate[at] * (Real(1) - gate[at]);
            }
        if (FORM == 2) {
            for (int l = 0; l < TILE && tile.real(l); ++l) {
                const int64_t place = (tile.row[l] * s.steps + k) * DIM;
                for (int i = 0; i < DIM; ++i) {
                    const Real pulled = ((Real*)to_net)[i * TILE + l];
                    to.offset[place + i] = pulled;
                    if (FULL)
                        for (int j = 0; j < DIM; ++j)
                            to.gain[(place + i) * DIM + j] = pulled * ((const Real*)z)[j * TILE + l];
                    else
                        to.gain[place + i] = pulled * ((const Real*)z)[i * TILE + l];
                }
            }
            for (int i = 0; i < DIM; ++i)
                for (int v = 0; v < VECTORS; ++v) {
                    if (FULL)
                        for (int j = 0; j < DIM; ++j)
                            to_z[j * VECTORS + v] += gain[(i * DIM + j) * VECTORS + v] * to_net[i * VECTORS + v];
                    else
                        to_z[i * VECTORS + v] += gain[i * VECTORS + v] * to_net[i * VECTORS + v];
                }
        }
        network_back<HIDDEN>(to_net, to_z, z, w + NET_IN, shift, nullptr, w + NET_OUT, SILU, sums + NET_IN, to_shift,
                             nullptr, sums + NET_OUT, sums + NET_BIAS);
        if (FORM)
            network_back<PRIORS>(to_prior, to_z, z, w + PRIOR_IN, nullptr, w + PRIOR_SHIFT, w + PRIOR_OUT, false,
                                 sums + PRIOR_IN, nullptr, sums + PRIOR_SHIFT, sums + PRIOR_OUT, sums + PRIOR_BIAS);
        for (int i = 0; i < DIM; ++i) {
            for (int v = 0; v < VECTORS; ++v) sums[NOISE_BIAS + i] += to_g[i * VECTORS + v];
            for (int j = 0; j < NOISE; ++j) {
                const int unit = i * NOISE + j;
                Vec out{}, before_sum{}, in_sum{};
                for (int v = 0; v < VECTORS; ++v) {
                    const int at = i * VECTORS + v;
                    Vec slope, hidden = activate(z[at] * w[NOISE_IN + unit] + w[NOISE_SHIFT + unit], false, slope);
                    Vec back = to_g[at] * w[NOISE_OUT + unit] * slope;
                    out += to_g[at] * hidden;
                    before_sum += back;
                    in_sum += z[at] * back;
                    to_z[at] += back * w[NOISE_IN + unit];
                }
                sums[NOISE_OUT + unit] += out;
                sums[NOISE_SHIFT + unit] += before_sum;
                sums[NOISE_IN + unit] += in_sum;
            }
        }
        if (in.slot_of[k] >= 0) {
            tile.take_real(dw, to.seen + in.slot_of[k] * s.rows * DIM, DIM);
            for (int i = 0; i < DIM * VECTORS; ++i) to_z[i] += dw[i];
        }
    }
    if (last >= 0) tile.put(to.shift + last * s.rows * HIDDEN, to_shift, HIDDEN);
    tile.put(to.z0, to_z, DIM);
    for (int i = 0; i < COUNT; ++i) {
        Real total = 0;
        for (int l = 0; l < LANES; ++l) total += sums[i][l];
        to.weights[number * COUNT + i] = total;
    }
}

// Threads take every n-th tile: what is computed does not depend on how many there are.
template <typename Work>
static void spread(int64_t tiles, int64_t threads, Work work) {
    threads = threads < tiles ? threads : tiles;
    std::vector<std::thread> others;
    for (int64_t t = 1; t < threads; ++t)
        others.emplace_back([=] {
            for (int64_t tile = t; tile < tiles; tile += threads) work(tile);
        });
    for (int64_t tile = 0; tile < tiles; tile += threads) work(tile);
    for (auto& other : others) other.join();
}

extern "C" {

// rows of a tile, numbers kept per tile and step, numbers of weights: what the caller allocates by
void fused_layout(int64_t* out) {
    out[0] = TILE;
    out[1] = (int64_t)KEPT * LANES;
    out[2] = COUNT;
}

void fused_forward(const Sizes* s, const Real* z0, const Real* weights, const Real* shift, const Real* offset,
                   const Real* gain, const Real* steps, const int32_t* gap_of, const int32_t* slot_of,
                   const Real* noise, Real* kept, Real* seen, Real* cost) {
    const Inputs in{weights, shift, offset, gain, steps, noise, gap_of, slot_of};
    spread((s->rows + TILE - 1) / TILE, s->threads, [=](int64_t tile) {
        forward_tile(*s, tile, in, z0, kept ? (Vec*)kept + tile * s->steps * KEPT : nullptr, seen, cost);
    });
}

void fused_backward(const Sizes* s, const Real* weights, const Real* shift, const Real* offset, const Real* gain,
                    const Real* steps, const int32_t* gap_of, const int32_t* slot_of, const Real* noise,
                    const Real* kept, const Real* seen_grad, const Real* cost_grad, Real* z0_grad, Real* weights_grad,
                    Real* shift_grad, Real* offset_grad, Real* gain_grad, Real* room) {
    const Inputs in{weights, shift, offset, gain, steps, noise, gap_of, slot_of};
    const Gradients to{seen_grad, cost_grad, z0_grad, weights_grad, shift_grad, offset_grad, gain_grad};
    spread((s->rows + TILE - 1) / TILE, s->threads, [=](int64_t tile) {
        backward_tile(*s, tile, in, (const Vec*)kept + tile * s->steps * KEPT, to, (Vec*)room + tile * COUNT);
    });
}
}
